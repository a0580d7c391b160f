//! The delivery context: goods are asked for, leave, arrive, or stay.
//!
//! Beside its own facts it heeds one of ordering's: a cancel request halts the delivery where it is. All of an
//! order's facts are in one sequence, so "cancel" and "delivered" have exactly one winner: whichever the log took first.

use serde::{Deserialize, Serialize};

use crate::{
    command::Refusal,
    event::{
        DeliveryCanceled, DeliveryCompleted, DeliveryEvent, DeliveryListed, DeliveryPickedUp,
        DeliveryRequested, DeliveryStarted, Event, OrderEvent, ReturnPickupCompleted, ReturnPickupStarted,
    },
    order::Address,
};

/// The delivery of one order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivery {
    #[default]
    NotRequested,
    Requested,
    /// Riders may pick it up.
    Listed,
    PickedUp {
        rider_id: String,
    },
    Started,
    Completed,
    /// Somebody fetches what the customer gives back.
    Returning,
    /// It is back.
    Returned,
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
    List(DeliveryListed),
    PickUp { rider_id: String },
    Start,
    Complete,
    Cancel,
    StartReturn,
    CompleteReturn,
}

/// Decides about the delivery; `None` means that the fact already holds.
pub fn decide(delivery: &Delivery, command: &DeliveryCommand) -> Result<Option<Event>, Refusal> {
    use Delivery::{
        Canceled, Completed, Halted, HaltedUnrequested, Listed, NotRequested, PickedUp, Requested, Returned,
        Returning, Started,
    };
    let closed = match delivery {
        HaltedUnrequested | Halted => Some(Refusal::CancelRequested),
        Canceled => Some(Refusal::DeliveryCanceled),
        NotRequested | Requested | Listed | PickedUp { .. } | Started | Completed | Returning | Returned => {
            None
        }
    };
    match (command, closed) {
        (DeliveryCommand::Cancel, _) => match delivery {
            HaltedUnrequested | Canceled => Ok(None),
            // Canceled before it was asked for: a request that comes later finds it so.
            NotRequested | Requested | Listed | PickedUp { .. } | Started | Halted => {
                Ok(Some(DeliveryCanceled {}.into()))
            }
            Completed | Returning | Returned => Err(Refusal::AlreadyDelivered),
        },
        (_, Some(refusal)) => Err(refusal),
        (DeliveryCommand::Request { address }, None) => {
            Ok((*delivery == NotRequested).then(|| DeliveryRequested { address: address.clone() }.into()))
        }
        (DeliveryCommand::List(listed), None) => {
            Ok((*delivery == NotRequested).then(|| listed.clone().into()))
        }
        (DeliveryCommand::PickUp { rider_id }, None) => match delivery {
            Listed => Ok(Some(DeliveryPickedUp { rider_id: rider_id.clone() }.into())),
            PickedUp { rider_id: holder } if holder == rider_id => Ok(None),
            PickedUp { .. } => Err(Refusal::AlreadyPickedUp),
            Started | Completed | Returning | Returned => Err(Refusal::AlreadyDelivered),
            NotRequested | Requested | HaltedUnrequested | Halted | Canceled => {
                Err(Refusal::DeliveryNotListed)
            }
        },
        (DeliveryCommand::Start, None) => match delivery {
            Requested => Ok(Some(DeliveryStarted {}.into())),
            PickedUp { .. } | Started | Completed | Returning | Returned => Ok(None),
            NotRequested | Listed | HaltedUnrequested | Halted | Canceled => {
                Err(Refusal::DeliveryNotRequested)
            }
        },
        (DeliveryCommand::Complete, None) => match delivery {
            Started | PickedUp { .. } => Ok(Some(DeliveryCompleted {}.into())),
            Completed | Returning | Returned => Ok(None),
            NotRequested => Err(Refusal::DeliveryNotRequested),
            Requested | Listed | HaltedUnrequested | Halted | Canceled => Err(Refusal::DeliveryNotStarted),
        },
        (DeliveryCommand::StartReturn | DeliveryCommand::CompleteReturn, None) => {
            decide_return(delivery, *command == DeliveryCommand::CompleteReturn)
        }
    }
}

/// Decides about the way back: begun once the goods arrived, at its end once they are fetched.
fn decide_return(delivery: &Delivery, is_back: bool) -> Result<Option<Event>, Refusal> {
    match (delivery, is_back) {
        (Delivery::Completed, false) => Ok(Some(ReturnPickupStarted {}.into())),
        (Delivery::Completed, true) => Err(Refusal::ReturnNotPickedUp),
        (Delivery::Returning, false) | (Delivery::Returned, _) => Ok(None),
        (Delivery::Returning, true) => Ok(Some(ReturnPickupCompleted {}.into())),
        (
            Delivery::NotRequested
            | Delivery::Requested
            | Delivery::Listed
            | Delivery::PickedUp { .. }
            | Delivery::Started
            | Delivery::HaltedUnrequested
            | Delivery::Halted
            | Delivery::Canceled,
            _,
        ) => Err(Refusal::NotDelivered),
    }
}

/// The delivery after a fact.
#[must_use]
pub fn evolve(_: Delivery, event: &DeliveryEvent) -> Delivery {
    match event {
        DeliveryEvent::DeliveryRequested(_) => Delivery::Requested,
        DeliveryEvent::DeliveryListed(_) => Delivery::Listed,
        DeliveryEvent::DeliveryPickedUp(picked) => Delivery::PickedUp { rider_id: picked.rider_id.clone() },
        DeliveryEvent::DeliveryStarted(_) => Delivery::Started,
        DeliveryEvent::DeliveryCompleted(_) => Delivery::Completed,
        DeliveryEvent::ReturnPickupStarted(_) => Delivery::Returning,
        DeliveryEvent::ReturnPickupCompleted(_) => Delivery::Returned,
        DeliveryEvent::DeliveryCanceled(_) => Delivery::Canceled,
    }
}

/// The delivery after a fact of ordering: a cancel request halts it, and so does a deadline.
#[must_use]
pub fn heed(delivery: Delivery, event: &OrderEvent) -> Delivery {
    match event {
        OrderEvent::OrderCancelRequested(_) | OrderEvent::OrderExpired(_) => match delivery {
            Delivery::NotRequested | Delivery::HaltedUnrequested => Delivery::HaltedUnrequested,
            Delivery::Requested
            | Delivery::Listed
            | Delivery::PickedUp { .. }
            | Delivery::Started
            | Delivery::Halted => Delivery::Halted,
            Delivery::Completed | Delivery::Returning | Delivery::Returned | Delivery::Canceled => delivery,
        },
        OrderEvent::OrderPlaced(_)
        | OrderEvent::OrderRejected(_)
        | OrderEvent::OrderCompleted(_)
        | OrderEvent::ReturnRequested(_)
        | OrderEvent::OrderReturned(_)
        | OrderEvent::OrderCanceled(_) => delivery,
    }
}
