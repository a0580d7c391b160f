//! What must hold after every event of every story.

use std::collections::BTreeSet;

use super::{ATTEMPTS_MAX, EVENTS_MAX, stories::Story};
use crate::{
    delivery::Delivery,
    flow::{CancelUntil, Ends, Flow, PaymentTime, Undo},
    order::Order,
    payment::Payment,
    store::StoreOrder,
};

/// A story, and the flow that it is held against.
struct Told<'a> {
    flow: &'a Flow,
    story: &'a Story,
}

/// A rule in the words of the business, and whether a story keeps it.
type Rule = (&'static str, fn(&Told<'_>) -> bool);

/// The first rule that a story breaks.
pub(super) fn broken(flow: &Flow, story: &Story) -> Option<&'static str> {
    let told = Told { flow, story };
    RULES.iter().find(|(_, holds)| !holds(&told)).map(|(rule, _)| *rule)
}

const RULES: [Rule; 14] = [
    ("every story ends", |told| told.story.names.len() <= told.events_max()),
    ("nothing happens twice", |told| told.happens_once()),
    ("no delivery leaves without its coupon", |told| {
        told.flow.coupon.is_none() || told.left().is_none_or(|left| told.before("CouponIssued", left))
    }),
    ("no store sees an order that is not paid", |told| {
        let paid = |received| told.before("PaymentApproved", received);
        told.flow.payment.when == PaymentTime::None || told.place("StoreOrderReceived").is_none_or(paid)
    }),
    ("nothing leaves that is not paid", |told| {
        let paid = |left| told.before("PaymentApproved", left);
        told.flow.payment.when == PaymentTime::None || told.left().is_none_or(paid)
    }),
    ("nothing leaves before the store is ready", |told| {
        !told.flow.store || told.left().is_none_or(|left| told.before("PreparationFinished", left))
    }),
    ("nothing is canceled past the cut-off", |told| told.cut_off_holds()),
    ("an order is canceled only if somebody asked for it", |told| {
        let asked = |canceled| {
            told.before("OrderCancelRequested", canceled) || told.before("DeliveryCanceled", canceled)
        };
        told.place("OrderCanceled").is_none_or(asked)
    }),
    ("what is undone is undone in the declared order, the order last", |told| told.undone_in_order()),
    ("a cancel is answered", |told| !told.rests() || told.story.state.order != Order::CancelRequested),
    ("an order that is over keeps nothing: no money, no coupon, no delivery, no store at work", |told| {
        told.keeps_nothing()
    }),
    ("only what was delivered and came back counts as returned", |told| {
        let back = |returned| told.before("ReturnPickupCompleted", returned);
        told.place("OrderReturned")
            .is_none_or(|returned| back(returned) && told.before("DeliveryCompleted", returned))
    }),
    (
        "an order waits for nobody for ever: each wait for a customer, a store or a rider has its deadline",
        |told| !told.rests() || !told.waits_for_somebody(),
    ),
    ("an archived order owes nobody anything, and nothing happens to it any more", |told| {
        let is_last = |archived| archived + 1 == told.story.names.len();
        told.place("OrderArchived").is_none_or(|archived| is_last(archived) && told.rests())
    }),
];

impl Told<'_> {
    /// The longest story: [`EVENTS_MAX`] has room for as many attempts to pay as are walked. Each further one, of which
    /// the flow limits how many there are, may be asked for, given up and declined.
    fn events_max(&self) -> usize {
        let attempts = self.story.names.iter().filter(|name| **name == "PaymentRequested").count();
        EVENTS_MAX + 3 * attempts.saturating_sub(ATTEMPTS_MAX as usize)
    }

    /// The saga has nothing to do, now or later.
    fn rests(&self) -> bool {
        self.story.step.is_none()
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.story.names.iter().position(|event| *event == name)
    }

    fn before(&self, name: &str, place: usize) -> bool {
        self.place(name).is_some_and(|earlier| earlier < place)
    }

    fn left(&self) -> Option<usize> {
        self.place("DeliveryStarted").or(self.place("DeliveryPickedUp"))
    }

    fn happens_once(&self) -> bool {
        // An order that stands can be paid anew after one way was declined; and a wait can be parked, and another.
        let may_repeat = |event: &str| match event {
            "PaymentRequested" | "PaymentDeclined" | "PaymentDeferred" => self.flow.may_be_paid_later(),
            "SagaParked" => true,
            _ => false,
        };
        let events: Vec<_> = self.story.names.iter().filter(|event| !may_repeat(event)).collect();
        events.iter().collect::<BTreeSet<_>>().len() == events.len()
    }

    /// Whether only somebody else can carry the order on, who owes nobody anything yet.
    fn waits_for_somebody(&self) -> bool {
        let state = &self.story.state;
        let has_it = matches!(state.delivery, Delivery::PickedUp { .. } | Delivery::Completed);
        state.order == Order::Placed
            && state.parked.is_none()
            && (state.awaits_payment()
                || state.store == StoreOrder::Received
                || state.delivery == Delivery::Listed
                || (self.flow.ends == Ends::Confirmed && has_it))
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
        let is_over = matches!(self.story.state.order, Order::Canceled | Order::Expired | Order::Rejected);
        if !is_over || !self.rests() {
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
        let is_settled = match self.story.state.payment {
            Payment::None | Payment::Declined { .. } | Payment::Canceled => true,
            Payment::Requested { .. } | Payment::Approved { .. } | Payment::Deferred { .. } => false,
        };
        is_settled
            && !coupon_kept
            && delivery.contains(&self.story.state.delivery)
            && store.contains(&self.story.state.store)
    }
}
