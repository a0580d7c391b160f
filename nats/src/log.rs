//! The log of orders: load one order's story, append one decision.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use domain::{EventId, OrderId, Position, Timestamp};
use tokio::time::timeout;
use tracing::Instrument;

pub use crate::codec::NewEvent;
use crate::{
    archive::{Archive, ArchiveError},
    broker::{Broker, Message, Page, Raw, Unpublished},
    codec::{self, Stored, Undecodable},
    connection::{ConnectError, Connection, SERVER_TIMEOUT},
    group::Groups,
    health::Appends,
    losses::Losses,
    subject,
    topology::{Durability, OldOrders, Topology, TopologyError},
    trace,
};

/// Events one order may have; a story longer than this is not an order's.
pub const EVENTS_PER_ORDER_MAX: usize = 10_000;
/// Times an event is sent by itself while no acknowledgement comes.
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
    #[error("the order may be in the archive, which cannot be read")]
    Archive(#[source] ArchiveError),
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
    /// It met a conflict, and whether with itself could not be found out. A repeat is safe.
    #[error("the order's story could not be read back")]
    Unsettled(#[source] LoadError),
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
pub struct EventLog<B = Connection> {
    pub(crate) broker: B,
    pub(crate) topology: Topology,
    durability: Durability,
    /// Where orders are that are over, if this log's are archived.
    pub(crate) archive: Option<Arc<Archive>>,
    /// What it has lost, as far as that is not accepted.
    pub(crate) losses: Arc<Losses>,
    /// What became of the latest of them.
    pub(crate) appends: Arc<Appends>,
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
        let archives = topology.old_orders == OldOrders::Archive;
        let archive = archives.then(|| Archive::new(connection.clone()).into());
        let log = Self { archive, ..Self::look(connection, topology, durability) };
        log.look_for_losses().await?;
        Ok(log)
    }

    /// The same log over a connection of its own.
    pub async fn another(&self, name: &str) -> Result<Self, ConnectError> {
        let broker = self.broker.another(name).await?;
        let groups = self.groups.is_some().then(|| Groups::start(&broker, self.topology.partitions).into());
        Ok(Self { broker, groups, ..self.clone() })
    }

    /// Whether orders that are over may be in an archive beside the log.
    pub const fn is_archived(&self) -> bool {
        self.archive.is_some()
    }

    /// Makes the work queues that are missing, or says which are.
    pub async fn ensure_queues(&self) -> Result<(), TopologyError> {
        self.topology.ensure_queues(&self.broker).await
    }

    pub const fn connection(&self) -> &Connection {
        &self.broker
    }
}

impl<B: Broker> EventLog<B> {
    /// The log as it is said to be, to look at; nothing is made or checked.
    pub fn look(broker: B, topology: Topology, durability: Durability) -> Self {
        let durability = if topology.replicas > 1 { Durability::Replicated } else { durability };
        let partitions = topology.partitions;
        let groups = (durability == Durability::Fsync).then(|| Groups::start(&broker, partitions).into());
        let (losses, appends) = (Arc::default(), Arc::default());
        Self { broker, topology, durability, archive: None, losses, appends, groups }
    }

    /// The server that keeps the log.
    pub const fn broker(&self) -> &B {
        &self.broker
    }

    /// The moment by this process's clock.
    pub fn now(&self) -> Timestamp {
        self.broker.now()
    }

    pub const fn partitions(&self) -> u16 {
        self.topology.partitions
    }

    /// What an acknowledgement of this log is worth.
    pub const fn durability(&self) -> Durability {
        self.durability
    }

    /// The sequence of an order's newest event, as the partition's leader knows it; 0 if it has none.
    ///
    /// With replicas, [`Self::load`] may be answered by one that is behind. Before something is denied on the ground
    /// of a story, the leader is asked whether that was all of it.
    pub async fn last_sequence(&self, order_id: OrderId) -> Result<u64, LoadError> {
        let partition = order_id.partition(self.topology.partitions);
        let last = self.broker.last(subject::stream(partition), subject::order(partition, order_id)).await;
        match (last.map_err(LoadError::Unavailable)?, &self.archive) {
            (Some(newest), _) => Ok(newest.sequence),
            (None, None) => Ok(0),
            (None, Some(archive)) => {
                let story = Box::pin(archive.story(partition, order_id)).await.map_err(LoadError::Archive)?;
                Ok(story.last().map_or(0, |newest| newest.sequence))
            }
        }
    }

    /// An order's newest event, as the partition's leader knows it, whatever came before it.
    pub async fn newest_event(&self, order_id: OrderId) -> Result<Option<Stored>, LoadError> {
        let partition = order_id.partition(self.partitions());
        let subject = subject::order(partition, order_id);
        let last = self.broker.last(subject::stream(partition), subject.clone()).await;
        let decode = |raw: Raw| {
            let position = Position { partition, sequence: raw.sequence };
            codec::decode(&subject, position, &raw.headers, raw.body)
        };
        Ok(last.map_err(LoadError::Unavailable)?.map(decode).transpose()?)
    }

    /// Whether a read may miss what was acknowledged a moment ago.
    pub fn reads_may_be_stale(&self) -> bool {
        self.durability == Durability::Replicated
    }

    /// An order's story up to at least `at_least` (0: whatever the log has), oldest event first.
    pub async fn load(&self, order_id: OrderId, at_least: u64) -> Result<Vec<Stored>, LoadError> {
        let partition = order_id.partition(self.topology.partitions);
        let story = self.load_raw(order_id, at_least, self.archive.as_deref()).await?;
        let subject = subject::order(partition, order_id);
        let decode = |raw: Raw| {
            let position = Position { partition, sequence: raw.sequence };
            codec::decode(&subject, position, &raw.headers, raw.body)
        };
        Ok(story.into_iter().map(decode).collect::<Result<_, _>>()?)
    }

    /// An order's story from its partition's stream, or else from the archive.
    pub(crate) async fn load_raw(
        &self,
        order_id: OrderId,
        at_least: u64,
        archive: Option<&Archive>,
    ) -> Result<Vec<Raw>, LoadError> {
        for _ in 0..STALE_READS_MAX {
            let mut story = self.load_once(order_id).await?;
            if story.is_empty()
                && let Some(archive) = archive
            {
                let partition = order_id.partition(self.topology.partitions);
                story = Box::pin(archive.story(partition, order_id)).await.map_err(LoadError::Archive)?;
            }
            if story.last().map_or(0, |newest| newest.sequence) >= at_least {
                return Ok(story);
            }
            tokio::time::sleep(STALE_READ_PAUSE).await;
        }
        Err(LoadError::Refused { status: format!("a story that ends before {at_least}") })
    }

    async fn load_once(&self, order_id: OrderId) -> Result<Vec<Raw>, LoadError> {
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
    ) -> Result<(Vec<Raw>, Option<u64>), LoadError> {
        let tries = if self.reads_may_be_stale() { &READ_TRIES[..] } else { &[SERVER_TIMEOUT] };
        for patience in tries {
            if let Ok(read) = timeout(*patience, self.read_batch(order_id, from)).await {
                return read;
            }
            metrics::counter!("twelve_reads_unanswered_total").increment(1);
        }
        Err(LoadError::Unavailable(format!("no answer within {SERVER_TIMEOUT:?}").into()))
    }

    /// Some of the story; answers where to go on if it is longer.
    async fn read_batch(&self, order_id: OrderId, from: u64) -> Result<(Vec<Raw>, Option<u64>), LoadError> {
        let partition = order_id.partition(self.topology.partitions);
        let Page { messages, next } =
            self.broker.read(partition, subject::order(partition, order_id), from).await?;
        Ok((messages, next))
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
        let event_id = new.event_id();
        let partition = order_id.partition(self.topology.partitions);
        if expected == 0
            && let Some(archive) = &self.archive
            && Box::pin(archive.holds(partition, order_id))
                .await
                .map_err(|error| AppendError::Unavailable(error.into()))?
        {
            // The log has nothing under this id any more, and would take it for a new one.
            return Err(AppendError::Conflict { last: None });
        }
        let subject = subject::order(partition, order_id);
        let (mut sends_left, mut groups) = (SENDS_MAX, self.groups.as_deref());
        loop {
            if !self.broker.is_connected() {
                return Err(AppendError::Unavailable("not connected to nats-server".into()));
            }
            sends_left -= u32::from(groups.is_none());
            // Anew for each try, of which there is hardly ever a second: dearer to keep than to make.
            let (headers, body) = codec::encode(new, event_id).map_err(AppendError::Encoding)?;
            let (subject, expected) = (subject.clone(), Some(expected));
            let message = Message { subject, headers, body: body.clone(), expected };
            match self.publish(partition, message, groups).await {
                Ok(sequence) => {
                    let position = Position { partition, sequence };
                    return Ok(Appended::New(stored(order_id, position, (new, event_id), body)));
                }
                Err(Unpublished::Conflict { last }) => {
                    metrics::counter!("twelve_append_conflicts_total").increment(1);
                    return Box::pin(self.settle(order_id, new, last)).await;
                }
                // Whoever was with it may be why; alone it is found out.
                Err(Unpublished::Unanswered(_)) if groups.is_some() => groups = None,
                Err(Unpublished::Unanswered(_)) if sends_left > 0 => {
                    metrics::counter!("twelve_append_ambiguous_total").increment(1);
                }
                Err(error) => return Err(AppendError::Unavailable(Box::new(error))),
            }
        }
    }

    async fn publish(
        &self,
        partition: u16,
        message: Message,
        groups: Option<&Groups>,
    ) -> Result<u64, Unpublished> {
        let started = std::time::Instant::now();
        let span = trace::span(
            None,
            || tracing::info_span!("append", otel.kind = "producer", messaging.system = "nats", messaging.destination.name = %message.subject),
        );
        let writing = async {
            match groups {
                Some(groups) => groups.write(partition, message).await,
                None => self.broker.publish(message).await,
            }
        };
        let written = writing.instrument(span).await;
        if self.broker.is_connected() {
            self.appends.note(partition, self.broker.connects(), &written);
        }
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
        let story = self.load(order_id, last.unwrap_or_default()).await.map_err(AppendError::Unsettled)?;
        let event_id = new.event_id();
        match story.into_iter().find(|stored| stored.recorded.event_id == event_id) {
            Some(stored) => Ok(Appended::Found(stored)),
            None => Err(AppendError::Conflict { last }),
        }
    }
}

fn stored(
    order_id: OrderId,
    position: Position,
    (new, event_id): (&NewEvent, EventId),
    data: Bytes,
) -> Stored {
    let recorded = domain::Recorded {
        order_id,
        position,
        event_id,
        time: new.time,
        command_id: new.command_id,
        fingerprint: new.fingerprint.clone(),
        event: new.event.clone(),
    };
    Stored { recorded, data, causation_id: new.causation_id, trace_parent: new.trace_parent.clone() }
}
