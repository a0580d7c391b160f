//! What others take for one durable, guarded event: each of a new order, 400 bytes, so many clients at a time.
//! Printed as `twelve bench appends` prints ours.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Parser;
use cqrs_es::{Aggregate, DomainEvent, event_sink::EventSink};
use futures::{StreamExt, TryStreamExt, stream};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPoolOptions;
use umadb_client::UmaDbClient;
use umadb_dcb::{DcbAppendCondition, DcbEvent, DcbEventStoreAsync, DcbQuery, DcbQueryItem};
use uuid::Uuid;

const BYTES: usize = 400;
/// The table that cqrs-es asks for.
const EVENTS: &str = "CREATE TABLE IF NOT EXISTS events (
    aggregate_type text NOT NULL, aggregate_id text NOT NULL, sequence bigint CHECK (sequence >= 0) NOT NULL,
    event_type text NOT NULL, event_version text NOT NULL, payload json NOT NULL, metadata json NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id, sequence))";

/// Measures what others take for one durable, guarded event
#[derive(Parser)]
struct Settings {
    /// Of UmaDB, for example http://127.0.0.1:50051
    #[arg(long)]
    umadb: Option<String>,
    /// Of PostgreSQL, whose tables cqrs-es declares
    #[arg(long)]
    postgres: Option<String>,
    #[arg(long, value_delimiter = ',', default_values_t = [1, 32, 256])]
    clients: Vec<usize>,
    #[arg(long, default_value_t = 5_000)]
    events: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Settings { umadb, postgres, clients, events } = Settings::parse();
    for clients in clients {
        if let Some(url) = &umadb {
            let client = UmaDbClient::new(url.clone()).connect_async().await?;
            let append = async || {
                let tag = Uuid::new_v4().to_string();
                let event = DcbEvent::default().event_type("OrderPlaced").tags([tag.as_str()]);
                let event = event.data(vec![b'x'; BYTES]).uuid(Uuid::new_v4());
                let order = DcbQuery::new().item(DcbQueryItem::new().tags([tag.as_str()]));
                client.append(vec![event], Some(DcbAppendCondition::new(order)), None).await?;
                Ok(())
            };
            measure("UmaDB", clients, events, append).await?;
        }
        if let Some(url) = &postgres {
            let connections = u32::try_from(clients)?;
            let pool = PgPoolOptions::new().min_connections(connections).max_connections(connections);
            let pool = pool.connect(url).await?;
            sqlx::query(EVENTS).execute(&pool).await?;
            let cqrs = postgres_es::postgres_cqrs::<Order>(pool, Vec::new(), ());
            let execute = async || {
                let id = Uuid::new_v4().to_string();
                cqrs.execute(&id, Place("x".repeat(BYTES))).await.map_err(|error| anyhow::anyhow!("{error}"))
            };
            measure("cqrs-es on PostgreSQL", clients, events, execute).await?;
        }
    }
    Ok(())
}

async fn measure<F: Future<Output = Result<()>>>(
    what: &str,
    clients: usize,
    events: usize,
    act: impl Fn() -> F,
) -> Result<()> {
    let began = Instant::now();
    let timed = |_| {
        let acting = act();
        async move {
            let began = Instant::now();
            acting.await?;
            anyhow::Ok(began.elapsed())
        }
    };
    let times: Vec<Duration> =
        stream::iter(0..events).map(timed).buffer_unordered(clients).try_collect().await?;
    let took = began.elapsed();
    let mut histogram = Histogram::<u64>::new(3)?;
    for time in times {
        histogram.record(u64::try_from(time.as_micros())?)?;
    }
    let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
    let rate = events as f64 / took.as_secs_f64();
    println!("{what}, {clients} at a time  {rate:.0}/s  p50 {:.2} ms  p99 {:.2} ms", ms(0.5), ms(0.99));
    Ok(())
}

/// To place an order that says so much.
struct Place(String);

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
struct Placed {
    text: String,
}

impl DomainEvent for Placed {
    fn event_type(&self) -> String {
        "OrderPlaced".into()
    }

    fn event_version(&self) -> String {
        "1".into()
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Order {
    is_placed: bool,
}

#[derive(Debug)]
struct AlreadyPlaced;

impl std::fmt::Display for AlreadyPlaced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it is placed already")
    }
}

impl std::error::Error for AlreadyPlaced {}

impl Aggregate for Order {
    const TYPE: &'static str = "order";
    type Command = Place;
    type Event = Placed;
    type Error = AlreadyPlaced;
    type Services = ();

    async fn handle(&mut self, place: Place, (): &(), sink: &EventSink<Self>) -> Result<(), AlreadyPlaced> {
        if self.is_placed {
            return Err(AlreadyPlaced);
        }
        sink.write(Placed { text: place.0 }, self).await;
        Ok(())
    }

    fn apply(&mut self, _: Placed) {
        self.is_placed = true;
    }
}
