//! Circuit breakers, one for each thing that can be away: a context, or a way out. An operator may hold one open or
//! closed.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use tower::{ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_resilience_circuitbreaker::{
    CircuitBreakerError, CircuitBreakerHandle, CircuitBreakerLayer, CircuitState,
};

use crate::preset::BreakerSettings;

/// The calls that a half-open breaker lets through to see whether the other side is back.
const HALF_OPEN_CALLS: usize = 3;

/// What an operator does with a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// No call goes through.
    Open,
    /// Every call goes through.
    Closed,
}

/// A breaker as people see it.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    pub call: &'static str,
    /// `closed`, `half_open` or `open`.
    pub state: &'static str,
    /// `null`: it goes by what the calls come to.
    pub held: Option<Hold>,
}

struct Switch {
    held: Mutex<Option<Hold>>,
    handle: CircuitBreakerHandle,
}

impl Switch {
    fn held(&self) -> Option<Hold> {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, call: &'static str) -> Shown {
        let held = self.held();
        let state = match held {
            Some(Hold::Open) => CircuitState::Open,
            Some(Hold::Closed) => CircuitState::Closed,
            None => self.handle.state(),
        };
        Shown { call, state: word(state), held }
    }
}

/// The breakers of a process; clones share them.
#[derive(Clone, Default)]
pub struct Breakers {
    switches: Arc<Mutex<BTreeMap<&'static str, Arc<Switch>>>>,
}

/// Calls to one thing, through its breaker.
pub struct Breaker<Q, A, E> {
    guarded: BoxCloneSyncService<Q, A, CircuitBreakerError<E>>,
    bare: BoxCloneSyncService<Q, A, E>,
    name: &'static str,
    switch: Arc<Switch>,
}

impl<Q, A, E> Clone for Breaker<Q, A, E> {
    fn clone(&self) -> Self {
        let (guarded, bare) = (self.guarded.clone(), self.bare.clone());
        Self { guarded, bare, name: self.name, switch: Arc::clone(&self.switch) }
    }
}

impl<Q: Send + 'static, A: Send + 'static, E: Send + 'static> Breaker<Q, A, E> {
    /// Calls, unless the breaker is open.
    pub async fn call(&self, request: Q) -> Result<A, CircuitBreakerError<E>> {
        match self.switch.held() {
            None => self.guarded.clone().oneshot(request).await,
            Some(Hold::Closed) => {
                self.bare.clone().oneshot(request).await.map_err(CircuitBreakerError::Inner)
            }
            Some(Hold::Open) => {
                metrics::counter!("twelve_breaker_rejected_total", "call" => self.name).increment(1);
                Err(CircuitBreakerError::OpenCircuit)
            }
        }
    }
}

impl Breakers {
    /// A breaker as set, whose state is in the metrics as `twelve_breaker_state{call="<name>"}`.
    pub fn breaker<Q, A, E, C, F>(
        &self,
        name: &'static str,
        settings: &BreakerSettings,
        call: C,
    ) -> anyhow::Result<Breaker<Q, A, E>>
    where
        Q: Send + 'static,
        A: Send + 'static,
        E: Send + 'static,
        C: Fn(Q) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<A, E>> + Send + 'static,
    {
        let (layer, handle) = layer(name, settings)?;
        let switch = Arc::new(Switch { held: Mutex::default(), handle });
        let mut switches = self.switches.lock().unwrap_or_else(PoisonError::into_inner);
        switches.insert(name, Arc::clone(&switch));
        let service = service_fn(call);
        let bare = BoxCloneSyncService::new(service.clone());
        Ok(Breaker { guarded: BoxCloneSyncService::new(layer.layer_fn(service)), bare, name, switch })
    }

    /// All of them, by name.
    pub fn show(&self) -> Vec<Shown> {
        let switches = self.switches.lock().unwrap_or_else(PoisonError::into_inner);
        switches.iter().map(|(name, switch)| switch.show(name)).collect()
    }

    /// Holds a breaker, or lets it go by what the calls come to, as if it had just been made; `None` if there is none
    /// of this name.
    pub async fn hold(&self, name: &str, hold: Option<Hold>) -> Option<Shown> {
        let found = {
            let switches = self.switches.lock().unwrap_or_else(PoisonError::into_inner);
            switches.get_key_value(name).map(|(name, switch)| (*name, Arc::clone(switch)))
        };
        let (name, switch) = found?;
        *switch.held.lock().unwrap_or_else(PoisonError::into_inner) = hold;
        if hold.is_none() {
            switch.handle.reset().await;
        }
        tracing::warn!(call = name, ?hold, "an operator holds a circuit breaker, or lets it go");
        metrics::gauge!("twelve_breaker_held", "call" => name).set(f64::from(u8::from(hold.is_some())));
        match hold {
            Some(Hold::Open) => publish_state(name, CircuitState::Open),
            Some(Hold::Closed) => publish_state(name, CircuitState::Closed),
            None => publish_state(name, switch.handle.state()),
        }
        Some(switch.show(name))
    }
}

fn layer(
    name: &'static str,
    settings: &BreakerSettings,
) -> anyhow::Result<(CircuitBreakerLayer, CircuitBreakerHandle)> {
    let calls = settings.calls();
    publish_state(name, CircuitState::Closed);
    let built = CircuitBreakerLayer::builder()
        .name(name)
        .failure_rate_threshold(settings.failure_rate())
        .sliding_window_size(calls)
        .minimum_number_of_calls(calls)
        .wait_duration_in_open(settings.open_for())
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
        .build_with_handle()?;
    Ok(built)
}

const fn word(state: CircuitState) -> &'static str {
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
