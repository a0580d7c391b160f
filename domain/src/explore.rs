//! Walks every story that an order of a flow can have, and checks each against what must always hold.
//!
//! At each moment anyone may do anything: the customer, the store, two riders, the delivery team, the payment provider,
//! and the saga its next step. Every command is decided by the same code as in production, on the story as it is when
//! the command arrives. That covers delay and repetition: a command that was meant for an earlier story is either
//! decided on the later one, as here, or, if it is the saga's, refused because the story moved on. Stories are walked
//! breadth first, so the first one that breaks a rule is a shortest one.

use std::collections::{BTreeSet, VecDeque};

use uuid::Uuid;

use crate::{
    Timestamp,
    command::Command,
    delivery::{Delivery, DeliveryCommand},
    event::{Event, OrderPlaced, PaymentRequested, Recorded, ReviewWritten},
    flow::{CancelMode, CancelUntil, Flow, FlowRef, PaymentTime, Undo},
    id::{CommandId, EventId, OrderId, Position},
    money::{Currency, Money},
    order::{Address, Channel, Customer, Order, OrderCommand},
    payment::{Payment, PaymentCommand},
    review::ReviewCommand,
    saga,
    state::{OrderState, Status},
    store::{StoreCommand, StoreOrder},
};

/// No story of a sound flow is longer.
pub const EVENTS_MAX: usize = 24;
/// Ways to pay that are declined in one story.
const DECLINES_MAX: usize = 2;

/// What a walk found.
#[derive(Debug, Default)]
pub struct Exploration {
    /// Different stories, unfinished ones included.
    pub stories: usize,
    /// Stories after which the order waits for a person or is at its end.
    pub rests: usize,
    /// From which status which event leads to which.
    pub transitions: BTreeSet<(Status, &'static str, Status)>,
    /// The first rule that a story broke.
    pub violation: Option<Violation>,
}

/// A rule, and a shortest story that breaks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: &'static str,
    pub story: Vec<&'static str>,
}

/// A story with what the rules look at.
struct Moment<'a> {
    flow: &'a Flow,
    state: &'a OrderState,
    names: &'a [&'static str],
    /// The saga has nothing to do.
    rests: bool,
}

/// A rule in the words of the business, and whether it holds at a moment.
type Rule = (&'static str, fn(&Moment<'_>) -> bool);

/// What must hold at every moment of every story.
const RULES: [Rule; 10] = [
    ("every story ends", |moment| moment.names.len() <= EVENTS_MAX),
    ("nothing happens twice", |moment| moment.happens_once()),
    ("no delivery leaves without its coupon", |moment| {
        moment.flow.coupon.is_none() || moment.left().is_none_or(|left| moment.before("CouponIssued", left))
    }),
    ("no store sees an order that is not paid", |moment| {
        let paid = |received| moment.before("PaymentApproved", received);
        moment.flow.payment.when == PaymentTime::None || moment.place("StoreOrderReceived").is_none_or(paid)
    }),
    ("nothing leaves before the store is ready", |moment| {
        !moment.flow.store || moment.left().is_none_or(|left| moment.before("PreparationFinished", left))
    }),
    ("nothing is canceled past the cut-off", |moment| moment.cut_off_holds()),
    ("what is undone is undone in the declared order, the order last", |moment| moment.undone_in_order()),
    ("a cancel is answered", |moment| !moment.rests || moment.state.order != Order::CancelRequested),
    ("an order that is over keeps nothing: no money, no coupon, no delivery, no store at work", |moment| {
        moment.keeps_nothing()
    }),
    ("only what was delivered and came back counts as returned", |moment| {
        let back = |returned| moment.before("ReturnPickupCompleted", returned);
        moment
            .place("OrderReturned")
            .is_none_or(|returned| back(returned) && moment.before("DeliveryCompleted", returned))
    }),
];

impl Moment<'_> {
    fn place(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|event| *event == name)
    }

    fn before(&self, name: &str, place: usize) -> bool {
        self.place(name).is_some_and(|earlier| earlier < place)
    }

    fn left(&self) -> Option<usize> {
        self.place("DeliveryStarted").or(self.place("DeliveryPickedUp"))
    }

    fn happens_once(&self) -> bool {
        // Where the customer pays in a second step, one way may be declined and another tried.
        let may_repeat = |event: &str| {
            self.flow.payment.when == PaymentTime::SecondStep
                && ["PaymentRequested", "PaymentDeclined"].contains(&event)
        };
        let events: Vec<_> = self.names.iter().filter(|event| !may_repeat(event)).collect();
        events.iter().collect::<BTreeSet<_>>().len() == events.len()
    }

    fn cut_off_holds(&self) -> bool {
        let too_late = match self.flow.cancel.until {
            CancelUntil::Delivered => "DeliveryCompleted",
            CancelUntil::Shipped => "DeliveryStarted",
            CancelUntil::PickedUp => "DeliveryPickedUp",
            CancelUntil::PreparationStarted => "PreparationStarted",
        };
        let canceled = self.place("OrderCancelRequested").or(self.place("OrderCanceled"));
        self.place(too_late).is_none() || canceled.is_none()
    }

    fn undone_in_order(&self) -> bool {
        let undone = |undo: &Undo| {
            self.place(match undo {
                Undo::Coupon => "CouponCanceled",
                Undo::StoreOrder => "StoreOrderCanceled",
                Undo::Delivery => "DeliveryCanceled",
                Undo::Payment => "PaymentCanceled",
            })
        };
        let undone: Vec<usize> = self.flow.cancel.undo.iter().filter_map(undone).collect();
        let is_last = |canceled: usize| undone.iter().all(|undone| *undone < canceled);
        undone.is_sorted() && self.place("OrderCanceled").is_none_or(is_last)
    }

    fn keeps_nothing(&self) -> bool {
        let is_over = matches!(self.state.order, Order::Canceled | Order::Expired | Order::Rejected);
        if !is_over || !self.rests {
            return true;
        }
        let coupon_kept = self.place("CouponIssued").is_some() && self.place("CouponCanceled").is_none();
        let delivery = [Delivery::NotRequested, Delivery::HaltedUnrequested, Delivery::Canceled];
        let store = [
            StoreOrder::NotReceived,
            StoreOrder::HaltedUnreceived,
            StoreOrder::Rejected,
            StoreOrder::Canceled,
        ];
        [Payment::None, Payment::Declined, Payment::Canceled].contains(&self.state.payment)
            && !coupon_kept
            && delivery.contains(&self.state.delivery)
            && store.contains(&self.state.store)
    }
}

/// Walks every story of a flow; stops at the first that breaks a rule.
pub fn explore(flow: &Flow, reference: &FlowRef) -> Exploration {
    let mut found = Exploration::default();
    let mut seen = BTreeSet::new();
    let mut waiting: VecDeque<(Vec<&'static str>, OrderState)> = VecDeque::new();
    waiting.push_back((Vec::new(), OrderState::default()));
    while let Some((names, state)) = waiting.pop_front() {
        if !seen.insert(names.clone()) {
            continue;
        }
        found.stories += 1;
        let step = saga::react(flow, &state).map(|step| step.command);
        found.rests += usize::from(step.is_none());
        let moment = Moment { flow, state: &state, names: &names, rests: step.is_none() };
        if let Some((rule, _)) = RULES.iter().find(|(_, holds)| !holds(&moment)) {
            found.violation = Some(Violation { rule, story: names });
            return found;
        }
        let mut commands = people(flow, reference, &state, &names);
        commands.extend(step.map(|command| match command {
            // What the payment context makes of it once the provider has answered.
            Command::ReturnPayment => Command::Payment(PaymentCommand::Cancel { returned: price() }),
            Command::Ordering(_)
            | Command::Payment(_)
            | Command::ChargePayment { .. }
            | Command::Store(_)
            | Command::Marketing(_)
            | Command::Delivery(_)
            | Command::Review(_)
            | Command::Saga(_) => command,
        }));
        for event in commands.iter().filter_map(|command| state.decide(flow, command).ok().flatten()) {
            let next = state.clone().evolve(&record(names.len() as u64 + 1, &event));
            if state.is_visible() {
                found.transitions.insert((state.status(), event.type_name(), next.status()));
            }
            let mut longer = names.clone();
            longer.push(event.type_name());
            waiting.push_back((longer, next));
        }
    }
    found
}

fn price() -> Money {
    Money { amount: 900, currency: Currency::WON }
}

fn record(sequence: u64, event: &Event) -> Recorded {
    let event_id = EventId(Uuid::from_u128(u128::from(sequence)));
    Recorded {
        order_id: OrderId(Uuid::nil()),
        position: Position { partition: 0, sequence },
        event_id,
        time: Timestamp::UNIX_EPOCH,
        command_id: CommandId::from_step(event_id, "explore"),
        fingerprint: None,
        event: event.clone(),
    }
}

fn placed(flow: &Flow, reference: &FlowRef) -> OrderPlaced {
    OrderPlaced {
        flow: reference.clone(),
        channel: flow.channels.first().copied().unwrap_or(Channel::Web),
        customer: Customer { id: "customer".into(), name: "customer".into(), phone: None, email: None },
        store_id: flow.store.then(|| "store".into()),
        lines: Vec::new(),
        total: price(),
        address: Address { line: "street".into(), region: Some("region".into()) },
        delivery_type: flow.delivery.types.first().cloned(),
        awaits_payment: flow.payment.when == PaymentTime::SecondStep,
    }
}

/// What people and the payment provider may do at this moment.
fn people(flow: &Flow, reference: &FlowRef, state: &OrderState, names: &[&'static str]) -> Vec<Command> {
    let pick_up = |rider: &str| Command::Delivery(DeliveryCommand::PickUp { rider_id: rider.into() });
    let mut commands = vec![
        Command::Ordering(OrderCommand::RequestCancel { reason: None }),
        Command::Ordering(OrderCommand::Complete),
        Command::Ordering(OrderCommand::RequestReturn { reason: None }),
        Command::Store(StoreCommand::Accept),
        Command::Store(StoreCommand::Reject { reason: None }),
        Command::Store(StoreCommand::Start),
        Command::Store(StoreCommand::Finish),
        pick_up("one rider"),
        pick_up("another rider"),
        Command::Delivery(DeliveryCommand::Start),
        Command::Delivery(DeliveryCommand::Complete),
        Command::Delivery(DeliveryCommand::StartReturn),
        Command::Delivery(DeliveryCommand::CompleteReturn),
        Command::Review(ReviewCommand::Write(ReviewWritten { rating: 5, text: "good".into() })),
    ];
    if flow.cancel.mode == CancelMode::Synchronous {
        commands.push(Command::Delivery(DeliveryCommand::Cancel));
    }
    let is_approved = matches!(state.payment, Payment::Approved { .. });
    // The caller places only what was approved, where the payment comes with the order.
    if flow.payment.when != PaymentTime::WithOrder || is_approved {
        let place = OrderCommand::Place(Box::new(placed(flow, reference)));
        commands.push(Command::Ordering(place));
    }
    let may_be_charged = match flow.payment.when {
        PaymentTime::WithOrder => true,
        PaymentTime::SecondStep => state.is_visible(),
        PaymentTime::None => false,
    };
    if may_be_charged {
        let (flow, customer_id, amount) = (reference.clone(), "customer".into(), price());
        let request = PaymentRequested { flow, customer_id, amount, method: "card".into() };
        commands.push(Command::Payment(PaymentCommand::Request(Box::new(request))));
        commands.push(Command::Payment(PaymentCommand::Approve { reference: "provider".into() }));
        if names.iter().filter(|name| **name == "PaymentDeclined").count() < DECLINES_MAX {
            commands.push(Command::Payment(PaymentCommand::Decline { reason: "no".into() }));
        }
    }
    commands
}

impl Exploration {
    /// The flow as a Mermaid state diagram: what customers see, and what moves it.
    pub fn diagram(&self) -> String {
        let mut lines = vec!["stateDiagram-v2".to_owned()];
        let begins = self.transitions.iter().map(|(from, _, _)| *from).min();
        lines.extend(begins.map(|begin| format!("    [*] --> {}", begin.as_str())));
        for (from, event, to) in self.transitions.iter().filter(|(from, _, to)| from != to) {
            lines.push(format!("    {} --> {}: {event}", from.as_str(), to.as_str()));
        }
        lines.join("\n")
    }
}
