//! The payment context's commands that call outside: intent first, then the call, then the outcome.

use std::{future::Future, sync::Arc, time::Duration};

use domain::{
    Command, CommandId, Event, EventId, Money, OrderId, OrderState, Refusal,
    event::{PaymentEvent, PaymentRequested},
    order::Order,
    payment::{self, Charge, Payment, PaymentCommand, provider_key},
};
use nats::{Broker, Connection, Stored};
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    execute::{ExecuteError, Executed, Executor, Intent},
    provider::{PaymentProvider, ProviderError},
};

/// Times that a key is closed while what the provider says went back cannot be; then the order waits for an operator.
const IMPOSSIBLE_RETURNS_MAX: u32 = 3;

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
        let number = requested.state.payment.attempt();
        let request = match requested.event {
            Some(event) if !requested.replayed => event.recorded.event_id,
            event => match self.found(intent.order_id, event.map(|event| event.recorded.event_id)).await? {
                Found::Outcome(outcome) => return Ok(*outcome),
                Found::Open(request) => request,
            },
        };
        let key = provider_key(intent.order_id, number);
        let attempt = Attempt { number, key, amount, request, intent };
        let charged = self.in_time(self.provider.charge(&attempt.key, amount, &method, token)).await;
        let charge = match charged {
            Err(PaymentError::Provider(ProviderError::Refused(why) | ProviderError::Mismatch(why))) => {
                match self.give_up(&attempt, why).await? {
                    Some(declined) => declined,
                    None => return self.outcome(&attempt).await,
                }
            }
            charge => charge?,
        };
        let is_owed_when_refused = charge.is_owed_when_refused();
        match self.record(attempt.intent(charge.outcome_of(number))).await {
            Ok(Executed { event: Some(event), .. }) => Ok(event),
            Ok(Executed { event: None, .. }) => self.outcome(&attempt).await,
            Err(ExecuteError::Refused(refusal)) => {
                // The order was given up while the provider was asked: what it took goes straight back.
                if is_owed_when_refused {
                    match self.close(&attempt.key, amount, true).await.map_err(for_good) {
                        Err(error @ PaymentError::Execute(_)) => {
                            tracing::error!(order_id = %attempt.intent.order_id, %error, "not all is back of a charge that came too late");
                        }
                        closed => drop(closed?),
                    }
                }
                Err(ExecuteError::Refused(refusal).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Records a part of a caller's payment, which is counted like any other command and refused no more.
    async fn record(&self, intent: Intent) -> Result<Executed, ExecuteError> {
        let _counted = self.executor.admission().count();
        self.executor.execute(intent).await
    }

    /// The provider refused the call to charge, for a reason that lies in it: a decline, once its key is closed, so
    /// that no repeat of it takes anything.
    ///
    /// Another call under the same key may have been charged, so the attempt is given up in the log first: from there
    /// on that charge is not taken for paid. `None`: the log has an outcome of the attempt, and nothing is closed.
    async fn give_up(&self, attempt: &Attempt, why: String) -> Result<Option<Charge>, PaymentError> {
        let defer = attempt.intent(PaymentCommand::Defer { attempt: attempt.number });
        let given_up = self.record(defer).await?;
        if !given_up.state.payment.has_given_up(attempt.number) {
            return Ok(None);
        }
        self.close(&attempt.key, attempt.amount, false).await.map_err(for_good)?;
        Ok(Some(Charge::Declined { reason: format!("the payment provider refused the payment: {why}") }))
    }

    /// The recorded outcome of an attempt that is no longer open.
    async fn outcome(&self, attempt: &Attempt) -> Result<Stored, PaymentError> {
        match self.found(attempt.intent.order_id, Some(attempt.request)).await? {
            Found::Outcome(outcome) => Ok(*outcome),
            Found::Open(_) => Err(ExecuteError::Refused(Refusal::PaymentCanceled).into()),
        }
    }

    /// What the log has of an attempt that was asked for before; `None`: of the newest one.
    async fn found(&self, order_id: OrderId, request: Option<EventId>) -> Result<Found, PaymentError> {
        let story = self.executor.story(order_id, 0).await.map_err(ExecuteError::from)?;
        if story.state.order == Order::Expired {
            return Err(ExecuteError::Refused(Refusal::OrderExpired).into());
        }
        if story.state.payment == Payment::Canceled {
            return Err(ExecuteError::Refused(Refusal::PaymentCanceled).into());
        }
        let is_request = |stored: &&Stored| match request {
            Some(request) => stored.recorded.event_id == request,
            None => matches!(stored.recorded.event, Event::Payment(PaymentEvent::PaymentRequested(_))),
        };
        let request = story.events.iter().rfind(is_request).ok_or(Refusal::PaymentNotRequested);
        let request = &request.map_err(ExecuteError::from)?.recorded;
        // Of this attempt; an earlier one may have been declined.
        let mut later = story
            .events
            .iter()
            .filter(|stored| stored.recorded.position.sequence > request.position.sequence);
        let outcome = later.find(|stored| payment::is_outcome(&stored.recorded.event)).cloned();
        Ok(outcome.map_or(Found::Open(request.event_id), |outcome| Found::Outcome(Box::new(outcome))))
    }

    /// Asks the provider what became of an attempt that got no answer, and records that.
    ///
    /// What it knows nothing of is given up, first in the log: so a charge that arrives after all is not taken for
    /// paid.
    pub async fn settle(&self, intent: Intent) -> Result<Executed, PaymentError> {
        let state = self.state(&intent).await?;
        let Payment::Requested { amount, attempt } = state.payment else {
            return Ok(Executed { event: None, replayed: false, state });
        };
        let key = provider_key(intent.order_id, attempt);
        let found = self.in_time(self.provider.look_up(&key, amount)).await;
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
        let returned = self.close(&key, asked, is_taken).await.map_err(for_good)?;
        let command = Command::Payment(payment::closed(state.payment, state.order, returned));
        Ok(self.executor.execute(Intent { command, ..intent }).await?)
    }

    /// Closes a key, and holds what came back against what was asked for. `is_taken`: whether the log knows that it was
    /// taken.
    ///
    /// What cannot be is asked again, [`IMPOSSIBLE_RETURNS_MAX`] times at most within the time of one call; the calls
    /// move nothing that the first did not.
    async fn close(&self, key: &str, asked: Money, is_taken: bool) -> Result<Money, PaymentError> {
        let taken = if is_taken { asked } else { Money { amount: 0, ..asked } };
        let until = Instant::now() + self.provider_timeout;
        let mut impossible = 0;
        loop {
            let Ok(closed) = timeout_at(until, self.provider.close(key, taken)).await else {
                return Err(match impossible {
                    0 => PaymentError::ProviderLate(self.provider_timeout),
                    _ => ExecuteError::Refused(Refusal::AmountMismatch).into(),
                });
            };
            let why = match closed {
                Ok(returned) => match whole(asked, is_taken, returned) {
                    Ok(returned) => return Ok(returned),
                    Err(Mismatch::Short) => return Err(ExecuteError::from(Refusal::RefundIncomplete).into()),
                    Err(error @ Mismatch::Impossible { .. }) => error.to_string(),
                },
                Err(ProviderError::Mismatch(why)) => why,
                Err(error @ (ProviderError::Down(_) | ProviderError::Refused(_))) => return Err(error.into()),
            };
            impossible += 1;
            tracing::error!(key, why, impossible, "what the payment provider says went back cannot be");
            if impossible >= IMPOSSIBLE_RETURNS_MAX {
                return Err(ExecuteError::from(Refusal::AmountMismatch).into());
            }
        }
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

/// An attempt to pay that the provider is asked about for a caller.
struct Attempt {
    number: u32,
    /// Under which the provider knows it.
    key: String,
    amount: Money,
    /// The event that asked for it.
    request: EventId,
    /// The caller's command.
    intent: Intent,
}

impl Attempt {
    /// What became of it, to be recorded whatever the caller expected the order to be. Each command follows from the
    /// request, so calls under one key that record the same are repeats of each other.
    fn intent(&self, command: PaymentCommand) -> Intent {
        let command = Command::Payment(command);
        Intent {
            command_id: CommandId::from_step(self.request, command.name()),
            command,
            causation_id: Some(self.request),
            expected: None,
            fingerprint: None,
            ..self.intent.clone()
        }
    }
}

/// What the log has of an attempt to pay.
enum Found {
    /// It was approved or declined.
    Outcome(Box<Stored>),
    /// The event that asked for it, and no outcome.
    Open(EventId),
}

/// Why what came back is not recorded.
#[derive(Debug, thiserror::Error)]
enum Mismatch {
    #[error("the payment provider gave back less than it took")]
    Short,
    #[error("the payment provider says that {returned} went back of {asked}")]
    Impossible { asked: Money, returned: Money },
}

/// What came back, held against what was asked for: all of it, or nothing where it is not known that any was taken.
///
/// Less is for an operator to see to. More, or less than nothing, cannot be.
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
        PaymentError::Provider(ProviderError::Mismatch(why)) => {
            tracing::error!(why, "the payment provider took what was not asked for");
            ExecuteError::Refused(Refusal::AmountMismatch).into()
        }
        error @ (PaymentError::Execute(_)
        | PaymentError::Provider(ProviderError::Down(_))
        | PaymentError::ProviderLate(_)) => error,
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
