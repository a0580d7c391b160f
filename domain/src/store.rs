//! The store context: it receives an order, takes it or not, and makes it.
//!
//! Beside its own facts it heeds a cancel request, which halts the store where it is: "cancel" and "cooking starts" have
//! exactly one winner, whichever the log took first.

use serde::{Deserialize, Serialize};

use crate::{
    command::Refusal,
    event::{
        Event, OrderEvent, PreparationFinished, PreparationStarted, StoreEvent, StoreOrderAccepted,
        StoreOrderCanceled, StoreOrderReceived, StoreOrderRejected,
    },
};

/// The store's side of one order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreOrder {
    #[default]
    NotReceived,
    Received,
    Accepted,
    Rejected,
    Preparing,
    Prepared,
    /// A cancel request came before the store had it: it never will.
    HaltedUnreceived,
    /// A cancel request came: the store goes no further, and its order is to be canceled.
    Halted,
    Canceled,
}

/// What the store may be asked to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreCommand {
    Receive(StoreOrderReceived),
    Accept,
    Reject { reason: Option<String> },
    Start,
    Finish,
    Cancel,
}

/// Decides about the store's order; `None` means that the fact already holds.
pub fn decide(store: StoreOrder, command: &StoreCommand) -> Result<Option<Event>, Refusal> {
    use StoreOrder::{
        Accepted, Canceled, Halted, HaltedUnreceived, NotReceived, Prepared, Preparing, Received, Rejected,
    };
    let closed = match store {
        HaltedUnreceived | Halted => Some(Refusal::CancelRequested),
        Canceled => Some(Refusal::StoreOrderCanceled),
        NotReceived | Received | Accepted | Rejected | Preparing | Prepared => None,
    };
    match (command, closed) {
        (StoreCommand::Cancel, _) => match store {
            NotReceived | HaltedUnreceived | Canceled | Rejected => Ok(None),
            Received | Accepted | Preparing | Prepared | Halted => Ok(Some(StoreOrderCanceled {}.into())),
        },
        (_, Some(refusal)) => Err(refusal),
        (StoreCommand::Receive(received), None) => {
            Ok((store == NotReceived).then(|| received.clone().into()))
        }
        (StoreCommand::Accept, None) => match store {
            Received => Ok(Some(StoreOrderAccepted {}.into())),
            Rejected => Err(Refusal::AlreadyRejected),
            NotReceived => Err(Refusal::StoreOrderNotReceived),
            Accepted | Preparing | Prepared | HaltedUnreceived | Halted | Canceled => Ok(None),
        },
        (StoreCommand::Reject { reason }, None) => match store {
            Received => Ok(Some(StoreOrderRejected { reason: reason.clone() }.into())),
            Rejected => Ok(None),
            NotReceived => Err(Refusal::StoreOrderNotReceived),
            Accepted | Preparing | Prepared | HaltedUnreceived | Halted | Canceled => {
                Err(Refusal::AlreadyAccepted)
            }
        },
        (StoreCommand::Start, None) => match store {
            Accepted => Ok(Some(PreparationStarted {}.into())),
            Preparing | Prepared => Ok(None),
            Rejected => Err(Refusal::AlreadyRejected),
            NotReceived | Received | HaltedUnreceived | Halted | Canceled => {
                Err(Refusal::StoreOrderNotAccepted)
            }
        },
        (StoreCommand::Finish, None) => match store {
            Preparing => Ok(Some(PreparationFinished {}.into())),
            Prepared => Ok(None),
            Rejected => Err(Refusal::AlreadyRejected),
            NotReceived | Received | Accepted | HaltedUnreceived | Halted | Canceled => {
                Err(Refusal::PreparationNotStarted)
            }
        },
    }
}

/// The store's order after a fact.
#[must_use]
pub fn evolve(_: StoreOrder, event: &StoreEvent) -> StoreOrder {
    match event {
        StoreEvent::StoreOrderReceived(_) => StoreOrder::Received,
        StoreEvent::StoreOrderAccepted(_) => StoreOrder::Accepted,
        StoreEvent::StoreOrderRejected(_) => StoreOrder::Rejected,
        StoreEvent::PreparationStarted(_) => StoreOrder::Preparing,
        StoreEvent::PreparationFinished(_) => StoreOrder::Prepared,
        StoreEvent::StoreOrderCanceled(_) => StoreOrder::Canceled,
    }
}

/// The store's order after a fact of ordering: a cancel request halts it, and so does a deadline.
#[must_use]
pub fn heed(store: StoreOrder, event: &OrderEvent) -> StoreOrder {
    match event {
        OrderEvent::OrderCancelRequested(_) | OrderEvent::OrderExpired(_) => match store {
            StoreOrder::NotReceived | StoreOrder::HaltedUnreceived => StoreOrder::HaltedUnreceived,
            StoreOrder::Received
            | StoreOrder::Accepted
            | StoreOrder::Preparing
            | StoreOrder::Prepared
            | StoreOrder::Halted => StoreOrder::Halted,
            StoreOrder::Rejected | StoreOrder::Canceled => store,
        },
        OrderEvent::OrderPlaced(_)
        | OrderEvent::OrderRejected(_)
        | OrderEvent::OrderCompleted(_)
        | OrderEvent::ReturnRequested(_)
        | OrderEvent::OrderReturned(_)
        | OrderEvent::OrderCanceled(_) => store,
    }
}
