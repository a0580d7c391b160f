//! `twelve bench history` and `rebuild`: a long log of true lives, and how fast views come of it.

use std::time::{Duration, Instant};

use clap::Args;
use domain::{Flows, Position, Recorded, Timestamp, flow::Declared, history};
use indicatif::{ProgressBar, ProgressStyle};
use nats::{EventLog, bench};
use projector::{NodeSettings, Views, generations, rebuild, store::CACHE_MB};
use service::process;
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinSet,
};

use super::figures::{Latencies, per_second};

use crate::local::LocalSettings;

/// Seconds from one order's beginning to the next one's.
const ORDER_EVERY_S: i64 = 2;
/// Numbers beyond it begin anew in time.
const ORDERS_A_CENTURY: u64 = 1_500_000_000;
/// Orders under way at a time while the views are measured.
const OPEN_ORDERS: usize = 2_000;
/// How long the views may take to come to where the log is.
const CATCH_UP_MAX: Duration = Duration::from_mins(10);
/// The first order's moment: 2026-01-01.
const BEGAN_S: i64 = 1_767_225_600;

#[derive(Args, Clone, Debug)]
pub(super) struct Settings {
    /// Orders to write, of all shipped flows in turn
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    orders: u64,
    /// Orders under way at a time, whose events alternate
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    open_orders: usize,
    /// Events of each order at most: 1 makes a log of many orders that are just begun
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    events_each: usize,
    #[command(flatten)]
    local: LocalSettings,
}

#[derive(Args, Clone, Debug)]
pub(super) struct RebuildSettings {
    /// Times to do both
    #[arg(long, value_name = "N", default_value_t = 1)]
    times: u32,
    #[command(flatten)]
    local: LocalSettings,
}

#[derive(Args, Clone, Debug)]
pub(super) struct LagSettings {
    /// Orders whose whole lives are appended
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    orders: u32,
    /// Events to append each second
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Megabytes of memory in which the views' store keeps pages
    #[arg(long, value_name = "MB", default_value_t = CACHE_MB, value_parser = clap::value_parser!(u32).range(1..))]
    view_cache_mb: u32,
    #[command(flatten)]
    local: LocalSettings,
}

pub(super) async fn load(settings: Settings) -> anyhow::Result<()> {
    settings.local.on_log("twelve-bench", async |log| fill(&settings, log).await).await
}

async fn fill(settings: &Settings, log: EventLog) -> anyhow::Result<()> {
    for partition in 0..log.partitions() {
        let last = log.partition_info(partition).await?.last_sequence;
        anyhow::ensure!(last == 0, "partition {partition} has {last} events; a history wants an empty log");
    }
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner} {pos} events, {per_sec}, {elapsed}")?);
    let whole = lives(0..settings.orders)?;
    let lives = whole.map(|life| life.into_iter().take(settings.events_each).collect());
    let loaded = bench::load(&log, lives, settings.open_orders, |events| bar.set_position(events)).await;
    bar.finish_and_clear();
    let events = loaded.map_err(|error| anyhow::anyhow!(error))?;
    println!("{} orders with {events} events are in the log", settings.orders);
    Ok(())
}

/// The lives of the orders of these numbers, of all shipped flows in turn.
pub(super) fn lives(
    orders: impl Iterator<Item = u64>,
) -> anyhow::Result<impl Iterator<Item = Vec<Recorded>>> {
    let flows: Vec<Declared> = Flows::shipped()?.iter().cloned().collect();
    Ok(orders.map(move |number| {
        let after_s = ORDER_EVERY_S * i64::try_from(number % ORDERS_A_CENTURY).unwrap_or_default();
        let began = Timestamp::from_second(BEGAN_S + after_s).unwrap_or_default();
        let flow = usize::try_from(number).unwrap_or_default() % flows.len();
        history::life(&flows[flow], number, began)
    }))
}

/// An acknowledged event's sequence, when it was sent, and when it was acknowledged.
type Told = (u64, Instant, Instant);

/// Waits until the views have folded each event that is told, and notes how long after its sending that was, and
/// after its acknowledgement.
async fn measure(
    views: Views,
    partition: u16,
    mut told: UnboundedReceiver<Told>,
) -> Vec<(Duration, Duration)> {
    let mut lags = Vec::new();
    let Some(mut applied) = views.follow_position(partition) else { return lags };
    while let Some((sequence, sent, acknowledged)) = told.recv().await {
        if applied.wait_for(|applied| *applied >= sequence).await.is_err() {
            break;
        }
        lags.push((sent.elapsed(), acknowledged.elapsed()));
    }
    lags
}

pub(super) async fn lag(settings: LagSettings) -> anyhow::Result<()> {
    settings.local.on_log("twelve-bench", async |log| follow(&settings, log).await).await
}

async fn follow(settings: &LagSettings, log: EventLog) -> anyhow::Result<()> {
    let stop = process::stop_on_signal()?;
    let node = NodeSettings { cache_mb: settings.view_cache_mb, ..NodeSettings::default() };
    let (views, mut tasks) = Views::start(&log, &settings.local.views(), node, &stop).await?;
    for position in views.positions() {
        let sequence = log.partition_info(position.partition).await?.last_sequence;
        let reached = views.wait_for(Position { sequence, ..position }, CATCH_UP_MAX).await;
        anyhow::ensure!(reached, "the views do not catch up");
    }
    let (mut sinks, mut measured) = (Vec::new(), JoinSet::new());
    for partition in 0..log.partitions() {
        // No longer than the feed.
        let (sink, told) = unbounded_channel();
        sinks.push(sink);
        measured.spawn(measure(views.clone(), partition, told));
    }
    let first = u64::from(std::process::id()) << 32;
    let lives = lives(first..first + u64::from(settings.orders))?;
    let started = Instant::now();
    let fed = bench::feed(&log, lives, OPEN_ORDERS, settings.rate, move |position, sent| {
        if let Some(sink) = sinks.get(usize::from(position.partition)) {
            sink.send((position.sequence, sent, Instant::now())).unwrap_or_default();
        }
    });
    let events = fed.await.map_err(|error| anyhow::anyhow!(error))?;
    let rate = per_second(events, started.elapsed());
    let lags: Vec<_> = measured.join_all().await.into_iter().flatten().collect();
    let (whole, behind) = (lags.iter().map(|lag| &lag.0), lags.iter().map(|lag| &lag.1));
    println!("{events} events at {rate:.0}/s");
    println!("from sending to visible         {}", Latencies::of(whole)?.line());
    println!("from acknowledgement to visible {}", Latencies::of(behind)?.line());
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

pub(super) async fn rebuild(settings: RebuildSettings) -> anyhow::Result<()> {
    settings.local.on_log("twelve-bench", async |log| build(&settings, log).await).await
}

async fn build(settings: &RebuildSettings, log: EventLog) -> anyhow::Result<()> {
    let stop = process::stop_on_signal()?;
    let directory = settings.local.views();
    for _ in 0..settings.times {
        let (events, took) = bench::read(&log).await.map_err(|error| anyhow::anyhow!(error))?;
        let bare = per_second(events, took);
        println!("reading and decoding, no view  {bare:>9.0} events/s");
        let report = rebuild::rebuild(&log, &directory, None, stop.clone(), |_| {}).await?;
        let built = per_second(report.events, Duration::from_secs_f64(report.seconds));
        println!(
            "rebuilding all views           {built:>9.0} events/s  {:.0} % of it, {} bytes, peak memory {}",
            100.0 * built / bare,
            report.bytes,
            peak_memory()
        );
        generations::remove(&directory, report.generation)?;
    }
    Ok(())
}

/// The most memory that this process ever had, as the kernel says it.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.map_or_else(|| "unknown".to_owned(), |peak| peak.trim().to_owned())
}
