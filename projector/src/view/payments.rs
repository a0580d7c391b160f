//! `payments`: the payment context's rows, those of orders that never came to stand included.

use domain::{Event, Money, OrderId, Timestamp, event::PaymentEvent};
use nats::Stored;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// A payment as readers see it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Payment {
    order_id: OrderId,
    customer_id: String,
    amount: Money,
    method: String,
    status: PaymentStatus,
    /// The provider's own name for the charge.
    reference: Option<String>,
    /// Why it was declined.
    reason: Option<String>,
    /// What the customer has got back.
    returned: Option<Money>,
    requested_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PaymentStatus {
    /// No payment was asked for.
    None,
    /// Begun; its outcome is not known yet.
    Requested,
    Approved,
    Declined,
    /// Given up without an answer; another may be begun.
    Deferred,
    /// Given back, or closed before anything was taken.
    Canceled,
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

    type Shown = Payment;

    fn shown(row: &Row) -> Payment {
        let (status, reason) = match &row.outcome {
            Outcome::Open => (PaymentStatus::Requested, None),
            Outcome::Approved { .. } => (PaymentStatus::Approved, None),
            Outcome::Deferred => (PaymentStatus::Deferred, None),
            Outcome::Declined { reason } => (PaymentStatus::Declined, Some(reason.clone())),
            Outcome::Canceled { .. } => (PaymentStatus::Canceled, None),
        };
        Payment {
            order_id: row.order_id,
            customer_id: row.customer_id.clone(),
            amount: row.amount,
            method: row.method.clone(),
            status,
            reference: row.reference().cloned(),
            reason,
            returned: row.returned(),
            requested_at: row.requested_at,
            updated_at: row.updated_at,
        }
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
