//! Reads a partition of the log as it grows, from a checkpoint on, through reconnects, without gaps or repeats.
//!
//! The consumer is disposable: it acknowledges nothing, and a new one starts after the last event that was handed
//! over. It is made anew at every reconnect, because one that lived in a restarted server is silently gone.

use std::time::Duration;

use async_nats::jetstream::{
    Message,
    consumer::{
        AckPolicy, DeliverPolicy,
        pull::{self, MessagesError},
    },
    stream::{self, RawMessageErrorKind},
};
use domain::{Position, Timestamp};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    broker::Failure,
    codec::{self, Stored, Undecodable},
    log::EventLog,
    subject,
    topology::TopologyError,
};

/// Events handed over together at most.
pub const BATCH_EVENTS_MAX: usize = 1_000;
const PULL_EXPIRES: Duration = Duration::from_secs(5);
const PULL_HEARTBEAT: Duration = Duration::from_secs(1);
/// How long after the last event it is looked whether the partition ends there.
const END_LOOK_PAUSE: Duration = Duration::from_millis(500);
/// After this long without its follower, the server forgets a consumer.
const CONSUMER_IDLE_MAX: Duration = Duration::from_secs(30);
const RESTART_PAUSE: Duration = Duration::from_millis(50);

/// Some events of one partition, in order.
#[derive(Debug)]
pub struct Batch {
    pub partition: u16,
    pub events: Vec<Result<Stored, Undecodable>>,
    /// How many more the partition had when the last of these was sent.
    pub pending: u64,
    /// The sequence that is read up to: every event up to it was handed over, or exists no more. It may be further than
    /// the last event of this batch.
    pub upto: u64,
}

/// One partition as the server describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// The sequence of the newest event; 0 if there is none.
    pub last_sequence: u64,
    /// The sequence of the oldest event that is there.
    pub first_sequence: u64,
    /// How many events are there; one for each sequence, unless some left the log.
    pub events: u64,
    /// When the stream was made; another time means another log.
    pub created: String,
}

impl PartitionInfo {
    /// How many sequences have no event any more.
    pub const fn missing(&self) -> u64 {
        self.last_sequence.saturating_sub(self.events)
    }

    /// What this partition lost, of a log that keeps everything.
    pub(crate) fn loss(&self, partition: u16) -> Option<Loss> {
        let Self { first_sequence, last_sequence, .. } = *self;
        let loss = Loss { partition, missing: self.missing(), first_sequence, last_sequence };
        (loss.missing > 0).then_some(loss)
    }
}

/// Events that a partition of a log which keeps everything once had, and has no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    pub partition: u16,
    pub missing: u64,
    pub first_sequence: u64,
    pub last_sequence: u64,
}

impl std::fmt::Display for Loss {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { partition, missing, first_sequence, last_sequence } = self;
        write!(formatter, "partition {partition} lacks {missing} of its {last_sequence} events")?;
        if *first_sequence > 1 { write!(formatter, " (its first is {first_sequence})") } else { Ok(()) }
    }
}

impl EventLog {
    /// What the log has lost. Of a log whose old orders are archived it cannot be told like that: nothing.
    pub(crate) async fn losses(&self) -> Result<Vec<Loss>, TopologyError> {
        if self.archive.is_some() {
            return Ok(Vec::new());
        }
        let mut losses = Vec::new();
        for partition in 0..self.partitions() {
            losses.extend(self.partition_info(partition).await?.loss(partition));
        }
        Ok(losses)
    }

    /// Describes a partition.
    pub async fn partition_info(&self, partition: u16) -> Result<PartitionInfo, TopologyError> {
        let name = subject::stream(partition);
        let failed = |source: Failure| TopologyError::Server { stream: subject::stream(partition), source };
        let mut stream =
            self.broker.shared.jetstream.get_stream(&name).await.map_err(|error| failed(Box::new(error)))?;
        let info = stream.info().await.map_err(|error| failed(Box::new(error)))?;
        Ok(PartitionInfo {
            last_sequence: info.state.last_sequence,
            first_sequence: info.state.first_sequence,
            events: info.state.messages,
            created: info.created.to_string(),
        })
    }

    /// When the event at a position was decided; `None` if there is no such event.
    pub async fn time_of(&self, position: Position) -> Result<Option<Timestamp>, TopologyError> {
        let name = subject::stream(position.partition);
        let failed = |source: Failure| TopologyError::Server { stream: name.clone(), source };
        let stream = self.broker.shared.jetstream.get_stream_no_info(&name).await;
        let stream = stream.map_err(|error| failed(Box::new(error)))?;
        match stream.get_raw_message(position.sequence).await {
            Ok(message) => {
                let time =
                    message.headers.get(codec::TIME.name()).and_then(|time| time.as_str().parse().ok());
                time.map(Some).ok_or_else(|| failed(format!("the event at {position} has no time").into()))
            }
            Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => {
                let Some(archive) = &self.archive else { return Ok(None) };
                let archived = archive.range(position.partition, position.sequence, position.sequence).await;
                let (archived, _) = archived.map_err(|error| failed(error.into()))?;
                match archived.into_iter().next() {
                    Some(Ok(event)) => Ok(Some(event.recorded.time)),
                    Some(Err(unreadable)) => Err(failed(unreadable.into())),
                    None => Ok(None),
                }
            }
            Err(error) => Err(failed(Box::new(error))),
        }
    }

    /// Sends every event of the partition after sequence `after` to `sink`, until `stop` or until nobody listens.
    pub async fn follow(
        &self,
        partition: u16,
        mut after: u64,
        sink: mpsc::Sender<Batch>,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                ended = self.follow_once(partition, &mut after, &sink) => match ended {
                    Ok(()) => return,
                    Err(error) => tracing::debug!(partition, after, %error, "following starts anew"),
                }
            }
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    }

    async fn follow_once(
        &self,
        partition: u16,
        after: &mut u64,
        sink: &mpsc::Sender<Batch>,
    ) -> Result<(), Failure> {
        let mut connects = self.broker.shared.connects.clone();
        connects.borrow_and_update();
        let stream = self.broker.shared.jetstream.get_stream_no_info(subject::stream(partition)).await?;
        let consumer = stream
            .create_consumer(pull::Config {
                description: Some("Twelve: a view follows".into()),
                deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: *after + 1 },
                ack_policy: AckPolicy::None,
                memory_storage: true,
                num_replicas: 1,
                inactive_threshold: CONSUMER_IDLE_MAX,
                ..pull::Config::default()
            })
            .await?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(BATCH_EVENTS_MAX)
            .expires(PULL_EXPIRES)
            .heartbeat(PULL_HEARTBEAT)
            .messages()
            .await?;
        let mut chunks = messages.ready_chunks(BATCH_EVENTS_MAX);
        // What left the log after its newest event that is left is announced by no event.
        let (mut is_at_end, mut pause) = (false, Duration::ZERO);
        loop {
            let chunk = tokio::select! {
                _ = connects.changed() => return Err("the connection was made anew".into()),
                chunk = chunks.next() => chunk.ok_or("the consumer ended")?,
                () = tokio::time::sleep(pause), if !is_at_end => {
                    match self.fill_to_end(&stream, partition, after, sink).await? {
                        End::Here => is_at_end = true,
                        End::Further => pause = END_LOOK_PAUSE,
                        End::Unheard => return Ok(()),
                    }
                    continue;
                }
            };
            (is_at_end, pause) = (false, END_LOOK_PAUSE);
            if !self.hand_over(partition, chunk, after, sink).await? {
                return Ok(());
            }
        }
    }

    /// Hands over what the server sent together; `false` if nobody listens any more.
    async fn hand_over(
        &self,
        partition: u16,
        chunk: Vec<Result<Message, MessagesError>>,
        after: &mut u64,
        sink: &mpsc::Sender<Batch>,
    ) -> Result<bool, Failure> {
        let empty = |room| Batch { partition, events: Vec::with_capacity(room), pending: 0, upto: 0 };
        let mut batch = empty(chunk.len());
        let mut failed: Option<Failure> = None;
        for message in chunk {
            let described = message.map_err(Failure::from).and_then(|message| {
                let (next, pending) = message.info().map(|info| (info.stream_sequence, info.pending))?;
                Ok((message, next, pending))
            });
            let (message, next, pending) = match described {
                Ok(described) => described,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            };
            if next > *after + 1 {
                let before = std::mem::replace(&mut batch, empty(0));
                if !before.events.is_empty() && sink.send(before).await.is_err()
                    || !self.fill(partition, (after, next), sink).await?
                {
                    return Ok(false);
                }
            }
            if next > *after {
                let position = Position { partition, sequence: next };
                let message = message.message;
                let headers = message.headers.unwrap_or_default();
                batch.events.push(codec::decode_in(
                    self.partitions(),
                    &message.subject,
                    position,
                    &headers,
                    message.payload,
                ));
                (batch.pending, batch.upto, *after) = (pending, next, next);
            }
        }
        if !batch.events.is_empty() && sink.send(batch).await.is_err() {
            return Ok(false);
        }
        failed.map_or(Ok(true), Err)
    }

    /// Where no event comes any more, hands over what lies between `after` and the partition's end and left the log.
    async fn fill_to_end(
        &self,
        stream: &stream::Stream<()>,
        partition: u16,
        after: &mut u64,
        sink: &mpsc::Sender<Batch>,
    ) -> Result<End, Failure> {
        let last = stream.get_info().await?.state.last_sequence;
        if last <= *after {
            return Ok(End::Here);
        }
        match stream.get_first_raw_message_by_subject(subject::partition_filter(partition), *after + 1).await
        {
            // It is on its way.
            Ok(_) => Ok(End::Further),
            Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => {
                let goes_on = self.fill(partition, (after, last + 1), sink).await?;
                Ok(if goes_on { End::Here } else { End::Unheard })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Hands over what lies between `after` and `next` and left the log; `false` if nobody listens any more.
    async fn fill(
        &self,
        partition: u16,
        (after, next): (&mut u64, u64),
        sink: &mpsc::Sender<Batch>,
    ) -> Result<bool, Failure> {
        while *after + 1 < next {
            let (from, to) = (*after + 1, next - 1);
            let (events, upto) = match &self.archive {
                Some(archive) => archive.range(partition, from, to).await?,
                None => (Vec::new(), to),
            };
            let missing = (upto + 1 - from).saturating_sub(events.len() as u64);
            if missing > 0 {
                metrics::counter!("twelve_log_events_missing_total").increment(missing);
                tracing::error!(partition, from, upto, missing, "the log and its archive lack events");
            }
            *after = upto;
            if sink.send(Batch { partition, events, pending: to - upto, upto }).await.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What is known of a partition's end once no event comes any more.
enum End {
    /// Everything is handed over.
    Here,
    /// There are events that have not come yet.
    Further,
    /// Nobody listens any more.
    Unheard,
}
