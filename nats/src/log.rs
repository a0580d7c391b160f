//! The log of orders: load one order's story, append one decision.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{self, ErrorCode, context::PublishError};
use bytes::Bytes;
use domain::{OrderId, Position};
use futures::StreamExt;
use tokio::time::timeout;
use tracing::Instrument;

pub use crate::codec::NewEvent;
use crate::{
    codec::{self, Stored, Undecodable},
    connection::{ConnectError, Connection, SERVER_TIMEOUT},
    group::{self, Groups, Message},
    subject,
    topology::{Durability, Topology, TopologyError},
    trace,
};

/// Messages asked for in one read of an order.
const LOAD_BATCH: usize = 1_000;
/// Events one order may have; a story longer than this is not an order's.
pub const EVENTS_PER_ORDER_MAX: usize = 10_000;
/// Times an event is sent while no acknowledgement comes.
const SENDS_MAX: u32 = 2;
/// Times a read is repeated while a replica has not seen what another already acknowledged.
const STALE_READS_MAX: u32 = 20;
/// How long each replica that is asked may take to answer a read; together [`SERVER_TIMEOUT`].
const READ_TRIES: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_millis(350),
    Duration::from_millis(550),
    Duration::from_millis(800),
    Duration::from_millis(1_100),
];
const STALE_READ_PAUSE: Duration = Duration::from_millis(5);

/// Why an order's story could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the log did not answer")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the log answered {status} to a read")]
    Refused { status: String },
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
    #[error("order {0} has more than {EVENTS_PER_ORDER_MAX} events")]
    TooLong(OrderId),
}

/// Why an event was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Somebody else's event came first; decide afresh on a story that reaches at least `last`.
    #[error("the order's story moved on (last sequence {last:?}) while the decision was made")]
    Conflict { last: Option<u64> },
    /// Nothing is known to be stored. A repeat with the same command id is safe.
    #[error("the log did not acknowledge the event")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the event cannot be written as JSON")]
    Encoding(#[source] serde_json::Error),
}

/// How an event came to be in the log.
#[derive(Clone, Debug)]
pub enum Appended {
    /// Right after the story that it was decided on.
    New(Stored),
    /// It was there already, from an earlier try; other events may be before it and after it.
    Found(Stored),
}

impl Appended {
    /// The event, however it came to be there.
    pub fn into_stored(self) -> Stored {
        match self {
            Self::New(stored) | Self::Found(stored) => stored,
        }
    }
}

/// The log, as declared; clones share the connection.
#[derive(Clone)]
pub struct EventLog {
    pub(crate) connection: Connection,
    partitions: u16,
    pub(crate) replicas: usize,
    durability: Durability,
    /// Where each append waits for the disk.
    groups: Option<Arc<Groups>>,
}

impl EventLog {
    /// Opens the log, making its streams if they are absent.
    pub async fn open(
        connection: Connection,
        topology: Topology,
        durability: Durability,
    ) -> Result<Self, TopologyError> {
        topology.ensure(&connection).await?;
        Ok(Self::look(connection, topology, durability))
    }

    /// The log as it is said to be, to look at; nothing is made or checked.
    pub fn look(connection: Connection, topology: Topology, durability: Durability) -> Self {
        let durability = if topology.replicas > 1 { Durability::Replicated } else { durability };
        let (partitions, replicas) = (topology.partitions, topology.replicas);
        let groups = (durability == Durability::Fsync).then(|| Groups::start(&connection, partitions).into());
        Self { connection, partitions, replicas, durability, groups }
    }

    /// The same log over a connection of its own.
    pub async fn another(&self, name: &str) -> Result<Self, ConnectError> {
        let connection = self.connection.another(name).await?;
        let groups = self.groups.is_some().then(|| Groups::start(&connection, self.partitions).into());
        Ok(Self { connection, groups, ..self.clone() })
    }

    pub const fn partitions(&self) -> u16 {
        self.partitions
    }

    /// What an acknowledgement of this log is worth.
    pub const fn durability(&self) -> Durability {
        self.durability
    }

    pub const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The sequence of an order's newest event, as the partition's leader knows it; 0 if it has none.
    ///
    /// With replicas, [`Self::load`] may be answered by one that is behind. Before something is denied on the ground
    /// of a story, the leader is asked whether that was all of it.
    pub async fn last_sequence(&self, order_id: OrderId) -> Result<u64, LoadError> {
        use jetstream::stream::LastRawMessageErrorKind as Kind;
        let partition = order_id.partition(self.partitions);
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| LoadError::Unavailable(error);
        let stream = self.connection.jetstream.get_stream_no_info(subject::stream(partition)).await;
        let stream = stream.map_err(|error| failed(Box::new(error)))?;
        match stream.get_last_raw_message_by_subject(&subject::order(partition, order_id)).await {
            Ok(message) => Ok(message.sequence),
            Err(error) if matches!(error.kind(), Kind::NoMessageFound) => Ok(0),
            Err(error) => Err(failed(Box::new(error))),
        }
    }

    /// Whether a read may miss what was acknowledged a moment ago.
    pub fn reads_may_be_stale(&self) -> bool {
        self.durability == Durability::Replicated
    }

    /// An order's story up to at least `at_least` (0: whatever the log has), oldest event first.
    pub async fn load(&self, order_id: OrderId, at_least: u64) -> Result<Vec<Stored>, LoadError> {
        for _ in 0..STALE_READS_MAX {
            let story = self.load_once(order_id).await?;
            let reached = story.last().map_or(0, |stored| stored.recorded.position.sequence);
            if reached >= at_least {
                return Ok(story);
            }
            tokio::time::sleep(STALE_READ_PAUSE).await;
        }
        Err(LoadError::Refused { status: format!("a story that ends before {at_least}") })
    }

    async fn load_once(&self, order_id: OrderId) -> Result<Vec<Stored>, LoadError> {
        let mut story = Vec::new();
        let mut from = 1;
        loop {
            let (batch, next) = self.read_with_patience(order_id, from).await?;
            story.extend(batch);
            match next {
                None => return Ok(story),
                Some(_) if story.len() > EVENTS_PER_ORDER_MAX => return Err(LoadError::TooLong(order_id)),
                Some(next) => from = next,
            }
        }
    }

    /// Reads a batch; of replicas, another is asked where one does not answer soon: a server that hangs is asked until
    /// the others notice.
    async fn read_with_patience(
        &self,
        order_id: OrderId,
        from: u64,
    ) -> Result<(Vec<Stored>, Option<u64>), LoadError> {
        let tries = if self.reads_may_be_stale() { &READ_TRIES[..] } else { &[SERVER_TIMEOUT] };
        for patience in tries {
            if let Ok(read) = timeout(*patience, self.read_batch(order_id, from)).await {
                return read;
            }
            metrics::counter!("twelve_reads_unanswered_total").increment(1);
        }
        let why = format!("no answer within {SERVER_TIMEOUT:?}");
        Err(LoadError::Unavailable(Box::new(std::io::Error::other(why))))
    }

    /// One batched direct get of the order's exact subject; answers where to go on if the story is longer.
    async fn read_batch(
        &self,
        order_id: OrderId,
        from: u64,
    ) -> Result<(Vec<Stored>, Option<u64>), LoadError> {
        let mut story = Vec::new();
        let unavailable = |error| LoadError::Unavailable(error);
        let partition = order_id.partition(self.partitions);
        let subject = subject::order(partition, order_id);
        let client = &self.connection.client;
        let inbox = client.new_inbox();
        let mut answers =
            client.subscribe(inbox.clone()).await.map_err(|error| unavailable(Box::new(error)))?;
        let ask =
            serde_json::json!({ "seq": from, "batch": LOAD_BATCH, "next_by_subj": subject }).to_string();
        let api = format!("$JS.API.DIRECT.GET.{}", subject::stream(partition));
        client
            .publish_with_reply(api, inbox, ask.into())
            .await
            .map_err(|error| unavailable(Box::new(error)))?;
        let mut last = from;
        while let Some(message) = answers.next().await {
            let headers = message.headers.clone().unwrap_or_default();
            match message.status.map(|status| status.as_u16()) {
                None => {
                    let sequence = header_number(&headers, "Nats-Sequence").unwrap_or_default();
                    let position = Position { partition, sequence };
                    story.push(codec::decode(&subject, position, &headers, message.payload)?);
                    last = sequence;
                }
                Some(404) => return Ok((story, None)),
                Some(204) => {
                    let pending = header_number(&headers, "Nats-Num-Pending").unwrap_or_default();
                    return Ok((story, (pending > 0).then_some(last + 1)));
                }
                Some(status) => {
                    let description = message.description.unwrap_or_default();
                    let closed = std::io::Error::other(format!("{status} {description}"));
                    return Err(unavailable(Box::new(closed)));
                }
            }
        }
        Err(LoadError::Refused { status: "nothing: the connection closed".into() })
    }

    /// Appends one event to an order whose last event is `expected` (0: the order has none).
    ///
    /// A missing acknowledgement is not a failure: the event is sent again under the same guard, so at most one of the
    /// two is stored, and a conflict is settled by reading the order back and looking for the event itself.
    pub async fn append(
        &self,
        order_id: OrderId,
        expected: u64,
        new: &NewEvent,
    ) -> Result<Appended, AppendError> {
        let (headers, body) = codec::encode(new).map_err(AppendError::Encoding)?;
        let partition = order_id.partition(self.partitions);
        let subject = subject::order(partition, order_id);
        let mut sends_left = SENDS_MAX;
        loop {
            if !self.connection.is_connected() {
                return Err(AppendError::Unavailable("not connected to nats-server".into()));
            }
            sends_left -= 1;
            let (subject, headers) = (subject.clone(), headers.clone());
            let message = Message { subject, headers, body: body.clone(), expected };
            match self.publish(partition, message).await {
                Ok(sequence) => {
                    let position = Position { partition, sequence };
                    return Ok(Appended::New(stored(order_id, position, new, body)));
                }
                Err(error) if is_conflict(&error) => {
                    metrics::counter!("twelve_append_conflicts_total").increment(1);
                    return self.settle(order_id, new, named_sequence(&error)).await;
                }
                Err(error) if is_ambiguous(&error) && sends_left > 0 => {
                    metrics::counter!("twelve_append_ambiguous_total").increment(1);
                }
                Err(error) => return Err(AppendError::Unavailable(Box::new(error))),
            }
        }
    }

    async fn publish(&self, partition: u16, message: Message) -> Result<u64, PublishError> {
        let started = std::time::Instant::now();
        let span = trace::span(
            None,
            || tracing::info_span!("append", otel.kind = "producer", messaging.system = "nats", messaging.destination.name = %message.subject),
        );
        let writing = async {
            match &self.groups {
                Some(groups) => groups.write(partition, message).await.unwrap_or_else(|| {
                    Err(PublishError::new(jetstream::context::PublishErrorKind::BrokenPipe))
                }),
                None => group::publish(&self.connection, message).await,
            }
        };
        let written = writing.instrument(span).await;
        metrics::histogram!("twelve_append_seconds").record(started.elapsed().as_secs_f64());
        written
    }

    /// Finds out whether the event that met a conflict is in the log already, from an earlier try.
    async fn settle(
        &self,
        order_id: OrderId,
        new: &NewEvent,
        last: Option<u64>,
    ) -> Result<Appended, AppendError> {
        let story = self
            .load(order_id, last.unwrap_or_default())
            .await
            .map_err(|error| AppendError::Unavailable(Box::new(error)))?;
        let event_id = new.event_id();
        match story.into_iter().find(|stored| stored.recorded.event_id == event_id) {
            Some(stored) => Ok(Appended::Found(stored)),
            None => Err(AppendError::Conflict { last }),
        }
    }
}

fn stored(order_id: OrderId, position: Position, new: &NewEvent, data: Bytes) -> Stored {
    let recorded = domain::Recorded {
        order_id,
        position,
        event_id: new.event_id(),
        time: new.time,
        command_id: new.command_id,
        fingerprint: new.fingerprint.clone(),
        event: new.event.clone(),
    };
    Stored { recorded, data, causation_id: new.causation_id, trace_parent: new.trace_parent.clone() }
}

fn header_number(headers: &async_nats::HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.as_str().parse().ok()
}

fn server_code(error: &PublishError) -> Option<ErrorCode> {
    Some(std::error::Error::source(error)?.downcast_ref::<jetstream::Error>()?.error_code())
}

/// The two codes by which a server says "the expected sequence is not the last": 10071, and 10164 (replicated or in
/// a batch, while another write of the subject is in flight).
fn is_conflict(error: &PublishError) -> bool {
    server_code(error).is_some_and(|code| {
        code == ErrorCode::STREAM_WRONG_LAST_SEQUENCE
            || code == ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT
    })
}

/// Whether the event may have been stored although no acknowledgement came.
fn is_ambiguous(error: &PublishError) -> bool {
    use jetstream::context::PublishErrorKind as Kind;
    match error.kind() {
        Kind::TimedOut | Kind::BrokenPipe | Kind::StreamNotFound => true,
        Kind::WrongLastMessageId
        | Kind::WrongLastSequence
        | Kind::MaxAckPending
        | Kind::MaxPayloadExceeded
        | Kind::Other => false,
    }
}

/// The true last sequence, which the server names in the text of 10071.
fn named_sequence(error: &PublishError) -> Option<u64> {
    let text = std::error::Error::source(error)?.to_string();
    text.rsplit_once("wrong last sequence: ")?.1.trim().split(' ').next()?.parse().ok()
}
