//! What an event books: each amount twice, once on either side, so that all sums are zero (Pacioli's double entry).

use domain::{
    Event, Money, OrderId, Position, Recorded,
    event::{PaymentApproved, PaymentCanceled, PaymentEvent},
};

/// What the payment provider holds for us: an asset, which debits raise.
pub const PROVIDER: &str = "provider";
/// What customers have paid for their orders: we owe it, in goods or in money.
pub const ORDERS: &str = "orders";

/// One side of a booking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub account: String,
    pub currency: String,
    /// Minor units; debits are positive, credits negative.
    pub amount: i64,
}

/// What one event books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booking {
    pub position: Position,
    pub event_id: String,
    pub order_id: OrderId,
    /// The event's type.
    pub kind: String,
    /// The provider's name for the charge.
    pub reference: Option<String>,
    /// When it was decided, RFC 3339.
    pub booked_at: String,
    /// By account.
    pub entries: Vec<Entry>,
}

impl Booking {
    /// What an event books if the ledger has booked all of the order before it; `None` if no money moved. What is
    /// booked in the end is [bounded](Self::within) by what is held.
    pub fn of(recorded: &Recorded) -> Option<Self> {
        let Event::Payment(event) = &recorded.event else { return None };
        let (moved, reference) = match event {
            PaymentEvent::PaymentApproved(PaymentApproved { amount, reference }) => {
                (*amount, Some(storable(reference)))
            }
            PaymentEvent::PaymentCanceled(PaymentCanceled { returned }) => {
                (Money { amount: -returned.amount, ..*returned }, None)
            }
            PaymentEvent::PaymentRequested(_)
            | PaymentEvent::PaymentDeclined(_)
            | PaymentEvent::PaymentDeferred(_) => return None,
        };
        if moved.amount == 0 {
            return None;
        }
        let side = |account: &str, amount| Entry {
            account: account.to_owned(),
            currency: moved.currency.to_string(),
            amount,
        };
        Some(Self {
            position: recorded.position,
            event_id: recorded.event_id.to_string(),
            order_id: recorded.order_id,
            kind: recorded.event.type_name().to_owned(),
            reference,
            booked_at: recorded.time.to_string(),
            entries: vec![side(ORDERS, -moved.amount), side(PROVIDER, moved.amount)],
        })
    }

    /// The booking where so much of the order's money is held (minor units): no more goes back than is held. `None` if
    /// nothing is left of it.
    ///
    /// A provider may give back what the log never called paid: a charge whose answer was lost, whose key the saga then
    /// closed. Taking and giving back were one act for the log, and neither is booked.
    #[must_use]
    pub fn within(mut self, held: i64) -> Option<Self> {
        let moved = self.entries.iter().find(|entry| entry.account == PROVIDER)?.amount;
        let moved = moved.max(-held.max(0));
        for entry in &mut self.entries {
            entry.amount = if entry.account == PROVIDER { moved } else { -moved };
        }
        (moved != 0).then_some(self)
    }

    /// Whether money goes back.
    pub fn is_return(&self) -> bool {
        self.entries.iter().any(|entry| entry.account == PROVIDER && entry.amount < 0)
    }

    /// Whether both sides are the same amount.
    pub fn is_balanced(&self) -> bool {
        let sum: i128 = self.entries.iter().map(|entry| i128::from(entry.amount)).sum();
        self.entries.len() == 2 && sum == 0 && self.entries[0].currency == self.entries[1].currency
    }
}

/// A text as every database stores it: PostgreSQL takes no NUL, and the log may have one from before texts of providers
/// were checked.
pub fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use domain::{CommandId, EventId, Timestamp};

    use super::*;

    fn recorded(event_type: &str, data: serde_json::Value) -> Recorded {
        let order_id = OrderId::from_key("t", "1");
        Recorded {
            order_id,
            position: Position { partition: 0, sequence: 7 },
            event_id: EventId::from_command(CommandId::from_key("t", order_id, "1"), event_type),
            time: Timestamp::UNIX_EPOCH,
            command_id: CommandId::from_key("t", order_id, "1"),
            fingerprint: None,
            event: Event::deserialize_data(event_type, data).unwrap().unwrap(),
        }
    }

    #[test]
    fn money_that_was_taken_and_money_that_went_back_are_booked_on_both_sides() {
        let won = |amount: i64| serde_json::json!({ "amount": amount, "currency": "KRW" });
        let approved = serde_json::json!({ "amount": won(9_000), "reference": "charge-1" });
        let taken = Booking::of(&recorded("PaymentApproved", approved)).unwrap();
        let back = serde_json::json!({ "returned": won(9_000) });
        let back = Booking::of(&recorded("PaymentCanceled", back)).unwrap();
        let on = |booking: &Booking, account| {
            booking.entries.iter().find(|entry| entry.account == account).unwrap().amount
        };
        assert_eq!((on(&taken, PROVIDER), on(&taken, ORDERS)), (9_000, -9_000));
        assert_eq!((on(&back, PROVIDER), on(&back, ORDERS)), (-9_000, 9_000));
        assert!(taken.is_balanced() && back.is_balanced());
    }

    #[test]
    fn no_more_goes_back_than_is_held() {
        let back = serde_json::json!({ "returned": { "amount": 9_000, "currency": "KRW" } });
        let back = Booking::of(&recorded("PaymentCanceled", back)).unwrap();
        let of = |held| back.clone().within(held).map(|booking| booking.entries[1].amount);
        assert_eq!(of(9_000), Some(-9_000));
        assert_eq!(of(4_000), Some(-4_000));
        assert_eq!((of(0), of(-1)), (None, None), "the log never called it paid");
        let part = back.within(4_000).unwrap();
        assert!(part.is_balanced() && part.is_return());
    }

    #[test]
    fn a_reference_that_a_database_cannot_store_is_booked_without_what_it_cannot() {
        let approved =
            serde_json::json!({ "amount": { "amount": 1, "currency": "KRW" }, "reference": "a\0b" });
        let taken = Booking::of(&recorded("PaymentApproved", approved)).unwrap();
        assert_eq!(taken.reference.as_deref(), Some("a\u{fffd}b"));
    }

    #[test]
    fn where_no_money_moved_nothing_is_booked() {
        let nothing = serde_json::json!({ "returned": { "amount": 0, "currency": "KRW" } });
        assert_eq!(Booking::of(&recorded("PaymentCanceled", nothing)), None);
        assert_eq!(Booking::of(&recorded("PaymentDeferred", serde_json::json!({}))), None);
        assert_eq!(Booking::of(&recorded("OrderCompleted", serde_json::json!({}))), None);
    }
}
