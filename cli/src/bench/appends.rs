//! `twelve bench appends`: what an append costs, next to plain guarded publishes of as many bytes, raw batches of them,
//! and plain publishes of the very messages that are appended.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use clap::Args;
use nats::{EventLog, bench, broker::Failure};
use serde_json::{Value, json};

use super::{
    figures::{Latencies, per_second},
    history::lives,
};
use crate::local::LocalSettings;

/// The body of a plain message. The first event of an order takes some 630 bytes on the server, subject and all.
const BYTES: usize = 400;

#[derive(Args, Clone, Debug)]
pub(super) struct Settings {
    /// Appends under way at a time, one measurement each
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 32, 256])]
    clients: Vec<usize>,
    /// Appends of each measurement
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    events: usize,
    /// Also append the second event of some of the first N orders of `bench history --events-each 1`, each read before
    #[arg(long, value_name = "N", default_value_t = 0)]
    begun: u64,
    /// Write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    local: LocalSettings,
}

/// Measures, on orders that nobody has.
pub(super) async fn run(settings: Settings) -> anyhow::Result<()> {
    let (begun, wanted) = (settings.begun, (settings.clients.len() * settings.events) as u64);
    ensure!(
        begun == 0 || begun >= wanted,
        "{wanted} orders are wanted to go on with, each once, and --begun says {begun}: give fewer --events, or write more orders first"
    );
    settings.local.on_log("twelve-bench", async |log| measure(&settings, log).await).await
}

async fn measure(settings: &Settings, log: EventLog) -> anyhow::Result<()> {
    let mut report = Vec::new();
    let mut unused = u64::from(std::process::id()) << 32;
    let mut next_begun = 0;
    for &clients in &settings.clients {
        let count = settings.events;
        let plain = bench::raw_publish(&log, clients, count, BYTES).await;
        report.push(tell("plain publish", clients, plain)?);
        if clients > usize::from(log.partitions()) {
            let batches = bench::raw_batches(&log, clients, count, BYTES).await;
            report.push(tell("raw batches", clients, batches)?);
        }
        // Whole lives, of which one event each is wanted: they take longer than to append it.
        let numbers = unused..unused + count as u64;
        unused = numbers.end;
        let events: Vec<_> = lives(numbers)?.filter_map(|life| life.into_iter().next()).collect();
        let alike = bench::raw_events(&log, clients, &events).await;
        report.push(tell("plain, alike", clients, alike)?);
        let appended = bench::appends(&log, clients, events.into_iter()).await;
        report.push(tell("append", clients, appended)?);
        if settings.begun > 0 {
            // All over the log, and none twice.
            let apart = (settings.begun / (settings.clients.len() * count) as u64).max(1);
            let numbers = (next_begun..)
                .map(|number| number * apart)
                .take_while(|number| *number < settings.begun)
                .take(count);
            next_begun += count as u64;
            let events: Vec<_> = lives(numbers)?.filter_map(|life| life.into_iter().nth(1)).collect();
            let appended = bench::commands(&log, clients, events.into_iter()).await;
            report.push(tell("read and append", clients, appended)?);
        }
    }
    if let Some(path) = &settings.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

type Measured = Result<(Vec<Duration>, Duration), Failure>;

fn tell(what: &str, clients: usize, measured: Measured) -> anyhow::Result<Value> {
    let (times, took) = measured.map_err(|error| anyhow::anyhow!(error))?;
    let times = Latencies::of(&times)?;
    let rate = per_second(times.count(), took);
    println!("{what:<16} {clients:>4} at a time {rate:>8.0}/s  {}", times.line());
    Ok(json!({ "what": what, "clients": clients, "per_second": rate, "us": times.json() }))
}
