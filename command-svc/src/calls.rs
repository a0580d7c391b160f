//! Commands to other contexts: a time limit, and a circuit breaker for each context.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use domain::{Context, OrderId};
use nats::{
    Broker, EventLog,
    ask::{Answer, Ask, AskError},
};
use tokio::time::timeout;

use crate::{
    breaker::{Breaker, BreakerError, Breakers},
    settings::CommandSettings,
};

/// How long the log's leader may take to say what it has, once a context did not answer in time.
const LOG_ANSWERS_WITHIN: Duration = Duration::from_millis(500);

/// Why another context gave no decision.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("not now: {0}")]
    Unavailable(String),
    #[error("the last calls to the {} context failed; it is left alone for a moment", .0.as_str())]
    BreakerOpen(Context),
    /// Nothing that the context could help: its breaker does not count it.
    #[error("the log is not available: {0}")]
    LogUnavailable(String),
}

/// The way to the other contexts.
#[derive(Clone)]
pub struct Calls {
    breakers: Arc<BTreeMap<Context, Breaker<Ask, Answer, CallError>>>,
}

impl Calls {
    /// The way by the connection of the log on which the contexts decide.
    pub fn new<B: Broker>(log: &EventLog<B>, settings: &CommandSettings, breakers: &Breakers) -> Self {
        let guarded = |context| (context, guarded(context, log.clone(), settings, breakers));
        Self { breakers: Arc::new(Context::ALL.into_iter().map(guarded).collect()) }
    }

    /// Sends a command to its context; its answer is neither [`Answer::Unavailable`] nor [`Answer::LogUnavailable`].
    pub async fn call(&self, ask: Ask) -> Result<Answer, CallError> {
        let context = ask.command.context();
        let breaker = self.breakers.get(&context).cloned().ok_or(CallError::BreakerOpen(context))?;
        let answered = breaker.call(ask).await.map_err(|error| match error {
            BreakerError::Open => CallError::BreakerOpen(context),
            BreakerError::Failed(error) => error,
        });
        match answered? {
            Answer::LogUnavailable(why) => Err(CallError::LogUnavailable(why)),
            answer @ (Answer::Done(_)
            | Answer::Already
            | Answer::Refused(_)
            | Answer::Moved
            | Answer::Unavailable(_)) => Ok(answer),
        }
    }
}

/// Asks a context; where it does not answer because nats-server or the log is away, says so.
async fn ask_by<B: Broker>(log: &EventLog<B>, ask: &Ask, limit: Duration) -> Result<Answer, AskError> {
    let broker = log.broker();
    let connects = broker.connects();
    let error = match broker.ask(ask, limit).await {
        Ok(answer) => return Ok(answer),
        Err(error) => error,
    };
    if !broker.is_connected() || broker.connects() != connects {
        return Ok(Answer::LogUnavailable(format!("{error}: nats-server is away, or was until now")));
    }
    // A context that waits for the log cannot answer in time.
    if matches!(error, AskError::TimedOut(_)) && !log_answers(log, ask.order_id, limit).await {
        return Ok(Answer::LogUnavailable(format!("{error}, and neither does the log")));
    }
    Err(error)
}

/// Whether the log takes events of this order: no command waits for it in this process, and the leader of its
/// partition, which may be one without followers, is there.
async fn log_answers<B: Broker>(log: &EventLog<B>, order_id: OrderId, limit: Duration) -> bool {
    if log.keeps_waiting(order_id, LOG_ANSWERS_WITHIN.min(limit / 2)) {
        return false;
    }
    let newest = timeout(LOG_ANSWERS_WITHIN, log.last_sequence(order_id)).await;
    newest.is_ok_and(|newest| newest.is_ok())
}

fn guarded<B: Broker>(
    context: Context,
    log: EventLog<B>,
    settings: &CommandSettings,
    breakers: &Breakers,
) -> Breaker<Ask, Answer, CallError> {
    let limit = settings.breaker.call_timeout(context);
    let provider_limit = settings.provider_timeout();
    breakers.breaker(context.as_str(), &settings.breaker, move |ask: Ask| {
        let log = log.clone();
        let limit = if ask.waits_for_provider() { limit + provider_limit } else { limit };
        async move {
            match ask_by(&log, &ask, limit).await? {
                Answer::Unavailable(detail) => Err(CallError::Unavailable(detail)),
                answer @ (Answer::Done(_)
                | Answer::Already
                | Answer::Refused(_)
                | Answer::Moved
                | Answer::LogUnavailable(_)) => Ok(answer),
            }
        }
    })
}
