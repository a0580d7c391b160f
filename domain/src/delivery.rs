//! The delivery context: goods are asked for, leave, arrive, or stay.
//!
//! Beside its own facts it heeds one of ordering's: a cancel request halts the delivery where it is. All of an
//! order's facts are in one sequence, so "cancel" and "delivered" have exactly one winner: whichever the log took first.

use serde::{Deserialize, Serialize};

use crate::{
    command::Refusal,
    event::{
        DeliveryCanceled, DeliveryCompleted, DeliveryEvent, DeliveryRequested, DeliveryStarted, Event,
        OrderEvent,
    },
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

/// The delivery after a fact.
#[must_use]
pub fn evolve(_: Delivery, event: &DeliveryEvent) -> Delivery {
    match event {
        DeliveryEvent::DeliveryRequested(_) => Delivery::Requested,
        DeliveryEvent::DeliveryStarted(_) => Delivery::Started,
        DeliveryEvent::DeliveryCompleted(_) => Delivery::Completed,
        DeliveryEvent::DeliveryCanceled(_) => Delivery::Canceled,
    }
}

/// The delivery after a fact of ordering: a cancel request halts it.
#[must_use]
pub fn heed(delivery: Delivery, event: &OrderEvent) -> Delivery {
    match event {
        OrderEvent::OrderCancelRequested(_) => match delivery {
            Delivery::NotRequested | Delivery::HaltedUnrequested => Delivery::HaltedUnrequested,
            Delivery::Requested | Delivery::Started | Delivery::Halted => Delivery::Halted,
            Delivery::Completed | Delivery::Canceled => delivery,
        },
        OrderEvent::OrderPlaced(_) | OrderEvent::OrderExpired(_) | OrderEvent::OrderCanceled(_) => delivery,
    }
}
