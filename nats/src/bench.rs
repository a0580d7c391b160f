//! Raw JetStream publishing, for comparison: the same server, the same guard, no platform around it. And histories, to
//! measure what reads them.

use std::{
    collections::VecDeque,
    future::Future,
    time::{Duration, Instant},
};

use async_nats::{
    HeaderMap,
    jetstream::{
        self,
        consumer::{AckPolicy, pull},
        message::PublishMessage,
        stream,
    },
};
use domain::{Position, Recorded};
use futures::{StreamExt, stream as futures_stream};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{Broker, Failure, Message},
    codec::{self, NewEvent},
    connection::Connection,
    log::EventLog,
    subject,
    topology::Topology,
};

const STREAM_PREFIX: &str = "BENCH-RAW-";
/// Messages that the server takes in one batch.
const BATCH_MAX: usize = 1_000;
/// What it takes until everything is ready for the first message.
const LEAD: Duration = Duration::from_millis(50);
/// How long messages that were acknowledged may take to be delivered.
const DELIVERED_WITHIN: Duration = Duration::from_secs(30);

/// Streams as a log has them, empty, and gone when they were measured.
struct Raw<'a> {
    connection: &'a Connection,
    streams: u16,
}

impl<'a> Raw<'a> {
    async fn make(log: &'a EventLog) -> Result<Self, Failure> {
        let (connection, streams) = (log.connection(), log.partitions());
        let (partitions, replicas) = (log.partitions(), log.topology.replicas);
        let topology = Topology { partitions, replicas, partition_bytes_max: 1 << 30, ..Topology::default() };
        for index in 0..streams {
            let config = stream::Config {
                name: format!("{STREAM_PREFIX}{index}"),
                subjects: vec![format!("bench.raw.{index}.*")],
                ..topology.partition(index)
            };
            connection.shared.jetstream.create_stream(config).await?;
        }
        Ok(Self { connection, streams })
    }

    /// The messages of a stream as they come, by a consumer like a view's.
    async fn consume(&self, index: usize) -> Result<pull::Stream, Failure> {
        let stream =
            self.connection.shared.jetstream.get_stream_no_info(format!("{STREAM_PREFIX}{index}")).await?;
        let ack_policy = AckPolicy::None;
        let consumer = pull::Config { ack_policy, memory_storage: true, ..pull::Config::default() };
        Ok(stream.create_consumer(consumer).await?.messages().await?)
    }

    async fn remove(self) -> Result<(), Failure> {
        for index in 0..self.streams {
            self.connection.shared.jetstream.delete_stream(format!("{STREAM_PREFIX}{index}")).await?;
        }
        Ok(())
    }
}

/// A message on a subject of its own, guarded like an order's first event.
fn raw_message(index: usize, number: usize, bytes: usize) -> Message {
    Message {
        subject: format!("bench.raw.{index}.{number}"),
        headers: HeaderMap::new(),
        body: vec![b'x'; bytes].into(),
        expected: Some(0),
    }
}

/// Times of single works, and of the whole.
pub type Timed = (Vec<Duration>, Duration);

/// Does the works, `clients` of them under way at a time. Answers with each one's time, and with that of the whole.
async fn timed<F>(clients: usize, works: impl Iterator<Item = F>) -> Result<Timed, Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let started = Instant::now();
    let times: Vec<_> = futures_stream::iter(works)
        .map(|work| async move {
            let began = Instant::now();
            work.await.map(|()| began.elapsed())
        })
        .buffer_unordered(clients)
        .collect()
        .await;
    let took = started.elapsed();
    Ok((times.into_iter().collect::<Result<_, _>>()?, took))
}

/// Publishes `count` messages of `bytes` bytes with `clients` under way at a time, spread over as many streams as the
/// log has partitions. Answers with each publish's time to its acknowledgement, and with the time of the whole.
pub async fn raw_publish(
    log: &EventLog,
    clients: usize,
    count: usize,
    bytes: usize,
) -> Result<Timed, Failure> {
    let streams = usize::from(log.partitions());
    publish_raw(log, clients, (0..count).map(|number| raw_message(number % streams, number, bytes))).await
}

/// As [`raw_publish`], of the messages that appending these first events of orders would be, each on its order's id.
pub async fn raw_events(log: &EventLog, clients: usize, events: &[Recorded]) -> Result<Timed, Failure> {
    let streams = usize::from(log.partitions());
    let message = |(number, event): (usize, &Recorded)| {
        let (headers, body) = codec::encode(&new(event.clone()), event.event_id)?;
        let subject = format!("bench.raw.{}.{}", number % streams, event.order_id);
        Ok(Message { subject, headers, body, expected: Some(0) })
    };
    let messages: Vec<_> = events.iter().enumerate().map(message).collect::<Result<_, Failure>>()?;
    publish_raw(log, clients, messages.into_iter()).await
}

async fn publish_raw(
    log: &EventLog,
    clients: usize,
    messages: impl Iterator<Item = Message>,
) -> Result<Timed, Failure> {
    let raw = Raw::make(log).await?;
    let publish = async |message| {
        log.broker().publish(message).await?;
        Ok(())
    };
    let published = timed(clients, messages.map(publish)).await;
    raw.remove().await?;
    published
}

/// As [`raw_publish`], in atomic batches: in each stream one at a time, of all that `clients` clients wait for there.
pub async fn raw_batches(
    log: &EventLog,
    clients: usize,
    count: usize,
    bytes: usize,
) -> Result<Timed, Failure> {
    let raw = Raw::make(log).await?;
    let streams = usize::from(raw.streams);
    let size = (clients / streams).clamp(1, BATCH_MAX);
    let started = Instant::now();
    let in_stream = |index: usize| async move {
        let mut times = Vec::new();
        for first in (0..count / streams).step_by(size) {
            let began = Instant::now();
            let batch = (first..first + size).map(|number| raw_message(index, number, bytes));
            log.broker().publish_together(futures_stream::iter(batch)).await.ok_or("a batch was refused")?;
            times.extend(std::iter::repeat_n(began.elapsed(), size));
        }
        Ok::<_, Failure>(times)
    };
    let published = futures::future::try_join_all((0..streams).map(in_stream)).await?;
    let took = started.elapsed();
    raw.remove().await?;
    Ok((published.concat(), took))
}

/// Publishes `count` messages at a steady rate, each to be delivered to a consumer that follows its stream. Answers
/// with each one's time from the moment it was due to its delivery.
pub async fn raw_deliver(
    log: &EventLog,
    per_second: u32,
    count: usize,
    bytes: usize,
) -> Result<Vec<Duration>, Failure> {
    let raw = Raw::make(log).await?;
    let (streams, apart) = (usize::from(raw.streams), Duration::from_secs(1) / per_second.max(1));
    let started = Instant::now() + LEAD;
    let due = move |number: usize| started + apart * u32::try_from(number).unwrap_or(u32::MAX);
    let mut delivered = JoinSet::new();
    for index in 0..streams {
        let messages = raw.consume(index).await?;
        let all = (index..count).step_by(streams).count();
        delivered.spawn(async move {
            let mut times = Vec::with_capacity(all);
            let mut messages = messages.take(all);
            while let Some(message) = messages.next().await {
                let number = message?.subject.rsplit('.').next().and_then(|number| number.parse().ok());
                times.push(due(number.ok_or("a message of other hands")?).elapsed());
            }
            Ok::<_, Failure>(times)
        });
    }
    let mut published = JoinSet::new();
    for number in 0..count {
        tokio::time::sleep_until(due(number).into()).await;
        let (log, message) = (log.clone(), raw_message(number % streams, number, bytes));
        published.spawn(async move { log.broker().publish(message).await });
    }
    while let Some(ended) = published.join_next().await {
        ended??;
    }
    let mut times = Vec::with_capacity(count);
    while let Some(ended) = timeout(DELIVERED_WITHIN, delivered.join_next()).await? {
        times.extend(ended??);
    }
    raw.remove().await?;
    Ok(times)
}

/// Appends the first event of `count` orders, with `clients` under way at a time, by the way that every command goes.
/// Answers with each append's time, and with the time of the whole.
pub async fn appends(
    log: &EventLog,
    clients: usize,
    orders: impl Iterator<Item = Recorded>,
) -> Result<Timed, Failure> {
    let append = async |event: Recorded| {
        log.append(event.order_id, 0, &new(event)).await?;
        Ok(())
    };
    timed(clients, orders.map(append)).await
}

/// Appends the event to each of these orders, which are in the log, as a command does: the order's story is read, and
/// the event appended right after it. Answers as [`appends`] does.
pub async fn commands(
    log: &EventLog,
    clients: usize,
    events: impl Iterator<Item = Recorded>,
) -> Result<Timed, Failure> {
    let command = async |event: Recorded| {
        let story = log.load(event.order_id, 0).await?;
        let newest = story.last().ok_or("the order is not in the log")?.recorded.position.sequence;
        log.append(event.order_id, newest, &new(event)).await?;
        Ok(())
    };
    timed(clients, events.map(command)).await
}

fn new(event: Recorded) -> NewEvent {
    NewEvent {
        event: event.event,
        command_id: event.command_id,
        causation_id: None,
        time: event.time,
        fingerprint: event.fingerprint,
        trace_parent: None,
    }
}

/// Publishes whose acknowledgement is still awaited while a history is loaded.
const UNACKNOWLEDGED_MAX: usize = 2_000;
/// Batches that may wait to be counted while the log is read.
const BATCHES_MAX: usize = 64;

/// Reads and decodes the whole log and does nothing with it: what any rebuild can at best come near to. Answers with
/// the events read and the time it took.
pub async fn read(log: &EventLog) -> Result<(u64, Duration), Failure> {
    let started = Instant::now();
    let (stop, mut left) = (CancellationToken::new(), 0);
    let (sink, mut batches) = mpsc::channel(BATCHES_MAX);
    let mut followers = JoinSet::new();
    for partition in 0..log.partitions() {
        left += log.partition_info(partition).await?.last_sequence;
        let (log, sink, stop) = (log.clone(), sink.clone(), stop.clone());
        followers.spawn(async move { log.follow(partition, 0, sink, stop).await });
    }
    let total = left;
    while left > 0 {
        let batch = batches.recv().await.ok_or("the followers ended")?;
        if let Some(Err(unreadable)) = batch.events.iter().find(|event| event.is_err()) {
            return Err(unreadable.clone().into());
        }
        left = left.saturating_sub(batch.events.len() as u64);
    }
    let took = started.elapsed();
    stop.cancel();
    followers.join_all().await;
    Ok((total, took))
}

/// Appends whole lives of orders to a log, `open` of them under way at a time, an event of each in turn.
/// Unguarded, since nobody else writes; `progress` is told how many events are acknowledged.
pub async fn load(
    log: &EventLog,
    lives: impl Iterator<Item = Vec<Recorded>>,
    open: usize,
    progress: impl Fn(u64),
) -> Result<u64, Failure> {
    let mut lives = lives.map(Vec::into_iter);
    let mut under_way: Vec<_> = lives.by_ref().take(open).collect();
    let (mut awaited, mut loaded) = (VecDeque::new(), 0);
    while !under_way.is_empty() {
        let mut next = Vec::with_capacity(under_way.len());
        for mut life in under_way {
            let Some(event) = life.next() else {
                next.extend(lives.next());
                continue;
            };
            awaited.push_back(send(log, event).await?);
            if awaited.len() == UNACKNOWLEDGED_MAX
                && let Some(oldest) = awaited.pop_front()
            {
                oldest.await?;
                loaded += 1;
                progress(loaded);
            }
            next.push(life);
        }
        under_way = next;
    }
    for waiting in awaited {
        waiting.await?;
        loaded += 1;
    }
    progress(loaded);
    Ok(loaded)
}

/// Appends whole lives at a steady rate, `open` of them under way at a time, until they end; `acknowledged` is told
/// where each event is, and when it was sent. What is due and not sent yet is sent as soon as possible.
pub async fn feed(
    log: &EventLog,
    lives: impl Iterator<Item = Vec<Recorded>>,
    open: usize,
    per_second: u32,
    acknowledged: impl Fn(Position, Instant) + Send + 'static,
) -> Result<u64, Failure> {
    let (sink, mut sent) =
        mpsc::channel::<(u16, Instant, jetstream::context::PublishAckFuture)>(UNACKNOWLEDGED_MAX);
    let telling = tokio::spawn(async move {
        while let Some((partition, at, acknowledgement)) = sent.recv().await {
            let sequence = acknowledgement.await?.sequence;
            acknowledged(Position { partition, sequence }, at);
        }
        Ok::<(), jetstream::context::PublishError>(())
    });
    let mut lives = lives.map(Vec::into_iter);
    let mut under_way: VecDeque<_> = lives.by_ref().take(open).collect();
    let (started, mut count) = (Instant::now(), 0_u64);
    while let Some(mut life) = under_way.pop_front() {
        let Some(event) = life.next() else {
            under_way.extend(lives.next());
            continue;
        };
        under_way.push_back(life);
        let due = started + Duration::from_micros(count * 1_000_000 / u64::from(per_second.max(1)));
        if due > Instant::now() {
            tokio::time::sleep_until(due.into()).await;
        }
        let (partition, at) = (event.order_id.partition(log.partitions()), Instant::now());
        let acknowledgement = send(log, event).await?;
        sink.send((partition, at, acknowledgement)).await.map_err(|_| "an acknowledgement did not come")?;
        count += 1;
    }
    drop(sink);
    telling.await??;
    Ok(count)
}

async fn send(log: &EventLog, event: Recorded) -> Result<jetstream::context::PublishAckFuture, Failure> {
    let subject = subject::order(event.order_id.partition(log.partitions()), event.order_id);
    let event_id = event.event_id;
    let (headers, body) = codec::encode(&new(event), event_id)?;
    let message = PublishMessage::build().headers(headers).payload(body);
    Ok(log.connection().shared.jetstream.send_publish(subject, message).await?)
}
