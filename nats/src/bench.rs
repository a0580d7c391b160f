//! Raw JetStream publishing, for comparison: the same server, the same guard, no platform around it.

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, message::PublishMessage, stream};
use futures::{StreamExt, stream as futures_stream};

use crate::connection::Connection;

const STREAM_PREFIX: &str = "BENCH-RAW-";

/// Publishes `count` messages of `bytes` bytes, each on a subject of its own and guarded like an order's first event,
/// with `clients` under way at a time, spread over `streams` streams that are made for it and removed again.
/// Answers with each publish's time to its acknowledgement, and with the time of the whole.
pub async fn raw_publish(
    connection: &Connection,
    streams: u16,
    clients: usize,
    count: usize,
    bytes: usize,
) -> Result<(Vec<Duration>, Duration), Box<dyn std::error::Error + Send + Sync>> {
    let jetstream = &connection.jetstream;
    for index in 0..streams {
        let config = stream::Config {
            name: format!("{STREAM_PREFIX}{index}"),
            subjects: vec![format!("bench.raw.{index}.*")],
            max_bytes: 1 << 30,
            compression: Some(stream::Compression::S2),
            allow_direct: true,
            ..stream::Config::default()
        };
        jetstream.create_stream(config).await?;
    }
    let payload = vec![b'x'; bytes];
    let started = Instant::now();
    let published: Vec<_> = futures_stream::iter(0..count)
        .map(|number| publish(jetstream, number, streams, payload.clone()))
        .buffer_unordered(clients)
        .collect()
        .await;
    let took = started.elapsed();
    for index in 0..streams {
        jetstream.delete_stream(format!("{STREAM_PREFIX}{index}")).await?;
    }
    Ok((published.into_iter().collect::<Result<_, _>>()?, took))
}

async fn publish(
    jetstream: &jetstream::Context,
    number: usize,
    streams: u16,
    payload: Vec<u8>,
) -> Result<Duration, jetstream::context::PublishError> {
    let subject = format!("bench.raw.{}.{number}", number % usize::from(streams));
    let message = PublishMessage::build().payload(payload.into()).expected_last_subject_sequence(0);
    let started = Instant::now();
    jetstream.send_publish(subject, message).await?.await?;
    Ok(started.elapsed())
}
