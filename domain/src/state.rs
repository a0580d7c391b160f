//! One order's whole story, folded: every context's aggregate side by side.

use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    command::{Command, Refusal, SagaCommand},
    coupon::{self, Coupon},
    delivery::{self, Delivery, DeliveryCommand},
    event::{
        Event, OrderArchived, OrderEvent, OrderPlaced, PaymentEvent, Recorded, SagaEvent, SagaParked,
        SagaResumed,
    },
    flow::{CancelMode, CancelUntil, DeliveryStart, Ends, Flow, FlowRef},
    id::{CommandId, EventId},
    notification::{self, Notifications},
    order::{self, Address, Item, Order, OrderCommand},
    payment::{self, Payment, PaymentCommand},
    review::{self, Review},
    saga,
    status::Status,
    store::{self, StoreOrder},
};

/// The step that an order is parked at when the person it waits for does not act in time.
pub const DEADLINE: &str = "deadline";

/// The newest fact of an order, on which the next decision stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newest {
    pub sequence: u64,
    pub event_id: EventId,
    pub command_id: CommandId,
    pub time: Timestamp,
}

/// What was ordered, as far as its fulfilment needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brief {
    pub store_id: Option<String>,
    pub items: Vec<Item>,
    pub address: Address,
    pub delivery_type: Option<String>,
    pub awaits_payment: bool,
}

impl Brief {
    fn of(placed: &OrderPlaced) -> Self {
        let items = placed.lines.iter().map(|line| Item {
            item_id: line.item_id.clone(),
            name: line.name.clone(),
            quantity: line.quantity,
            options: line.options.clone(),
        });
        Self {
            store_id: placed.store_id.clone(),
            items: items.collect(),
            address: placed.address.clone(),
            delivery_type: placed.delivery_type.clone(),
            awaits_payment: placed.awaits_payment,
        }
    }
}

/// The fold of all events of one order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OrderState {
    pub flow: Option<FlowRef>,
    /// What the order's next steps need to know of it.
    pub brief: Option<Box<Brief>>,
    pub order: Order,
    pub payment: Payment,
    pub store: StoreOrder,
    pub coupon: Coupon,
    pub delivery: Delivery,
    pub review: Review,
    pub notifications: Notifications,
    /// Since when the order is where it is: deadlines run from here.
    pub moved_at: Option<Timestamp>,
    /// When the payment that has no outcome yet was asked for.
    pub asked_at: Option<Timestamp>,
    /// The step that was refused for good, while an operator has not said how to go on.
    pub parked: Option<SagaParked>,
    /// Nothing changes any more, and the story may be in the archive.
    pub is_archived: bool,
    pub newest: Option<Newest>,
}

impl OrderState {
    /// Folds a story from its beginning.
    pub fn replay<'a>(events: impl IntoIterator<Item = &'a Recorded>) -> Self {
        events.into_iter().fold(Self::default(), Self::evolve)
    }

    /// The state after one more recorded event. An event at or before the newest is a repeat and changes nothing.
    #[must_use]
    pub fn evolve(mut self, recorded: &Recorded) -> Self {
        if recorded.position.sequence <= self.sequence() {
            return self;
        }
        self.newest = Some(Newest {
            sequence: recorded.position.sequence,
            event_id: recorded.event_id,
            command_id: recorded.command_id,
            time: recorded.time,
        });
        match &recorded.event {
            Event::Payment(PaymentEvent::PaymentRequested(_)) => self.asked_at = Some(recorded.time),
            // Neither moves the order: a declined customer does not gain time, nor one who writes or is written to.
            Event::Payment(PaymentEvent::PaymentDeclined(_) | PaymentEvent::PaymentDeferred(_))
            | Event::Review(_)
            | Event::Notification(_)
            | Event::Saga(SagaEvent::SagaParked(_) | SagaEvent::OrderArchived(_)) => {}
            Event::Payment(PaymentEvent::PaymentApproved(_) | PaymentEvent::PaymentCanceled(_))
            | Event::Ordering(_)
            | Event::Store(_)
            | Event::Marketing(_)
            | Event::Delivery(_)
            | Event::Saga(SagaEvent::SagaResumed(_)) => {
                self.moved_at = Some(recorded.time);
                // Whoever was waited for has come after all.
                self.parked = self.parked.filter(|parked| parked.step != DEADLINE);
            }
        }
        self.apply(&recorded.event)
    }

    /// The state after one more fact, whatever its place in the log.
    #[must_use]
    pub fn apply(mut self, event: &Event) -> Self {
        match event {
            Event::Ordering(event) => {
                if let OrderEvent::OrderPlaced(placed) = event {
                    self.flow = Some(placed.flow.clone());
                    self.brief = Some(Box::new(Brief::of(placed)));
                }
                if let OrderEvent::OrderCancelRequested(_) = event {
                    // A cancel takes another way, on which the parked step does not stand.
                    self.parked = None;
                }
                self.order = order::evolve(self.order, event);
                self.store = store::heed(self.store, event);
                self.delivery = delivery::heed(self.delivery, event);
            }
            Event::Payment(event) => {
                if let PaymentEvent::PaymentRequested(requested) = event {
                    self.flow = Some(requested.flow.clone());
                }
                self.payment = payment::evolve(self.payment, event);
            }
            Event::Store(event) => self.store = store::evolve(self.store, event),
            Event::Review(event) => self.review = review::evolve(self.review, event),
            Event::Notification(event) => {
                self.notifications = notification::evolve(self.notifications, event);
            }
            Event::Marketing(event) => self.coupon = coupon::evolve(self.coupon, event),
            Event::Delivery(event) => self.delivery = delivery::evolve(self.delivery, event),
            Event::Saga(SagaEvent::SagaParked(why)) => self.parked = Some(why.clone()),
            Event::Saga(SagaEvent::SagaResumed(_)) => self.parked = None,
            Event::Saga(SagaEvent::OrderArchived(_)) => self.is_archived = true,
        }
        self
    }

    /// Whether the order stands and its customer has still to pay.
    pub fn awaits_payment(&self) -> bool {
        let later = self.brief.as_ref().is_some_and(|brief| brief.awaits_payment);
        later && !matches!(self.payment, Payment::Approved { .. })
    }

    /// The sequence of the newest event; 0 if the order has none.
    pub fn sequence(&self) -> u64 {
        self.newest.map_or(0, |newest| newest.sequence)
    }

    /// Whether customers can see the order: it came to stand once.
    pub fn is_visible(&self) -> bool {
        self.brief.is_some()
    }

    /// Decides about a command on this order: first what the order's flow forbids, then what the context itself
    /// refuses. `None` means that the fact already holds.
    ///
    /// [`Command::ChargePayment`], [`Command::SettlePayment`] and [`Command::ReturnPayment`] are not decided here: the
    /// payment context carries them out with the provider, and decides about a [`PaymentCommand`] before and after.
    pub fn decide(&self, flow: &Flow, command: &Command) -> Result<Option<Event>, Refusal> {
        self.allowed_by(flow, command)?;
        // What held before still holds: whoever says it again, and late, is told so, and undoes nothing.
        match self.decide_anew(flow, command)? {
            Some(_) if self.is_archived => Err(Refusal::OrderArchived),
            decided => Ok(decided),
        }
    }

    fn decide_anew(&self, flow: &Flow, command: &Command) -> Result<Option<Event>, Refusal> {
        match command {
            Command::Ordering(command) => order::decide(self.order, command),
            Command::Payment(command) => payment::decide(self.payment, command),
            Command::ChargePayment { .. } | Command::SettlePayment | Command::ReturnPayment => Ok(None),
            Command::Marketing(command) => coupon::decide(&self.coupon, command),
            Command::Store(command) => store::decide(self.store, command),
            Command::Delivery(command) => delivery::decide(&self.delivery, command),
            Command::Review(command) => review::decide(self.review, self.brief.as_deref(), command),
            Command::Notification(command) => notification::decide(&self.notifications, command),
            Command::Saga(SagaCommand::Archive) if self.is_archived => Ok(None),
            Command::Saga(SagaCommand::Archive) if !self.is_at_its_end(flow) => Err(Refusal::NotAtItsEnd),
            Command::Saga(command) => decide_saga(self.parked.as_ref(), command),
        }
    }

    /// What no single context can know: rules of the flow that bind one context to another.
    fn allowed_by(&self, flow: &Flow, command: &Command) -> Result<(), Refusal> {
        match command {
            Command::Ordering(OrderCommand::RequestCancel { .. } | OrderCommand::Cancel)
                if !self.is_visible() =>
            {
                Err(Refusal::OrderNotFound)
            }
            Command::Ordering(OrderCommand::RequestCancel { .. })
                if flow.cancel.mode == CancelMode::Synchronous =>
            {
                Err(Refusal::NotInFlow)
            }
            Command::Ordering(OrderCommand::RequestCancel { .. }) if self.order == Order::Placed => {
                self.cut_off(flow).map_or(Ok(()), Err)
            }
            Command::Payment(
                command @ (PaymentCommand::Request(_)
                | PaymentCommand::Approve { .. }
                | PaymentCommand::Decline { .. }
                | PaymentCommand::Defer { .. }),
            ) => self.payment_allowed(flow, command),
            Command::Ordering(OrderCommand::Cancel) if self.order == Order::Placed => {
                let consented = self.delivery == Delivery::Canceled;
                let may = consented && flow.cancel.mode == CancelMode::Synchronous;
                if may { Ok(()) } else { Err(Refusal::CancelNotRequested) }
            }
            Command::Ordering(OrderCommand::RequestReturn { .. }) => match self.order {
                _ if !self.is_visible() => Err(Refusal::OrderNotFound),
                _ if !flow.returns => Err(Refusal::NotInFlow),
                Order::Placed if !self.has_arrived() => Err(Refusal::NotDelivered),
                Order::NotPlaced
                | Order::Placed
                | Order::CancelRequested
                | Order::Canceled
                | Order::Expired
                | Order::Rejected
                | Order::Completed
                | Order::ReturnRequested
                | Order::Returned => Ok(()),
            },
            Command::Ordering(OrderCommand::Complete) => match (flow.ends, &self.delivery) {
                _ if !self.is_visible() => Err(Refusal::OrderNotFound),
                (Ends::Delivered, _) => Err(Refusal::NotInFlow),
                (Ends::Confirmed, Delivery::PickedUp { .. } | Delivery::Completed) => Ok(()),
                (Ends::Confirmed, _) if self.order == Order::Completed => Ok(()),
                (Ends::Confirmed, _) => Err(Refusal::NotDelivered),
            },
            Command::Store(_) | Command::Review(_) if !self.is_visible() => Err(Refusal::OrderNotFound),
            Command::Store(_) if !flow.store => Err(Refusal::NotInFlow),
            Command::Review(_) if !flow.review => Err(Refusal::NotInFlow),
            Command::Review(_) if !self.has_arrived() => Err(Refusal::NotDelivered),
            Command::Delivery(command) => self.delivery_allowed_by(flow, command),
            Command::Ordering(_)
            | Command::Payment(_)
            | Command::ChargePayment { .. }
            | Command::SettlePayment
            | Command::ReturnPayment
            | Command::Store(_)
            | Command::Marketing(_)
            | Command::Review(_)
            | Command::Notification(_)
            | Command::Saga(_) => Ok(()),
        }
    }

    fn payment_allowed(&self, flow: &Flow, command: &PaymentCommand) -> Result<(), Refusal> {
        let again =
            matches!(command, PaymentCommand::Request(_)) && matches!(self.payment, Payment::Declined { .. });
        let is_last = self.payment.attempt() >= flow.payment.attempts_max;
        match self.order {
            Order::Expired => Err(Refusal::OrderExpired),
            Order::CancelRequested | Order::Canceled => Err(Refusal::AlreadyCanceled),
            // Only an order that stands can be paid otherwise after one way was declined.
            Order::NotPlaced if again => Err(Refusal::PaymentDeclined),
            Order::Placed if again && is_last => Err(Refusal::PaymentAttemptsExhausted),
            Order::NotPlaced
            | Order::Placed
            | Order::Rejected
            | Order::Completed
            | Order::ReturnRequested
            | Order::Returned => Ok(()),
        }
    }

    fn delivery_allowed_by(&self, flow: &Flow, command: &DeliveryCommand) -> Result<(), Refusal> {
        if !self.is_visible() {
            return Err(Refusal::OrderNotFound);
        }
        let by_rider = flow.delivery.start == DeliveryStart::Rider;
        let coupon_issued = matches!(self.coupon, Coupon::Issued { .. });
        match command {
            DeliveryCommand::Start if flow.coupon.is_some() && !coupon_issued => match self.order {
                Order::Placed => Err(Refusal::CouponRequired),
                Order::NotPlaced
                | Order::CancelRequested
                | Order::Canceled
                | Order::Expired
                | Order::Rejected
                | Order::Completed
                | Order::ReturnRequested
                | Order::Returned => Ok(()),
            },
            DeliveryCommand::Cancel if flow.cancel.mode == CancelMode::Synchronous => {
                self.cut_off(flow).map_or(Ok(()), Err)
            }
            DeliveryCommand::StartReturn | DeliveryCommand::CompleteReturn => match self.order {
                _ if !flow.returns => Err(Refusal::NotInFlow),
                Order::ReturnRequested | Order::Returned => Ok(()),
                Order::NotPlaced
                | Order::Placed
                | Order::CancelRequested
                | Order::Canceled
                | Order::Expired
                | Order::Rejected
                | Order::Completed => Err(Refusal::ReturnNotRequested),
            },
            DeliveryCommand::Start | DeliveryCommand::Request { .. } if by_rider => Err(Refusal::NotInFlow),
            DeliveryCommand::PickUp { .. } | DeliveryCommand::List(_) if !by_rider => Err(Refusal::NotInFlow),
            DeliveryCommand::Complete if flow.ends == Ends::Confirmed => Err(Refusal::NotInFlow),
            DeliveryCommand::Cancel if coupon_issued && flow.undoes_coupon_before_delivery() => {
                Err(Refusal::CouponStillValid)
            }
            DeliveryCommand::Request { .. }
            | DeliveryCommand::List(_)
            | DeliveryCommand::PickUp { .. }
            | DeliveryCommand::Start
            | DeliveryCommand::Complete
            | DeliveryCommand::Cancel => Ok(()),
        }
    }

    /// Why the order can no longer be canceled, if its flow's cut-off has passed.
    ///
    /// The cut-off is judged on the log itself, under the guard of the order's last sequence, so a cancel request
    /// that is accepted was in time, and a context that heeds it goes no further.
    pub fn cut_off(&self, flow: &Flow) -> Option<Refusal> {
        let preparing = matches!(self.store, StoreOrder::Preparing | StoreOrder::Prepared);
        let reached = match &self.delivery {
            Delivery::Completed | Delivery::Returning | Delivery::Returned => Some(Refusal::AlreadyDelivered),
            Delivery::Started => Some(Refusal::AlreadyShipped),
            Delivery::PickedUp { .. } => Some(Refusal::AlreadyPickedUp),
            Delivery::NotRequested
            | Delivery::Requested
            | Delivery::Listed
            | Delivery::HaltedUnrequested
            | Delivery::Halted
            | Delivery::Canceled => None,
        };
        if self.store == StoreOrder::Rejected {
            return Some(Refusal::AlreadyRejected);
        }
        match flow.cancel.until {
            CancelUntil::Delivered => reached.filter(|reached| *reached == Refusal::AlreadyDelivered),
            CancelUntil::Shipped | CancelUntil::PickedUp => reached,
            CancelUntil::PreparationStarted => {
                reached.or_else(|| preparing.then_some(Refusal::PreparationStarted))
            }
        }
    }

    /// Whether nobody carries the order on any more, and nobody is owed anything. A customer may still write a review,
    /// or want to give back what was delivered.
    pub fn is_at_its_end(&self, flow: &Flow) -> bool {
        let is_over = match self.order {
            Order::Canceled | Order::Expired | Order::Rejected | Order::Completed | Order::Returned => true,
            Order::Placed => flow.ends == Ends::Delivered && self.has_arrived(),
            // Its payment was declined, or came back.
            Order::NotPlaced => self.newest.is_some(),
            Order::CancelRequested | Order::ReturnRequested => false,
        };
        is_over && self.parked.is_none() && saga::react(flow, self).is_none()
    }

    /// Whether the customer has what they ordered.
    fn has_arrived(&self) -> bool {
        self.order == Order::Completed
            || matches!(self.delivery, Delivery::Completed | Delivery::Returning | Delivery::Returned)
    }

    /// What a person calls the order's state.
    pub fn status(&self) -> Status {
        match self.order {
            Order::CancelRequested => Status::CancelRequested,
            Order::Canceled => Status::Canceled,
            Order::Expired => Status::Expired,
            Order::Rejected => Status::Rejected,
            Order::Completed => Status::Completed,
            Order::Returned => Status::Returned,
            Order::ReturnRequested if matches!(self.delivery, Delivery::Returning | Delivery::Returned) => {
                Status::ReturnInTransit
            }
            Order::ReturnRequested => Status::ReturnRequested,
            Order::NotPlaced => Status::AwaitingPayment,
            Order::Placed if self.awaits_payment() => Status::AwaitingPayment,
            Order::Placed => match &self.delivery {
                Delivery::Completed | Delivery::Returning | Delivery::Returned => Status::Delivered,
                Delivery::Started | Delivery::PickedUp { .. } => Status::OutForDelivery,
                Delivery::NotRequested
                | Delivery::Requested
                | Delivery::Listed
                | Delivery::HaltedUnrequested
                | Delivery::Halted
                | Delivery::Canceled => self.status_before_delivery(),
            },
        }
    }

    fn status_before_delivery(&self) -> Status {
        match self.store {
            StoreOrder::Accepted => Status::Accepted,
            StoreOrder::Preparing => Status::Preparing,
            StoreOrder::Prepared => Status::Prepared,
            StoreOrder::Rejected => Status::Rejected,
            StoreOrder::NotReceived
            | StoreOrder::Received
            | StoreOrder::HaltedUnreceived
            | StoreOrder::Halted
            | StoreOrder::Canceled => match self.payment {
                Payment::Approved { .. } => Status::Paid,
                Payment::None
                | Payment::Requested { .. }
                | Payment::Declined { .. }
                | Payment::Deferred { .. }
                | Payment::Canceled => Status::Placed,
            },
        }
    }
}

fn decide_saga(parked: Option<&SagaParked>, command: &SagaCommand) -> Result<Option<Event>, Refusal> {
    match (command, parked) {
        (SagaCommand::Park { .. }, Some(_)) => Ok(None),
        (SagaCommand::Park { step, code, detail }, None) => {
            let (step, code, detail) = (step.clone(), code.clone(), detail.clone());
            Ok(Some(SagaParked { step, code, detail }.into()))
        }
        (SagaCommand::Resume, Some(_)) => Ok(Some(SagaResumed {}.into())),
        (SagaCommand::Resume, None) => Err(Refusal::NotParked),
        (SagaCommand::Archive, _) => Ok(Some(OrderArchived {}.into())),
    }
}
