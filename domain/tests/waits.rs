//! What happens when nobody acts, when the payment provider does not answer, and what customers are told meanwhile.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use domain::{
    Command, CommandId, Currency, Event, EventId, Flow, FlowRef, Flows, Money, OrderId, OrderState, Position,
    Recorded, Refusal, Status, Timestamp,
    delivery::DeliveryCommand,
    event::{Context, NotificationSent, OrderPlaced, PaymentRequested},
    notification::{self, Language, Medium, NotificationCommand},
    order::{Address, Channel, Customer, Order, OrderCommand},
    payment::{self, Payment, PaymentCommand, provider_key},
    saga,
    store::StoreCommand,
};

/// One order, whose events come a second apart.
struct Life {
    flow: Flow,
    reference: FlowRef,
    story: Vec<Recorded>,
}

impl Life {
    fn of(flow: &str) -> Self {
        let flows = Flows::shipped().unwrap();
        let declared = flows.newest(flow).unwrap();
        Self { flow: (*declared.flow).clone(), reference: declared.reference.clone(), story: Vec::new() }
    }

    /// An order that stands; `waits` for its payment, or was paid.
    fn placed(flow: &str, waits: bool) -> Self {
        let mut life = Self::of(flow);
        if !waits && flow != "rental" {
            life.pays().does(approve(1));
        }
        let placed = life.order(waits);
        life.does(Command::Ordering(OrderCommand::Place(Box::new(placed))));
        life
    }

    fn order(&self, awaits_payment: bool) -> OrderPlaced {
        let text = || "someone".to_owned();
        let customer =
            Customer { id: text(), name: text(), phone: Some("010".into()), email: None, language: None };
        OrderPlaced {
            flow: self.reference.clone(),
            channel: Channel::Web,
            customer,
            store_id: Some("store-1".into()),
            lines: Vec::new(),
            total: won(900),
            address: Address { line: "street".into(), region: None },
            delivery_type: None,
            awaits_payment,
        }
    }

    fn state(&self) -> OrderState {
        OrderState::replay(&self.story)
    }

    fn when(&self, command: &Command) -> Result<Option<Event>, Refusal> {
        self.state().decide(&self.flow, command)
    }

    /// Records what the command leads to; it must lead to something.
    #[expect(clippy::needless_pass_by_value, reason = "reads as a sentence")]
    fn does(&mut self, command: Command) -> &mut Self {
        let event =
            self.when(&command).unwrap().unwrap_or_else(|| panic!("{} changes nothing", command.name()));
        self.happens(event)
    }

    fn happens(&mut self, event: Event) -> &mut Self {
        let sequence = self.story.len() as u64 + 1;
        let event_id = EventId(uuid::Uuid::from_u128(u128::from(sequence)));
        self.story.push(Recorded {
            order_id: OrderId::from_key("test", "order"),
            position: Position { partition: 0, sequence },
            event_id,
            time: Timestamp::from_second(i64::try_from(self.story.len()).unwrap()).unwrap(),
            command_id: CommandId::from_step(event_id, "test"),
            fingerprint: None,
            event,
        });
        self
    }

    fn pays(&mut self) -> &mut Self {
        let request = PaymentRequested {
            flow: self.reference.clone(),
            customer_id: "someone".into(),
            amount: won(900),
            method: "card".into(),
        };
        self.does(Command::Payment(PaymentCommand::Request(Box::new(request))))
    }

    /// Takes the steps that are due at once.
    fn goes_on(&mut self) -> &mut Self {
        while let Some(step) = saga::react(&self.flow, &self.state()).filter(|step| step.not_before.is_none())
        {
            let state = self.state();
            let mut command = step.command;
            if command == Command::ReturnPayment {
                let taken =
                    if let Payment::Approved { amount, .. } = state.payment { amount } else { won(0) };
                command = Command::Payment(payment::closed(state.payment, state.order, taken));
            }
            self.does(command);
        }
        self
    }

    /// The step that comes when nobody acts, and the second at which it is due.
    fn deadline(&self) -> Option<(&'static str, i64)> {
        let step = saga::react(&self.flow, &self.state())?;
        Some((step.command.name(), step.not_before?.as_second()))
    }

    /// Nobody acts.
    fn waits_in_vain(&mut self) -> &mut Self {
        let step = saga::react(&self.flow, &self.state()).unwrap();
        assert!(step.not_before.is_some(), "{} is due at once", step.command.name());
        self.does(step.command).goes_on()
    }
}

fn won(amount: i64) -> Money {
    Money { amount, currency: Currency::WON }
}

fn approve(attempt: u32) -> Command {
    Command::Payment(PaymentCommand::Approve { attempt, reference: "r".into() })
}

fn decline(attempt: u32) -> Command {
    Command::Payment(PaymentCommand::Decline { attempt, reason: "no".into() })
}

fn cooked(flow: &str) -> Life {
    let mut life = Life::placed(flow, false);
    life.goes_on();
    for command in [StoreCommand::Accept, StoreCommand::Start, StoreCommand::Finish] {
        life.does(Command::Store(command));
    }
    life.goes_on();
    life
}

#[test]
fn an_order_that_nobody_pays_expires_and_a_declined_try_gives_no_more_time() {
    let mut life = Life::placed("appliance", true);
    assert_eq!(life.deadline(), Some(("expire_order", 86_400)));
    life.pays().does(decline(1));
    assert_eq!(life.deadline(), Some(("expire_order", 86_400)));
    life.waits_in_vain();
    assert_eq!((life.state().order, life.state().status()), (Order::Expired, Status::Expired));
    assert!(life.state().is_visible(), "its customer can see what became of it");
    let cancel = Command::Ordering(OrderCommand::RequestCancel { reason: None });
    assert_eq!(life.when(&cancel), Err(Refusal::OrderExpired));
}

#[test]
fn a_silent_store_loses_the_order_and_the_money_goes_back() {
    let mut life = Life::placed("food", false);
    life.goes_on();
    assert_eq!(life.deadline(), Some(("expire_order", 3 + 900)));
    life.waits_in_vain();
    assert_eq!(life.state().payment, Payment::Canceled);
    assert_eq!(life.when(&Command::Store(StoreCommand::Accept)), Err(Refusal::StoreOrderCanceled));
}

#[test]
fn a_meal_that_no_rider_wants_expires_in_the_kitchen_and_is_parked_in_food() {
    let mut life = cooked("kitchen");
    life.waits_in_vain();
    assert_eq!(life.state().status(), Status::Expired);
    let mut life = cooked("food");
    life.waits_in_vain();
    assert_eq!(life.state().parked.map(|parked| parked.code), Some("no_rider".into()));
    assert_eq!(life.deadline(), None, "an operator is waited for");
    life.does(Command::Delivery(DeliveryCommand::PickUp { rider_id: "r".into() }));
    assert_eq!(life.state().parked, None, "the rider came after all");
}

#[test]
fn what_is_picked_up_and_never_confirmed_counts_as_received() {
    let mut life = cooked("kitchen");
    life.does(Command::Delivery(DeliveryCommand::PickUp { rider_id: "r".into() }));
    let picked_up = i64::try_from(life.story.len()).unwrap() - 1;
    assert_eq!(life.deadline(), Some(("complete_order", picked_up + 10_800)));
    life.waits_in_vain();
    assert_eq!(life.state().status(), Status::Completed);
}

#[test]
fn a_payment_without_an_answer_is_settled_and_what_nobody_knows_of_is_closed_before_another_try() {
    let mut life = Life::placed("appliance", true);
    life.pays();
    assert_eq!(life.deadline(), Some(("settle_payment", 1 + 30)));
    life.does(Command::Payment(PaymentCommand::Defer { attempt: 1 }));
    assert_eq!(life.when(&approve(1)), Err(Refusal::PaymentDeclined), "it comes too late, and goes back");
    let request = life.story[1].event.clone();
    let Event::Payment(domain::event::PaymentEvent::PaymentRequested(request)) = request else { panic!() };
    let again = Command::Payment(PaymentCommand::Request(Box::new(request)));
    assert_eq!(life.when(&again), Err(Refusal::PaymentDeferred));
    life.goes_on().pays();
    assert_eq!(life.state().payment.attempt(), 2);
    assert_eq!(life.when(&decline(1)), Ok(None), "what the first try hears is no answer to the second");
    assert_eq!(life.when(&approve(1)), Err(Refusal::PaymentDeclined));
    life.does(approve(2)).goes_on();
    assert_eq!(life.state().status(), Status::Paid);
}

#[test]
fn each_attempt_to_pay_has_a_key_of_its_own_at_the_provider() {
    let order = OrderId::from_key("test", "order");
    assert_ne!(provider_key(order, 1), provider_key(order, 2));
    assert_eq!(provider_key(order, 1), format!("{order}.1"));
}

#[test]
fn a_customer_is_told_of_each_change_once_however_often_it_is_looked_at() {
    let mut life = cooked("kitchen");
    let told = |life: &Life| {
        notification::due(&life.flow, &life.story).iter().map(|notice| notice.status).collect::<Vec<_>>()
    };
    assert_eq!(told(&life), [Status::Paid, Status::Accepted, Status::Preparing, Status::Prepared]);
    let first = notification::due(&life.flow, &life.story)[0].clone();
    let sent = NotificationSent {
        about: first.about,
        status: first.status,
        medium: Medium::Kakao,
        language: Language::Korean,
        to: "010".into(),
        text: "hello".into(),
        reference: "1".into(),
    };
    let record = Command::Notification(NotificationCommand::RecordSent(Box::new(sent)));
    life.does(record.clone());
    assert_eq!(told(&life), [Status::Accepted, Status::Preparing, Status::Prepared]);
    assert_eq!(life.when(&record), Ok(None), "it is not recorded twice");
}

#[test]
fn only_the_changes_that_the_flow_names_are_told_and_what_was_told_moves_nothing() {
    let mut life = Life::placed("appliance", true);
    assert!(notification::due(&life.flow, &life.story).is_empty(), "an SMS tells of the departure only");
    let before = (life.state().moved_at, life.deadline());
    let failed = domain::event::NotificationFailed {
        about: life.story[0].event_id,
        status: Status::AwaitingPayment,
        medium: Medium::Sms,
        to: None,
        tries: 1,
        reason: "none".into(),
    };
    life.happens(failed.into());
    assert_eq!((life.state().moved_at, life.deadline()), before);
    assert_eq!(life.story[1].event.context(), Context::Notification);
}

#[test]
fn goods_that_come_back_are_paid_back_before_the_order_counts_as_returned() {
    let mut life = Life::placed("marketplace", false);
    life.flow.returns = true;
    life.goes_on().does(Command::Delivery(DeliveryCommand::Complete));
    life.does(Command::Ordering(OrderCommand::RequestReturn { reason: None }));
    life.does(Command::Delivery(DeliveryCommand::StartReturn));
    life.does(Command::Delivery(DeliveryCommand::CompleteReturn)).goes_on();
    assert_eq!((life.state().payment, life.state().order), (Payment::Canceled, Order::Returned));
    let names: Vec<_> = life.story.iter().map(|recorded| recorded.event.type_name()).collect();
    assert!(names.ends_with(&["ReturnPickupCompleted", "PaymentCanceled", "OrderReturned"]), "{names:?}");
}

#[test]
fn a_customer_who_left_nothing_to_be_reached_by_is_given_up_once() {
    // A mail address is what this customer left none of.
    let mut life = Life::placed("rental", false);
    let first = notification::due(&life.flow, &life.story);
    life.goes_on().does(Command::Delivery(DeliveryCommand::Cancel)).goes_on();
    assert_eq!(life.state().status(), Status::Canceled);
    assert_eq!(notification::due(&life.flow, &life.story), first);
    assert_eq!(first.len(), 1);
}

#[test]
fn only_a_customer_who_paid_is_told_of_a_refund() {
    let told_of_refund = |life: &Life| {
        let notices = notification::due(&life.flow, &life.story);
        let end = notices.iter().find(|notice| notice.status == Status::Canceled);
        end.unwrap_or_else(|| panic!("the end is told: {notices:?}")).has_paid
    };
    let canceled = |pays: fn(&mut Life)| {
        let mut life = Life::placed("appliance", true);
        if let Some(rule) = &mut life.flow.notify {
            rule.on.clear();
        }
        pays(&mut life);
        life.does(Command::Ordering(OrderCommand::RequestCancel { reason: None })).goes_on();
        life
    };
    let approved = canceled(|life| {
        life.pays().does(approve(1)).goes_on();
    });
    assert!(told_of_refund(&approved), "the charge was approved");
    assert!(!told_of_refund(&canceled(|_| ())), "no attempt was made");
    let declined = canceled(|life| {
        life.pays().does(decline(1));
    });
    assert!(!told_of_refund(&declined), "the card was declined");
}
