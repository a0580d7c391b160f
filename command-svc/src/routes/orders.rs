//! `POST /orders` and `POST /orders/{id}/cancel`.

use std::time::Duration;

use axum::{extract::State, http::StatusCode, response::Response};
use domain::{
    Command, Event, OrderId, OrderState, Timestamp,
    access::{Contact, Person, Role},
    event::OrderEvent,
    order::{Customer, Order, OrderCommand},
    payment::PaymentCommand,
};
use nats::LoadError;
use service::{Code, Kind, Problem, problem::Fault};

use super::{
    App,
    answer::{
        Call, Given, RETRY_AFTER_S, accepted, admit, call_out, failed, has_room, log_unavailable, may_repeat,
    },
};
use crate::{
    body::{Body, PaymentMeans, nothing, payment_means, placement, reason},
    checkout::CheckoutError,
    execute::{Executed, Intent},
};

/// How long a cancel waits for its outcome when the caller does not say.
const CANCEL_WAIT_S: u64 = 2;
const OUTCOME_POLL_MIN: Duration = Duration::from_millis(2);
const OUTCOME_POLL_MAX: Duration = Duration::from_millis(50);

/// Places an order: paid first where its flow says so, and visible once it stands.
pub(super) async fn place(State(app): State<App>, given: Given, body: Body) -> Result<Response, Problem> {
    let admitted = admit(&app)?;
    let mut placement = placement(&body.value, app.executor.flows().offered())?;
    let customer = &mut placement.placed.customer;
    given.caller.permit(|person| person.is(Role::Operator) || person.is_customer(&customer.id))?;
    if let Some(person) = given.caller.person.as_deref().filter(|person| !person.is(Role::Operator)) {
        verify_contact(customer, &person.contact)?;
    }
    let placed = &placement.placed;
    let order_id = given.new_order();
    let place = Command::Ordering(OrderCommand::Place(Box::new(placed.clone())));
    let intent = Intent { expected: None, ..given.intent(order_id, place, &body) };
    has_room(&app, &intent).await?;
    let _out = placement.payment.is_some().then(|| call_out(&app)).transpose()?;
    let executed = app.checkout().place(intent, placement, &admitted).await;
    let executed = executed.map_err(|error| not_done(order_id, error, given.key.is_some()))?;
    Ok(accepted(app.executor.log(), order_id, &executed, StatusCode::CREATED))
}

/// Customers are written to where their issuer knows that they are, or not at all: else, anybody could have the shop
/// write to strangers. Operators take orders of customers whom they know otherwise.
fn verify_contact(customer: &mut Customer, verified: &Contact) -> Result<(), Problem> {
    let digits = |number: &String| number.chars().filter(char::is_ascii_digit).collect::<String>();
    let is_email = customer.email.is_none() || customer.email == verified.email;
    let is_phone = customer.phone.is_none()
        || customer.phone.as_ref().map(digits) == verified.phone.as_ref().map(digits);
    let fields = [("email", is_email), ("phone", is_phone)];
    let faults: Vec<Fault> = fields
        .iter()
        .filter(|(_, is_verified)| !is_verified)
        .map(|(field, _)| Fault {
            pointer: format!("/customer/{field}"),
            detail: "is not what the token has as verified; leave it out, and the token's is taken".into(),
        })
        .collect();
    if !faults.is_empty() {
        return Err(Problem::invalid(faults));
    }
    customer.email = customer.email.take().or_else(|| verified.email.clone());
    customer.phone = customer.phone.take().or_else(|| verified.phone.clone());
    Ok(())
}

/// A call that led to nothing, as its caller is to understand it.
fn not_done(order_id: OrderId, error: CheckoutError, has_key: bool) -> Problem {
    match error {
        CheckoutError::Execute(error) => failed(order_id, &error, has_key),
        CheckoutError::Declined(reason) => {
            let detail = format!("{reason}; nothing was charged");
            Problem::new(Code::PaymentDeclined, detail)
        }
        CheckoutError::PaymentUnavailable => {
            let detail = format!("the payment could not be settled now; {}", may_repeat(has_key));
            Problem::unavailable(Code::PaymentUnavailable, detail, RETRY_AFTER_S)
        }
        CheckoutError::LogUnavailable(why) => {
            tracing::warn!(%order_id, why, "the log is not available");
            log_unavailable(order_id, has_key)
        }
        CheckoutError::DeliveryUnavailable => {
            let detail =
                "the delivery gave no answer, and an order of this flow is canceled only with its consent";
            Problem::unavailable(Code::DeliveryUnavailable, detail, RETRY_AFTER_S)
        }
    }
}

/// The customer has what they ordered.
pub(super) async fn confirm(call: Call) -> Result<Response, Problem> {
    nothing(&call.body.value)?;
    call.perform(Command::Ordering(OrderCommand::Complete)).await
}

/// Pays an order that waits for it.
pub(super) async fn pay(call: Call) -> Result<Response, Problem> {
    let PaymentMeans { method, token } = payment_means(&call.body.value)?;
    call.permit(Person::owns).await?;
    let (checkout, order_id) = (call.app.checkout(), call.order_id()?);
    let unpaid = |error| not_done(order_id, error, call.given.key.is_some());
    let bill = checkout.bill(order_id, method).await.map_err(unpaid)?;
    let command = Command::Payment(PaymentCommand::Request(Box::new(bill.clone())));
    let intent = call.intent(command).await?;
    has_room(&call.app, &intent).await?;
    let _out = call_out(&call.app)?;
    let paid = checkout.pay(intent, bill, token, call.admitted()).await.map_err(unpaid)?;
    call.answer(&paid, StatusCode::OK)
}

/// Asks for an order to be undone, in the way that its flow says.
pub(super) async fn cancel(call: Call) -> Result<Response, Problem> {
    let reason = reason(&call.body.value)?;
    call.permit(Person::owns).await?;
    let (app, order_id) = (&call.app, call.order_id()?);
    let by_consent = app.checkout().is_canceled_by_consent(order_id).await;
    if by_consent.map_err(|error| call.failed(order_id, &error))? {
        let intent = call.intent(Command::Ordering(OrderCommand::Cancel)).await?;
        let _out = call_out(app)?;
        let canceled = app.checkout().cancel_with_consent(intent, call.admitted()).await;
        let has_key = call.given.key.is_some();
        return call.answer(&canceled.map_err(|error| not_done(order_id, error, has_key))?, StatusCode::OK);
    }
    let requested = call.execute(Command::Ordering(OrderCommand::RequestCancel { reason })).await?;
    // From when it was asked for, as the log has it: so that a repeat gets the first answer, however late it comes.
    let wait_s = call.given.wait_s.unwrap_or(CANCEL_WAIT_S);
    let now = app.executor.log().now();
    let asked_at = requested.event.as_ref().map_or(now, |stored| stored.recorded.time);
    let wait = jiff::SignedDuration::from_secs(i64::try_from(wait_s).unwrap_or(i64::MAX));
    let until = asked_at.checked_add(wait).unwrap_or(asked_at);
    call.release();
    // What is asked for is done; a caller who waits for too much already is told so at once, and looks later.
    let canceled = match call.given.caller.share(Kind::Waits) {
        // It was taken, whatever becomes of the look at what it led to.
        Ok(_share) => outcome(app, order_id, until).await.unwrap_or_default(),
        Err(_) => None,
    };
    let status = if canceled.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let state = canceled.unwrap_or_else(|| requested.state.clone());
    call.answer(&Executed { state, ..requested }, status)
}

/// The customer wants to give back what was delivered.
pub(super) async fn give_back(call: Call) -> Result<Response, Problem> {
    let command = OrderCommand::RequestReturn { reason: reason(&call.body.value)? };
    call.perform(Command::Ordering(command)).await
}

/// The order as it was canceled; `None` if it was not when the time was up.
async fn outcome(app: &App, order_id: OrderId, until: Timestamp) -> Result<Option<OrderState>, LoadError> {
    let mut pause = OUTCOME_POLL_MIN;
    loop {
        let story = app.executor.read(order_id, 0).await?;
        if story.state.order == Order::Canceled {
            let is_end = |event: &Event| matches!(event, Event::Ordering(OrderEvent::OrderCanceled(_)));
            let end = story.events.iter().map(|stored| &stored.recorded).find(|at| is_end(&at.event));
            return Ok(end.filter(|end| end.time <= until).map(|end| story.state_after(end)));
        }
        if app.executor.log().now() > until {
            return Ok(None);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(OUTCOME_POLL_MAX);
    }
}
