//! The orders that may be over, with their stories.
//!
//! A partition is read in its order, twice: which event is each order's newest, and then the events, an order's until
//! that one. Order by order would be dearer by far: the server looks at everything between two events of one.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use domain::{OrderId, Timestamp};
use tokio::{sync::mpsc, time::timeout};

use super::Whole;
use crate::{
    broker::{Broker, Failure, Raw},
    codec,
    connection::Connection,
    direct::{self, Got},
    log::{EventLog, LoadError},
    subject,
    topology::TopologyError,
};

/// Bytes of events' data that is kept until their orders' newest (headers take some times as much besides); orders that
/// begin beyond that are read by themselves.
const KEPT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long the next event may take to come.
const NEXT_WITHIN: Duration = Duration::from_secs(10);
/// An order that may be over, and its story as it was met.
pub struct Found {
    pub order_id: OrderId,
    met: Option<Whole>,
}

/// An event as it is met.
struct Met {
    /// `None`: what is no order's stays in the log, and is passed over.
    order_id: Option<OrderId>,
    time: Option<Timestamp>,
    raw: Raw,
    /// Events behind it.
    pending: u64,
}

/// A partition's messages from the first on.
struct Reading {
    connection: Connection,
    stream: String,
    messages: VecDeque<Got>,
    /// The sequence of the last one that was met, and how many there are behind the page.
    after: u64,
    pending: u64,
    /// How many there are, and of how many orders (what is no order's counts as one).
    count: u64,
    subjects: u64,
    /// Which partition it is, of how many.
    partition: (u16, u16),
}

impl Reading {
    async fn begin(log: &EventLog, partition: u16) -> Result<Self, Failure> {
        let name = subject::stream(partition);
        let stream = log.broker.shared.jetstream.get_stream(&name).await?;
        let state = &stream.cached_info().state;
        let (count, subjects) = (state.messages, state.subjects_count);
        let connection = log.broker.clone();
        let partition = (partition, log.partitions());
        let messages = VecDeque::new();
        Ok(Self { connection, stream: name, messages, after: 0, pending: count, count, subjects, partition })
    }

    async fn next(&mut self) -> Result<Met, Failure> {
        if self.messages.is_empty() {
            let page = direct::page(&self.connection, &self.stream, direct::ALL, self.after + 1);
            let page = timeout(NEXT_WITHIN, page).await??;
            (self.messages, self.pending) = (page.messages.into(), page.pending);
        }
        let Got { subject, raw } = self.messages.pop_front().ok_or("the log ended too soon")?;
        self.after = raw.sequence;
        let order_id = subject::order_in(&subject, self.partition.0, self.partition.1);
        let time = raw.headers.get(codec::TIME.name()).and_then(|time| time.as_str().parse().ok());
        Ok(Met { order_id, time, raw, pending: self.messages.len() as u64 + self.pending })
    }
}

impl EventLog {
    /// Sends every order that has events in the partition's stream, as soon as its newest of those was met that come
    /// before the first event that is not older than `before`; answers with how many others there are.
    pub async fn orders_before(
        &self,
        partition: u16,
        before: Timestamp,
        sink: mpsc::Sender<Found>,
    ) -> Result<u64, TopologyError> {
        let finding = async {
            let mut reading = Reading::begin(self, partition).await?;
            let newest = newest_before(&mut reading, before).await?;
            let younger = reading.subjects.saturating_sub(newest.len() as u64);
            let mut reading = Reading::begin(self, partition).await?;
            find(&mut reading, &newest, sink).await?;
            Ok(younger)
        };
        let failed = |source: Failure| TopologyError::Server { stream: subject::stream(partition), source };
        finding.await.map_err(failed)
    }

    /// The story of an order that was found, as the log has it by now; `None` if it has nothing of it.
    pub async fn up_to_date(&self, found: Found) -> Result<Option<Whole>, LoadError> {
        let Found { order_id, met } = found;
        let Some(met) = met else { return self.whole(order_id).await };
        match self.newest(order_id).await? {
            None => Ok(None),
            Some(newest) if newest.sequence == met.sequence() => Ok(Some(met)),
            Some(_) => self.whole(order_id).await,
        }
    }

    /// The story with the event at `sequence`, which was appended right after it; `None` if the log has nothing of it.
    pub async fn with_newest(&self, mut whole: Whole, sequence: u64) -> Result<Option<Whole>, LoadError> {
        match self.newest(whole.order_id).await? {
            Some(newest) if newest.sequence == sequence => {
                whole.events.push(newest);
                Ok(Some(whole))
            }
            Some(_) | None => self.whole(whole.order_id).await,
        }
    }

    async fn newest(&self, order_id: OrderId) -> Result<Option<Raw>, LoadError> {
        let partition = order_id.partition(self.partitions());
        let newest = self.broker.last(subject::stream(partition), subject::order(partition, order_id)).await;
        newest.map_err(LoadError::Unavailable)
    }
}

/// The sequence of each order's newest event in front of the first that is not older than `before`.
async fn newest_before(reading: &mut Reading, before: Timestamp) -> Result<HashMap<OrderId, u64>, Failure> {
    let mut newest = HashMap::new();
    for _ in 0..reading.count {
        let Met { order_id, time, raw, .. } = reading.next().await?;
        if time.is_some_and(|time| time >= before) {
            break;
        }
        if let Some(order_id) = order_id {
            newest.insert(order_id, raw.sequence);
        }
    }
    Ok(newest)
}

/// Sends each of these orders once its newest event is met.
async fn find(
    reading: &mut Reading,
    newest: &HashMap<OrderId, u64>,
    sink: mpsc::Sender<Found>,
) -> Result<(), Failure> {
    let Some(end) = newest.values().copied().max() else { return Ok(()) };
    // Nothing is kept of an order that is to be read by itself.
    let (mut kept, mut kept_bytes) = (HashMap::<OrderId, Option<Vec<Raw>>>::new(), 0);
    loop {
        let Met { order_id, raw, pending, .. } = reading.next().await?;
        let sequence = raw.sequence;
        if let Some(order_id) = order_id {
            let has_room = kept_bytes < KEPT_BYTES_MAX;
            if let Some(story) = kept.entry(order_id).or_insert_with(|| has_room.then(Vec::new)) {
                kept_bytes += raw.body.len();
                story.push(raw);
            }
            if newest.get(&order_id) == Some(&sequence) {
                let met = kept.remove(&order_id).flatten().map(|events| Whole { order_id, events });
                let bytes = |raw: &Raw| raw.body.len();
                kept_bytes -= met.iter().flat_map(|whole| &whole.events).map(bytes).sum::<usize>();
                if sink.send(Found { order_id, met }).await.is_err() {
                    return Ok(());
                }
            }
        }
        if sequence >= end || pending == 0 {
            return Ok(());
        }
    }
}
