//! The process manager: what an order does next by itself.
//!
//! [`react`] looks at the order's folded story, never at a single event, so it can be asked at any time and any
//! number of times: after a crash, after a repeat, by a second runner. Each answer holds for exactly the story it was
//! given: the runner sends it guarded by that story's last sequence, and asks again when the story has moved on.

use jiff::SignedDuration;

use crate::{
    Timestamp,
    command::{Command, SagaCommand},
    coupon::{Coupon, CouponCommand},
    delivery::{Delivery, DeliveryCommand},
    event::{DeliveryListed, StoreOrderReceived},
    flow::{CancelMode, Deadline, DeliveryStart, Ends, Flow, Overdue, Undo},
    id::CommandId,
    order::{Order, OrderCommand},
    payment::Payment,
    state::{DEADLINE, OrderState},
    store::{StoreCommand, StoreOrder},
};

/// The order's next step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub command: Command,
    /// The same however often it is derived from the same story.
    pub command_id: CommandId,
    /// The step is due at this moment, and superseded by anything that moves the order before; `None`: at once.
    pub not_before: Option<Timestamp>,
}

/// The next step of an order that follows `flow`; `None` while it waits for a person, or is at its end.
pub fn react(flow: &Flow, state: &OrderState) -> Option<Step> {
    let newest = state.newest?;
    if state.parked.is_some() {
        return None;
    }
    let (command, not_before) = match state.order {
        Order::NotPlaced => (give_up(state)?, settle_by(flow, state)),
        Order::Placed => match advance(flow, state) {
            Some(command) => (command, None),
            None => overdue(flow, state)?,
        },
        Order::CancelRequested => {
            (undo(flow, state).unwrap_or(Command::Ordering(OrderCommand::Cancel)), None)
        }
        Order::Expired | Order::Rejected => (undo(flow, state)?, None),
        Order::ReturnRequested if state.delivery == Delivery::Returned => {
            (give_money_back(state).unwrap_or(Command::Ordering(OrderCommand::Return)), None)
        }
        Order::Canceled | Order::Completed | Order::ReturnRequested | Order::Returned => return None,
    };
    let command_id = CommandId::from_step(newest.event_id, command.name());
    Some(Step { command, command_id, not_before })
}

/// An order whose payment is open, and that nobody carries on, does not come to stand.
fn give_up(state: &OrderState) -> Option<Command> {
    match state.payment {
        Payment::Requested { .. } | Payment::Approved { .. } | Payment::Deferred { .. } => {
            let reason = "payment_not_confirmed".to_owned();
            Some(Command::Ordering(OrderCommand::Expire { reason }))
        }
        Payment::None | Payment::Declined { .. } | Payment::Canceled => None,
    }
}

/// When an open payment is to be settled.
fn settle_by(flow: &Flow, state: &OrderState) -> Option<Timestamp> {
    after(state.asked_at, flow.payment.settle_within_s)
}

fn after(since: Option<Timestamp>, seconds: u32) -> Option<Timestamp> {
    since?.checked_add(SignedDuration::from_secs(i64::from(seconds))).ok()
}

/// What happens, and when, if the person that the order waits for does nothing.
fn overdue(flow: &Flow, state: &OrderState) -> Option<(Command, Option<Timestamp>)> {
    if state.awaits_payment() && matches!(state.payment, Payment::Requested { .. }) {
        return Some((Command::SettlePayment, settle_by(flow, state)));
    }
    let has_it = matches!(state.delivery, Delivery::PickedUp { .. } | Delivery::Completed);
    let (deadline, reason) = if state.awaits_payment() {
        (flow.deadlines.payment, "payment_overdue")
    } else if state.store == StoreOrder::Received {
        (flow.deadlines.store, "store_silent")
    } else if state.delivery == Delivery::Listed {
        (flow.deadlines.rider, "no_rider")
    } else if flow.ends == Ends::Confirmed && has_it {
        (flow.deadlines.confirm, "not_confirmed")
    } else {
        return None;
    };
    let Deadline { after_s, then } = deadline?;
    let command = match then {
        Overdue::Expire => Command::Ordering(OrderCommand::Expire { reason: reason.into() }),
        Overdue::Complete => Command::Ordering(OrderCommand::Complete),
        Overdue::Park => Command::Saga(SagaCommand::Park {
            step: DEADLINE.into(),
            code: reason.into(),
            detail: format!("nobody acted within {after_s} s; resuming gives as long again"),
        }),
    };
    Some((command, after(state.moved_at, after_s)))
}

/// The way forward: the store first where there is one, then the delivery.
fn advance(flow: &Flow, state: &OrderState) -> Option<Command> {
    if flow.cancel.mode == CancelMode::Synchronous && state.delivery == Delivery::Canceled {
        // The delivery consented while the customer waited; if the order's own part was lost, it is made up for here.
        return Some(Command::Ordering(OrderCommand::Cancel));
    }
    if state.awaits_payment() {
        let is_deferred = matches!(state.payment, Payment::Deferred { .. });
        return is_deferred.then_some(Command::ReturnPayment);
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
        Undo::Payment => give_money_back(state),
    })
}

fn give_money_back(state: &OrderState) -> Option<Command> {
    match state.payment {
        Payment::Requested { .. } | Payment::Approved { .. } | Payment::Deferred { .. } => {
            Some(Command::ReturnPayment)
        }
        Payment::None | Payment::Declined { .. } | Payment::Canceled => None,
    }
}
