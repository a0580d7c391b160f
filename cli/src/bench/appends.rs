//! `twelve bench appends`: what an append costs, next to plain guarded publishes of the same size, and raw batches.

use std::time::Duration;

use clap::Args;
use domain::{Flows, Timestamp, flow::Declared, history};
use nats::bench;

use super::figures::{Latencies, per_second};
use crate::local::{LocalSettings, Opened};

/// About what an event has with its headers.
const BYTES: usize = 400;

#[derive(Args, Clone, Debug)]
pub(super) struct Settings {
    #[command(flatten)]
    local: LocalSettings,
    /// Appends under way at a time, one measurement each
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 32, 256])]
    clients: Vec<usize>,
    /// Appends of each measurement
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    events: usize,
}

/// Measures, into an empty log.
pub(super) async fn run(settings: Settings) -> anyhow::Result<()> {
    let Opened { log, server, .. } = settings.local.open("twelve-bench").await?;
    for partition in 0..log.partitions() {
        let last = log.partition_info(partition).await?.last_sequence;
        anyhow::ensure!(last == 0, "partition {partition} has {last} events; this measures on an empty log");
    }
    let flows: Vec<Declared> = Flows::shipped()?.iter().cloned().collect();
    let mut orders = (0_u64..).map(|number| {
        let life = history::life(&flows[0], number, Timestamp::UNIX_EPOCH);
        life.into_iter().next()
    });
    for clients in settings.clients {
        let count = settings.events;
        let plain = bench::raw_publish(&log, clients, count, BYTES).await;
        tell(
            &format!("plain publish, {clients} at a time"),
            &plain.map_err(|error| anyhow::anyhow!(error))?,
        )?;
        if clients > usize::from(log.partitions()) {
            let batches = bench::raw_batches(&log, clients, count, BYTES).await;
            tell(
                &format!("raw batches, {clients} at a time"),
                &batches.map_err(|error| anyhow::anyhow!(error))?,
            )?;
        }
        // Whole lives, of which one event each is wanted: they take longer than to append it.
        let events: Vec<_> = orders.by_ref().take(count).flatten().collect();
        let appended = bench::appends(&log, clients, events.into_iter()).await;
        tell(&format!("append, {clients} at a time"), &appended.map_err(|error| anyhow::anyhow!(error))?)?;
    }
    log.connection().close().await;
    if let Some(server) = server {
        server.leave_as_found().await;
    }
    Ok(())
}

fn tell(what: &str, (times, took): &(Vec<Duration>, Duration)) -> anyhow::Result<()> {
    let times = Latencies::of(times)?;
    let rate = per_second(times.count(), *took);
    println!("{what:<28} {rate:>8.0}/s  {}", times.line());
    Ok(())
}
