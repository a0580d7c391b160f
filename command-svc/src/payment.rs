//! The payment context's commands that call outside: intent first, then the call, then the outcome.

use std::{future::Future, sync::Arc, time::Duration};

use domain::{
    Command, CommandId, Event, Money, OrderState, Refusal,
    event::{PaymentEvent, PaymentRequested},
    order::Order,
    payment::{self, Charge, Payment, PaymentCommand, provider_key},
};
use nats::{Broker, Connection, Stored};
use tokio::time::timeout;

use crate::{
    execute::{ExecuteError, Executed, Executor, Intent},
    provider::{PaymentProvider, ProviderError},
};

/// Why a payment command led to nothing.
#[derive(Debug, thiserror::Error)]
pub enum PaymentError {
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    #[error(transparent)]
    Provider(#[from] ProviderError),
    #[error("the payment provider did not answer within {0:?}")]
    ProviderLate(Duration),
}

/// Charges, settles and returns.
#[derive(Clone)]
pub struct Payments<B = Connection> {
    pub executor: Executor<B>,
    pub provider: Arc<dyn PaymentProvider>,
    pub provider_timeout: Duration,
}

impl<B: Broker> Payments<B> {
    /// Records the intent, asks the provider, records the outcome; answers with `PaymentApproved` or `PaymentDeclined`.
    ///
    /// A repeat finds the outcome recorded, or asks the provider again under the same key.
    pub async fn charge(
        &self,
        intent: Intent,
        request: Box<PaymentRequested>,
        token: &str,
    ) -> Result<Stored, PaymentError> {
        let (amount, method) = (request.amount, request.method.clone());
        let intent = Intent { command: Command::Payment(PaymentCommand::Request(request)), ..intent };
        let requested = self.record(intent.clone()).await?;
        if let Some(outcome) = self.outcome(&intent, &requested).await? {
            return Ok(outcome);
        }
        let attempt = requested.state.payment.attempt();
        let key = provider_key(intent.order_id, attempt);
        let charge = match self.in_time(self.provider.charge(&key, amount, &method, token)).await {
            Err(PaymentError::Provider(ProviderError::Refused(why))) => {
                self.refused(&key, amount, why).await?
            }
            charge => charge?,
        };
        let is_owed_when_refused = charge.is_owed_when_refused();
        let command = Command::Payment(charge.outcome_of(attempt));
        let cause = requested.event.as_ref().map(|stored| stored.recorded.event_id);
        let outcome = Intent {
            command_id: cause.map_or(intent.command_id, |cause| CommandId::from_step(cause, command.name())),
            command,
            causation_id: cause,
            // What became of the money is recorded, whatever the caller expected the order to be.
            expected: None,
            fingerprint: None,
            ..intent
        };
        let executed = match self.record(outcome.clone()).await {
            Err(ExecuteError::Refused(refusal)) => {
                // The order was given up while the provider was asked: what it took goes straight back.
                if is_owed_when_refused {
                    let returned = self.in_time(self.provider.close(&key, amount)).await?;
                    if let Err(error) = whole(amount, true, returned) {
                        tracing::error!(order_id = %intent.order_id, %error, "not all is back of a charge that came too late");
                    }
                }
                return Err(ExecuteError::Refused(refusal).into());
            }
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

    /// Records a part of a caller's payment, which is counted like any other command and refused no more.
    async fn record(&self, intent: Intent) -> Result<Executed, ExecuteError> {
        let _counted = self.executor.admission().count();
        self.executor.execute(intent).await
    }

    /// The provider refused the call to charge, for a reason that lies in it: a decline, once its key is closed, so
    /// that no repeat of it takes anything.
    async fn refused(&self, key: &str, amount: Money, why: String) -> Result<Charge, PaymentError> {
        let nothing = Money { amount: 0, ..amount };
        let returned = self.in_time(self.provider.close(key, nothing)).await?;
        whole(amount, false, returned)?;
        Ok(Charge::Declined { reason: format!("the payment provider refused the payment: {why}") })
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
            Payment::None
            | Payment::Requested { .. }
            | Payment::Approved { .. }
            | Payment::Declined { .. }
            | Payment::Deferred { .. } => {
                let decided = |stored: &Stored| match &stored.recorded.event {
                    Event::Payment(event) => match event {
                        PaymentEvent::PaymentApproved(_) | PaymentEvent::PaymentDeclined(_) => true,
                        PaymentEvent::PaymentRequested(_)
                        | PaymentEvent::PaymentDeferred(_)
                        | PaymentEvent::PaymentCanceled(_) => false,
                    },
                    Event::Ordering(_)
                    | Event::Store(_)
                    | Event::Marketing(_)
                    | Event::Delivery(_)
                    | Event::Review(_)
                    | Event::Notification(_)
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

    /// Asks the provider what became of an attempt that got no answer, and records that.
    ///
    /// What it knows nothing of is given up, first in the log: so a charge that arrives after all is not taken for
    /// paid.
    pub async fn settle(&self, intent: Intent) -> Result<Executed, PaymentError> {
        let state = self.state(&intent).await?;
        let Payment::Requested { attempt, .. } = state.payment else {
            return Ok(Executed { event: None, replayed: false, state });
        };
        let key = provider_key(intent.order_id, attempt);
        let found = self.in_time(self.provider.look_up(&key)).await;
        let command = match found.map_err(for_good)? {
            Some(charge) => charge.outcome_of(attempt),
            None => PaymentCommand::Defer { attempt },
        };
        Ok(self.executor.execute(Intent { command: Command::Payment(command), ..intent }).await?)
    }

    /// Has the provider close the newest attempt and give back what it took, then records that.
    pub async fn give_back(&self, intent: Intent) -> Result<Executed, PaymentError> {
        let state = self.state(&intent).await?;
        let (attempt, asked, is_taken) = match state.payment {
            Payment::Approved { amount, attempt } => (attempt, amount, true),
            Payment::Requested { amount, attempt } | Payment::Deferred { amount, attempt } => {
                (attempt, amount, false)
            }
            Payment::None | Payment::Declined { .. } | Payment::Canceled => {
                return Ok(Executed { event: None, replayed: false, state });
            }
        };
        let key = provider_key(intent.order_id, attempt);
        let taken = if is_taken { asked } else { Money { amount: 0, ..asked } };
        let closed = self.in_time(self.provider.close(&key, taken)).await;
        let returned = whole(asked, is_taken, closed.map_err(for_good)?)?;
        let command = Command::Payment(payment::closed(state.payment, state.order, returned));
        Ok(self.executor.execute(Intent { command, ..intent }).await?)
    }

    /// The story that the command was derived from, if the order's is still the same.
    async fn state(&self, intent: &Intent) -> Result<OrderState, PaymentError> {
        let at_least = intent.expected.unwrap_or_default();
        let story = self.executor.story(intent.order_id, at_least).await.map_err(ExecuteError::from)?;
        if intent.expected.is_some_and(|expected| expected != story.state.sequence()) {
            return Err(ExecuteError::Moved.into());
        }
        Ok(story.state.clone())
    }

    async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, PaymentError> {
        let answered = timeout(self.provider_timeout, call).await;
        Ok(answered.map_err(|_| PaymentError::ProviderLate(self.provider_timeout))??)
    }
}

/// Why what came back is not recorded.
#[derive(Debug, thiserror::Error)]
enum Mismatch {
    #[error("the payment provider gave back less than it took")]
    Short,
    #[error("the payment provider says that {returned} went back of {asked}")]
    Impossible { asked: Money, returned: Money },
}

impl From<Mismatch> for PaymentError {
    fn from(mismatch: Mismatch) -> Self {
        match mismatch {
            Mismatch::Short => ExecuteError::Refused(Refusal::RefundIncomplete).into(),
            Mismatch::Impossible { .. } => ProviderError::Down(mismatch.to_string()).into(),
        }
    }
}

/// What came back, held against what was asked for: all of it, or nothing where it is not known that any was taken.
///
/// Less is for an operator to see to. More, or less than nothing, cannot be; the provider is asked again.
fn whole(asked: Money, is_taken: bool, returned: Money) -> Result<Money, Mismatch> {
    if returned == asked || (returned.amount == 0 && !is_taken) {
        return Ok(returned);
    }
    if returned.currency == asked.currency && (0..asked.amount).contains(&returned.amount) {
        tracing::error!(%asked, %returned, "the payment provider gave back less than it took");
        return Err(Mismatch::Short);
    }
    Err(Mismatch::Impossible { asked, returned })
}

/// A call about a payment that is refused would be again: the order waits for an operator.
fn for_good(error: PaymentError) -> PaymentError {
    match error {
        PaymentError::Provider(ProviderError::Refused(why)) => {
            tracing::error!(why, "the payment provider refuses to say what became of a payment");
            ExecuteError::Refused(Refusal::ProviderRefused).into()
        }
        error @ (PaymentError::Execute(_) | PaymentError::Provider(_) | PaymentError::ProviderLate(_)) => {
            error
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::Currency;

    use super::*;

    fn outcome(is_taken: bool, returned: i64) -> &'static str {
        let won = |amount| Money { amount, currency: Currency::WON };
        match whole(won(9_000_000), is_taken, won(returned)) {
            Ok(_) => "booked",
            Err(Mismatch::Short) => "parked",
            Err(Mismatch::Impossible { .. }) => "asked again",
        }
    }

    #[test]
    fn what_comes_back_is_what_was_taken_or_nothing_is_booked() {
        for (returned, when_taken, when_unknown) in [
            (9_000_000, "booked", "booked"),
            (0, "parked", "booked"),
            (5, "parked", "parked"),
            (-5, "asked again", "asked again"),
            (9_000_001, "asked again", "asked again"),
            (1_000_000_000_000_000, "asked again", "asked again"),
        ] {
            assert_eq!(
                (outcome(true, returned), outcome(false, returned)),
                (when_taken, when_unknown),
                "{returned}"
            );
        }
    }
}
