//! The streams of the log, as declared. [`crate::setup`] makes or verifies them.
//!
//! No stream mirrors them: a mirror of a stream that allows direct gets answers those gets too, from what it has so
//! far, and an order's story would lack its newest events.

use std::{collections::HashMap, time::Duration};

use async_nats::jetstream::{
    self,
    context::GetStreamErrorKind,
    stream::{Compression, Config, DiscardPolicy, Republish, RetentionPolicy, StorageType},
};

use crate::{archive, snapshots, subject};

/// How many partitions a new log gets, so that partitions are exercised from the first day.
pub const PARTITIONS_DEFAULT: u16 = 4;
/// The most partitions a log may have.
pub const PARTITIONS_MAX: u16 = 64;
/// Bytes one partition may hold before the log refuses new events rather than forgetting old ones.
pub const PARTITION_BYTES_DEFAULT: i64 = 1024 * 1024 * 1024;
/// The server's own duplicate table is not used (the expected sequence guards every write), so it is kept small.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(1);
const MESSAGE_BYTES_MAX: i32 = 128 * 1024;
/// Room for thousands of versions.
const FLOWS_BYTES_MAX: i64 = 64 * 1024 * 1024;
/// What to do about a stream that is compressed.
pub(crate) const UNCOMPRESS: &str = "let it be so no more: nats stream edit NAME --compression none";
pub(crate) const PARTITIONS_KEY: &str = "twelve-partitions";

/// What an acknowledgement of the log is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Durability {
    /// On disk: the server syncs before it acknowledges.
    Fsync,
    /// With a majority of the replicas.
    Replicated,
    /// In the server's memory; a power cut may lose it.
    Memory,
}

impl Durability {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::Replicated => "replicated",
            Self::Memory => "memory",
        }
    }
}

/// Who makes the streams, the buckets and the work queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Streams {
    /// The process that finds them missing; it enlarges what is too small, too
    #[default]
    Make,
    /// `twelve nats setup`, or a controller: what is missing or different is an error
    Verify,
}

/// What becomes of orders that are over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OldOrders {
    /// They stay in the log for ever: nobody can take anything out of its streams, not even an operator
    #[default]
    Keep,
    /// `twelve archive` may move them out of the log; its streams allow it to whoever the server allows it
    Archive,
}

/// What is done with a log that keeps everything and yet lacks events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum MissingEvents {
    /// It is a fault: services tell it, and are not ready
    #[default]
    Refuse,
    /// It is known and has to do: services tell it when they start, and go on
    Accept,
}

/// The log as declared.
#[derive(Clone, Copy, Debug)]
pub struct Topology {
    pub partitions: u16,
    pub replicas: usize,
    pub partition_bytes_max: i64,
    pub streams: Streams,
    pub old_orders: OldOrders,
    pub missing_events: MissingEvents,
}

impl Default for Topology {
    fn default() -> Self {
        Self {
            partitions: PARTITIONS_DEFAULT,
            replicas: 1,
            partition_bytes_max: PARTITION_BYTES_DEFAULT,
            streams: Streams::Make,
            old_orders: OldOrders::Keep,
            missing_events: MissingEvents::Refuse,
        }
    }
}

/// Why the log cannot be used as declared.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    #[error(
        "the log has {found} partitions and this service is set to {wanted}; the number is fixed when a log is made: start with --partitions {found}, or use another server"
    )]
    Partitions { found: String, wanted: u16 },
    #[error(
        "the log was made to keep all orders for ever, which cannot be undone; start with --old-orders keep, or use another server"
    )]
    Keeps,
    #[error(
        "stream {stream} does not keep history safe: {rule}; it was made or changed by hand: correct it, or use another server"
    )]
    Unsafe { stream: String, rule: &'static str },
    #[error(
        "stream {0} was made by an older version and does not tell of what it stores; run: twelve nats setup"
    )]
    Silent(String),
    #[error("stream {0} is missing; run: twelve nats setup")]
    Missing(String),
    #[error("the work queues {} are missing; run: twelve nats setup", .0.join(", "))]
    NoQueues(Vec<String>),
    #[error("stream {stream} cannot be made, read or enlarged")]
    Server { stream: String, source: Box<dyn std::error::Error + Send + Sync> },
}

impl Topology {
    /// Every stream of the log, those of its buckets included; of the partitions first.
    pub fn streams(&self) -> Vec<Config> {
        let partitions = (0..self.partitions).map(|partition| self.partition(partition));
        let others = [self.deadlines(), self.notices(), self.flows(), snapshots::declared(self.replicas)];
        let archive = match self.old_orders {
            OldOrders::Keep => None,
            OldOrders::Archive => Some(archive::declared(self.replicas)),
        };
        partitions.chain(others).chain(archive).collect()
    }

    /// The declaration of one partition's stream.
    pub fn partition(&self, partition: u16) -> Config {
        Config {
            name: subject::stream(partition),
            description: Some("Twelve: the events of orders, one subject an order".into()),
            subjects: vec![subject::partition_filter(partition)],
            storage: StorageType::File,
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::New,
            max_bytes: self.partition_bytes_max,
            max_message_size: MESSAGE_BYTES_MAX,
            num_replicas: self.replicas,
            duplicate_window: DUPLICATE_WINDOW,
            deny_delete: true,
            deny_purge: self.old_orders == OldOrders::Keep,
            allow_direct: true,
            allow_atomic_publish: true,
            // By this, who follows the log knows that there is something new.
            republish: Some(Republish {
                source: subject::partition_filter(partition),
                destination: subject::stored(partition),
                headers_only: true,
            }),
            metadata: HashMap::from([(PARTITIONS_KEY.to_owned(), self.partitions.to_string())]),
            ..Config::default()
        }
    }

    /// The notices that wait: of each order at most one. What they are about is in the log.
    pub fn notices(&self) -> Config {
        Config {
            name: subject::NOTICES_STREAM.into(),
            description: Some("Twelve: whose customers are to be told something".into()),
            subjects: vec!["notices.*.*".into()],
            allow_message_schedules: false,
            allow_message_ttl: false,
            ..self.deadlines()
        }
    }

    /// The deadlines: of each order at most the one that is set, and the one that came due until it is dealt with.
    ///
    /// A stream of its own, because allowing schedules takes away `deny_purge`.
    pub fn deadlines(&self) -> Config {
        Config {
            name: subject::DEADLINES_STREAM.into(),
            description: Some("Twelve: when to look at an order again".into()),
            subjects: vec!["deadlines.*.*".into(), "due.*.*".into()],
            storage: StorageType::File,
            retention: RetentionPolicy::WorkQueue,
            // The server schedules nothing in a stream that refuses new messages; so this one has no limit that would
            // forget old ones. It holds at most two short messages an open order.
            discard: DiscardPolicy::Old,
            max_messages_per_subject: 1,
            num_replicas: self.replicas,
            duplicate_window: DUPLICATE_WINDOW,
            allow_message_schedules: true,
            allow_message_ttl: true,
            ..Config::default()
        }
    }

    /// The flows, each version once and for ever.
    pub fn flows(&self) -> Config {
        Config {
            name: subject::FLOWS_STREAM.into(),
            description: Some("Twelve: the flows that orders follow, in every version".into()),
            subjects: vec!["flows.*.*".into()],
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            max_bytes: FLOWS_BYTES_MAX,
            num_replicas: self.replicas,
            duplicate_window: DUPLICATE_WINDOW,
            deny_delete: true,
            deny_purge: true,
            allow_direct: true,
            ..Config::default()
        }
    }

    /// Whether a stream is one that nats-server 2.15.1 does not always read again once it was killed (ADR 22).
    pub(crate) fn is_compressed(found: &Config) -> bool {
        found.compression.as_ref().is_some_and(|compression| *compression != Compression::None)
    }
}

pub(crate) fn is_absent(kind: GetStreamErrorKind) -> bool {
    match kind {
        GetStreamErrorKind::JetStream(error) => error.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND,
        GetStreamErrorKind::EmptyName
        | GetStreamErrorKind::Request
        | GetStreamErrorKind::InvalidStreamName => false,
    }
}
