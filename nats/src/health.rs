//! Whether the log does what it is for: takes events, and hands out its work.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_nats::jetstream::context::{ConsumerInfoError, ConsumerInfoErrorKind};

use crate::{
    broker::{Failure, Unpublished},
    log::EventLog,
    worklist::List,
};

/// Appends to a partition in a row that a connected server does not acknowledge: then the log does not take events.
const UNANSWERED_MAX: u32 = 3;
/// Without another such append for so long, it is assumed to take them again: who is asked for nothing more because of
/// this would never find out.
const BELIEVED_FOR: Duration = Duration::from_secs(30);

/// What became of the latest appends of each partition.
#[derive(Debug, Default)]
pub(crate) struct Appends(Mutex<Vec<Latest>>);

#[derive(Clone, Copy, Debug, Default)]
struct Latest {
    unanswered: u32,
    at: Option<Instant>,
    /// How often the connection was made by then.
    connects: u64,
}

impl Appends {
    pub(crate) fn note(&self, partition: u16, connects: u64, result: &Result<u64, Unpublished>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
