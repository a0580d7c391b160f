//! `twelve bench orders`: orders at a steady rate, measured from the moment each was due (no coordinated omission).

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use nats::{Connection, Durability, EventLog, topology::Topology};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinSet};

/// Orders under way at a time; beyond it, orders that are due wait, and their wait is measured.
const UNDER_WAY_MAX: usize = 2_000;
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// About what an `OrderPlaced` takes.
const RAW_BYTES: usize = 400;
const LATENCY_MAX_US: u64 = 60_000_000;

#[derive(Args, Clone, Debug)]
pub(super) struct Settings {
    /// The platform to measure
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The nats-server that it uses, for the raw comparison
    #[arg(long, value_name = "URL", default_value = "nats://127.0.0.1:4222")]
    nats: String,
    /// Orders to place each second
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Seconds to place orders for
    #[arg(long, value_name = "S", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    /// Write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy)]
struct Sample {
    placed: Duration,
    visible: Duration,
}

/// What became of one order.
enum Outcome {
    Placed(Sample),
    /// 429, or 503 `overloaded`: nothing was done; how long it took to be told so.
    Refused(Duration),
}

/// What became of all of them.
#[derive(Default)]
struct Outcomes {
    placed: Vec<Sample>,
    refused: Vec<Duration>,
    failures: usize,
}

pub(super) async fn run(settings: Settings) -> anyhow::Result<()> {
    let connection = Connection::open(&settings.nats, "twelve-bench").await?;
    let log = EventLog::look(connection.clone(), Topology::default(), Durability::Memory);
    println!("raw JetStream publishing (guarded, {RAW_BYTES} bytes, 4 streams, this server):");
    let mut raw = Vec::new();
    for clients in [1, 32, 256] {
        let count = if clients == 1 { 500 } else { 4_000 };
        let (latencies, took) = nats::bench::raw_publish(&log, clients, count, RAW_BYTES)
            .await
            .map_err(|error| anyhow::anyhow!(error))?;
        let histogram = histogram(latencies.iter())?;
        let rate = per_second(count as u64, took);
        println!("  {clients:>4} in flight  {rate:>8.0}/s  {}", line(&histogram));
        raw.push(json!({ "in_flight": clients, "per_second": rate, "us": figures(&histogram) }));
    }
    let (outcomes, took) = place(&settings).await?;
    let Outcomes { placed, refused, failures } = outcomes;
    let visible = histogram(placed.iter().map(|sample| &sample.visible))?;
    let rate = per_second(placed.len() as u64, took);
    let placed = histogram(placed.iter().map(|sample| &sample.placed))?;
    let refusals = histogram(refused.iter())?;
    println!(
        "\nPOST /orders at {}/s for {} s (marketplace: three guarded events an order, then its saga):",
        settings.rate, settings.seconds
    );
    println!("  placed            {rate:>8.0}/s  {}", line(&placed));
    println!("  placed to visible            {}", line(&visible));
    println!("  refused           {:>8.0}/s  {}", per_second(refused.len() as u64, took), line(&refusals));
    println!("  failures          {failures:>8}");
    if let Some(path) = &settings.json {
        let report = json!({
            "raw": raw, "rate_wanted": settings.rate, "seconds": settings.seconds, "rate": rate,
            "failures": failures, "placed_us": figures(&placed), "visible_us": figures(&visible),
            "refused": refused.len(), "refused_us": figures(&refusals),
        });
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    connection.close().await;
    Ok(())
}

async fn place(settings: &Settings) -> anyhow::Result<(Outcomes, Duration)> {
    let client = reqwest::Client::builder().timeout(CALL_TIMEOUT).build()?;
    let total = u64::from(settings.rate) * u64::from(settings.seconds);
    let bar = ProgressBar::new(total);
    bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} orders, {eta} left")?);
    let slots = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let mut orders = JoinSet::new();
    let started = Instant::now();
    for number in 0..total {
        let due = started + Duration::from_secs_f64(to_float(number) / f64::from(settings.rate));
        tokio::time::sleep_until(due.into()).await;
        let slot = Arc::clone(&slots).acquire_owned().await?;
        let (client, url, bar) = (client.clone(), settings.url.clone(), bar.clone());
        orders.spawn(async move {
            let sample = place_one(&client, &url, number, due).await;
            bar.inc(1);
            drop(slot);
            sample
        });
    }
    let (mut outcomes, mut first) = (Outcomes::default(), None);
    while let Some(joined) = orders.join_next().await {
        match joined? {
            Ok(Outcome::Placed(sample)) => outcomes.placed.push(sample),
            Ok(Outcome::Refused(took)) => outcomes.refused.push(took),
            Err(error) => {
                outcomes.failures += 1;
                first.get_or_insert(error);
            }
        }
    }
    let took = started.elapsed();
    bar.finish_and_clear();
    match first {
        Some(error) if outcomes.placed.is_empty() => return Err(error.context("no order was placed")),
        Some(error) => println!("\nthe first failure: {error:#}"),
        None => {}
    }
    Ok((outcomes, took))
}

async fn place_one(
    client: &reqwest::Client,
    url: &str,
    number: u64,
    due: Instant,
) -> anyhow::Result<Outcome> {
    let answer = client.post(format!("{url}/orders")).json(&order(number)).send().await?;
    let status = answer.status();
    let body: Value = answer.json().await?;
    if status == 429 || body["code"] == "overloaded" {
        return Ok(Outcome::Refused(due.elapsed()));
    }
    anyhow::ensure!(status == 201, "{status}: {body}");
    let placed = due.elapsed();
    let (id, position) = (text(&body, "order_id")?, text(&body, "position")?);
    let seen = client.get(format!("{url}/orders/{id}?after={position}&wait=10000")).send().await?;
    anyhow::ensure!(seen.status() == 200, "the order was placed but not visible: {}", seen.status());
    Ok(Outcome::Placed(Sample { placed, visible: due.elapsed() }))
}

fn order(number: u64) -> Value {
    json!({
        "flow": "marketplace",
        "customer": { "id": format!("bench-{}", number % 1_000), "name": "Bench" },
        "lines": [{ "item_id": "2001", "name": "gram", "quantity": 1, "unit_price": 9_000_000 }],
        "currency": "KRW",
        "address": { "line": "Seoul" },
        "payment": { "method": "card", "token": "tok_ok" },
    })
}

fn text<'a>(body: &'a Value, name: &str) -> anyhow::Result<&'a str> {
    body[name].as_str().with_context(|| format!("the answer has no {name}: {body}"))
}

pub(super) fn histogram<'a>(latencies: impl Iterator<Item = &'a Duration>) -> anyhow::Result<Histogram<u64>> {
    let mut histogram = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)?;
    for latency in latencies {
        histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LATENCY_MAX_US));
    }
    Ok(histogram)
}

pub(super) fn line(histogram: &Histogram<u64>) -> String {
    let at = |quantile| Duration::from_micros(histogram.value_at_quantile(quantile));
    format!("p50 {:>9.2?}  p99 {:>9.2?}  p99.9 {:>9.2?}  max {:>9.2?}", at(0.5), at(0.99), at(0.999), at(1.0))
}

fn figures(histogram: &Histogram<u64>) -> Value {
    let at = |quantile| histogram.value_at_quantile(quantile);
    json!({ "p50": at(0.5), "p99": at(0.99), "p99.9": at(0.999), "max": at(1.0) })
}

pub(super) fn per_second(count: u64, took: Duration) -> f64 {
    to_float(count) / took.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^53")]
const fn to_float(count: u64) -> f64 {
    count as f64
}
