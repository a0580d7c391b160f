//! Keeps the ledger up with the log.

use std::{collections::BTreeMap, time::Duration};

use nats::{
    EventLog,
    follow::{Batch, PartitionInfo},
};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{Booking, Ledger, LedgerError, store::Step};

/// Batches that are read ahead.
const BATCHES_WAITING_MAX: usize = 16;
/// How long the database may take for what is booked together.
const COMMIT_MAX: Duration = Duration::from_secs(30);
/// How often the database is asked whether it is there, when there is nothing to book.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Events that are booked together.
const EVENTS_MAX: usize = 5_000;

/// Describes all partitions of a log.
pub async fn partitions(log: &EventLog) -> Result<Vec<PartitionInfo>, LedgerError> {
    let mut infos = Vec::new();
    for partition in 0..log.partitions() {
        infos.push(log.partition_info(partition).await?);
    }
    Ok(infos)
}

/// Books what the log has and what comes, until `stop`.
pub async fn follow(log: &EventLog, ledger: &Ledger, stop: &CancellationToken) -> Result<(), LedgerError> {
    let infos = partitions(log).await?;
    let mut reached = ledger.checkpoints(&infos).await?;
    let (sink, mut batches) = mpsc::channel(BATCHES_WAITING_MAX);
    let over = stop.child_token();
    let mut followers = JoinSet::new();
    for (partition, after) in (0_u16..).zip(&reached) {
        let (log, sink, over, after) = (log.clone(), sink.clone(), over.clone(), *after);
        followers.spawn(async move { log.follow(partition, after, sink, over).await });
    }
    drop(sink);
    let booked = book_all(ledger, &mut batches, &mut reached).await;
    over.cancel();
    drop(batches);
    followers.join_all().await;
    booked
}

async fn book_all(
    ledger: &Ledger,
    batches: &mut mpsc::Receiver<Batch>,
    reached: &mut [u64],
) -> Result<(), LedgerError> {
    loop {
        let batch = match timeout(LOOK_EVERY, batches.recv()).await {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ok(()),
            // A database that is gone is noticed on a quiet log, too.
            Err(_) => {
                timeout(COMMIT_MAX, ledger.look()).await.map_err(|_| LedgerError::Late)??;
                continue;
            }
        };
        let mut steps = BTreeMap::new();
        let mut events = batch.events.len();
        let mut stopped = note(batch, reached, &mut steps);
        while stopped.is_ok()
            && events < EVENTS_MAX
            && let Ok(batch) = batches.try_recv()
        {
            events += batch.events.len();
            stopped = note(batch, reached, &mut steps);
        }
        let steps: Vec<Step> = steps.into_values().collect();
        timeout(COMMIT_MAX, ledger.commit(&steps)).await.map_err(|_| LedgerError::Late)??;
        for step in &steps {
            reached[usize::from(step.partition)] = step.to;
            tell(step);
        }
        // What reads is booked before what does not stops it.
        stopped?;
    }
}

/// Adds a batch to what its partition is booked on to.
fn note(batch: Batch, reached: &[u64], steps: &mut BTreeMap<u16, Step>) -> Result<(), LedgerError> {
    let (partition, mut noted) = (batch.partition, Ok(()));
    let from = reached[usize::from(partition)];
    let mut step =
        steps.remove(&partition).unwrap_or_else(|| Step { partition, from, to: from, bookings: Vec::new() });
    for event in batch.events {
        match event {
            Ok(stored) => {
                step.to = stored.recorded.position.sequence;
                step.bookings.extend(Booking::of(&stored.recorded));
            }
            // It is no order's, so there is nothing to book.
            Err(foreign) if foreign.order_id.is_none() => step.to = foreign.position.sequence,
            Err(unreadable) => {
                noted = Err(unreadable.into());
                break;
            }
        }
    }
    if noted.is_ok() {
        // Beyond the last event there may be some that left the log.
        step.to = step.to.max(batch.upto);
    }
    if step.to > from {
        steps.insert(partition, step);
    }
    noted
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and no log has 2^53 events")]
fn tell(step: &Step) {
    metrics::gauge!("twelve_ledger_position", "partition" => step.partition.to_string()).set(step.to as f64);
    metrics::counter!("twelve_ledger_bookings_total").increment(step.bookings.len() as u64);
}
