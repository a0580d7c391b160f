//! Orders that are over, moved out of the log: whole, in objects of JetStream's object store, gzipped JSON lines, each
//! with a list of the orders in it.
//!
//! Nothing else is ever taken out of the log, so a partition's sequences have gaps only where archived orders were:
//! whoever follows it asks the archive for what is between ([`Archive::range`]), and whoever finds no event of an order
//! asks it for the order ([`Archive::story`]). Both see the log as if nothing had been moved.
//!
//! The log cannot guard a subject that it has no message of any more. So an event that would be an order's first is
//! preceded by a look into the list of the archived ([`Archive::holds`]). That list may be older than the archive by
//! [`FRESH_FOR`](list::FRESH_FOR), so [`KNOWN_AFTER`] passes between the coming of an order to the archive and its
//! leaving the log.

mod find;
mod list;
mod object;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::jetstream::{object_store::ObjectMetadata, stream::Config};
use domain::{Event, OrderId, event::SagaEvent};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::timeout;
use uuid::Uuid;

pub use self::{find::Found, object::About};
use self::{
    list::{ObjectList, Objects},
    object::{Kept, Opened, mark, pack, stretches, unpack},
};
use crate::{
    broker::{Failure, Raw},
    codec::{Stored, Undecodable},
    connection::Connection,
    follow::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, data_bytes, sequence_of},
    log::{EventLog, LoadError},
    objects::{self, Bucket},
    subject,
};

pub(crate) const BUCKET: &str = "TWELVE-ARCHIVE";
/// The description of an object, as JSON, under this name.
const ABOUT: &str = "about";
/// After so long every process knows what was archived before; only then does it leave the log.
pub const KNOWN_AFTER: Duration = Duration::from_secs(15);
/// Orders that one object has at most. Reading one order reads its object.
pub const ORDERS_AN_OBJECT: usize = 1_000;
/// Bytes of opened objects that a process keeps at hand: those of orders that were open at the same time are wanted
/// together when the log is read.
const OPENED_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Orders whose events are counted at a time.
const COUNTED_AT_A_TIME: usize = 8;
/// How long one object may take to be sent or fetched.
const TRANSFER_MAX: Duration = Duration::from_mins(5);

/// Why the archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("the archive's object store did not answer")]
    Store(#[source] Failure),
    #[error(transparent)]
    Look(Arc<ArchiveError>),
    #[error("the bucket {BUCKET} is not there; make it: twelve nats setup --old-orders archive")]
    Missing,
    #[error("object {name} of the archive does not read as it was written")]
    Torn { name: String, source: Failure },
    #[error("object {name} of the archive does not hold what was put into it for order {order_id}")]
    Differs { name: String, order_id: OrderId },
    #[error(
        "the log has {there} events of order {order_id}, and {events} of them are to leave it: all stay, and a later run looks again"
    )]
    NotWhole { order_id: OrderId, there: usize, events: usize },
    #[error("{removed} of the {events} events of order {order_id} left the log; the archive has all of them")]
    Removed { order_id: OrderId, removed: u64, events: usize },
    #[error(
        "this log was made to keep all orders for ever, which cannot be undone; a log that archives them is made with --old-orders archive"
    )]
    Kept,
}

fn failed(error: impl Into<Failure>) -> ArchiveError {
    ArchiveError::Store(error.into())
}

/// The bucket's stream as declared.
pub(crate) fn declared(replicas: usize) -> Config {
    let description = "Twelve: orders that are over; never delete from it";
    objects::declared(BUCKET, description, Duration::ZERO, replicas)
}

/// What an object is that does not read.
fn torn<E: Into<Failure>>(name: &str) -> impl Fn(E) -> ArchiveError {
    move |source| ArchiveError::Torn { name: name.to_owned(), source: source.into() }
}

/// The archive of a log.
pub struct Archive {
    connection: Connection,
    list: ObjectList,
    /// Those that were read last, the last one at the end.
    opened: Mutex<Vec<(String, Arc<Opened>)>>,
}

/// A whole story that is to be moved.
#[derive(Clone, Debug)]
pub struct Whole {
    pub order_id: OrderId,
    events: Vec<Raw>,
}

impl Archive {
    pub(crate) fn new(connection: Connection) -> Self {
        let list = ObjectList::new(connection.clone());
        Self { connection, list, opened: Mutex::default() }
    }

    /// Every object there is, with its name, as of at most [`list::FRESH_FOR`] before this is asked.
    pub async fn objects(&self) -> Result<Arc<Objects>, ArchiveError> {
        self.list.objects().await
    }

    async fn bucket(&self) -> Result<Bucket, ArchiveError> {
        bucket(&self.connection).await
    }

    /// Whether an order is in the archive, as of at most [`list::FRESH_FOR`] ago.
    pub(crate) async fn holds(&self, partition: u16, order_id: OrderId) -> Result<bool, ArchiveError> {
        let objects = self.objects().await?;
        if !objects.iter().any(|(_, about)| about.partition == partition && about.may_hold(order_id)) {
            return Ok(false);
        }
        Ok(!self.story(partition, order_id).await?.is_empty())
    }

    /// An order's story, oldest event first; empty if it is not here.
    pub(crate) async fn story(&self, partition: u16, order_id: OrderId) -> Result<Vec<Raw>, ArchiveError> {
        for (name, about) in self.objects().await?.iter() {
            if about.partition == partition && about.may_hold(order_id) {
                let opened = self.open(name).await?;
                let story = opened.story(order_id).map_err(torn(name))?;
                if !story.is_empty() {
                    return Ok(story.iter().map(Kept::raw).collect());
                }
            }
        }
        Ok(Vec::new())
    }

    /// The archived events of a partition from sequence `from` on, in order, and the sequence up to which these are
    /// all there are, `to` at most.
    pub(crate) async fn range(
        &self,
        partition: u16,
        from: u64,
        to: u64,
    ) -> Result<(Vec<Result<Stored, Undecodable>>, u64), ArchiveError> {
        let upto = to.min(from + BATCH_EVENTS_MAX as u64 - 1);
        let mut events = BTreeMap::new();
        for (name, about) in self.objects().await?.iter() {
            if about.may_reach(partition, from, upto) {
                let within = self.open(name).await?.within(from, upto).map_err(torn(name))?;
                events.extend(within.iter().map(|kept| (kept.sequence, kept.stored(partition))));
            }
        }
        // As a page of the log: so many bytes, and the next ones with the next call.
        let mut bytes = 0;
        let within = |event: &Result<Stored, Undecodable>| {
            let has_room = bytes < BATCH_BYTES_MAX;
            bytes += data_bytes(event);
            has_room
        };
        let beyond = events.len();
        let taken: Vec<_> = events.into_values().take_while(within).collect();
        let upto = if taken.len() < beyond { taken.last().map_or(upto, sequence_of) } else { upto };
        Ok((taken, upto))
    }

    async fn open(&self, name: &str) -> Result<Arc<Opened>, ArchiveError> {
        {
            let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = opened.iter().position(|(known, _)| known == name) {
                let found = opened.remove(at);
                opened.push(found.clone());
                return Ok(found.1);
            }
        }
        let fetching = async {
            let mut object = self.bucket().await?.open(name).await.map_err(failed)?;
            let mut bytes = Vec::new();
            loop {
                let pieces = object.next().await.map_err(torn(name))?;
                if pieces.is_empty() {
                    return Ok(bytes);
                }
                for piece in pieces {
                    bytes.extend_from_slice(&piece);
                }
            }
        };
        let bytes = timeout(TRANSFER_MAX, fetching).await.map_err(failed)??;
        let opened = tokio::task::spawn_blocking(move || unpack(&bytes)).await.map_err(failed)?;
        let opened = Arc::new(opened.map_err(torn(name))?);
        let mut all = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((name.to_owned(), Arc::clone(&opened)));
        let mut bytes: usize = all.iter().map(|(_, opened)| opened.bytes()).sum();
        while bytes > OPENED_BYTES_MAX && all.len() > 1 {
            bytes -= all.remove(0).1.bytes();
        }
        Ok(opened)
    }

    /// Puts whole stories into one object and reads it back; answers with its name.
    async fn put(&self, partition: u16, stories: &[Whole]) -> Result<String, ArchiveError> {
        let whole =
            |story: &Whole| story.events.iter().map(|raw| Kept::of(story.order_id, raw)).collect::<Vec<_>>();
        let mut events: Vec<Kept> = stories.iter().flat_map(whole).collect();
        events.sort_by_key(|kept| kept.sequence);
        let mut orders: Vec<u64> = stories.iter().map(|story| mark(story.order_id)).collect();
        orders.sort_unstable();
        let at = |kept: Option<&Kept>| kept.map_or(0, |kept| kept.sequence);
        let (first, last) = (at(events.first()), at(events.last()));
        let sequences: Vec<u64> = events.iter().map(|kept| kept.sequence).collect();
        let (stretches, events_in) = (stretches(&sequences), events.len() as u64);
        let about = About { partition, first, last, events: events_in, stretches, orders };
        let name = format!("{partition}-{first}-{last}-{}", &Uuid::new_v4().simple().to_string()[..8]);
        let meta = ObjectMetadata {
            name: name.clone(),
            metadata: HashMap::from([(ABOUT.to_owned(), serde_json::to_string(&about).map_err(failed)?)]),
            ..ObjectMetadata::default()
        };
        let bytes =
            tokio::task::spawn_blocking(move || pack(&events)).await.map_err(failed)?.map_err(failed)?;
        let bucket = self.bucket().await?;
        let mut bytes = bytes.as_slice();
        timeout(TRANSFER_MAX, bucket.put(meta, &mut bytes)).await.map_err(failed)?.map_err(failed)?;
        Ok(name)
    }

    /// Checks that an object reads, and that it has whole orders: those that it says, each up to its last event.
    pub async fn check(&self, name: &str, about: &About) -> Result<(), ArchiveError> {
        let events = self.open(name).await?.all().map_err(torn(name))?;
        let newest: BTreeMap<OrderId, &Kept> = events.iter().map(|kept| (kept.order_id, kept)).collect();
        let mut marks: Vec<u64> = newest.keys().map(|order_id| mark(*order_id)).collect();
        marks.sort_unstable();
        if marks != about.orders || events.len() as u64 != about.events {
            return Err(torn(name)("it has other orders, or events, than it says"));
        }
        for (order_id, kept) in newest {
            let last = kept.stored(about.partition).map_err(torn(name))?;
            if !matches!(last.recorded.event, Event::Saga(SagaEvent::OrderArchived(_))) {
                return Err(torn(name)(format!("the story of order {order_id} has no end")));
            }
        }
        Ok(())
    }

    /// Checks that an object has these stories exactly as the log had them.
    async fn verify(&self, name: &str, stories: &[Whole]) -> Result<(), ArchiveError> {
        let events = self.open(name).await?.all().map_err(torn(name))?;
        let mut kept: HashMap<OrderId, Vec<&Kept>> = HashMap::new();
        for event in &events {
            kept.entry(event.order_id).or_default().push(event);
        }
        for Whole { order_id, events } in stories {
            let kept = kept.remove(order_id).unwrap_or_default();
            let is_whole = kept.len() == events.len()
                && kept.iter().zip(events).all(|(kept, raw)| **kept == Kept::of(*order_id, raw));
            if !is_whole {
                return Err(ArchiveError::Differs { name: name.to_owned(), order_id: *order_id });
            }
        }
        Ok(())
    }
}

async fn bucket(connection: &Connection) -> Result<Bucket, ArchiveError> {
    Bucket::find(connection, BUCKET).await.map_err(failed)?.ok_or(ArchiveError::Missing)
}

impl EventLog {
    /// The archive of this log, if its old orders are archived.
    pub fn archive(&self) -> Result<&Archive, ArchiveError> {
        self.archive.as_deref().ok_or(ArchiveError::Kept)
    }

    /// An order's story as the log itself has it; `None` if it has nothing of it.
    pub async fn whole(&self, order_id: OrderId) -> Result<Option<Whole>, LoadError> {
        let events = self.load_raw(order_id, 0, None).await?;
        Ok((!events.is_empty()).then_some(Whole { order_id, events }))
    }

    /// Makes sure that the archive has these stories of a partition, as the log has them. They must not grow any more.
    pub async fn archive_whole(&self, partition: u16, stories: &[Whole]) -> Result<(), ArchiveError> {
        let archive = self.archive()?;
        let (mut there, mut missing): (HashMap<String, Vec<Whole>>, Vec<Whole>) = Default::default();
        let objects = archive.objects().await?;
        for story in stories {
            let of = |(_, about): &&(String, About)| {
                about.partition == partition && about.may_hold(story.order_id)
            };
            match objects.iter().find(of) {
                Some((name, _)) => there.entry(name.clone()).or_default().push(story.clone()),
                None => missing.push(story.clone()),
            }
        }
        // What was read of an order goes into the archive for good, so it must not lack an event.
        let counting = missing.iter().map(|story| self.confirm_whole(story.order_id, story.events()));
        stream::iter(counting).buffer_unordered(COUNTED_AT_A_TIME).try_collect::<()>().await?;
        if !missing.is_empty() {
            let name = archive.put(partition, &missing).await?;
            there.insert(name, missing);
        }
        for (name, stories) in there {
            archive.verify(&name, &stories).await?;
        }
        Ok(())
    }

    /// Whether the log has so many events of an order, as the partition's leader counts them.
    async fn confirm_whole(&self, order_id: OrderId, events: usize) -> Result<(), ArchiveError> {
        let partition = order_id.partition(self.partitions());
        let jetstream = &self.broker.shared.jetstream;
        let stream = jetstream.get_stream_no_info(subject::stream(partition)).await.map_err(failed)?;
        let counts = stream.info_with_subjects(subject::order(partition, order_id)).await.map_err(failed)?;
        let counts: Vec<(String, usize)> = counts.try_collect().await.map_err(failed)?;
        let there = counts.iter().map(|(_, count)| count).sum();
        if there == events { Ok(()) } else { Err(ArchiveError::NotWhole { order_id, there, events }) }
    }

    /// Takes a story of so many events out of the log that has been in the archive for [`KNOWN_AFTER`].
    pub async fn remove_archived(&self, order_id: OrderId, events: usize) -> Result<(), ArchiveError> {
        let partition = order_id.partition(self.partitions());
        let stream = self
            .broker
            .shared
            .jetstream
            .get_stream_no_info(subject::stream(partition))
            .await
            .map_err(failed)?;
        self.confirm_whole(order_id, events).await?;
        let purged = stream.purge().filter(subject::order(partition, order_id)).await.map_err(failed)?;
        if purged.purged == events as u64 {
            return Ok(());
        }
        Err(ArchiveError::Removed { order_id, removed: purged.purged, events })
    }
}

impl Whole {
    /// The events as events.
    pub fn stored(&self, partition: u16) -> Result<Vec<Stored>, Undecodable> {
        self.events.iter().map(|raw| Kept::of(self.order_id, raw).stored(partition)).collect()
    }

    /// The sequence of the oldest event.
    pub fn first(&self) -> u64 {
        self.events.first().map_or(0, |raw| raw.sequence)
    }

    /// The sequence of the newest event.
    pub fn sequence(&self) -> u64 {
        self.events.last().map_or(0, |raw| raw.sequence)
    }

    pub fn events(&self) -> usize {
        self.events.len()
    }
}
