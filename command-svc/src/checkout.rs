//! A customer's calls that several contexts take part in: to pay and order, to pay an order that stands, to cancel with
//! the delivery's consent. Each may be cut off anywhere and repeated.

use domain::{
    Command, Event, OrderId, Recorded, Refusal,
    delivery::DeliveryCommand,
    event::{OrderPlaced, PaymentEvent, PaymentRequested},
    flow::CancelMode,
    order::OrderCommand,
};
use nats::{
    Broker, Connection,
    ask::{Answer, Ask},
};

use crate::{
    admission::Admitted,
    body::{PaymentMeans, Placement},
    calls::{CallError, Calls},
    execute::{ExecuteError, Executed, Executor, Intent},
};

/// Why a call led to nothing, or to less than was asked.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// Nothing was taken.
    #[error("the payment was declined: {0}")]
    Declined(String),
    /// Whether the provider acted is not known; a repeat of the call finds out.
    #[error("the payment got no answer")]
    PaymentUnavailable,
    /// The payment's, or the delivery's: whether anything was done is not known; a repeat of the call finds out.
    #[error("the log did not answer: {0}")]
    LogUnavailable(String),
    #[error("the delivery did not answer, and so did not consent")]
    DeliveryUnavailable,
}

impl From<Refusal> for CheckoutError {
    fn from(refusal: Refusal) -> Self {
        Self::Execute(refusal.into())
    }
}

/// Takes customers' calls.
#[derive(Clone)]
pub struct Checkout<B = Connection> {
    pub executor: Executor<B>,
    pub calls: Calls,
}

impl<B: Broker> Checkout<B> {
    /// Places an order: paid first where its flow says so. `intent` is what the caller gave; its command is not looked
    /// at. `admitted` is its place, which it gives back while the payment is waited for.
    pub async fn place(
        &self,
        intent: Intent,
        placement: Placement,
        admitted: &Admitted,
    ) -> Result<Executed, CheckoutError> {
        let Placement { mut placed, payment, defers } = placement;
        let place = |placed: &OrderPlaced| Command::Ordering(OrderCommand::Place(Box::new(placed.clone())));
        let intent = Intent { command: place(&placed), ..intent };
        if let Some(repeat) = self.first_answer(&intent).await? {
            return Ok(repeat);
        }
        let mut causation_id = None;
        // An order worth nothing is paid by nothing.
        if let Some(PaymentMeans { method, token }) = payment.filter(|_| placed.total.amount > 0) {
            match self.charge(&intent, bill(&placed, method), token, admitted).await {
                Ok(approved) => causation_id = Some(approved.event_id),
                // The order stands all the same, and its customer pays in a second step.
                Err(CheckoutError::PaymentUnavailable) if defers => placed.awaits_payment = true,
                Err(error) => return Err(error),
            }
        }
        Ok(self.executor.execute(Intent { command: place(&placed), causation_id, ..intent }).await?)
    }

    /// What a repeat under an idempotency key was told the first time, if the order stands.
    async fn first_answer(&self, intent: &Intent) -> Result<Option<Executed>, ExecuteError> {
        if intent.fingerprint.is_none() {
            return Ok(None);
        }
        let story = self.executor.story(intent.order_id, 0).await?;
        if story.placed().is_none() {
            return Ok(None);
        }
        self.executor.execute(intent.clone()).await.map(Some)
    }

    /// What is to be paid for an order that waits for it.
    pub async fn bill(&self, order_id: OrderId, method: String) -> Result<PaymentRequested, CheckoutError> {
        let story = self.executor.read(order_id, 0).await.map_err(ExecuteError::from)?;
        let placed = story.placed().ok_or(Refusal::OrderNotFound)?;
        if placed.awaits_payment { Ok(bill(placed, method)) } else { Err(Refusal::NotInFlow.into()) }
    }

    /// Pays a [bill](Self::bill), and answers with how the order was right after. `intent` is what the caller gave; its
    /// command is not looked at. `admitted` is its place, which it gives back while the payment is waited for.
    pub async fn pay(
        &self,
        intent: Intent,
        bill: PaymentRequested,
        token: String,
        admitted: &Admitted,
    ) -> Result<Executed, CheckoutError> {
        let order_id = intent.order_id;
        let paid = self.charge(&intent, bill, token, admitted).await?;
        let story = self.executor.read(order_id, paid.position.sequence).await.map_err(ExecuteError::from)?;
        let event = story.events.iter().find(|stored| stored.recorded.event_id == paid.event_id).cloned();
        Ok(Executed { event, replayed: false, state: story.state_after(&paid) })
    }

    /// Has the payment context charge the order; answers with the approval.
    async fn charge(
        &self,
        intent: &Intent,
        request: PaymentRequested,
        token: String,
        admitted: &Admitted,
    ) -> Result<Recorded, CheckoutError> {
        let ask = Ask {
            order_id: intent.order_id,
            command: Command::ChargePayment { request: Box::new(request), token },
            command_id: intent.command_id,
            causation_id: None,
            expected: intent.expected,
            fingerprint: intent.fingerprint.clone(),
            trace_parent: intent.trace_parent.clone(),
        };
        let unavailable = |why: String| {
            tracing::info!(order_id = %intent.order_id, why, "the payment got no answer");
            CheckoutError::PaymentUnavailable
        };
        let outcome = match self.call(ask, admitted).await {
            Ok(Answer::Done(event)) => event.unwrap().map_err(|error| unavailable(error.to_string()))?,
            Ok(Answer::Refused(refusal)) => return Err(refusal.into()),
            Ok(Answer::Moved) => return Err(ExecuteError::Moved.into()),
            Ok(Answer::Already) => return Err(unavailable("no outcome".into())),
            Ok(Answer::Unavailable(why)) => return Err(unavailable(why)),
            Ok(Answer::LogUnavailable(why)) | Err(CallError::LogUnavailable(why)) => {
                return Err(CheckoutError::LogUnavailable(why));
            }
            Err(error @ (CallError::Ask(_) | CallError::Unavailable(_) | CallError::BreakerOpen(_))) => {
                return Err(unavailable(error.to_string()));
            }
        };
        if let Event::Payment(PaymentEvent::PaymentDeclined(declined)) = outcome.event {
            return Err(CheckoutError::Declined(declined.reason));
        }
        Ok(outcome)
    }

    /// Calls another context; the place among those who work with the log is another's meanwhile.
    async fn call(&self, ask: Ask, admitted: &Admitted) -> Result<Answer, CallError> {
        admitted.release();
        let answer = self.calls.call(ask).await;
        admitted.resume();
        answer
    }

    /// Whether the order's flow cancels only with the delivery's consent.
    pub async fn is_canceled_by_consent(&self, order_id: OrderId) -> Result<bool, ExecuteError> {
        let story = self.executor.read(order_id, 0).await?;
        let Some(reference) = &story.state.flow else { return Ok(false) };
        Ok(self.executor.flows().find(reference).await?.cancel.mode == CancelMode::Synchronous)
    }

    /// The delivery cancels while the customer waits, and then the order is canceled; else nothing has changed.
    /// `intent` is what the caller gave, to cancel the order; `admitted` is its place.
    ///
    /// Should the answer be lost after the delivery canceled, the saga cancels the order.
    pub async fn cancel_with_consent(
        &self,
        intent: Intent,
        admitted: &Admitted,
    ) -> Result<Executed, CheckoutError> {
        let order_id = intent.order_id;
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
            CheckoutError::DeliveryUnavailable
        };
        let causation_id = match self.call(ask, admitted).await {
            Ok(Answer::Done(event)) => {
                Some(event.unwrap().map_err(|error| unavailable(error.to_string()))?.event_id)
            }
            Ok(Answer::Already) => None,
            Ok(Answer::Refused(refusal)) => return Err(refusal.into()),
            Ok(Answer::Moved) => return Err(ExecuteError::Moved.into()),
            Ok(Answer::Unavailable(why)) => return Err(unavailable(why)),
            Ok(Answer::LogUnavailable(why)) | Err(CallError::LogUnavailable(why)) => {
                return Err(CheckoutError::LogUnavailable(why));
            }
            Err(error) => return Err(unavailable(nats::causes(&error))),
        };
        Ok(self.executor.execute(Intent { causation_id, expected: None, ..intent }).await?)
    }
}

fn bill(placed: &OrderPlaced, method: String) -> PaymentRequested {
    PaymentRequested {
        flow: placed.flow.clone(),
        customer_id: placed.customer.id.clone(),
        amount: placed.total,
        method,
    }
}
