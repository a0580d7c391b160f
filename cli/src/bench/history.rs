//! `twelve bench history` and `rebuild`: a long log of true lives, and how fast views come of it.

use std::time::Duration;

use clap::Args;
use domain::{Flows, Timestamp, flow::Declared, history};
use indicatif::{ProgressBar, ProgressStyle};
use nats::bench;
use projector::{generations, rebuild};
use service::process;

use crate::local::{LocalSettings, Opened};

/// Seconds from one order's beginning to the next one's.
const ORDER_EVERY_S: i64 = 2;
/// The first order's moment: 2026-01-01.
const BEGAN_S: i64 = 1_767_225_600;

#[derive(Args, Clone, Debug)]
pub(super) struct Settings {
    #[command(flatten)]
    local: LocalSettings,
    /// Orders to write, of all shipped flows in turn
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    orders: u64,
    /// Orders under way at a time, whose events alternate
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    open_orders: usize,
}

#[derive(Args, Clone, Debug)]
pub(super) struct RebuildSettings {
    #[command(flatten)]
    local: LocalSettings,
    /// Times to do both
    #[arg(long, value_name = "N", default_value_t = 1)]
    times: u32,
}

pub(super) async fn load(settings: Settings) -> anyhow::Result<()> {
    let flows: Vec<Declared> = Flows::shipped()?.iter().cloned().collect();
    let Opened { log, server, .. } = settings.local.open("twelve-bench").await?;
    for partition in 0..log.partitions() {
        let last = log.partition_info(partition).await?.last_sequence;
        anyhow::ensure!(last == 0, "partition {partition} has {last} events; a history wants an empty log");
    }
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner} {pos} events, {per_sec}, {elapsed}")?);
    let lives = (0..settings.orders)
        .zip((0_i64..).step_by(usize::try_from(ORDER_EVERY_S)?))
        .zip(flows.iter().cycle());
    let lives = lives.map(|((number, after_s), declared)| {
        let began = Timestamp::from_second(BEGAN_S + after_s).unwrap_or_default();
        history::life(declared, number, began)
    });
    let loaded = bench::load(&log, lives, settings.open_orders, |events| bar.set_position(events)).await;
    bar.finish_and_clear();
    log.connection().close().await;
    if let Some(server) = server {
        server.leave_as_found().await;
    }
    let events = loaded.map_err(|error| anyhow::anyhow!(error))?;
    println!("{} orders with {events} events are in the log", settings.orders);
    Ok(())
}

pub(super) async fn rebuild(settings: RebuildSettings) -> anyhow::Result<()> {
    let stop = process::stop_on_signal()?;
    let directory = settings.local.views();
    let Opened { log, server, .. } = settings.local.open("twelve-bench").await?;
    for _ in 0..settings.times {
        let (events, took) = bench::read(&log).await.map_err(|error| anyhow::anyhow!(error))?;
        let bare = per_second(events, took);
        println!("reading and decoding, no view  {bare:>9.0} events/s");
        let report = rebuild::rebuild(&log, &directory, stop.clone(), |_| {}).await?;
        let built = per_second(report.events, Duration::from_secs_f64(report.seconds));
        println!(
            "rebuilding all views           {built:>9.0} events/s  {:.0} % of it, {} bytes, peak memory {}",
            100.0 * built / bare,
            report.bytes,
            peak_memory()
        );
        generations::remove(&directory, report.generation)?;
    }
    log.connection().close().await;
    if let Some(server) = server {
        server.leave_as_found().await;
    }
    Ok(())
}

/// The most memory that this process ever had, as the kernel says it.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.map_or_else(|| "unknown".to_owned(), |peak| peak.trim().to_owned())
}

#[expect(clippy::cast_precision_loss, reason = "a count of events as a rate")]
fn per_second(events: u64, took: Duration) -> f64 {
    events as f64 / took.as_secs_f64()
}
