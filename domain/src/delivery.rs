//! The delivery context: goods are asked for, leave, arrive, or stay.
//!
//! Beside its own facts it heeds one of ordering's: a cancel request halts the delivery where it is. All of an
//! order's facts are in one sequence, so "cancel" and "delivered" have exactly one winner: whichever the log took first.

use serde::{Deserialize, Serialize};

use crate::{
    command::Refusal,
    event::{DeliveryCanceled, DeliveryCompleted, DeliveryRequested, DeliveryStarted, Event},
    order::Address,
};

/// The delivery of one order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivery {
    #[default]
    NotRequested,
    Requested,
    Started,
    Completed,
    /// A cancel request came before any delivery: none will follow.
    HaltedUnrequested,
    /// A cancel request came while it was under way, or before it left: it goes no further, and is to be canceled.
    Halted,
    Canceled,
}

/// What delivery may be asked to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryCommand {
    Request { address: Address },
    Start,
    Complete,
    Cancel,
}

/// Decides about the delivery; `None` means that the fact already holds.
pub fn decide(delivery: Delivery, command: &DeliveryCommand) -> Result<Option<Event>, Refusal> {
    use Delivery::{Canceled, Completed, Halted, HaltedUnrequested, NotRequested, Requested, Started};
    match command {
        DeliveryCommand::Request { address } => match delivery {
            NotRequested => Ok(Some(DeliveryRequested { address: address.clone() }.into())),
            Requested | Started | Completed => Ok(None),
            HaltedUnrequested | Halted => Err(Refusal::CancelRequested),
            Canceled => Err(Refusal::DeliveryCanceled),
        },
        DeliveryCommand::Start => match delivery {
            NotRequested => Err(Refusal::DeliveryNotRequested),
            Requested => Ok(Some(DeliveryStarted {}.into())),
            Started | Completed => Ok(None),
            HaltedUnrequested | Halted => Err(Refusal::CancelRequested),
            Canceled => Err(Refusal::DeliveryCanceled),
        },
        DeliveryCommand::Complete => match delivery {
            NotRequested => Err(Refusal::DeliveryNotRequested),
            Requested => Err(Refusal::DeliveryNotStarted),
            Started => Ok(Some(DeliveryCompleted {}.into())),
            Completed => Ok(None),
            HaltedUnrequested | Halted => Err(Refusal::CancelRequested),
            Canceled => Err(Refusal::DeliveryCanceled),
        },
        DeliveryCommand::Cancel => match delivery {
            NotRequested | HaltedUnrequested | Canceled => Ok(None),
            Requested | Started | Halted => Ok(Some(DeliveryCanceled {}.into())),
            Completed => Err(Refusal::AlreadyDelivered),
        },
    }
}

/// The delivery after a fact; facts of other contexts leave it as it is, except the cancel request.
#[must_use]
pub fn evolve(delivery: Delivery, event: &Event) -> Delivery {
    match event {
        Event::DeliveryRequested(_) => Delivery::Requested,
        Event::DeliveryStarted(_) => Delivery::Started,
        Event::DeliveryCompleted(_) => Delivery::Completed,
        Event::DeliveryCanceled(_) => Delivery::Canceled,
        Event::OrderCancelRequested(_) => match delivery {
            Delivery::NotRequested | Delivery::HaltedUnrequested => Delivery::HaltedUnrequested,
            Delivery::Requested | Delivery::Started | Delivery::Halted => Delivery::Halted,
            Delivery::Completed | Delivery::Canceled => delivery,
        },
        Event::OrderPlaced(_)
        | Event::OrderExpired(_)
        | Event::OrderCanceled(_)
        | Event::PaymentRequested(_)
        | Event::PaymentApproved(_)
        | Event::PaymentDeclined(_)
        | Event::PaymentCanceled(_)
        | Event::CouponIssued(_)
        | Event::CouponCanceled(_)
        | Event::SagaParked(_)
        | Event::SagaResumed(_) => delivery,
    }
}
