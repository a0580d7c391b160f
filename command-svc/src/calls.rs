//! Commands to other contexts: a time limit, and a circuit breaker for each context.

use std::{collections::BTreeMap, time::Duration};

use domain::Context;
use nats::{
    Connection,
    ask::{Answer, Ask, AskError},
};
use tower::{ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_resilience_circuitbreaker::{CircuitBreakerError, CircuitBreakerLayer, CircuitState};

use crate::settings::CommandSettings;

/// The calls that a half-open breaker lets through to see whether the context is back.
const HALF_OPEN_CALLS: usize = 3;

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
    breakers: BTreeMap<Context, BoxCloneSyncService<Ask, Answer, CircuitBreakerError<CallError>>>,
}

impl Calls {
    pub fn new(connection: &Connection, settings: &CommandSettings) -> anyhow::Result<Self> {
        let breakers = Context::ALL
            .into_iter()
            .map(|context| Ok((context, breaker(context, connection.clone(), settings)?)))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { breakers })
    }

    /// Sends a command to its context; its answer is never [`Answer::Unavailable`].
    pub async fn call(&self, ask: Ask) -> Result<Answer, CallError> {
        let context = ask.command.context();
        let breaker = self.breakers.get(&context).cloned().ok_or(CallError::BreakerOpen(context))?;
        breaker.oneshot(ask).await.map_err(|error| match error {
            CircuitBreakerError::OpenCircuit => CallError::BreakerOpen(context),
            CircuitBreakerError::Inner(error) => error,
        })
    }
}

fn breaker(
    context: Context,
    connection: Connection,
    settings: &CommandSettings,
) -> anyhow::Result<BoxCloneSyncService<Ask, Answer, CircuitBreakerError<CallError>>> {
    let name = context.as_str();
    let calls = usize::from(settings.breaker_calls);
    let limit = settings.call_timeout();
    let provider_limit = settings.provider_timeout();
    publish_state(name, CircuitState::Closed);
    let layer = CircuitBreakerLayer::builder()
        .name(name)
        .failure_rate_threshold(f64::from(settings.breaker_failure_percent) / 100.0)
        .sliding_window_size(calls)
        .minimum_number_of_calls(calls)
        .wait_duration_in_open(Duration::from_millis(settings.breaker_open_ms))
        .permitted_calls_in_half_open(HALF_OPEN_CALLS)
        .on_state_transition(move |from, to| {
            tracing::warn!(context = name, ?from, ?to, "circuit breaker");
            metrics::counter!("twelve_breaker_transitions_total", "call" => name, "to" => word(to))
                .increment(1);
            publish_state(name, to);
        })
        .on_call_rejected(move || {
            metrics::counter!("twelve_breaker_rejected_total", "call" => name).increment(1);
        })
        .build()?;
    let service = service_fn(move |ask: Ask| {
        let connection = connection.clone();
        let limit = if ask.waits_for_provider() { limit + provider_limit } else { limit };
        async move {
            match connection.ask(&ask, limit).await? {
                Answer::Unavailable(detail) => Err(CallError::Unavailable(detail)),
                answer @ (Answer::Done(_) | Answer::Already | Answer::Refused(_) | Answer::Moved) => {
                    Ok(answer)
                }
            }
        }
    });
    Ok(BoxCloneSyncService::new(layer.layer_fn(service)))
}

fn word(state: CircuitState) -> &'static str {
    match state {
        CircuitState::Closed => "closed",
        CircuitState::HalfOpen => "half_open",
        CircuitState::Open => "open",
    }
}

/// 0 closed, 1 half open, 2 open.
fn publish_state(name: &'static str, state: CircuitState) {
    let value = match state {
        CircuitState::Closed => 0.0,
        CircuitState::HalfOpen => 1.0,
        CircuitState::Open => 2.0,
    };
    metrics::gauge!("twelve_breaker_state", "call" => name).set(value);
}
