//! Makes the streams, buckets and work queues of a log, or verifies that they are there and hold what is declared.
//!
//! Made is what is missing; what is there is compared, enlarged where more room is declared, and never loosened.

use async_nats::jetstream::{
    self,
    stream::{Config, Stream},
};

use crate::{
    broker::Failure,
    connection::Connection,
    health::is_missing,
    subject,
    topology::{OldOrders, PARTITIONS_KEY, Streams, Topology, TopologyError, UNCOMPRESS, is_absent},
    worklist::List,
};

impl Topology {
    /// Makes what is missing, or says that it is missing, and checks what is there.
    pub async fn ensure(&self, connection: &Connection) -> Result<(), TopologyError> {
        let jetstream = &connection.shared.jetstream;
        for (wanted, partition) in self.streams().into_iter().zip(0..) {
            let mut found = self.ensure_stream(jetstream, &wanted).await?;
            if Self::is_compressed(&found) {
                let stream = &found.name;
                tracing::warn!(
                    stream,
                    "is compressed, and may not be read again after a crash; {UNCOMPRESS}"
                );
            }
            let is_partition = partition < self.partitions;
            if is_partition {
                self.check_partition(&wanted, &found)?;
            }
            if self.streams == Streams::Make {
                found = enlarge(jetstream, &wanted, found).await?;
            }
            check_any(&wanted, &found)?;
        }
        let beyond = subject::stream(self.partitions);
        match jetstream.get_stream(&beyond).await {
            Ok(_) => {
                let found = format!("more than {}", self.partitions);
                Err(TopologyError::Partitions { found, wanted: self.partitions })
            }
            Err(error) if is_absent(error.kind()) => Ok(()),
            Err(source) => Err(TopologyError::Server { stream: beyond, source: Box::new(source) }),
        }
    }

    /// Makes the work queues that are missing, or says which are. The streams must be there.
    pub async fn ensure_queues(&self, connection: &Connection) -> Result<(), TopologyError> {
        let mut missing = Vec::new();
        for list in List::ALL {
            for partition in 0..self.partitions {
                let (name, queue) = (list.stream(partition), list.consumer(partition));
                let failed = |source: Failure| TopologyError::Server { stream: name.clone(), source };
                let stream = connection.shared.jetstream.get_stream_no_info(&name).await;
                let stream = stream.map_err(|error| failed(error.into()))?;
                if self.streams == Streams::Make {
                    let made = stream.get_or_create_consumer(&queue, list.declared(partition)).await;
                    made.map_err(|error| failed(error.into()))?;
                } else if !is_there(&stream, &queue).await.map_err(failed)? {
                    missing.push(format!("{name}/{queue}"));
                }
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(TopologyError::NoQueues(missing)) }
    }

    async fn ensure_stream(
        &self,
        jetstream: &jetstream::Context,
        wanted: &Config,
    ) -> Result<Config, TopologyError> {
        let failed = |source: Failure| TopologyError::Server { stream: wanted.name.clone(), source };
        match jetstream.get_stream(&wanted.name).await {
            Ok(stream) => Ok(stream.cached_info().config.clone()),
            Err(error) if is_absent(error.kind()) && self.streams == Streams::Verify => {
                Err(TopologyError::Missing(wanted.name.clone()))
            }
            // Two services may start at once: the second finds the other's stream.
            Err(error) if is_absent(error.kind()) => {
                let made = jetstream.get_or_create_stream(wanted.clone()).await;
                Ok(made.map_err(|error| failed(error.into()))?.cached_info().config.clone())
            }
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Whether a partition's stream is as declared.
    pub(crate) fn check(&self, wanted: &Config, found: &Config) -> Result<(), TopologyError> {
        self.check_partition(wanted, found)?;
        check_any(wanted, found)
    }

    fn check_partition(&self, wanted: &Config, found: &Config) -> Result<(), TopologyError> {
        let partitions = found.metadata.get(PARTITIONS_KEY).cloned().unwrap_or_else(|| "unknown".into());
        if partitions != self.partitions.to_string() {
            return Err(TopologyError::Partitions { found: partitions, wanted: self.partitions });
        }
        if found.deny_purge && self.old_orders == OldOrders::Archive {
            return Err(TopologyError::Keeps);
        }
        let rules = [
            (found.deny_delete, "deny_delete is off"),
            (
                found.deny_purge || !wanted.deny_purge,
                "deny_purge is off; if its old orders are archived, say so: --old-orders archive",
            ),
        ];
        first_broken(&found.name, &rules)
    }
}

/// What holds for every stream: nothing is taken from it, comes into it, or leaves it, but as declared.
pub(crate) fn check_any(wanted: &Config, found: &Config) -> Result<(), TopologyError> {
    // Only where it goes to matters: a controller cannot say that headers are enough.
    let destination = |config: &Config| config.republish.as_ref().map(|to| to.destination.clone());
    let (told, wanted_told) = (destination(found), destination(wanted));
    let rules = [
        (found.subjects == wanted.subjects, "its subjects are others"),
        (found.storage == wanted.storage, "storage is memory"),
        (found.retention == wanted.retention, "its retention is another"),
        (found.discard == wanted.discard, "discard is old: a full stream would forget"),
        (found.max_age == wanted.max_age, "max_age is set: messages would expire"),
        (found.max_messages <= 0, "max_msgs is set: it would be full before its bytes are"),
        (
            // 0 and -1 are no limit.
            found.max_messages_per_subject.max(0) == wanted.max_messages_per_subject.max(0),
            "max_msgs_per_subject is another: messages would vanish",
        ),
        (found.allow_direct || !wanted.allow_direct, "allow_direct is off: it could not be read"),
        // The server allows them where messages are scheduled.
        (
            found.allow_rollup == wanted.allow_rollup || wanted.allow_message_schedules,
            "rollups are allowed: one message would remove others",
        ),
        (
            found.allow_message_ttl == wanted.allow_message_ttl,
            "messages may expire, or may not although they must",
        ),
        (
            found.allow_message_schedules == wanted.allow_message_schedules,
            "it schedules messages, or does not although it must",
        ),
        (
            found.mirror.is_none() && found.sources.as_ref().is_none_or(Vec::is_empty),
            "it copies another stream",
        ),
        (found.subject_transform.is_none(), "it changes subjects"),
        (!found.sealed, "it is sealed: it takes no messages"),
        (told.is_none() || told == wanted_told, "it republishes to another subject"),
    ];
    first_broken(&found.name, &rules)?;
    if told == wanted_told { Ok(()) } else { Err(TopologyError::Silent(found.name.clone())) }
}

fn first_broken(stream: &str, rules: &[(bool, &'static str)]) -> Result<(), TopologyError> {
    match rules.iter().find(|(holds, _)| !holds) {
        Some((_, rule)) => Err(TopologyError::Unsafe { stream: stream.to_owned(), rule }),
        None => Ok(()),
    }
}

async fn is_there(stream: &Stream<()>, consumer: &str) -> Result<bool, Failure> {
    match stream.consumer_info(consumer).await {
        Ok(_) => Ok(true),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives a stream the room that is declared now, if that is more than it has, and has it tell of what it stores, if it
/// does not. Nothing else of it changes.
async fn enlarge(
    jetstream: &jetstream::Context,
    wanted: &Config,
    found: Config,
) -> Result<Config, TopologyError> {
    let has_room = found.max_bytes < 0 || found.max_bytes >= wanted.max_bytes;
    if has_room && (found.republish.is_some() || wanted.republish.is_none()) {
        return Ok(found);
    }
    let stream = found.name.clone();
    let max_bytes = if has_room { found.max_bytes } else { wanted.max_bytes };
    let republish = found.republish.clone().or_else(|| wanted.republish.clone());
    match jetstream.update_stream(Config { max_bytes, republish, ..found }).await {
        Ok(info) => Ok(info.config),
        Err(source) => Err(TopologyError::Server { stream, source: Box::new(source) }),
    }
}
