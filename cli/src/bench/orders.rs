//! `twelve bench orders`: people at a steady rate, measured from the moment each was due (no coordinated omission).

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use nats::{Connection, Durability, EventLog, topology::Topology};
use serde_json::{Map, Value, json};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    figures::{Latencies, per_second, to_float},
    scenario::{REFUSED, Samples, Scenario, Shop, ShopFlow},
};

/// People under way at a time; beyond it, those who are due wait, and their wait is measured.
const UNDER_WAY_MAX: usize = 2_000;
/// About what an `OrderPlaced` takes.
const RAW_BYTES: usize = 400;
/// Seconds of raw publishing and delivering, at the rate of the people.
const RAW_SECONDS: u32 = 3;

#[derive(Args, Clone, Debug)]
pub(super) struct Settings {
    /// What people do
    #[arg(long, value_enum, default_value_t = Scenario::Place)]
    scenario: Scenario,
    /// The flow of their orders: marketplace, or kitchen where they are riders
    #[arg(long, value_enum)]
    flow: Option<ShopFlow>,
    /// The platform to measure
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The nats-server that it uses, for the raw comparison
    #[arg(long, value_name = "URL", default_value = "nats://127.0.0.1:4222")]
    nats: String,
    /// Measure no raw JetStream before
    #[arg(long)]
    no_raw: bool,
    /// People that come each second
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Seconds that they come for
    #[arg(long, value_name = "S", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    /// Write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What was measured, by its name, in the order in which it was first seen.
#[derive(Default)]
struct Outcomes {
    latencies: Vec<(&'static str, Latencies)>,
    failures: u64,
    first: Option<anyhow::Error>,
}

impl Outcomes {
    fn note(&mut self, visit: anyhow::Result<Samples>) -> anyhow::Result<()> {
        let samples = match visit {
            Ok(samples) => samples,
            Err(error) => {
                self.failures += 1;
                self.first.get_or_insert(error);
                return Ok(());
            }
        };
        for (what, took) in samples {
            match self.latencies.iter_mut().find(|(known, _)| *known == what) {
                Some((_, latencies)) => latencies.note(took),
                None => self.latencies.push((what, Latencies::of([&took])?)),
            }
        }
        Ok(())
    }
}

pub(super) async fn run(settings: Settings) -> anyhow::Result<()> {
    let raw = if settings.no_raw { None } else { Some(raw(&settings).await?) };
    let Settings { scenario, rate, seconds, .. } = settings;
    let shop = Shop::open(&settings.url, (scenario, settings.flow), (rate, seconds)).await?;
    let flow = shop.flow().name();
    let (outcomes, took) = visits(&settings, Arc::new(shop)).await?;
    let Outcomes { latencies, failures, first } = outcomes;
    println!("\n{scenario:?}, {flow}, {rate}/s for {seconds} s:");
    let mut figures = Map::new();
    for (what, latencies) in &latencies {
        let done = per_second(latencies.count(), took);
        println!("  {what:<28} {done:>8.1}/s  {}", latencies.line());
        let json = json!({ "count": latencies.count(), "per_second": done, "us": latencies.json() });
        figures.insert((*what).to_owned(), json);
    }
    println!("  failures {failures}");
    if let Some((delivered, _)) = &raw
        && let Some((what, visible)) = latencies.get(1).filter(|_| scenario == Scenario::Place)
    {
        let (median, high) = visible.times(delivered);
        println!("  {what}: {median:.1} times a raw publish and delivery at p50, {high:.1} times at p99");
    }
    if let Some(path) = &settings.json {
        let report = json!({
            "scenario": format!("{scenario:?}"), "flow": flow, "rate_wanted": rate, "seconds": seconds,
            "failures": failures, "measured": figures, "raw": raw.map(|(_, raw)| raw),
        });
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    match first {
        Some(error) if latencies.iter().all(|(what, _)| *what == REFUSED) => {
            Err(error.context("nothing was done"))
        }
        Some(error) => {
            println!("the first failure: {error:#}");
            Ok(())
        }
        None => Ok(()),
    }
}

/// What the server does by itself: publishing, and delivering at the rate of the people.
async fn raw(settings: &Settings) -> anyhow::Result<(Latencies, Value)> {
    let connection = Connection::open(&settings.nats, "twelve-bench").await?;
    let log = EventLog::look(connection.clone(), Topology::default(), Durability::Memory);
    println!("raw JetStream (guarded, {RAW_BYTES} bytes, 4 streams, this server):");
    let mut publishing = Vec::new();
    for clients in [1, 32, 256] {
        let count = if clients == 1 { 500 } else { 4_000 };
        let published = nats::bench::raw_publish(&log, clients, count, RAW_BYTES).await;
        let (latencies, took) = published.map_err(|error| anyhow::anyhow!(error))?;
        let latencies = Latencies::of(&latencies)?;
        let rate = per_second(latencies.count(), took);
        println!("  publish, {clients:>4} in flight       {rate:>8.0}/s  {}", latencies.line());
        publishing.push(json!({ "in_flight": clients, "per_second": rate, "us": latencies.json() }));
    }
    let count = usize::try_from(settings.rate * RAW_SECONDS)?;
    let delivered = nats::bench::raw_deliver(&log, settings.rate, count, RAW_BYTES).await;
    let delivered = Latencies::of(&delivered.map_err(|error| anyhow::anyhow!(error))?)?;
    println!("  publish and deliver          {:>8}/s  {}", settings.rate, delivered.line());
    connection.close().await;
    let json = json!({ "publish": publishing, "publish_and_deliver_us": delivered.json() });
    Ok((delivered, json))
}

async fn visits(settings: &Settings, shop: Arc<Shop>) -> anyhow::Result<(Outcomes, Duration)> {
    let total = u64::from(settings.rate) * u64::from(settings.seconds);
    let progress = ProgressBar::new(total);
    progress.set_style(bar("people")?);
    let slots = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let (mut visits, mut outcomes) = (JoinSet::new(), Outcomes::default());
    let started = Instant::now();
    for number in 0..total {
        let due = started + Duration::from_secs_f64(to_float(number) / f64::from(settings.rate));
        tokio::time::sleep_until(due.into()).await;
        let slot = Arc::clone(&slots).acquire_owned().await?;
        let shop = Arc::clone(&shop);
        visits.spawn(async move {
            let visit = shop.visit(number, due).await;
            drop(slot);
            visit
        });
        while let Some(visit) = visits.try_join_next() {
            progress.inc(1);
            outcomes.note(visit?)?;
        }
    }
    while let Some(visit) = visits.join_next().await {
        progress.inc(1);
        outcomes.note(visit?)?;
    }
    progress.finish_and_clear();
    Ok((outcomes, started.elapsed()))
}

/// A bar with the time that is left.
pub(super) fn bar(what: &str) -> anyhow::Result<ProgressStyle> {
    Ok(ProgressStyle::with_template(&format!("{{wide_bar}} {{pos}}/{{len}} {what}, {{eta}} left"))?)
}
