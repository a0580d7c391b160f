//! Circuit breakers, one for each thing that can be away: a context, or a way out.

use std::time::Duration;

use tower_resilience_circuitbreaker::{CircuitBreakerLayer, CircuitState};

use crate::settings::CommandSettings;

/// The calls that a half-open breaker lets through to see whether the other side is back.
const HALF_OPEN_CALLS: usize = 3;

/// A breaker as set, whose state is in the metrics as `twelve_breaker_state{call="<name>"}`.
pub fn layer(name: &'static str, settings: &CommandSettings) -> anyhow::Result<CircuitBreakerLayer> {
    let calls = usize::from(settings.breaker_calls);
    publish_state(name, CircuitState::Closed);
    let layer = CircuitBreakerLayer::builder()
        .name(name)
        .failure_rate_threshold(f64::from(settings.breaker_failure_percent) / 100.0)
        .sliding_window_size(calls)
        .minimum_number_of_calls(calls)
        .wait_duration_in_open(Duration::from_millis(settings.breaker_open_ms))
        .permitted_calls_in_half_open(HALF_OPEN_CALLS)
        .on_state_transition(move |from, to| {
            tracing::warn!(call = name, ?from, ?to, "circuit breaker");
            metrics::counter!("twelve_breaker_transitions_total", "call" => name, "to" => word(to))
                .increment(1);
            publish_state(name, to);
        })
        .on_call_rejected(move || {
            metrics::counter!("twelve_breaker_rejected_total", "call" => name).increment(1);
        })
        .build()?;
    Ok(layer)
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
