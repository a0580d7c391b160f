//! Every way an order can go, in each shipped flow: all interleavings of the customer, the store, two riders, the
//! provider's answers and the saga's steps, each repeated and each decided on the story as it is when it arrives.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::collections::BTreeSet;

use domain::{
    Command, CommandId, Event, EventId, Flow, FlowRef, Flows, Money, OrderId, OrderState, Position, Recorded,
    Timestamp,
    coupon::Coupon,
    delivery::{Delivery, DeliveryCommand},
    event::{OrderPlaced, PaymentRequested, ReviewWritten},
    flow::{CancelMode, CancelUntil, PaymentTime, Undo},
    order::{Address, Channel, Customer, Order, OrderCommand},
    payment::{Payment, PaymentCommand},
    review::ReviewCommand,
    saga,
    store::{StoreCommand, StoreOrder},
};

/// No story is longer.
const EVENTS_MAX: usize = 24;

struct Explorer {
    flow: Flow,
    reference: FlowRef,
    seen: BTreeSet<Vec<&'static str>>,
    ended: usize,
}

fn won(amount: i64) -> Money {
    Money { amount, currency: "KRW".parse().unwrap() }
}

fn record(sequence: u64, event: &Event) -> Recorded {
    let event_id = EventId(uuid::Uuid::from_u128(u128::from(sequence)));
    Recorded {
        order_id: OrderId::from_key("test", "order"),
        position: Position { partition: 0, sequence },
        event_id,
        time: Timestamp::UNIX_EPOCH,
        command_id: CommandId::from_step(event_id, "test"),
        fingerprint: None,
        event: event.clone(),
    }
}

impl Explorer {
    fn placed(&self) -> OrderPlaced {
        OrderPlaced {
            flow: self.reference.clone(),
            channel: Channel::Web,
            customer: Customer { id: "c".into(), name: "c".into(), phone: None, email: None },
            store_id: self.flow.store.then(|| "store-1".into()),
            lines: Vec::new(),
            total: won(900),
            address: Address { line: "England".into(), region: Some("mapo".into()) },
            delivery_type: self.flow.delivery.types.first().cloned(),
            awaits_payment: self.flow.payment.when == PaymentTime::SecondStep,
        }
    }

    /// What people and the provider may do at any moment.
    fn outside(&self) -> Vec<Command> {
        let flow = self.reference.clone();
        let request =
            PaymentRequested { flow, customer_id: "c".into(), amount: won(900), method: "card".into() };
        let pick_up = |rider: &str| Command::Delivery(DeliveryCommand::PickUp { rider_id: rider.into() });
        let written = ReviewWritten { rating: 5, text: "good".into() };
        vec![
            Command::Payment(PaymentCommand::Request(Box::new(request))),
            Command::Payment(PaymentCommand::Approve { reference: "r".into() }),
            Command::Payment(PaymentCommand::Decline { reason: "r".into() }),
            Command::Ordering(OrderCommand::Place(Box::new(self.placed()))),
            Command::Ordering(OrderCommand::RequestCancel { reason: None }),
            Command::Ordering(OrderCommand::Complete),
            Command::Store(StoreCommand::Accept),
            Command::Store(StoreCommand::Reject { reason: None }),
            Command::Store(StoreCommand::Start),
            Command::Store(StoreCommand::Finish),
            pick_up("rider-1"),
            pick_up("rider-2"),
            Command::Delivery(DeliveryCommand::Start),
            Command::Delivery(DeliveryCommand::Complete),
            Command::Review(ReviewCommand::Write(written)),
            Command::Ordering(OrderCommand::RequestReturn { reason: None }),
            Command::Delivery(DeliveryCommand::StartReturn),
            Command::Delivery(DeliveryCommand::CompleteReturn),
        ]
    }

    fn explore(&mut self, story: &[Event]) {
        let names: Vec<&'static str> = story.iter().map(Event::type_name).collect();
        if !self.seen.insert(names.clone()) {
            return;
        }
        assert!(story.len() <= EVENTS_MAX, "a story that does not end: {names:?}");
        let recorded: Vec<Recorded> =
            (1..).zip(story).map(|(sequence, event)| record(sequence, event)).collect();
        let state = OrderState::replay(&recorded);
        let step = saga::react(&self.flow, &state);
        check(&self.flow, &names);
        if step.is_none() {
            self.ended += 1;
            check_end(&state, &names);
        }
        let mut commands = self.outside();
        if self.flow.cancel.mode == CancelMode::Synchronous {
            commands.push(Command::Delivery(DeliveryCommand::Cancel));
        }
        // The caller only places what was approved, and only charges what is paid with the order.
        let is_free = self.flow.payment.when != PaymentTime::WithOrder;
        let is_paid_later = self.flow.payment.when == PaymentTime::SecondStep;
        // One way to pay may be declined and another tried; twice is enough to see it.
        let declined = names.iter().filter(|name| **name == "PaymentDeclined").count();
        commands.retain(|command| match command {
            Command::Ordering(OrderCommand::Place(_)) => {
                is_free || matches!(state.payment, Payment::Approved { .. })
            }
            Command::Payment(PaymentCommand::Decline { .. }) if declined > 1 => false,
            Command::Payment(_) => !is_free || (is_paid_later && state.is_visible()),
            Command::Ordering(_)
            | Command::ChargePayment { .. }
            | Command::ReturnPayment
            | Command::Store(_)
            | Command::Marketing(_)
            | Command::Delivery(_)
            | Command::Review(_)
            | Command::Saga(_) => true,
        });
        commands.extend(step.map(|step| {
            // What the payment context makes of it once the provider has answered.
            let returned = Command::Payment(PaymentCommand::Cancel { returned: won(900) });
            if step.command == Command::ReturnPayment { returned } else { step.command }
        }));
        for command in commands {
            if let Ok(Some(event)) = state.decide(&self.flow, &command) {
                self.explore(&[story, &[event]].concat());
            }
        }
    }
}

fn undone(undo: Undo) -> &'static str {
    match undo {
        Undo::Coupon => "CouponCanceled",
        Undo::StoreOrder => "StoreOrderCanceled",
        Undo::Delivery => "DeliveryCanceled",
        Undo::Payment => "PaymentCanceled",
    }
}

/// What holds at every moment.
fn check(flow: &Flow, story: &[&'static str]) {
    let place = |name: &str| story.iter().position(|event| *event == name);
    let left = place("DeliveryStarted").or(place("DeliveryPickedUp"));
    if let (Some(left), true) = (left, flow.coupon.is_some()) {
        assert!(
            place("CouponIssued").is_some_and(|issued| issued < left),
            "left without its coupon: {story:?}"
        );
    }
    if let Some(received) = place("StoreOrderReceived") {
        assert!(
            place("PaymentApproved").is_some_and(|paid| paid < received),
            "a store saw an unpaid order: {story:?}"
        );
    }
    if let (Some(left), true) = (left, flow.store) {
        assert!(place("PreparationFinished").is_some_and(|done| done < left), "left unprepared: {story:?}");
    }
    let too_late = match flow.cancel.until {
        CancelUntil::Delivered => "DeliveryCompleted",
        CancelUntil::Shipped => "DeliveryStarted",
        CancelUntil::PickedUp => "DeliveryPickedUp",
        CancelUntil::PreparationStarted => "PreparationStarted",
    };
    let canceled = place("OrderCancelRequested").or(place("OrderCanceled"));
    assert!(place(too_late).is_none() || canceled.is_none(), "both: {story:?}");
    if let Some(returned) = place("OrderReturned") {
        let back = place("ReturnPickupCompleted").is_some_and(|back| back < returned);
        assert!(back && place("DeliveryCompleted").is_some(), "returned and not back: {story:?}");
    }
    let undone: Vec<usize> = flow.cancel.undo.iter().filter_map(|undo| place(undone(*undo))).collect();
    assert!(undone.is_sorted(), "undone in another order than declared: {story:?}");
    if let Some(canceled) = place("OrderCanceled") {
        assert!(undone.iter().all(|undone| *undone < canceled), "the order's own status is last: {story:?}");
    }
    let mut once = story.to_vec();
    if flow.payment.when == PaymentTime::SecondStep {
        once.retain(|event| !["PaymentRequested", "PaymentDeclined"].contains(event));
    }
    let all = once.len();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), all, "something happened twice: {story:?}");
}

/// What holds when the saga has nothing left to do.
fn check_end(state: &OrderState, story: &[&'static str]) {
    let is_over = match state.order {
        Order::Canceled | Order::Expired | Order::Rejected => true,
        Order::NotPlaced | Order::Placed | Order::Completed | Order::ReturnRequested | Order::Returned => {
            false
        }
        Order::CancelRequested => panic!("a cancel without an answer: {story:?}"),
    };
    if is_over {
        let returned = [Payment::None, Payment::Declined, Payment::Canceled];
        assert!(returned.contains(&state.payment), "money kept: {story:?}");
        assert!(matches!(state.coupon, Coupon::None | Coupon::Canceled), "a coupon kept: {story:?}");
        let gone = [Delivery::NotRequested, Delivery::HaltedUnrequested, Delivery::Canceled];
        assert!(gone.contains(&state.delivery), "a delivery under way: {story:?}");
        let gone = [
            StoreOrder::NotReceived,
            StoreOrder::HaltedUnreceived,
            StoreOrder::Rejected,
            StoreOrder::Canceled,
        ];
        assert!(gone.contains(&state.store), "a store at work: {story:?}");
    }
}

#[test]
fn every_order_of_every_flow_ends_whole_or_undone_in_order_whatever_comes_when() {
    let flows = Flows::shipped().unwrap();
    for name in ["marketplace", "appliance", "food", "kitchen", "rental"] {
        let (reference, flow) = flows.newest(name).unwrap();
        let mut explorer = Explorer {
            flow: (**flow).clone(),
            reference: reference.clone(),
            seen: BTreeSet::new(),
            ended: 0,
        };
        explorer.explore(&[]);
        assert!(explorer.seen.len() >= 10 && explorer.ended > 2, "{name}: {} stories", explorer.seen.len());
    }
    assert_eq!(flows.names().count(), 5, "each shipped flow is walked");
}
