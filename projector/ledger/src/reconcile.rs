//! Proves the ledger: every booking is what its event says, each is balanced, and the sums are those of the log.

use std::collections::BTreeMap;

use domain::Position;
use nats::{EventLog, follow::Batch};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{Booking, Ledger, LedgerError, follow::partitions, store::Balance};

const BATCHES_WAITING_MAX: usize = 16;
/// Differences that are told in words.
const TOLD_MAX: usize = 10;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub events: u64,
    pub bookings: u64,
    /// How many bookings are missing, too many, unbalanced, or say something else than their event; and sums.
    pub differences: u64,
    /// The first of them, in words.
    pub first: Vec<String>,
    /// The ledger's sums.
    pub balances: Vec<Balance>,
    /// How far the ledger is.
    pub reached: Vec<Position>,
}

impl Report {
    fn note(&mut self, difference: String) {
        self.differences += 1;
        if self.first.len() < TOLD_MAX {
            self.first.push(difference);
        }
    }
}

/// Reads the log again as far as the ledger is booked, and compares; `seen` is told of progress in events.
pub async fn reconcile(
    log: &EventLog,
    ledger: &Ledger,
    mut seen: impl FnMut(u64),
) -> Result<Report, LedgerError> {
    let infos = partitions(log).await?;
    let reached = ledger.reached(&infos).await?;
    let mut report = Report::default();
    let mut sums: BTreeMap<(String, String), i64> = BTreeMap::new();
    let mut sides = 0;
    for (partition, up_to) in (0_u16..).zip(reached) {
        report.reached.push(Position { partition, sequence: up_to });
        let (sink, mut batches) = mpsc::channel::<Batch>(BATCHES_WAITING_MAX);
        let stop = CancellationToken::new();
        let (reading, over) = (log.clone(), stop.clone());
        let follower = tokio::spawn(async move { reading.follow(partition, 0, sink, over).await });
        let mut after = 0;
        while after < up_to {
            let batch = batches.recv().await;
            let batch = batch.ok_or(LedgerError::Shortened(Position { partition, sequence: up_to }))?;
            let mut wanted = Vec::new();
            let to = batch.upto.min(up_to).max(after);
            for event in batch.events {
                let recorded = match event {
                    Ok(stored) => stored.recorded,
                    // It is no order's, so nothing is booked.
                    Err(foreign) if foreign.order_id.is_none() => continue,
                    Err(unreadable) => return Err(unreadable.into()),
                };
                if recorded.position.sequence > up_to {
                    break;
                }
                report.events += 1;
                wanted.extend(Booking::of(&recorded));
            }
            let booked = ledger.bookings(partition, after, to).await?;
            for entry in wanted.iter().flat_map(|booking| &booking.entries) {
                *sums.entry((entry.account.clone(), entry.currency.clone())).or_default() += entry.amount;
                sides += 1;
            }
            compare(&wanted, &booked, &mut report);
            after = to;
            seen(report.events);
        }
        stop.cancel();
        drop(batches);
        // It ended because it was told to.
        drop(follower.await);
        let beyond = ledger.bookings(partition, up_to, i64::MAX.unsigned_abs()).await?;
        compare(&[], &beyond, &mut report);
    }
    totals(ledger, sums, sides, &mut report).await?;
    Ok(report)
}

fn compare(wanted: &[Booking], booked: &[Booking], report: &mut Report) {
    report.bookings += booked.len() as u64;
    let by_position = |bookings: &[Booking]| -> BTreeMap<Position, Booking> {
        bookings.iter().map(|booking| (booking.position, booking.clone())).collect()
    };
    let mut booked = by_position(booked);
    for booking in wanted {
        let Booking { position, order_id, kind, .. } = booking;
        match booked.remove(position) {
            None => report.note(format!("{position}: the {kind} of order {order_id} is not booked")),
            Some(is) if !is.is_balanced() => {
                report.note(format!("{position}: order {order_id} is booked unbalanced: {:?}", is.entries));
            }
            Some(is) if is != *booking => report.note(format!(
                "{position}: order {order_id} is booked as {:?}, and its {kind} says {:?}",
                is.entries, booking.entries
            )),
            Some(_) => {}
        }
    }
    for (position, extra) in booked {
        report.note(format!("{position}: a booking of order {} has no event", extra.order_id));
    }
}

async fn totals(
    ledger: &Ledger,
    sums: BTreeMap<(String, String), i64>,
    sides: u64,
    report: &mut Report,
) -> Result<(), LedgerError> {
    report.balances = ledger.balances().await?;
    let wanted: Vec<Balance> =
        sums.into_iter().map(|((account, currency), amount)| Balance { account, currency, amount }).collect();
    if report.balances != wanted {
        report.note(format!("the ledger's sums are {:?}, and the log's {wanted:?}", report.balances));
    }
    let booked = ledger.entries().await?;
    if booked != sides {
        report.note(format!("{booked} sides are booked, and the log has {sides}"));
    }
    Ok(())
}
