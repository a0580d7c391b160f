//! Proves the ledger by a rule of its own: what is booked is looked at beside the facts of the log, and not beside what
//! the booking rule would make of them.
//!
//! Three questions. Is each booking the whole or a part of a fact, balanced, between the two accounts? Is there, of
//! each order, never less than nothing held? Is there, of each order, in the end exactly what the provider kept?

use std::collections::{BTreeMap, HashMap};

use domain::{
    Event, Money, OrderId, Position, Recorded,
    event::{PaymentApproved, PaymentCanceled, PaymentEvent},
};
use nats::{EventLog, follow::Batch};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    Booking, Ledger, LedgerError,
    book::{ORDERS, PROVIDER, storable},
    follow::partitions,
    store::{Account, Balance},
};

const BATCHES_WAITING_MAX: usize = 16;
/// Differences that are told in words.
const TOLD_MAX: usize = 10;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub events: u64,
    pub bookings: u64,
    /// How many bookings are missing, too many, unbalanced, or say something else than their event; and orders of which
    /// the ledger has another sum than the log, or had less than nothing.
    pub differences: u64,
    /// The first of them, in words.
    pub first: Vec<String>,
    /// The ledger's sums.
    pub balances: Vec<Balance>,
    /// How far the ledger is.
    pub reached: Vec<Position>,
    /// Events that the log has beyond that.
    pub behind: u64,
}

impl Report {
    /// Adds a difference.
    pub fn note(&mut self, difference: String) {
        self.differences += 1;
        if self.first.len() < TOLD_MAX {
            self.first.push(difference);
        }
    }
}

/// What the log says of an order's money.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrderMoney {
    /// Attempts to pay.
    pub attempts: u32,
    /// The attempt that was approved, and what was taken by it.
    approved: Option<(u32, Money)>,
    /// What the provider gave back when it closed the payment.
    returned: Option<Money>,
    /// Whether the newest attempt has no outcome yet.
    pub is_open: bool,
}

impl OrderMoney {
    /// The money after one more fact.
    pub fn add(&mut self, event: &Event) {
        let Event::Payment(event) = event else { return };
        match event {
            PaymentEvent::PaymentRequested(_) => self.attempts += 1,
            PaymentEvent::PaymentApproved(PaymentApproved { amount, .. }) => {
                self.approved = Some((self.attempts, *amount));
            }
            PaymentEvent::PaymentCanceled(PaymentCanceled { returned }) => self.returned = Some(*returned),
            PaymentEvent::PaymentDeclined(_) | PaymentEvent::PaymentDeferred(_) => {}
        }
        self.is_open = matches!(event, PaymentEvent::PaymentRequested(_) | PaymentEvent::PaymentDeferred(_));
    }

    /// What the provider still has of the order's money, and under which attempt: what was approved, less what came
    /// back. What came back of an attempt that was never approved was taken and given back unseen.
    pub fn kept(&self) -> Option<(u32, Money)> {
        let (attempt, taken) = self.approved?;
        let returned = self.returned.map_or(0, |returned| returned.amount);
        let left = Money { amount: taken.amount - returned, ..taken };
        (left.amount != 0).then_some((attempt, left))
    }
}

/// A fact that moves money.
struct Fact {
    recorded: Recorded,
    /// Minor units; what comes back is negative.
    moved: Money,
    reference: Option<String>,
}

impl Fact {
    fn of(recorded: &Recorded) -> Option<Self> {
        let Event::Payment(event) = &recorded.event else { return None };
        let (moved, reference) = match event {
            PaymentEvent::PaymentApproved(approved) => (approved.amount, Some(storable(&approved.reference))),
            PaymentEvent::PaymentCanceled(canceled) => {
                (Money { amount: -canceled.returned.amount, ..canceled.returned }, None)
            }
            PaymentEvent::PaymentRequested(_)
            | PaymentEvent::PaymentDeclined(_)
            | PaymentEvent::PaymentDeferred(_) => return None,
        };
        (moved.amount != 0).then(|| Self { recorded: recorded.clone(), moved, reference })
    }

    /// What is wrong with a booking of it.
    fn contradicts(&self, booking: &Booking) -> Option<String> {
        let Recorded { order_id, event_id, event, time, .. } = &self.recorded;
        let says = |what: &str| Some(format!("order {order_id} is booked {what}: {:?}", booking.entries));
        let of = |account: &str| booking.entries.iter().find(|entry| entry.account == account);
        let (Some(provider), Some(orders)) = (of(PROVIDER), of(ORDERS)) else {
            return says("in other accounts than provider and orders");
        };
        if booking.entries.len() != 2
            || i128::from(provider.amount) + i128::from(orders.amount) != 0
            || provider.currency != orders.currency
        {
            return says("unbalanced");
        }
        let is_part = if self.moved.amount > 0 {
            provider.amount == self.moved.amount
        } else {
            (self.moved.amount..0).contains(&provider.amount)
        };
        let names_it = booking.event_id == event_id.to_string()
            && booking.order_id == *order_id
            && booking.kind == event.type_name()
            && booking.booked_at == time.to_string()
            && booking.reference == self.reference
            && provider.currency == self.moved.currency.to_string();
        if is_part && names_it {
            return None;
        }
        says(&format!("as something else than its {}, which moved {}", event.type_name(), self.moved))
    }
}

/// Reads the log again as far as the ledger is booked, and compares; `seen` is told of progress in events, and `each`
/// of each order's money, a partition at a time.
pub async fn reconcile(
    log: &EventLog,
    ledger: &Ledger,
    mut seen: impl FnMut(u64),
    mut each: impl FnMut(OrderId, OrderMoney),
) -> Result<Report, LedgerError> {
    let infos = partitions(log).await?;
    let reached = ledger.reached(&infos).await?;
    let mut report = Report::default();
    for ((partition, up_to), info) in (0_u16..).zip(reached).zip(&infos) {
        report.reached.push(Position { partition, sequence: up_to });
        report.behind += info.last_sequence.saturating_sub(up_to);
        let orders = facts(log, ledger, (partition, up_to), &mut report, &mut seen).await?;
        for extra in ledger.bookings(partition, up_to, i64::MAX.unsigned_abs()).await? {
            report.bookings += 1;
            report.note(format!("{}: a booking of order {} has no event", extra.position, extra.order_id));
        }
        sums(ledger, partition, &orders, &mut report).await?;
        for (order_id, money) in orders {
            each(order_id, money);
        }
    }
    report.balances = ledger.balances().await?;
    Ok(report)
}

/// Holds each booking of a partition against its fact; answers with the money of all orders.
async fn facts(
    log: &EventLog,
    ledger: &Ledger,
    (partition, up_to): (u16, u64),
    report: &mut Report,
    seen: &mut impl FnMut(u64),
) -> Result<HashMap<OrderId, OrderMoney>, LedgerError> {
    let (sink, mut batches) = mpsc::channel::<Batch>(BATCHES_WAITING_MAX);
    let stop = CancellationToken::new();
    let (reading, over) = (log.clone(), stop.clone());
    let follower = tokio::spawn(async move { reading.follow(partition, 0, sink, over).await });
    let mut orders: HashMap<OrderId, OrderMoney> = HashMap::new();
    let mut after = 0;
    while after < up_to {
        let batch = batches.recv().await;
        let batch = batch.ok_or(LedgerError::Shortened(Position { partition, sequence: up_to }))?;
        let mut facts = BTreeMap::new();
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
            if matches!(recorded.event, Event::Payment(_)) {
                orders.entry(recorded.order_id).or_default().add(&recorded.event);
            }
            facts.extend(Fact::of(&recorded).map(|fact| (recorded.position.sequence, fact)));
        }
        compare(&facts, ledger.bookings(partition, after, to).await?, report);
        after = to;
        seen(report.events);
    }
    stop.cancel();
    drop(batches);
    // It ended because it was told to.
    drop(follower.await);
    Ok(orders)
}

fn compare(facts: &BTreeMap<u64, Fact>, booked: Vec<Booking>, report: &mut Report) {
    let mut missing: BTreeMap<u64, &Fact> = facts.iter().map(|(at, fact)| (*at, fact)).collect();
    for booking in booked {
        report.bookings += 1;
        let position = booking.position;
        match missing.remove(&position.sequence) {
            None => report.note(format!("{position}: a booking of order {} has no event", booking.order_id)),
            Some(fact) => {
                if let Some(wrong) = fact.contradicts(&booking) {
                    report.note(format!("{position}: {wrong}"));
                }
            }
        }
    }
    // Money that came back and is not booked shows in the sum of its order, unless none was booked before.
    for fact in missing.into_values().filter(|fact| fact.moved.amount > 0) {
        let Recorded { order_id, position, event, .. } = &fact.recorded;
        report.note(format!("{position}: the {} of order {order_id} is not booked", event.type_name()));
    }
}

/// Holds what is booked of each order against what the provider kept.
async fn sums(
    ledger: &Ledger,
    partition: u16,
    orders: &HashMap<OrderId, OrderMoney>,
    report: &mut Report,
) -> Result<(), LedgerError> {
    let mut kept: HashMap<String, Money> =
        orders.iter().filter_map(|(order_id, money)| Some((order_id.to_string(), money.kept()?.1))).collect();
    let mut wrong = Vec::new();
    ledger
        .orders(partition, |Account { order_id, balance, lowest, highest }| {
            let Balance { account, currency, amount } = &balance;
            let is_provider = account == PROVIDER;
            if (is_provider && lowest < 0) || (!is_provider && highest > 0) {
                wrong.push(format!(
                    "order {order_id}: more is booked as given back in {account} than was taken"
                ));
            }
            let wanted = if is_provider {
                kept.remove(&order_id)
            } else {
                // The other side of it, which each booking was held against.
                return;
            };
            let is_right = match wanted {
                Some(wanted) => wanted.amount == *amount && wanted.currency.to_string() == *currency,
                None => *amount == 0,
            };
            if !is_right {
                let wanted = wanted.map_or_else(|| "nothing".to_owned(), |wanted| wanted.to_string());
                wrong.push(format!(
                    "order {order_id}: the ledger holds {amount} {currency}, and the log says {wanted}"
                ));
            }
        })
        .await?;
    wrong.extend(kept.into_iter().map(|(order_id, wanted)| {
        format!("order {order_id}: the ledger holds nothing, and the log says {wanted}")
    }));
    for wrong in wrong {
        report.note(wrong);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(events: &[(&str, serde_json::Value)]) -> OrderMoney {
        let mut money = OrderMoney::default();
        for (kind, data) in events {
            money.add(&Event::deserialize_data(kind, data.clone()).unwrap().unwrap());
        }
        money
    }

    #[test]
    fn what_the_provider_kept_is_what_was_approved_and_did_not_come_back() {
        let won = |amount: i64| serde_json::json!({ "amount": amount, "currency": "KRW" });
        let approved = ("PaymentApproved", serde_json::json!({ "amount": won(9), "reference": "r" }));
        let back = |amount| ("PaymentCanceled", serde_json::json!({ "returned": won(amount) }));
        let kept = |events: &[_]| money(events).kept().map(|(_, money)| money.amount);
        assert_eq!(kept(std::slice::from_ref(&approved)), Some(9));
        assert_eq!(kept(&[approved.clone(), back(9)]), None);
        assert_eq!(kept(&[approved, back(4)]), Some(5));
        assert_eq!(kept(&[back(9)]), None, "taken and given back unseen");
    }
}
