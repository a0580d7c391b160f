//! The payment context: money is asked for, taken or not, and given back.
//!
//! The provider is called between `Request` and its outcome, and before `Cancel`, each attempt to pay under its own key
//! ([`provider_key`]): calling twice charges once, and what was canceled under a key is never charged under it.

use serde::{Deserialize, Serialize};

use crate::{
    command::Refusal,
    event::{
        Event, PaymentApproved, PaymentCanceled, PaymentDeclined, PaymentDeferred, PaymentEvent,
        PaymentRequested,
    },
    id::OrderId,
    money::Money,
    order::Order,
};

/// The payment of one order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payment {
    #[default]
    None,
    /// Intended; whether the provider took the money is not known yet.
    Requested {
        amount: Money,
        /// Counted from 1: a declined attempt may be followed by another.
        attempt: u32,
    },
    Approved {
        amount: Money,
        attempt: u32,
    },
    Declined {
        attempt: u32,
    },
    /// Given up; to be closed with the provider.
    Deferred {
        amount: Money,
        attempt: u32,
    },
    Canceled,
}

impl Payment {
    /// The number of the newest attempt, counted from 1; 0 if there is none.
    pub const fn attempt(self) -> u32 {
        match self {
            Self::None | Self::Canceled => 0,
            Self::Requested { attempt, .. }
            | Self::Approved { attempt, .. }
            | Self::Declined { attempt }
            | Self::Deferred { attempt, .. } => attempt,
        }
    }

    /// Whether the log has given an attempt up: no approval of it is recorded any more, so its key may be closed.
    pub fn has_given_up(self, of: u32) -> bool {
        matches!(self, Self::Deferred { attempt, .. } if attempt == of)
    }
}

/// The name under which the provider knows an attempt to pay an order.
pub fn provider_key(order_id: OrderId, attempt: u32) -> String {
    format!("{order_id}.{attempt}")
}

/// What the provider says of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Charge {
    Approved { reference: String },
    Declined { reason: String },
}

impl Charge {
    /// The outcome, to be recorded.
    pub fn outcome_of(self, attempt: u32) -> PaymentCommand {
        match self {
            Self::Approved { reference } => PaymentCommand::Approve { attempt, reference },
            Self::Declined { reason } => PaymentCommand::Decline { attempt, reason },
        }
    }

    /// Whether the money must go straight back, because the log did not take the outcome.
    pub const fn is_owed_when_refused(&self) -> bool {
        matches!(self, Self::Approved { .. })
    }
}

/// What is recorded once the provider has closed an attempt and given back what it had taken.
///
/// An order that stands and was deferred can be paid anew; of any other, nothing more is paid.
pub fn closed(payment: Payment, order: Order, returned: Money) -> PaymentCommand {
    match payment {
        Payment::Deferred { attempt, .. } if order == Order::Placed => PaymentCommand::Decline {
            attempt,
            reason: "the payment provider gave no answer that could be used".into(),
        },
        Payment::None
        | Payment::Requested { .. }
        | Payment::Approved { .. }
        | Payment::Declined { .. }
        | Payment::Deferred { .. }
        | Payment::Canceled => PaymentCommand::Cancel { returned },
    }
}

/// What payment may be asked to record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentCommand {
    Request(Box<PaymentRequested>),
    Approve { attempt: u32, reference: String },
    Decline { attempt: u32, reason: String },
    Defer { attempt: u32 },
    Cancel { returned: Money },
}

/// Decides about the payment; `None` means that the fact already holds.
pub fn decide(payment: Payment, command: &PaymentCommand) -> Result<Option<Event>, Refusal> {
    match command {
        PaymentCommand::Request(request) => match payment {
            Payment::None | Payment::Declined { .. } => Ok(Some((**request).clone().into())),
            Payment::Requested { .. } | Payment::Approved { .. } => Ok(None),
            Payment::Deferred { .. } => Err(Refusal::PaymentDeferred),
            Payment::Canceled => Err(Refusal::PaymentCanceled),
        },
        PaymentCommand::Approve { attempt: of, reference } => match payment {
            Payment::Requested { amount, attempt } if attempt == *of => {
                Ok(Some(PaymentApproved { amount, reference: reference.clone() }.into()))
            }
            Payment::Approved { attempt, .. } if attempt == *of => Ok(None),
            // Of an attempt that was closed before: the money is owed back.
            Payment::Requested { .. }
            | Payment::Approved { .. }
            | Payment::Declined { .. }
            | Payment::Deferred { .. } => Err(Refusal::PaymentDeclined),
            Payment::None => Err(Refusal::PaymentNotRequested),
            Payment::Canceled => Err(Refusal::PaymentCanceled),
        },
        PaymentCommand::Decline { attempt: of, reason } => match payment {
            // Of an attempt that was closed before: the newer one has its own outcome.
            Payment::Requested { attempt, .. } | Payment::Deferred { attempt, .. } if attempt != *of => {
                Ok(None)
            }
            Payment::Requested { .. } | Payment::Deferred { .. } => {
                Ok(Some(PaymentDeclined { reason: reason.clone() }.into()))
            }
            Payment::Declined { .. } => Ok(None),
            Payment::None => Err(Refusal::PaymentNotRequested),
            Payment::Approved { .. } => Err(Refusal::PaymentApproved),
            Payment::Canceled => Err(Refusal::PaymentCanceled),
        },
        PaymentCommand::Defer { attempt: of } => match payment {
            Payment::Requested { attempt, .. } if attempt == *of => Ok(Some(PaymentDeferred {}.into())),
            Payment::None
            | Payment::Requested { .. }
            | Payment::Approved { .. }
            | Payment::Declined { .. }
            | Payment::Deferred { .. }
            | Payment::Canceled => Ok(None),
        },
        PaymentCommand::Cancel { returned } => match payment {
            Payment::Requested { .. } | Payment::Approved { .. } | Payment::Deferred { .. } => {
                Ok(Some(PaymentCanceled { returned: *returned }.into()))
            }
            Payment::None | Payment::Declined { .. } | Payment::Canceled => Ok(None),
        },
    }
}

/// Whether an event says how an attempt to pay ended for its customer.
pub const fn is_outcome(event: &Event) -> bool {
    match event {
        Event::Payment(event) => match event {
            PaymentEvent::PaymentApproved(_) | PaymentEvent::PaymentDeclined(_) => true,
            PaymentEvent::PaymentRequested(_)
            | PaymentEvent::PaymentDeferred(_)
            | PaymentEvent::PaymentCanceled(_) => false,
        },
        Event::Ordering(_)
        | Event::Store(_)
        | Event::Marketing(_)
        | Event::Delivery(_)
        | Event::Review(_)
        | Event::Notification(_)
        | Event::Saga(_) => false,
    }
}

/// The payment after a fact.
#[must_use]
pub fn evolve(payment: Payment, event: &PaymentEvent) -> Payment {
    let attempt = payment.attempt();
    match event {
        PaymentEvent::PaymentRequested(requested) => {
            Payment::Requested { amount: requested.amount, attempt: attempt + 1 }
        }
        PaymentEvent::PaymentApproved(approved) => Payment::Approved { amount: approved.amount, attempt },
        PaymentEvent::PaymentDeclined(_) => Payment::Declined { attempt },
        PaymentEvent::PaymentDeferred(_) => match payment {
            Payment::Requested { amount, attempt } => Payment::Deferred { amount, attempt },
            Payment::None
            | Payment::Approved { .. }
            | Payment::Declined { .. }
            | Payment::Deferred { .. }
            | Payment::Canceled => payment,
        },
        PaymentEvent::PaymentCanceled(_) => Payment::Canceled,
    }
}
