//! The process manager: what an order does next by itself.
//!
//! [`react`] looks at the order's folded story, never at a single event, so it can be asked at any time and any
//! number of times: after a crash, after a repeat, by a second runner. Each answer holds for exactly the story it was
//! given: the runner sends it guarded by that story's last sequence, and asks again when the story has moved on.

use jiff::SignedDuration;

use crate::{
    Timestamp,
    command::Command,
    coupon::{Coupon, CouponCommand},
    delivery::{Delivery, DeliveryCommand},
    event::{DeliveryListed, StoreOrderReceived},
    flow::{CancelMode, DeliveryStart, Flow, Undo},
    id::CommandId,
    order::{Order, OrderCommand},
    payment::Payment,
    state::OrderState,
    store::{StoreCommand, StoreOrder},
};

/// The order's next step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub command: Command,
    /// The same however often it is derived from the same story.
    pub command_id: CommandId,
    /// The step is due at this moment, and superseded by anything that happens before; `None`: at once.
    pub not_before: Option<Timestamp>,
}

/// The next step of an order that follows `flow`; `None` while it waits for a person, or is at its end.
pub fn react(flow: &Flow, state: &OrderState) -> Option<Step> {
    let newest = state.newest?;
    if state.parked.is_some() {
        return None;
    }
    let (command, not_before) = match state.order {
        Order::NotPlaced => {
            let settle_within = SignedDuration::from_secs(i64::from(flow.payment.settle_within_s));
            (give_up(state)?, newest.time.checked_add(settle_within).ok())
        }
        Order::Placed => (advance(flow, state)?, None),
        Order::CancelRequested => {
            (undo(flow, state).unwrap_or(Command::Ordering(OrderCommand::Cancel)), None)
        }
        Order::Expired | Order::Rejected => (undo(flow, state)?, None),
        Order::ReturnRequested if state.delivery == Delivery::Returned => {
            (Command::Ordering(OrderCommand::Return), None)
        }
        Order::Canceled | Order::Completed | Order::ReturnRequested | Order::Returned => return None,
    };
    let command_id = CommandId::from_step(newest.event_id, command.name());
    Some(Step { command, command_id, not_before })
}

/// An order whose payment is open, and that nobody carries on, does not come to stand.
fn give_up(state: &OrderState) -> Option<Command> {
    match state.payment {
        Payment::Requested { .. } | Payment::Approved { .. } => {
            let reason = "payment_not_confirmed".to_owned();
            Some(Command::Ordering(OrderCommand::Expire { reason }))
        }
        Payment::None | Payment::Declined | Payment::Canceled => None,
    }
}

/// The way forward: the store first where there is one, then the delivery.
fn advance(flow: &Flow, state: &OrderState) -> Option<Command> {
    if flow.cancel.mode == CancelMode::Synchronous && state.delivery == Delivery::Canceled {
        // The delivery consented while the customer waited; if the order's own part was lost, it is made up for here.
        return Some(Command::Ordering(OrderCommand::Cancel));
    }
    if state.awaits_payment() {
        return None;
    }
    if flow.store {
        match state.store {
            StoreOrder::NotReceived => return receive(state),
            StoreOrder::Rejected => {
                return Some(Command::Ordering(OrderCommand::Reject { reason: None }));
            }
            StoreOrder::Prepared => {}
            StoreOrder::Received
            | StoreOrder::Accepted
            | StoreOrder::Preparing
            | StoreOrder::HaltedUnreceived
            | StoreOrder::Halted
            | StoreOrder::Canceled => return None,
        }
    }
    match flow.delivery.start {
        DeliveryStart::Automatic | DeliveryStart::Shipped => depart(flow, state),
        DeliveryStart::Rider => list(state),
    }
}

fn receive(state: &OrderState) -> Option<Command> {
    let brief = state.brief.as_ref()?;
    let received = StoreOrderReceived { store_id: brief.store_id.clone()?, items: brief.items.clone() };
    Some(Command::Store(StoreCommand::Receive(received)))
}

/// Delivery asked for, coupon issued, delivery started.
fn depart(flow: &Flow, state: &OrderState) -> Option<Command> {
    match state.delivery {
        Delivery::NotRequested => {
            let address = state.brief.as_ref()?.address.clone();
            Some(Command::Delivery(DeliveryCommand::Request { address }))
        }
        Delivery::Requested => match (&flow.coupon, &state.coupon) {
            (Some(rule), Coupon::None) => {
                let (coupon_id, kind) = (rule.coupon_id.clone(), rule.kind.clone());
                Some(Command::Marketing(CouponCommand::Issue { coupon_id, kind }))
            }
            (Some(_), Coupon::Canceled) => None,
            (None, _) | (Some(_), Coupon::Issued { .. }) => {
                let by_itself = flow.delivery.start == DeliveryStart::Automatic;
                by_itself.then_some(Command::Delivery(DeliveryCommand::Start))
            }
        },
        Delivery::Listed
        | Delivery::PickedUp { .. }
        | Delivery::Started
        | Delivery::Completed
        | Delivery::Returning
        | Delivery::Returned
        | Delivery::HaltedUnrequested
        | Delivery::Halted
        | Delivery::Canceled => None,
    }
}

fn list(state: &OrderState) -> Option<Command> {
    if state.delivery != Delivery::NotRequested {
        return None;
    }
    let brief = state.brief.as_ref()?;
    let (address, delivery_type) = (brief.address.clone(), brief.delivery_type.clone());
    Some(Command::Delivery(DeliveryCommand::List(DeliveryListed { address, delivery_type })))
}

/// The next thing to take back, in the flow's order; `None` once everything is.
fn undo(flow: &Flow, state: &OrderState) -> Option<Command> {
    flow.cancel.undo.iter().find_map(|undo| match undo {
        Undo::Coupon => match state.coupon {
            Coupon::Issued { .. } => Some(Command::Marketing(CouponCommand::Cancel)),
            Coupon::None | Coupon::Canceled => None,
        },
        Undo::StoreOrder => match state.store {
            StoreOrder::Received
            | StoreOrder::Accepted
            | StoreOrder::Preparing
            | StoreOrder::Prepared
            | StoreOrder::Halted => Some(Command::Store(StoreCommand::Cancel)),
            StoreOrder::NotReceived
            | StoreOrder::Rejected
            | StoreOrder::HaltedUnreceived
            | StoreOrder::Canceled => None,
        },
        Undo::Delivery => match state.delivery {
            Delivery::Requested
            | Delivery::Listed
            | Delivery::PickedUp { .. }
            | Delivery::Started
            | Delivery::Halted => Some(Command::Delivery(DeliveryCommand::Cancel)),
            Delivery::NotRequested
            | Delivery::HaltedUnrequested
            | Delivery::Canceled
            | Delivery::Returning
            | Delivery::Returned
            | Delivery::Completed => None,
        },
        Undo::Payment => match state.payment {
            Payment::Requested { .. } | Payment::Approved { .. } => Some(Command::ReturnPayment),
            Payment::None | Payment::Declined | Payment::Canceled => None,
        },
    })
}
