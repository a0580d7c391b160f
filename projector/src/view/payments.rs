//! `payments`: the payment context's rows, those of orders that never came to stand included.

use domain::{Event, Money, OrderId, Timestamp, event::PaymentEvent};
use nats::Stored;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{View, newest_first, own_key};

pub struct Payments;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    order_id: OrderId,
    customer_id: String,
    amount: Money,
    method: String,
    outcome: Outcome,
    requested_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Outcome {
    Open,
    Approved { reference: String },
    Declined { reason: String },
    Deferred,
    Canceled { reference: Option<String>, returned: Money },
}

impl View for Payments {
    const NAME: &'static str = "payments";
    type Row = Row;

    fn keys(event: &Stored) -> Vec<Vec<u8>> {
        let is_ours = event.recorded.event.context() == domain::Context::Payment;
        own_key(is_ours, event)
    }

    fn apply(_: &[u8], row: Option<Row>, event: &Stored) -> Option<Row> {
        let recorded = &event.recorded;
        let Event::Payment(event) = &recorded.event else { return row };
        let outcome = match event {
            PaymentEvent::PaymentRequested(requested) => {
                return Some(Row {
                    order_id: recorded.order_id,
                    customer_id: requested.customer_id.clone(),
                    amount: requested.amount,
                    method: requested.method.clone(),
                    outcome: Outcome::Open,
                    requested_at: recorded.time,
                    updated_at: recorded.time,
                });
            }
            PaymentEvent::PaymentApproved(approved) => {
                Outcome::Approved { reference: approved.reference.clone() }
            }
            PaymentEvent::PaymentDeclined(declined) => Outcome::Declined { reason: declined.reason.clone() },
            PaymentEvent::PaymentDeferred(_) => Outcome::Deferred,
            PaymentEvent::PaymentCanceled(canceled) => {
                let reference = match row.as_ref().map(|row| &row.outcome) {
                    Some(Outcome::Approved { reference }) => Some(reference.clone()),
                    Some(
                        Outcome::Open
                        | Outcome::Declined { .. }
                        | Outcome::Deferred
                        | Outcome::Canceled { .. },
                    )
                    | None => None,
                };
                Outcome::Canceled { reference, returned: canceled.returned }
            }
        };
        row.map(|row| Row { outcome, updated_at: recorded.time, ..row })
    }

    fn place(row: &Row) -> Option<Vec<u8>> {
        Some(newest_first(row.requested_at, row.order_id))
    }

    fn show(row: &Row) -> Value {
        let (status, reference, reason, returned) = match &row.outcome {
            Outcome::Open => ("requested", None, None, None),
            Outcome::Approved { reference } => ("approved", Some(reference), None, None),
            Outcome::Deferred => ("deferred", None, None, None),
            Outcome::Declined { reason } => ("declined", None, Some(reason), None),
            Outcome::Canceled { reference, returned } => {
                ("canceled", reference.as_ref(), None, Some(returned))
            }
        };
        json!({
            "order_id": row.order_id,
            "customer_id": row.customer_id,
            "amount": row.amount,
            "method": row.method,
            "status": status,
            "reference": reference,
            "reason": reason,
            "returned": returned,
            "requested_at": row.requested_at,
            "updated_at": row.updated_at,
        })
    }
}
