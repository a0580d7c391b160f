//! The payment context's two commands that call outside: intent first, then the call, then the outcome.

use std::time::Duration;

use domain::{
    Command, CommandId, Event, Money, Refusal,
    event::{PaymentEvent, PaymentRequested},
    order::Order,
    payment::{Payment, PaymentCommand},
};
use nats::Stored;
use tokio::time::timeout;

use crate::{
    execute::{ExecuteError, Executed, Executor, Intent},
    provider::{Charge, ProviderDown, Sandbox},
};

/// Why a payment command led to nothing.
#[derive(Debug, thiserror::Error)]
pub enum PaymentError {
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    #[error("the payment provider gave no answer")]
    Provider(#[from] ProviderDown),
    #[error("the payment provider did not answer within {0:?}")]
    ProviderLate(Duration),
}

/// Charges and returns.
#[derive(Clone)]
pub struct Payments {
    pub executor: Executor,
    pub provider: Sandbox,
    pub provider_timeout: Duration,
}

impl Payments {
    /// Records the intent, asks the provider, records the outcome; answers with `PaymentApproved` or `PaymentDeclined`.
    ///
    /// A repeat finds the outcome recorded, or asks the provider again under the same key.
    pub async fn charge(
        &self,
        intent: Intent,
        request: Box<PaymentRequested>,
        token: &str,
    ) -> Result<Stored, PaymentError> {
        let amount = request.amount;
        let intent = Intent { command: Command::Payment(PaymentCommand::Request(request)), ..intent };
        let requested = self.executor.execute(intent.clone()).await?;
        if let Some(outcome) = self.outcome(&intent, &requested).await? {
            return Ok(outcome);
        }
        let asked = timeout(self.provider_timeout, self.provider.charge(intent.order_id, token));
        let charge = asked.await.map_err(|_| PaymentError::ProviderLate(self.provider_timeout))??;
        let (command, step) = match charge {
            Charge::Approved { reference } => (PaymentCommand::Approve { reference }, "approve_payment"),
            Charge::Declined { reason } => (PaymentCommand::Decline { reason }, "decline_payment"),
        };
        let cause = requested.event.as_ref().map(|stored| stored.recorded.event_id);
        let outcome = Intent {
            command: Command::Payment(command),
            command_id: cause.map_or(intent.command_id, |cause| CommandId::from_step(cause, step)),
            causation_id: cause,
            fingerprint: None,
            ..intent
        };
        let executed = match self.executor.execute(outcome.clone()).await {
            Err(ExecuteError::Refused(refusal)) => return self.too_late(&outcome, refusal, amount).await,
            executed => executed?,
        };
        match executed.event {
            Some(event) => Ok(event),
            None => self
                .outcome(&outcome, &executed)
                .await?
                .ok_or(ExecuteError::Refused(Refusal::PaymentCanceled).into()),
        }
    }

    /// The order was given up while the provider was asked: what it took goes straight back.
    async fn too_late(
        &self,
        outcome: &Intent,
        refusal: Refusal,
        amount: Money,
    ) -> Result<Stored, PaymentError> {
        if matches!(outcome.command, Command::Payment(PaymentCommand::Approve { .. })) {
            self.ask_back(outcome, amount).await?;
        }
        Err(ExecuteError::Refused(refusal).into())
    }

    /// The recorded outcome of a charge that was asked for before.
    async fn outcome(&self, intent: &Intent, requested: &Executed) -> Result<Option<Stored>, PaymentError> {
        if requested.event.is_some() && !requested.replayed {
            return Ok(None);
        }
        let story = self.executor.story(intent.order_id, 0).await.map_err(ExecuteError::from)?;
        let state = &story.state;
        if state.order == Order::Expired {
            return Err(ExecuteError::Refused(Refusal::OrderExpired).into());
        }
        match state.payment {
            Payment::Canceled => Err(ExecuteError::Refused(Refusal::PaymentCanceled).into()),
            Payment::None | Payment::Requested { .. } | Payment::Approved { .. } | Payment::Declined => {
                let decided = |stored: &Stored| match &stored.recorded.event {
                    Event::Payment(event) => match event {
                        PaymentEvent::PaymentApproved(_) | PaymentEvent::PaymentDeclined(_) => true,
                        PaymentEvent::PaymentRequested(_) | PaymentEvent::PaymentCanceled(_) => false,
                    },
                    Event::Ordering(_)
                    | Event::Store(_)
                    | Event::Marketing(_)
                    | Event::Delivery(_)
                    | Event::Review(_)
                    | Event::Saga(_) => false,
                };
                // Of this request, or of the one that was open already; an earlier one may have been declined.
                let is_request = |stored: &&Stored| {
                    matches!(stored.recorded.event, Event::Payment(PaymentEvent::PaymentRequested(_)))
                };
                let request = requested.event.as_ref().or_else(|| story.events.iter().rfind(is_request));
                let since = request.map_or(0, |stored| stored.recorded.position.sequence);
                let mut later =
                    story.events.iter().filter(|stored| stored.recorded.position.sequence > since);
                Ok(later.find(|stored| decided(stored)).cloned())
            }
        }
    }

    /// Has the provider give back what it took, then records that.
    pub async fn give_back(&self, intent: Intent) -> Result<Executed, PaymentError> {
        let at_least = intent.expected.unwrap_or_default();
        let story = self.executor.story(intent.order_id, at_least).await.map_err(ExecuteError::from)?;
        let state = story.state.clone();
        if intent.expected.is_some_and(|expected| expected != state.sequence()) {
            return Err(ExecuteError::Moved.into());
        }
        let returned = match state.payment {
            Payment::Approved { amount } => self.ask_back(&intent, amount).await?,
            Payment::Requested { amount } => {
                self.ask_back(&intent, Money { amount: 0, currency: amount.currency }).await?
            }
            Payment::None | Payment::Declined | Payment::Canceled => {
                return Ok(Executed { event: None, replayed: false, state });
            }
        };
        let command = Command::Payment(PaymentCommand::Cancel { returned });
        Ok(self.executor.execute(Intent { command, ..intent }).await?)
    }

    async fn ask_back(&self, intent: &Intent, taken: Money) -> Result<Money, PaymentError> {
        let asked = timeout(self.provider_timeout, self.provider.give_back(intent.order_id, taken));
        Ok(asked.await.map_err(|_| PaymentError::ProviderLate(self.provider_timeout))??)
    }
}
