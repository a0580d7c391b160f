//! Commands to other contexts: a time limit, and a circuit breaker for each context.

use std::{collections::BTreeMap, sync::Arc};

use domain::Context;
use nats::{
    Broker,
    ask::{Answer, Ask, AskError},
};

use crate::{
    breaker::{Breaker, BreakerError, Breakers},
    settings::CommandSettings,
};

/// Why another context gave no decision.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("not now: {0}")]
    Unavailable(String),
    #[error("the last calls to the {} context failed; it is left alone for a moment", .0.as_str())]
    BreakerOpen(Context),
}

/// The way to the other contexts.
#[derive(Clone)]
pub struct Calls {
    breakers: Arc<BTreeMap<Context, Breaker<Ask, Answer, CallError>>>,
}

impl Calls {
    pub fn new<B: Broker>(broker: &B, settings: &CommandSettings, breakers: &Breakers) -> Self {
        let guarded = |context| (context, guarded(context, broker.clone(), settings, breakers));
        Self { breakers: Arc::new(Context::ALL.into_iter().map(guarded).collect()) }
    }

    /// Sends a command to its context; its answer is never [`Answer::Unavailable`].
    pub async fn call(&self, ask: Ask) -> Result<Answer, CallError> {
        let context = ask.command.context();
        let breaker = self.breakers.get(&context).cloned().ok_or(CallError::BreakerOpen(context))?;
        breaker.call(ask).await.map_err(|error| match error {
            BreakerError::Open => CallError::BreakerOpen(context),
            BreakerError::Failed(error) => error,
        })
    }
}

fn guarded<B: Broker>(
    context: Context,
    broker: B,
    settings: &CommandSettings,
    breakers: &Breakers,
) -> Breaker<Ask, Answer, CallError> {
    let limit = settings.breaker.call_timeout(context);
    let provider_limit = settings.provider_timeout();
    breakers.breaker(context.as_str(), &settings.breaker, move |ask: Ask| {
        let broker = broker.clone();
        let limit = if ask.waits_for_provider() { limit + provider_limit } else { limit };
        async move {
            match broker.ask(&ask, limit).await? {
                Answer::Unavailable(detail) => Err(CallError::Unavailable(detail)),
                answer @ (Answer::Done(_) | Answer::Already | Answer::Refused(_) | Answer::Moved) => {
                    Ok(answer)
                }
            }
        }
    })
}
