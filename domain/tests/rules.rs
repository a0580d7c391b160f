//! The rules, as given / when / then.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use domain::{
    Command, CommandId, Event, EventId, Flow, FlowRef, Flows, Money, OrderId, OrderState, Position, Recorded,
    Refusal, Timestamp,
    command::SagaCommand,
    coupon::CouponCommand,
    delivery::DeliveryCommand,
    event::{
        CouponCanceled, CouponIssued, DeliveryCanceled, DeliveryCompleted, DeliveryListed, DeliveryPickedUp,
        DeliveryRequested, DeliveryStarted, OrderArchived, OrderCancelRequested, OrderCanceled,
        OrderCompleted, OrderEvent, OrderExpired, OrderPlaced, PaymentApproved, PaymentCanceled,
        PaymentDeclined, PaymentEvent, PaymentRequested, PreparationFinished, PreparationStarted,
        ReturnPickupCompleted, ReturnPickupStarted, ReturnRequested, ReviewWritten, SagaParked,
        StoreOrderAccepted, StoreOrderReceived, StoreOrderRejected,
    },
    order::{Address, Channel, Customer, OrderCommand},
    payment::PaymentCommand,
    review::ReviewCommand,
    saga,
    store::StoreCommand,
};

struct Story {
    flow: Flow,
    reference: FlowRef,
    events: Vec<Event>,
}

fn given(events: impl IntoIterator<Item = Event>) -> Story {
    given_in("marketplace", events)
}

fn given_in(flow: &str, events: impl IntoIterator<Item = Event>) -> Story {
    let flows = Flows::shipped().unwrap();
    let declared = flows.newest(flow).unwrap();
    let (flow, reference) = ((*declared.flow).clone(), declared.reference.clone());
    Story { flow, reference, events: events.into_iter().collect() }
}

impl Story {
    fn state(&self) -> OrderState {
        let recorded: Vec<Recorded> =
            (1..).zip(&self.events).map(|(sequence, event)| record(sequence, event)).collect();
        OrderState::replay(&recorded)
    }

    fn when(&self, command: &Command) -> Result<Option<Event>, Refusal> {
        self.state().decide(&self.flow, command)
    }

    /// The name of the step that the order takes next by itself, now; deadlines are in `waits.rs`.
    fn next(&self) -> Option<&'static str> {
        let step = saga::react(&self.flow, &self.state()).filter(|step| step.not_before.is_none());
        step.map(|step| step.command.name())
    }
}

fn record(sequence: u64, event: &Event) -> Recorded {
    let cause = EventId(uuid::Uuid::from_u128(u128::from(sequence)));
    Recorded {
        order_id: OrderId::from_key("test", "order"),
        position: Position { partition: 0, sequence },
        event_id: cause,
        time: Timestamp::UNIX_EPOCH,
        command_id: CommandId::from_step(cause, "test"),
        fingerprint: None,
        event: event.clone(),
    }
}

fn won(amount: i64) -> Money {
    Money { amount, currency: "KRW".parse().unwrap() }
}

fn address() -> Address {
    Address { line: "England".into(), region: None }
}

fn reference() -> FlowRef {
    given([]).reference
}

fn requested() -> Event {
    let customer_id = "gentleman".to_owned();
    PaymentRequested { flow: reference(), customer_id, amount: won(900), method: "card".into() }.into()
}

fn approved() -> Event {
    PaymentApproved { amount: won(900), reference: "r".into() }.into()
}

fn placed() -> Event {
    let customer =
        Customer {
            id: "gentleman".into(), name: "홍길동".into(), phone: None, email: None, language: None
        };
    let (total, address) = (won(900), address());
    let (channel, lines) = (Channel::Phone, Vec::new());
    OrderPlaced {
        flow: reference(),
        channel,
        customer,
        store_id: None,
        lines,
        total,
        address,
        delivery_type: None,
        awaits_payment: false,
    }
    .into()
}

fn issued() -> Event {
    CouponIssued { coupon_id: "COUPON1".into(), kind: "DISCOUNT".into() }.into()
}

fn paid() -> Vec<Event> {
    vec![requested(), approved(), placed()]
}

fn under_way() -> Vec<Event> {
    [paid(), vec![DeliveryRequested { address: address() }.into(), issued(), DeliveryStarted {}.into()]]
        .concat()
}

fn and(mut story: Vec<Event>, event: impl Into<Event>) -> Vec<Event> {
    story.push(event.into());
    story
}

fn cancel_requested() -> Event {
    OrderCancelRequested { reason: None }.into()
}

const START: Command = Command::Delivery(DeliveryCommand::Start);
const COMPLETE: Command = Command::Delivery(DeliveryCommand::Complete);
const CANCEL: Command = Command::Ordering(OrderCommand::RequestCancel { reason: None });

#[test]
fn a_paid_order_asks_for_delivery_then_coupon_then_leaves_and_then_waits_for_a_person() {
    assert_eq!(given(paid()).next(), Some("request_delivery"));
    let requested = and(paid(), DeliveryRequested { address: address() });
    assert_eq!(given(requested.clone()).next(), Some("issue_coupon"));
    assert_eq!(given(and(requested, issued())).next(), Some("start_delivery"));
    assert_eq!(given(under_way()).next(), None);
    assert_eq!(given(and(under_way(), DeliveryCompleted {})).next(), None);
}

#[test]
fn no_delivery_starts_without_its_coupon() {
    assert_eq!(
        given(and(paid(), DeliveryRequested { address: address() })).when(&START),
        Err(Refusal::CouponRequired)
    );
    assert_eq!(given(paid()).when(&START), Err(Refusal::CouponRequired));
}

#[test]
fn no_delivery_is_canceled_while_its_coupon_is_valid() {
    let story = given(and(under_way(), cancel_requested()));
    assert_eq!(story.when(&Command::Delivery(DeliveryCommand::Cancel)), Err(Refusal::CouponStillValid));
}

#[test]
fn a_cancel_request_halts_the_delivery_where_it_is() {
    assert_eq!(given(and(under_way(), cancel_requested())).when(&COMPLETE), Err(Refusal::CancelRequested));
    let before_delivery = and(paid(), cancel_requested());
    let request = Command::Delivery(DeliveryCommand::Request { address: address() });
    assert_eq!(given(before_delivery).when(&request), Err(Refusal::CancelRequested));
}

#[test]
fn an_order_that_was_delivered_is_not_canceled() {
    assert_eq!(given(and(under_way(), DeliveryCompleted {})).when(&CANCEL), Err(Refusal::AlreadyDelivered));
}

#[test]
fn what_was_done_is_undone_in_the_flows_order_and_the_order_is_canceled_last() {
    let mut story = and(under_way(), cancel_requested());
    for (step, event) in [
        ("cancel_coupon", Event::from(CouponCanceled { coupon_id: "COUPON1".into() })),
        ("cancel_delivery", DeliveryCanceled {}.into()),
        ("return_payment", PaymentCanceled { returned: won(900) }.into()),
        ("cancel_order", OrderCanceled {}.into()),
    ] {
        assert_eq!(given(story.clone()).next(), Some(step));
        story.push(event);
    }
    assert_eq!(given(story).next(), None);
}

#[test]
fn an_order_canceled_before_anything_happened_only_returns_its_payment() {
    let story = and(paid(), cancel_requested());
    assert_eq!(given(story.clone()).next(), Some("return_payment"));
    assert_eq!(given(and(story, PaymentCanceled { returned: won(900) })).next(), Some("cancel_order"));
}

#[test]
fn a_repetition_is_no_error_and_records_nothing() {
    assert_eq!(given(under_way()).when(&START), Ok(None));
    assert_eq!(given(and(under_way(), DeliveryCompleted {})).when(&COMPLETE), Ok(None));
    assert_eq!(given(and(under_way(), cancel_requested())).when(&CANCEL), Ok(None));
    let issue = CouponCommand::Issue { coupon_id: "COUPON1".into(), kind: "DISCOUNT".into() };
    assert_eq!(given(under_way()).when(&Command::Marketing(issue)), Ok(None));
}

#[test]
fn a_declined_payment_ends_the_story_before_there_is_an_order() {
    let story = given([requested(), PaymentDeclined { reason: "no".into() }.into()]);
    assert_eq!(story.next(), None);
    assert!(!story.state().is_visible());
    assert_eq!(story.when(&CANCEL), Err(Refusal::OrderNotFound));
    assert_eq!(story.when(&COMPLETE), Err(Refusal::OrderNotFound));
}

#[test]
fn an_open_payment_is_given_up_after_its_time_and_goes_back() {
    for story in [vec![requested()], vec![requested(), approved()]] {
        let state = given(story.clone()).state();
        let step = saga::react(&given([]).flow, &state).unwrap();
        assert_eq!(step.command.name(), "expire_order");
        assert_eq!(step.not_before, Some("1970-01-01T00:00:30Z".parse().unwrap()));
        let expired = and(story, OrderExpired { reason: "late".into() });
        assert_eq!(given(expired.clone()).next(), Some("return_payment"));
        let approve = Command::Payment(PaymentCommand::Approve { attempt: 1, reference: "r".into() });
        assert_eq!(given(expired.clone()).when(&approve), Err(Refusal::OrderExpired));
        assert_eq!(given(and(expired, PaymentCanceled { returned: won(0) })).next(), None);
    }
}

#[test]
fn a_parked_order_waits_for_an_operator_but_can_still_be_canceled() {
    let parked = SagaParked { step: "issue_coupon".into(), code: "x".into(), detail: "y".into() };
    let story = and(and(paid(), DeliveryRequested { address: address() }), parked);
    assert_eq!(given(story.clone()).next(), None);
    assert_eq!(given(and(story, cancel_requested())).next(), Some("cancel_delivery"));
}

#[test]
fn an_order_is_archived_at_its_end_and_nothing_new_is_decided_about_it() {
    let archive = Command::Saga(SagaCommand::Archive);
    let on_its_way = and(and(paid(), DeliveryRequested { address: address() }), DeliveryStarted {});
    assert_eq!(given(on_its_way.clone()).when(&archive), Err(Refusal::NotAtItsEnd));
    let delivered = and(on_its_way, DeliveryCompleted {});
    assert_eq!(given(delivered.clone()).when(&archive), Ok(Some(OrderArchived {}.into())));
    let archived = and(delivered, OrderArchived {});
    assert_eq!(given(archived.clone()).next(), None);
    assert_eq!(given(archived.clone()).when(&archive), Ok(None));
    let review = Command::Review(ReviewCommand::Write { rating: 5, text: "good".into() });
    let eaten = and(riding("food"), DeliveryCompleted {});
    assert!(matches!(given_in("food", eaten.clone()).when(&review), Ok(Some(_))));
    assert_eq!(given_in("food", and(eaten, OrderArchived {})).when(&review), Err(Refusal::OrderArchived));
    // What holds is no new decision: were it refused, the payment context would give the money back.
    let approve = Command::Payment(PaymentCommand::Approve { attempt: 1, reference: "r".into() });
    assert_eq!(given(archived).when(&approve), Ok(None));
}

#[test]
fn a_step_has_the_same_id_however_often_it_is_derived_and_another_in_another_story() {
    let step = |story: Vec<Event>| saga::react(&given([]).flow, &given(story).state()).unwrap().command_id;
    assert_eq!(step(paid()), step(paid()));
    assert_ne!(step(paid()), step(and(paid(), cancel_requested())));
}

fn meal(flow: &str) -> Vec<Event> {
    let reference = given_in(flow, []).reference;
    let request = PaymentRequested {
        flow: reference.clone(),
        customer_id: "c".into(),
        amount: won(900),
        method: "card".into(),
    };
    let placed = OrderPlaced {
        flow: reference,
        channel: Channel::Web,
        customer: Customer { id: "c".into(), name: "c".into(), phone: None, email: None, language: None },
        store_id: Some("store-1".into()),
        lines: Vec::new(),
        total: won(900),
        address: address(),
        delivery_type: None,
        awaits_payment: false,
    };
    vec![request.into(), approved(), placed.into()]
}

fn received() -> Event {
    StoreOrderReceived { store_id: "store-1".into(), items: Vec::new() }.into()
}

fn cooking(flow: &str) -> Vec<Event> {
    [meal(flow), vec![received(), StoreOrderAccepted {}.into(), PreparationStarted {}.into()]].concat()
}

fn riding(flow: &str) -> Vec<Event> {
    let listed = DeliveryListed { address: address(), delivery_type: None };
    let picked = DeliveryPickedUp { rider_id: "rider-1".into() };
    [cooking(flow), vec![PreparationFinished {}.into(), listed.into(), picked.into()]].concat()
}

const ACCEPT: Command = Command::Store(StoreCommand::Accept);
const START_COOKING: Command = Command::Store(StoreCommand::Start);
const CONFIRM: Command = Command::Ordering(OrderCommand::Complete);

fn pick_up(rider: &str) -> Command {
    Command::Delivery(DeliveryCommand::PickUp { rider_id: rider.into() })
}

#[test]
fn a_meal_goes_to_the_store_then_to_the_riders_and_each_waits_for_a_person() {
    assert_eq!(given_in("kitchen", meal("kitchen")).next(), Some("receive_store_order"));
    assert_eq!(given_in("kitchen", cooking("kitchen")).next(), None);
    assert_eq!(
        given_in("kitchen", and(cooking("kitchen"), PreparationFinished {})).next(),
        Some("list_delivery")
    );
    assert_eq!(given_in("kitchen", riding("kitchen")).next(), None);
}

#[test]
fn the_store_does_one_thing_after_the_other() {
    let fresh = and(meal("kitchen"), received());
    assert_eq!(given_in("kitchen", meal("kitchen")).when(&ACCEPT), Err(Refusal::StoreOrderNotReceived));
    assert_eq!(given_in("kitchen", fresh.clone()).when(&START_COOKING), Err(Refusal::StoreOrderNotAccepted));
    let finish = Command::Store(StoreCommand::Finish);
    assert_eq!(given_in("kitchen", fresh.clone()).when(&finish), Err(Refusal::PreparationNotStarted));
    let rejected = and(fresh, StoreOrderRejected { reason: None });
    assert_eq!(given_in("kitchen", rejected.clone()).when(&ACCEPT), Err(Refusal::AlreadyRejected));
    assert_eq!(given_in("kitchen", rejected).next(), Some("reject_order"));
    assert_eq!(given(under_way()).when(&ACCEPT), Err(Refusal::NotInFlow));
}

#[test]
fn a_kitchen_order_is_canceled_until_cooking_starts_and_a_food_order_until_it_is_picked_up() {
    assert_eq!(given_in("kitchen", cooking("kitchen")).when(&CANCEL), Err(Refusal::PreparationStarted));
    assert!(matches!(given_in("food", cooking("food")).when(&CANCEL), Ok(Some(_))));
    assert_eq!(given_in("food", riding("food")).when(&CANCEL), Err(Refusal::AlreadyPickedUp));
    let halted = and(and(meal("kitchen"), received()), cancel_requested());
    assert_eq!(given_in("kitchen", halted.clone()).when(&ACCEPT), Err(Refusal::CancelRequested));
    assert_eq!(
        given_in("kitchen", halted).next(),
        Some("return_payment"),
        "payment first, then the store order"
    );
}

#[test]
fn one_rider_picks_it_up_and_the_second_is_refused() {
    let story = given_in("food", riding("food"));
    assert_eq!(story.when(&pick_up("rider-1")), Ok(None));
    assert_eq!(story.when(&pick_up("rider-2")), Err(Refusal::AlreadyPickedUp));
    assert_eq!(given_in("food", cooking("food")).when(&pick_up("rider-1")), Err(Refusal::DeliveryNotListed));
    assert_eq!(given(under_way()).when(&pick_up("rider-1")), Err(Refusal::NotInFlow));
}

#[test]
fn the_customer_of_a_kitchen_confirms_the_receipt_and_nobody_else_ends_the_order() {
    assert_eq!(given_in("kitchen", cooking("kitchen")).when(&CONFIRM), Err(Refusal::NotDelivered));
    assert!(matches!(given_in("kitchen", riding("kitchen")).when(&CONFIRM), Ok(Some(_))));
    assert_eq!(given_in("kitchen", riding("kitchen")).when(&COMPLETE), Err(Refusal::NotInFlow));
    let completed = and(riding("kitchen"), OrderCompleted {});
    assert_eq!(given_in("kitchen", completed.clone()).when(&CONFIRM), Ok(None));
    assert_eq!(given_in("kitchen", completed).when(&CANCEL), Err(Refusal::AlreadyCompleted));
    assert_eq!(given_in("food", riding("food")).when(&CONFIRM), Err(Refusal::NotInFlow));
}

#[test]
fn a_review_is_written_once_after_the_delivery() {
    let write = Command::Review(ReviewCommand::Write { rating: 5, text: "good".into() });
    assert_eq!(given_in("food", riding("food")).when(&write), Err(Refusal::NotDelivered));
    let delivered = and(riding("food"), DeliveryCompleted {});
    assert!(matches!(given_in("food", delivered.clone()).when(&write), Ok(Some(_))));
    let reviewed = and(
        delivered,
        ReviewWritten { rating: 5, text: "good".into(), store_id: None, item_ids: Vec::new() },
    );
    assert_eq!(given_in("food", reviewed).when(&write), Err(Refusal::AlreadyReviewed));
    assert_eq!(given(and(under_way(), DeliveryCompleted {})).when(&write), Err(Refusal::NotInFlow));
}

fn rented() -> Vec<Event> {
    let reference = given_in("rental", []).reference;
    let placed = OrderPlaced {
        flow: reference,
        channel: Channel::Web,
        customer: Customer { id: "c".into(), name: "c".into(), phone: None, email: None, language: None },
        store_id: None,
        lines: Vec::new(),
        total: won(0),
        address: address(),
        delivery_type: None,
        awaits_payment: false,
    };
    vec![placed.into(), DeliveryRequested { address: address() }.into()]
}

#[test]
fn a_rental_is_canceled_only_with_the_deliverys_consent_and_only_before_it_is_shipped() {
    let cancel_delivery = Command::Delivery(DeliveryCommand::Cancel);
    let cancel_order = Command::Ordering(OrderCommand::Cancel);
    assert_eq!(given_in("rental", rented()).next(), None, "it waits to be shipped");
    assert_eq!(
        given_in("rental", rented()).when(&CANCEL),
        Err(Refusal::NotInFlow),
        "nobody promises it later"
    );
    assert_eq!(given_in("rental", rented()).when(&cancel_order), Err(Refusal::CancelNotRequested));
    assert!(matches!(given_in("rental", rented()).when(&cancel_delivery), Ok(Some(_))));
    let shipped = and(rented(), DeliveryStarted {});
    assert_eq!(given_in("rental", shipped).when(&cancel_delivery), Err(Refusal::AlreadyShipped));
    let consented = and(rented(), DeliveryCanceled {});
    assert_eq!(
        given_in("rental", consented.clone()).next(),
        Some("cancel_order"),
        "made up for if it was lost"
    );
    assert!(matches!(given_in("rental", consented).when(&cancel_order), Ok(Some(_))));
}

#[test]
fn a_rental_is_given_back_after_its_delivery_step_by_step() {
    let give_back = Command::Ordering(OrderCommand::RequestReturn { reason: None });
    let fetch = Command::Delivery(DeliveryCommand::StartReturn);
    assert_eq!(given_in("rental", rented()).when(&give_back), Err(Refusal::NotDelivered));
    let mut story = and(and(rented(), DeliveryStarted {}), DeliveryCompleted {});
    assert_eq!(given_in("rental", story.clone()).when(&fetch), Err(Refusal::ReturnNotRequested));
    assert!(matches!(given_in("rental", story.clone()).when(&give_back), Ok(Some(_))));
    story.push(ReturnRequested { reason: None }.into());
    assert_eq!(given_in("rental", story.clone()).state().status().as_str(), "return_requested");
    story.push(ReturnPickupStarted {}.into());
    assert_eq!(given_in("rental", story.clone()).state().status().as_str(), "return_in_transit");
    assert_eq!(given_in("rental", story.clone()).next(), None);
    story.push(ReturnPickupCompleted {}.into());
    assert_eq!(given_in("rental", story.clone()).next(), Some("return_order"));
    assert_eq!(given(and(under_way(), DeliveryCompleted {})).when(&give_back), Err(Refusal::NotInFlow));
}

#[test]
fn an_appliance_waits_for_its_payment_and_no_store_hears_of_it_before() {
    let mut order = rented();
    order.truncate(1);
    if let Event::Ordering(OrderEvent::OrderPlaced(placed)) = &mut order[0] {
        placed.flow = given_in("appliance", []).reference;
        placed.store_id = Some("store-1".into());
        placed.awaits_payment = true;
    }
    let waiting = given_in("appliance", order.clone());
    assert_eq!((waiting.next(), waiting.state().status().as_str()), (None, "awaiting_payment"));
    order.push(requested());
    order.push(PaymentDeclined { reason: "no".into() }.into());
    let Event::Payment(PaymentEvent::PaymentRequested(again)) = requested() else { panic!("a request") };
    let again = Command::Payment(PaymentCommand::Request(Box::new(again)));
    assert!(
        matches!(given_in("appliance", order.clone()).when(&again), Ok(Some(_))),
        "another card may be tried"
    );
    order.push(requested());
    order.push(approved());
    assert_eq!(given_in("appliance", order.clone()).next(), Some("receive_store_order"));
    let canceled = and(order, cancel_requested());
    assert_eq!(given_in("appliance", canceled.clone()).next(), Some("return_payment"));
    assert_eq!(given_in("appliance", canceled).when(&again), Err(Refusal::AlreadyCanceled));
    let declined = given([requested(), PaymentDeclined { reason: "no".into() }.into()]);
    assert_eq!(declined.when(&again), Err(Refusal::PaymentDeclined), "there is no order to pay");
}
