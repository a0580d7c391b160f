//! What a context answers to another service's command.

use domain::{Command, Refusal};
use nats::{
    Broker, Connection, LoadError,
    ask::{Answer, Ask, StoredEvent},
};

use crate::{
    execute::{ExecuteError, Executed, Executor, Intent},
    payment::{PaymentError, Payments},
    settings::AnswerDelay,
};

/// Decides about the commands that other services send to the contexts of this process.
#[derive(Clone)]
pub struct Decider<B = Connection> {
    pub executor: Executor<B>,
    pub payments: Payments<B>,
    pub answer_delay: AnswerDelay,
}

impl<B: Broker> Decider<B> {
    /// What becomes of a command; every error is an answer.
    pub async fn decide(self, ask: Ask) -> Answer {
        // Even an empty sleep would take a tick of the timer.
        if let Some(delay) = self.answer_delay.draw() {
            tokio::time::sleep(delay).await;
        }
        let order_id = ask.order_id;
        let intent = Intent {
            order_id,
            command: ask.command,
            command_id: ask.command_id,
            causation_id: ask.causation_id,
            expected: ask.expected,
            fingerprint: ask.fingerprint,
            trace_parent: ask.trace_parent,
        };
        let decided = match intent.command.clone() {
            Command::ChargePayment { request, token } => {
                self.payments.charge(intent, request, &token).await.map(Some)
            }
            Command::SettlePayment => self.payments.settle(intent).await.map(event),
            Command::ReturnPayment => self.payments.give_back(intent).await.map(event),
            Command::Ordering(_)
            | Command::Payment(_)
            | Command::Store(_)
            | Command::Review(_)
            | Command::Notification(_)
            | Command::Marketing(_)
            | Command::Delivery(_)
            | Command::Saga(_) => {
                // The saga's follow from an event; a caller's counts here, too, while its own process waits.
                let is_callers = intent.causation_id.is_none();
                let _counted = is_callers.then(|| self.executor.admission().count());
                self.executor.execute(intent).await.map(event).map_err(Into::into)
            }
        };
        match decided.map(|event| event.as_ref().map(StoredEvent::wrap).transpose()) {
            Ok(Ok(Some(event))) => Answer::Done(Box::new(event)),
            Ok(Ok(None)) => Answer::Already,
            Ok(Err(error)) => Answer::Unavailable(error.to_string()),
            Err(PaymentError::Execute(ExecuteError::Refused(refusal))) => Answer::Refused(refusal),
            Err(PaymentError::Execute(ExecuteError::Moved)) => Answer::Moved,
            Err(PaymentError::Execute(ExecuteError::Load(LoadError::TooLong(_)))) => {
                Answer::Refused(Refusal::OrderTooLong)
            }
            Err(error) => {
                let why = nats::causes(&error);
                tracing::info!(%order_id, why, "a command could not be decided now");
                match error {
                    PaymentError::Execute(error) if error.is_the_logs() => Answer::LogUnavailable(why),
                    PaymentError::Execute(_) | PaymentError::Provider(_) | PaymentError::ProviderLate(_) => {
                        Answer::Unavailable(why)
                    }
                }
            }
        }
    }
}

fn event(executed: Executed) -> Option<nats::Stored> {
    executed.event
}
