//! The payment context: money is asked for, taken or not, and given back.
//!
//! The provider is called between `Request` and its outcome, and before `Cancel`; the provider's idempotency key is
//! the order id, so calling twice charges or returns once.

use serde::{Deserialize, Serialize};

use crate::{
    command::Refusal,
    event::{Event, PaymentApproved, PaymentCanceled, PaymentDeclined, PaymentEvent, PaymentRequested},
    money::Money,
};

/// The payment of one order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payment {
    #[default]
    None,
    /// Intended; whether the provider took the money is not known yet.
    Requested {
        amount: Money,
    },
    Approved {
        amount: Money,
    },
    Declined,
    Canceled,
}

/// What payment may be asked to record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentCommand {
    Request(Box<PaymentRequested>),
    Approve { reference: String },
    Decline { reason: String },
    Cancel { returned: Money },
}

/// Decides about the payment; `None` means that the fact already holds.
pub fn decide(payment: Payment, command: &PaymentCommand) -> Result<Option<Event>, Refusal> {
    match command {
        PaymentCommand::Request(request) => match payment {
            Payment::None | Payment::Declined => Ok(Some((**request).clone().into())),
            Payment::Requested { .. } | Payment::Approved { .. } => Ok(None),
            Payment::Canceled => Err(Refusal::PaymentCanceled),
        },
        PaymentCommand::Approve { reference } => match payment {
            Payment::Requested { amount } => {
                Ok(Some(PaymentApproved { amount, reference: reference.clone() }.into()))
            }
            Payment::Approved { .. } => Ok(None),
            Payment::None => Err(Refusal::PaymentNotRequested),
            Payment::Declined => Err(Refusal::PaymentDeclined),
            Payment::Canceled => Err(Refusal::PaymentCanceled),
        },
        PaymentCommand::Decline { reason } => match payment {
            Payment::Requested { .. } => Ok(Some(PaymentDeclined { reason: reason.clone() }.into())),
            Payment::Declined => Ok(None),
            Payment::None => Err(Refusal::PaymentNotRequested),
            Payment::Approved { .. } => Err(Refusal::PaymentApproved),
            Payment::Canceled => Err(Refusal::PaymentCanceled),
        },
        PaymentCommand::Cancel { returned } => match payment {
            Payment::Requested { .. } | Payment::Approved { .. } => {
                Ok(Some(PaymentCanceled { returned: *returned }.into()))
            }
            Payment::None | Payment::Declined | Payment::Canceled => Ok(None),
        },
    }
}

/// The payment after a fact.
#[must_use]
pub fn evolve(_: Payment, event: &PaymentEvent) -> Payment {
    match event {
        PaymentEvent::PaymentRequested(requested) => Payment::Requested { amount: requested.amount },
        PaymentEvent::PaymentApproved(approved) => Payment::Approved { amount: approved.amount },
        PaymentEvent::PaymentDeclined(_) => Payment::Declined,
        PaymentEvent::PaymentCanceled(_) => Payment::Canceled,
    }
}
