//! `payments`: the payment context's rows, those of orders that never came to stand included.

use domain::{Event, Money, OrderId, Timestamp, event::PaymentEvent};
use nats::Stored;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Part, listed, orders};

pub struct Payments;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    order_id: OrderId,
    customer_id: String,
    pub(super) amount: Money,
    pub(super) method: String,
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

impl Row {
    /// The provider's name for the charge.
    pub(super) const fn reference(&self) -> Option<&String> {
        match &self.outcome {
            Outcome::Approved { reference } => Some(reference),
            Outcome::Canceled { reference, .. } => reference.as_ref(),
            Outcome::Open | Outcome::Declined { .. } | Outcome::Deferred => None,
        }
    }

    /// What the customer has got back.
    pub(super) const fn returned(&self) -> Option<Money> {
        match &self.outcome {
            Outcome::Canceled { returned, .. } => Some(*returned),
            Outcome::Open | Outcome::Approved { .. } | Outcome::Declined { .. } | Outcome::Deferred => None,
        }
    }
}

impl Part for Payments {
    const NAME: &'static str = "payments";
    const IS_ROWS: bool = true;
    type Row = Row;

    fn place(_: &Row) -> Option<Vec<u8>> {
        Some(listed())
    }

    fn show(row: &Row) -> Value {
        let (status, reason) = match &row.outcome {
            Outcome::Open => ("requested", None),
            Outcome::Approved { .. } => ("approved", None),
            Outcome::Deferred => ("deferred", None),
            Outcome::Declined { reason } => ("declined", Some(reason)),
            Outcome::Canceled { .. } => ("canceled", None),
        };
        json!({
            "order_id": row.order_id,
            "customer_id": row.customer_id,
            "amount": row.amount,
            "method": row.method,
            "status": status,
            "reference": row.reference(),
            "reason": reason,
            "returned": row.returned(),
            "requested_at": row.requested_at,
            "updated_at": row.updated_at,
        })
    }

    fn of(order: &orders::Row) -> Option<&Row> {
        order.parts.payments.as_ref()
    }

    fn concerns(event: &Stored) -> bool {
        event.recorded.event.context() == domain::Context::Payment
    }

    fn apply(row: Option<Row>, event: &Stored) -> Option<Row> {
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
                let reference = row.as_ref().and_then(Row::reference).cloned();
                Outcome::Canceled { reference, returned: canceled.returned }
            }
        };
        row.map(|row| Row { outcome, updated_at: recorded.time, ..row })
    }
}
