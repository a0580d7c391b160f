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
    /// What an event books; `None` if no money moved.
    pub fn of(recorded: &Recorded) -> Option<Self> {
        let Event::Payment(event) = &recorded.event else { return None };
        let (moved, reference) = match event {
            PaymentEvent::PaymentApproved(PaymentApproved { amount, reference }) => {
                (*amount, Some(reference.clone()))
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

    /// Whether both sides are the same amount.
    pub fn is_balanced(&self) -> bool {
        let sum: i128 = self.entries.iter().map(|entry| i128::from(entry.amount)).sum();
        self.entries.len() == 2 && sum == 0 && self.entries[0].currency == self.entries[1].currency
    }
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
    fn where_no_money_moved_nothing_is_booked() {
        let nothing = serde_json::json!({ "returned": { "amount": 0, "currency": "KRW" } });
        assert_eq!(Booking::of(&recorded("PaymentCanceled", nothing)), None);
        assert_eq!(Booking::of(&recorded("PaymentDeferred", serde_json::json!({}))), None);
        assert_eq!(Booking::of(&recorded("OrderCompleted", serde_json::json!({}))), None);
    }
}
