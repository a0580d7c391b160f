//! What people may do at any moment: all that the API offers.

use super::stories::{Stories, StoryId};
use crate::{
    command::{Command, SagaCommand},
    delivery::DeliveryCommand,
    event::{OrderPlaced, PaymentRequested},
    flow::{CancelMode, Flow, FlowRef, PaymentTime, ProviderDown},
    money::{Currency, Money},
    order::{Address, Channel, Customer, OrderCommand},
    payment::{Payment, PaymentCommand},
    review::ReviewCommand,
    state::OrderState,
    store::StoreCommand,
};

/// Commands, each with who gives it.
pub fn commands(flow: &Flow, reference: &FlowRef, state: &OrderState) -> Vec<(&'static str, Command)> {
    let pick_up = |rider: &str| Command::Delivery(DeliveryCommand::PickUp { rider_id: rider.into() });
    let (customer, store, delivery) = ("the customer", "the store", "the delivery team");
    let review = ReviewCommand::Write { rating: 5, text: "good".into() };
    let mut commands = vec![
        (customer, Command::Ordering(OrderCommand::RequestCancel { reason: None })),
        (customer, Command::Ordering(OrderCommand::Complete)),
        (customer, Command::Ordering(OrderCommand::RequestReturn { reason: None })),
        (customer, Command::Review(review)),
        (store, Command::Store(StoreCommand::Accept)),
        (store, Command::Store(StoreCommand::Reject { reason: None })),
        (store, Command::Store(StoreCommand::Start)),
        (store, Command::Store(StoreCommand::Finish)),
        ("one rider", pick_up("one rider")),
        ("another rider", pick_up("another rider")),
        (delivery, Command::Delivery(DeliveryCommand::Start)),
        (delivery, Command::Delivery(DeliveryCommand::Complete)),
        (delivery, Command::Delivery(DeliveryCommand::StartReturn)),
        (delivery, Command::Delivery(DeliveryCommand::CompleteReturn)),
        ("an operator", Command::Saga(SagaCommand::Resume)),
        ("an operator", Command::Saga(SagaCommand::Archive)),
    ];
    if flow.cancel.mode == CancelMode::Synchronous {
        commands.push(("the customer, waiting", Command::Delivery(DeliveryCommand::Cancel)));
    }
    let place = |awaits_payment| {
        (customer, Command::Ordering(OrderCommand::Place(Box::new(placed(flow, reference, awaits_payment)))))
    };
    match flow.payment.when {
        PaymentTime::None => commands.push(place(false)),
        PaymentTime::SecondStep => commands.push(place(true)),
        // The caller places what was approved, or, where the flow defers, what got no answer.
        PaymentTime::WithOrder if matches!(state.payment, Payment::Approved { .. }) => {
            commands.push(place(false));
        }
        PaymentTime::WithOrder => {
            let no_answer = matches!(state.payment, Payment::None | Payment::Requested { .. });
            if no_answer && flow.payment.provider_down == ProviderDown::Defer {
                commands.push(place(true));
            }
        }
    }
    commands
}

/// The customer's wish to pay, where the flow gives an occasion.
pub(super) fn payment(stories: &Stories<'_>, at: StoryId) -> Option<PaymentCommand> {
    let (flow, state) = (stories.flow, &stories[at].state);
    let has_occasion = match flow.payment.when {
        PaymentTime::WithOrder => !state.is_visible() || state.awaits_payment(),
        PaymentTime::SecondStep => state.is_visible(),
        PaymentTime::None => false,
    };
    has_occasion.then(|| {
        let (flow, customer_id, method) = (stories.reference.clone(), "customer".into(), "card".into());
        PaymentCommand::Request(Box::new(PaymentRequested { flow, customer_id, amount: price(), method }))
    })
}

/// What the order costs.
pub fn price() -> Money {
    Money { amount: 900, currency: Currency::WON }
}

/// The order as its customer places it.
pub fn placed(flow: &Flow, reference: &FlowRef, awaits_payment: bool) -> OrderPlaced {
    let name = || "customer".to_owned();
    OrderPlaced {
        flow: reference.clone(),
        channel: flow.channels.first().copied().unwrap_or(Channel::Web),
        customer: Customer { id: name(), name: name(), phone: None, email: None, language: None },
        store_id: flow.store.then(|| "store".into()),
        lines: Vec::new(),
        total: price(),
        address: Address { line: "street".into(), region: Some("region".into()) },
        delivery_type: flow.delivery.types.first().cloned(),
        awaits_payment,
    }
}
