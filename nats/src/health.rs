//! Whether the log does what it is for: takes events, and hands out its work.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::jetstream::context::{ConsumerInfoError, ConsumerInfoErrorKind};
use domain::OrderId;

use tokio::time::Instant;

use crate::{
    broker::{Broker, Failure, Unpublished},
    log::EventLog,
    worklist::List,
};

/// Appends to a partition in a row that a connected server does not acknowledge: then the log does not take events.
const UNANSWERED_MAX: u32 = 3;
/// Without another such append for so long, it is assumed to take them again: who is asked for nothing more because of
/// this would never find out.
const BELIEVED_FOR: Duration = Duration::from_secs(30);

/// What became of the latest appends of each partition, and the work that waits for it.
#[derive(Debug, Default)]
pub(crate) struct Appends {
    latest: Mutex<Vec<Latest>>,
    /// By partition and number, since when.
    under_way: Mutex<BTreeMap<(u16, u64), Instant>>,
    begun: AtomicU64,
}

/// Work on the log that is under way until this is dropped.
#[must_use]
pub struct UnderWay<'a> {
    all: &'a Appends,
    key: (u16, u64),
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.all.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Latest {
    unanswered: u32,
    at: Option<Instant>,
    /// How often the connection was made by then.
    connects: u64,
}

impl Appends {
    fn begin(&self, partition: u16) -> UnderWay<'_> {
        let key = (partition, self.begun.fetch_add(1, Ordering::Relaxed));
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Instant::now());
        UnderWay { all: self, key }
    }

    /// Whether work on the partition is under way for so long, or the latest append over the connection that was made
    /// so often was not acknowledged.
    fn waits(&self, partition: u16, connects: u64, this_long: Duration) -> bool {
        let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        // The first is the oldest.
        let oldest = under_way.range((partition, 0)..=(partition, u64::MAX)).next();
        if oldest.is_some_and(|(_, since)| since.elapsed() >= this_long) {
            return true;
        }
        drop(under_way);
        let all = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = all.get(usize::from(partition)).copied().unwrap_or_default();
        latest.unanswered > 0
            && latest.connects == connects
            && latest.at.is_some_and(|at| at.elapsed() < BELIEVED_FOR)
    }

    pub(crate) fn note(&self, partition: u16, connects: u64, result: &Result<u64, Unpublished>) {
        let mut all = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let partition = usize::from(partition);
        if all.len() <= partition {
            all.resize(partition + 1, Latest::default());
        }
        let Some(latest) = all.get_mut(partition) else { return };
        match result {
            Ok(_) => *latest = Latest::default(),
            Err(Unpublished::Unanswered(_)) if latest.connects == connects => {
                latest.unanswered += 1;
                latest.at = Some(Instant::now());
            }
            Err(Unpublished::Unanswered(_)) => {
                *latest = Latest { unanswered: 1, at: Some(Instant::now()), connects };
            }
            // The server decided: it looks at what it has, and writes nothing.
            Err(Unpublished::Conflict { .. } | Unpublished::Refused(_)) => {}
        }
    }

    /// The partitions that do not take events, over the connection that was made so often.
    fn stuck(&self, connects: u64) -> Vec<u16> {
        let all = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let is_stuck = |latest: &Latest| {
            latest.connects == connects
                && latest.unanswered >= UNANSWERED_MAX
                && latest.at.is_some_and(|at| at.elapsed() < BELIEVED_FOR)
        };
        (0..).zip(all.iter()).filter(|(_, latest)| is_stuck(latest)).map(|(partition, _)| partition).collect()
    }
}

/// A work queue that hands nothing out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueFault {
    pub list: List,
    pub partition: u16,
    /// It is missing, or paused.
    pub why: &'static str,
}

impl<B: Broker> EventLog<B> {
    /// Counts reading an order and appending to it as under way, until what this answers with is dropped.
    pub fn under_way(&self, order_id: OrderId) -> UnderWay<'_> {
        self.appends.begin(order_id.partition(self.partitions()))
    }

    /// Whether [work](Self::under_way) of this process on the order's partition has waited for the log for so long, or
    /// an append has just done so in vain.
    pub fn keeps_waiting(&self, order_id: OrderId, this_long: Duration) -> bool {
        let partition = order_id.partition(self.partitions());
        self.appends.waits(partition, self.broker.connects(), this_long)
    }
}

impl EventLog {
    /// Why the log does not take events, if it does not although the server is there.
    pub fn append_fault(&self) -> Option<String> {
        let stuck = self.appends.stuck(*self.broker.shared.connects.borrow());
        (!stuck.is_empty()).then(|| {
            let names: Vec<String> = stuck.into_iter().map(crate::subject::stream).collect();
            format!("{} acknowledges no event although nats-server is connected", names.join(", "))
        })
    }

    /// The work queues of these lists that are missing or paused.
    pub async fn queue_faults(&self, lists: &[List]) -> Result<Vec<QueueFault>, Failure> {
        let mut faults = Vec::new();
        for list in lists.iter().copied() {
            for partition in 0..self.partitions() {
                let why = self.queue_fault(list, partition).await?;
                faults.extend(why.map(|why| QueueFault { list, partition, why }));
            }
        }
        Ok(faults)
    }

    async fn queue_fault(&self, list: List, partition: u16) -> Result<Option<&'static str>, Failure> {
        let stream = self.broker.shared.jetstream.get_stream_no_info(list.stream(partition)).await?;
        match stream.consumer_info(list.consumer(partition)).await {
            Ok(info) if info.paused => Ok(Some("paused")),
            Ok(_) => Ok(None),
            Err(error) if is_missing(&error) => Ok(Some("missing")),
            Err(error) => Err(error.into()),
        }
    }
}

impl std::fmt::Display for QueueFault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (stream, consumer) = (self.list.stream(self.partition), self.list.consumer(self.partition));
        write!(formatter, "work queue {stream}/{consumer} is {}", self.why)
    }
}

pub(crate) fn is_missing(error: &ConsumerInfoError) -> bool {
    matches!(error.kind(), ConsumerInfoErrorKind::NotFound | ConsumerInfoErrorKind::StreamNotFound)
}
