//! Keeps the ledger up with the log.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use nats::{
    EventLog,
    follow::{Batch, PartitionInfo},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{Booking, Ledger, LedgerError, store::Step};

/// Batches that are read ahead.
const BATCHES_WAITING_MAX: usize = 16;
/// How long the database may take for what is booked together; what takes longer is booked in parts.
const COMMIT_MAX: Duration = Duration::from_secs(30);
/// How often the database is asked whether it is there, when there is nothing to book.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Events that are booked together at most.
const EVENTS_MAX: usize = 5_000;

/// Describes all partitions of a log.
pub async fn partitions(log: &EventLog) -> Result<Vec<PartitionInfo>, LedgerError> {
    let mut infos = Vec::new();
    for partition in 0..log.partitions() {
        infos.push(log.partition_info(partition).await?);
    }
    Ok(infos)
}

/// Books what the log has and what comes, until `stop`. `is_up` is called whenever the ledger is known to follow: after
/// what was booked, and where there is nothing to book.
pub async fn follow(
    log: &EventLog,
    ledger: &Ledger,
    stop: &CancellationToken,
    is_up: &(dyn Fn() + Sync),
) -> Result<(), LedgerError> {
    let Some(infos) = stop.run_until_cancelled(partitions(log)).await else { return Ok(()) };
    let infos = infos?;
    let mut reached = ledger.checkpoints(&infos).await?;
    let ends: Vec<u64> = infos.iter().map(|info| info.last_sequence).collect();
    if reached == ends {
        is_up();
    }
    let (sink, mut batches) = mpsc::channel(BATCHES_WAITING_MAX);
    let over = stop.child_token();
    let mut followers = JoinSet::new();
    for (partition, after) in (0_u16..).zip(&reached) {
        let (log, sink, over, after) = (log.clone(), sink.clone(), over.clone(), *after);
        followers.spawn(async move { log.follow(partition, after, sink, over).await });
    }
    drop(sink);
    let booked = book_all(ledger, &mut batches, (&mut reached, &ends), is_up).await;
    over.cancel();
    drop(batches);
    followers.join_all().await;
    booked
}

async fn book_all(
    ledger: &Ledger,
    batches: &mut mpsc::Receiver<Batch>,
    (reached, ends): (&mut [u64], &[u64]),
    is_up: &(dyn Fn() + Sync),
) -> Result<(), LedgerError> {
    let mut together = EVENTS_MAX;
    loop {
        let batch = match timeout(LOOK_EVERY, batches.recv()).await {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ok(()),
            // A database that is gone is noticed on a quiet log, too.
            Err(_) => {
                timeout(COMMIT_MAX, ledger.look()).await.map_err(|_| LedgerError::Late)??;
                if reached.iter().zip(ends).all(|(reached, end)| reached >= end) {
                    is_up();
                }
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
        let mut steps: VecDeque<Step> = steps.into_values().collect();
        while !steps.is_empty() {
            for step in book_some(ledger, &mut steps, &mut together, COMMIT_MAX).await? {
                reached[usize::from(step.partition)] = step.to;
                tell(&step);
            }
            is_up();
        }
        // What reads is booked before what does not stops it.
        stopped?;
    }
}

/// Books the first of these steps, or a part of it, with at most so many bookings `together`, and takes them away.
/// Where the database does not do that within `limit`, half as many are tried: a slow one must not be asked for the
/// same again and again.
async fn book_some(
    ledger: &Ledger,
    steps: &mut VecDeque<Step>,
    together: &mut usize,
    limit: Duration,
) -> Result<Vec<Step>, LedgerError> {
    loop {
        let mut rest = steps.clone();
        let part = take(&mut rest, *together);
        let began = Instant::now();
        match timeout(limit, ledger.commit(&part)).await {
            Ok(committed) => {
                committed?;
                *steps = rest;
                if began.elapsed() < limit / 4 {
                    *together = together.saturating_mul(2).min(EVENTS_MAX);
                }
                return Ok(part);
            }
            Err(_) if *together > 1 => {
                *together /= 2;
                tracing::warn!(together, ?limit, "the ledger's database is slow; less is booked together");
            }
            Err(_) => return Err(LedgerError::Late),
        }
    }
}

/// Takes steps with at most so many bookings; the last may be a part of one.
fn take(steps: &mut VecDeque<Step>, mut room: usize) -> Vec<Step> {
    let mut part = Vec::new();
    while let Some(mut step) = steps.pop_front() {
        if step.bookings.len() > room {
            let bookings = step.bookings.split_off(room);
            let Some(last) = step.bookings.last().map(|booking| booking.position.sequence) else {
                steps.push_front(Step { bookings, ..step });
                break;
            };
            steps.push_front(Step { from: last, bookings, ..step });
            part.push(Step { to: last, ..step });
            break;
        }
        room -= step.bookings.len();
        part.push(step);
    }
    part
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

#[cfg(test)]
mod tests {
    use domain::{OrderId, Position};

    use super::*;
    use crate::Entry;

    const BOOKINGS: u64 = 128;

    fn booking(sequence: u64) -> Booking {
        let entry = |account: &str, amount| Entry { account: account.into(), currency: "KRW".into(), amount };
        Booking {
            position: Position { partition: 0, sequence },
            event_id: sequence.to_string(),
            order_id: OrderId::from_key("test", &sequence.to_string()),
            kind: "PaymentApproved".into(),
            reference: None,
            booked_at: "2026-01-01T00:00:00Z".into(),
            entries: vec![entry("provider", 1), entry("orders", -1)],
        }
    }

    fn step() -> Step {
        Step { partition: 0, from: 0, to: BOOKINGS + 1, bookings: (1..=BOOKINGS).map(booking).collect() }
    }

    #[test]
    fn steps_are_taken_in_parts_that_join_without_a_gap() {
        let mut steps: VecDeque<Step> = [step(), Step { partition: 1, ..step() }].into();
        let mut taken = Vec::new();
        while !steps.is_empty() {
            let part = take(&mut steps, 40);
            assert!(part.iter().map(|step| step.bookings.len()).sum::<usize>() <= 40);
            taken.extend(part);
        }
        for partition in [0, 1] {
            let of: Vec<&Step> = taken.iter().filter(|step| step.partition == partition).collect();
            assert!(of.windows(2).all(|pair| pair[0].to == pair[1].from));
            assert_eq!(
                (of.first().map(|step| step.from), of.last().map(|step| step.to)),
                (Some(0), Some(BOOKINGS + 1))
            );
            assert_eq!(of.iter().map(|step| step.bookings.len() as u64).sum::<u64>(), BOOKINGS);
        }
    }

    #[tokio::test]
    async fn a_database_that_is_too_slow_for_all_of_it_books_it_in_parts() {
        let file = std::env::temp_dir().join(format!("twelve-slow-ledger-{}.db", std::process::id()));
        let url = format!("sqlite:{}", file.display());
        let ledger = Ledger::open(&url).await.unwrap();
        let info = PartitionInfo { last_sequence: 65, first_sequence: 1, events: 65, created: "now".into() };
        ledger.checkpoints(&[info]).await.unwrap();
        // Each booking takes so long that all of them take longer than the limit, and one never does.
        for statement in [
            "CREATE TABLE numbers (number INTEGER)",
            "INSERT INTO numbers WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 800) SELECT n FROM c",
            "CREATE TABLE burnt (number INTEGER)",
            "CREATE TRIGGER slow AFTER INSERT ON ledger_bookings BEGIN INSERT INTO burnt SELECT COUNT(*) FROM numbers a, numbers b WHERE a.number <> b.number; END",
        ] {
            ledger.execute(statement).await.unwrap();
        }
        let limit = Duration::from_secs(1);
        let (mut steps, mut together) = (VecDeque::from([step()]), EVENTS_MAX);
        let mut parts = 0;
        while !steps.is_empty() {
            book_some(&ledger, &mut steps, &mut together, limit).await.unwrap();
            parts += 1;
        }
        assert!(parts > 1, "it was fast enough for all of it");
        assert_eq!(ledger.entries().await.unwrap(), 2 * BOOKINGS);
        ledger.close().await;
        for end in ["", "-wal", "-shm"] {
            drop(std::fs::remove_file(format!("{}{end}", file.display())));
        }
    }
}
