//! Every way an order of the marketplace can go: all interleavings of the customer's cancel, the delivery team, the
//! provider's answers and the saga's steps, each repeated and each decided on the story as it is when it arrives.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::collections::BTreeSet;

use domain::{
    Command, CommandId, Event, EventId, Flow, FlowRef, Flows, Money, OrderId, OrderState, Position, Recorded,
    Timestamp,
    coupon::Coupon,
    delivery::{Delivery, DeliveryCommand},
    event::{OrderPlaced, PaymentRequested},
    order::{Address, Channel, Customer, Order, OrderCommand},
    payment::{Payment, PaymentCommand},
    saga,
};

/// No story of the marketplace is longer.
const EVENTS_MAX: usize = 16;

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
    /// What people and the provider may do at any moment.
    fn outside(&self) -> Vec<Command> {
        let flow = self.reference.clone();
        let address = Address { line: "England".into(), region: None };
        let customer = Customer { id: "c".into(), name: "c".into(), phone: None, email: None };
        let placed = OrderPlaced {
            flow: flow.clone(),
            channel: Channel::Web,
            customer,
            store_id: None,
            lines: Vec::new(),
            total: won(900),
            address,
            delivery_type: None,
        };
        let request =
            PaymentRequested { flow, customer_id: "c".into(), amount: won(900), method: "card".into() };
        vec![
            Command::Payment(PaymentCommand::Request(Box::new(request))),
            Command::Payment(PaymentCommand::Approve { reference: "r".into() }),
            Command::Payment(PaymentCommand::Decline { reason: "r".into() }),
            Command::Ordering(OrderCommand::Place(Box::new(placed))),
            Command::Ordering(OrderCommand::RequestCancel { reason: None }),
            Command::Delivery(DeliveryCommand::Start),
            Command::Delivery(DeliveryCommand::Complete),
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
        check(&state, &names);
        let step = saga::react(&self.flow, &state);
        self.ended += usize::from(step.is_none());
        let mut commands = self.outside();
        // The client only places what was approved; any earlier try would be a fault of the caller, not of a rule.
        commands.retain(|command| {
            !matches!(command, Command::Ordering(OrderCommand::Place(_)))
                || matches!(state.payment, Payment::Approved { .. })
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

fn check(state: &OrderState, story: &[&'static str]) {
    let place = |name: &str| story.iter().position(|event| *event == name);
    if let Some(started) = place("DeliveryStarted") {
        assert!(
            place("CouponIssued").is_some_and(|issued| issued < started),
            "left without its coupon: {story:?}"
        );
    }
    if let (Some(delivery), Some(issued)) = (place("DeliveryCanceled"), place("CouponIssued")) {
        let canceled = place("CouponCanceled").is_some_and(|coupon| issued < coupon && coupon < delivery);
        assert!(canceled, "delivery canceled while the coupon was valid: {story:?}");
    }
    assert!(
        place("DeliveryCompleted").is_none() || place("OrderCancelRequested").is_none(),
        "delivered and canceled: {story:?}"
    );
    if state.order == Order::Canceled {
        assert!(matches!(state.payment, Payment::Canceled), "{story:?}");
        assert!(matches!(state.coupon, Coupon::None | Coupon::Canceled), "{story:?}");
        assert!(matches!(state.delivery, Delivery::Canceled | Delivery::HaltedUnrequested), "{story:?}");
        assert_eq!(story.last(), Some(&"OrderCanceled"), "the order's own status is last");
    }
    let mut once = story.to_vec();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), story.len(), "something happened twice: {story:?}");
}

#[test]
fn every_order_ends_whole_or_undone_in_order_whatever_comes_when() {
    let flows = Flows::shipped().unwrap();
    let (reference, flow) = flows.newest("marketplace").unwrap();
    let mut explorer =
        Explorer { flow: (**flow).clone(), reference: reference.clone(), seen: BTreeSet::new(), ended: 0 };
    explorer.explore(&[]);
    assert!(explorer.seen.len() >= 30 && explorer.ended > 5, "{} stories", explorer.seen.len());
}
