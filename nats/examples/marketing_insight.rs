//! A subscriber of one's own: counts the orders of each region, from the log's first event on, as they come.
//!
//! Nothing else knows of it. Start it beside a running platform, stop it for good: nothing changes anywhere.
//!
//! ```sh
//! cargo run --example marketing_insight -- --nats nats://127.0.0.1:4222
//! ```

use std::{collections::BTreeMap, io::Write};

use clap::Parser;
use domain::{Event, event::OrderEvent};
use nats::{Connection, Durability, EventLog, topology::Topology};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Batches that may wait to be counted.
const BATCHES_MAX: usize = 16;

/// Counts orders by region and prints the counts, a line of JSON whenever they changed. Ctrl-C ends it.
#[derive(Parser)]
struct Settings {
    /// The nats-server of the platform
    #[arg(long, env = "TWELVE_NATS", default_value = "nats://127.0.0.1:4222")]
    nats: String,
    /// Partitions of its log
    #[arg(long, env = "TWELVE_PARTITIONS", default_value_t = nats::topology::PARTITIONS_DEFAULT)]
    partitions: u16,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let settings = Settings::parse();
    let topology = Topology { partitions: settings.partitions, ..Topology::default() };
    let connection = Connection::open(&settings.nats, "marketing-insight").await?;
    let log = EventLog::open(connection, topology, Durability::Memory).await?;
    let stop = CancellationToken::new();
    let (sink, mut batches) = mpsc::channel(BATCHES_MAX);
    for partition in 0..log.partitions() {
        let (log, sink, stop) = (log.clone(), sink.clone(), stop.clone());
        tokio::spawn(async move { log.follow(partition, 0, sink, stop).await });
    }
    let mut orders: BTreeMap<String, u64> = BTreeMap::new();
    loop {
        let batch = tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            Some(batch) = batches.recv() => batch,
        };
        let before = orders.values().sum::<u64>();
        for stored in batch.events.into_iter().flatten() {
            if let Event::Ordering(OrderEvent::OrderPlaced(placed)) = stored.recorded.event {
                *orders.entry(placed.address.region.unwrap_or_else(|| "elsewhere".into())).or_default() += 1;
            }
        }
        if orders.values().sum::<u64>() > before {
            let mut out = std::io::stdout();
            writeln!(out, "{}", serde_json::to_string(&orders)?)?;
            out.flush()?;
        }
    }
    stop.cancel();
    Ok(())
}
