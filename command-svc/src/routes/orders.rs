//! `POST /orders` and `POST /orders/{id}/cancel`.

use std::time::Duration;

use axum::{extract::State, http::StatusCode, response::Response};
use domain::{
    Command, Event, OrderId, OrderState, Recorded, Refusal,
    access::{Person, Role},
    delivery::DeliveryCommand,
    event::{OrderPlaced, PaymentEvent, PaymentRequested},
    flow::CancelMode,
    order::{Order, OrderCommand},
    payment::PaymentCommand,
};
use nats::ask::{Answer, Ask};
use service::Problem;
use tokio::time::Instant;

use super::{
    App,
    answer::{Call, Given, RETRY_AFTER_S, accepted, admit, failed, refused},
};
use crate::{
    body::{Body, PaymentMeans, Placement, nothing, payment_means, placement, reason},
    calls::CallError,
    execute::{ExecuteError, Executed, Intent},
};

/// How long a cancel waits for its outcome when the caller does not say.
const CANCEL_WAIT_S: u64 = 2;
const OUTCOME_POLL_MIN: Duration = Duration::from_millis(2);
const OUTCOME_POLL_MAX: Duration = Duration::from_millis(50);

/// Places an order: paid first where its flow says so, and visible once it stands.
pub(super) async fn place(State(app): State<App>, given: Given, body: Body) -> Result<Response, Problem> {
    let _admitted = admit(&app)?;
    let Placement { mut placed, payment, defers } = placement(&body.value, app.executor.flows().offered())?;
    given.caller.permit(|person| person.is(Role::Operator) || person.is_customer(&placed.customer.id))?;
    let order_id = given.new_order();
    let place = |placed: &OrderPlaced| Command::Ordering(OrderCommand::Place(Box::new(placed.clone())));
    let intent = Intent { expected: None, ..given.intent(order_id, place(&placed), &body.bytes) };
    if let Some(repeat) = first_answer(&app, &given, &intent).await? {
        return Ok(accepted(app.executor.log(), order_id, &repeat, StatusCode::CREATED));
    }
    let mut causation_id = None;
    if let Some(PaymentMeans { method, token }) = payment {
        let (flow, customer_id, amount) = (placed.flow.clone(), placed.customer.id.clone(), placed.total);
        let request = PaymentRequested { flow, customer_id, amount, method };
        match charge(&app, &intent, request, token).await {
            Ok(approved) => causation_id = Some(approved.event_id),
            // The order stands all the same, and its customer pays in a second step.
            Err(NotCharged::NoAnswer) if defers => placed.awaits_payment = true,
            Err(not_charged) => return Err(not_charged.into()),
        }
    }
    let intent = Intent { command: place(&placed), causation_id, ..intent };
    let executed = app.executor.execute(intent).await.map_err(|error| failed(order_id, &error))?;
    Ok(accepted(app.executor.log(), order_id, &executed, StatusCode::CREATED))
}

/// What a repeat under an idempotency key was told the first time, if the order stands.
async fn first_answer(app: &App, given: &Given, intent: &Intent) -> Result<Option<Executed>, Problem> {
    if given.key.is_none() {
        return Ok(None);
    }
    let story = app
        .executor
        .story(intent.order_id, 0)
        .await
        .map_err(|error| failed(intent.order_id, &error.into()))?;
    if story.placed().is_some() {
        let executed = app.executor.execute(intent.clone()).await;
        return executed.map(Some).map_err(|error| failed(intent.order_id, &error));
    }
    Ok(None)
}

/// Why a payment led to no approval.
enum NotCharged {
    /// Whether the provider acted is not known.
    NoAnswer,
    Refused(Problem),
}

impl From<NotCharged> for Problem {
    fn from(not_charged: NotCharged) -> Self {
        match not_charged {
            NotCharged::NoAnswer => {
                let detail = "the payment could not be settled now; the same call with the same Idempotency-Key is safe to repeat";
                Self::unavailable("payment_unavailable", detail, RETRY_AFTER_S)
            }
            NotCharged::Refused(problem) => problem,
        }
    }
}

/// Has the payment context charge the order; answers with the approval.
async fn charge(
    app: &App,
    intent: &Intent,
    request: PaymentRequested,
    token: String,
) -> Result<Recorded, NotCharged> {
    let ask = Ask {
        order_id: intent.order_id,
        command: Command::ChargePayment { request: Box::new(request), token },
        command_id: intent.command_id,
        causation_id: None,
        expected: None,
        fingerprint: intent.fingerprint.clone(),
        trace_parent: intent.trace_parent.clone(),
    };
    let unavailable = |why: String| {
        tracing::info!(order_id = %intent.order_id, why, "the payment got no answer");
        NotCharged::NoAnswer
    };
    let outcome = match app.calls.call(ask).await {
        Ok(Answer::Done(event)) => event.unwrap().map_err(|error| unavailable(error.to_string()))?,
        Ok(Answer::Refused(refusal)) => return Err(NotCharged::Refused(refused(refusal))),
        Ok(Answer::Already | Answer::Moved) => return Err(unavailable("no outcome".into())),
        Ok(Answer::Unavailable(why)) => return Err(unavailable(why)),
        Err(error @ (CallError::Ask(_) | CallError::Unavailable(_) | CallError::BreakerOpen(_))) => {
            return Err(unavailable(error.to_string()));
        }
    };
    if let Event::Payment(PaymentEvent::PaymentDeclined(declined)) = &outcome.event {
        let detail = format!("{}; nothing was charged", declined.reason);
        let problem = Problem::new(StatusCode::PAYMENT_REQUIRED, "payment_declined", detail);
        return Err(NotCharged::Refused(problem));
    }
    Ok(outcome)
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
    let (app, order_id) = (&call.app, call.order_id()?);
    let story = app.executor.read(order_id, 0).await.map_err(|error| failed(order_id, &error.into()))?;
    let placed = story.placed().ok_or_else(Problem::order_not_found)?;
    if !placed.awaits_payment {
        return Err(refused(Refusal::NotInFlow));
    }
    let request = PaymentRequested {
        flow: placed.flow.clone(),
        customer_id: placed.customer.id.clone(),
        amount: placed.total,
        method,
    };
    let command = Command::Payment(PaymentCommand::Request(Box::new(request.clone())));
    let intent = Intent { expected: None, ..call.intent(command).await? };
    let paid = charge(app, &intent, request, token).await?;
    let story = app.executor.read(order_id, paid.position.sequence).await;
    let state = story.map_err(|error| failed(order_id, &error.into()))?.state.clone();
    call.answer(&Executed { event: None, replayed: false, state }, StatusCode::OK)
}

/// Asks for an order to be undone, in the way that its flow says.
pub(super) async fn cancel(call: Call) -> Result<Response, Problem> {
    let reason = reason(&call.body.value)?;
    call.permit(Person::owns).await?;
    let (app, order_id) = (&call.app, call.order_id()?);
    if is_canceled_by_consent(app, order_id).await? {
        return cancel_with_consent(&call, order_id).await;
    }
    let requested = call.execute(Command::Ordering(OrderCommand::RequestCancel { reason })).await?;
    let wait = Duration::from_secs(call.given.wait_s.unwrap_or(CANCEL_WAIT_S));
    let state = outcome(app, order_id, wait).await?.unwrap_or_else(|| requested.state.clone());
    let status = if state.order == Order::Canceled { StatusCode::OK } else { StatusCode::ACCEPTED };
    call.answer(&Executed { state, ..requested }, status)
}

/// Whether the order's flow cancels only with the delivery's consent.
pub(super) async fn is_canceled_by_consent(app: &App, order_id: OrderId) -> Result<bool, Problem> {
    let story = app.executor.read(order_id, 0).await.map_err(|error| failed(order_id, &error.into()))?;
    let Some(reference) = &story.state.flow else { return Ok(false) };
    let flow = app.executor.flows().find(reference).await;
    Ok(flow.map_err(|error| failed(order_id, &error.into()))?.cancel.mode == CancelMode::Synchronous)
}

/// The delivery cancels while the customer waits, and then the order is canceled; else nothing has changed.
///
/// Should the answer be lost after the delivery canceled, the saga cancels the order.
async fn cancel_with_consent(call: &Call, order_id: OrderId) -> Result<Response, Problem> {
    let intent = call.intent(Command::Ordering(OrderCommand::Cancel)).await?;
    let ask = Ask {
        order_id,
        command: Command::Delivery(DeliveryCommand::Cancel),
        command_id: intent.command_id,
        causation_id: None,
        expected: intent.expected,
        fingerprint: intent.fingerprint.clone(),
        trace_parent: intent.trace_parent.clone(),
    };
    let unavailable = |why: String| {
        tracing::info!(%order_id, why, "the delivery did not consent, the order stays");
        let detail =
            "the delivery gave no answer, and an order of this flow is canceled only with its consent";
        Problem::unavailable("delivery_unavailable", detail, RETRY_AFTER_S)
    };
    let causation_id = match call.app.calls.call(ask).await {
        Ok(Answer::Done(event)) => {
            Some(event.unwrap().map_err(|error| unavailable(error.to_string()))?.event_id)
        }
        Ok(Answer::Already) => None,
        Ok(Answer::Refused(refusal)) => return Err(refused(refusal)),
        Ok(Answer::Moved) => return Err(failed(order_id, &ExecuteError::Moved)),
        Ok(Answer::Unavailable(why)) => return Err(unavailable(why)),
        Err(error) => return Err(unavailable(nats::causes(&error))),
    };
    let intent = Intent { causation_id, expected: None, ..intent };
    let executed = call.app.executor.execute(intent).await.map_err(|error| failed(order_id, &error))?;
    call.answer(&executed, StatusCode::OK)
}

/// The customer wants to give back what was delivered.
pub(super) async fn give_back(call: Call) -> Result<Response, Problem> {
    let command = OrderCommand::RequestReturn { reason: reason(&call.body.value)? };
    call.perform(Command::Ordering(command)).await
}

/// The order once it is canceled; `None` if it is not yet when the time is up.
async fn outcome(app: &App, order_id: OrderId, wait: Duration) -> Result<Option<OrderState>, Problem> {
    let until = Instant::now() + wait;
    let mut pause = OUTCOME_POLL_MIN;
    loop {
        let story = app.executor.read(order_id, 0).await.map_err(|error| failed(order_id, &error.into()))?;
        if story.state.order == Order::Canceled {
            return Ok(Some(story.state.clone()));
        }
        if Instant::now() + pause > until {
            return Ok(None);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(OUTCOME_POLL_MAX);
    }
}
