//! Circuit breakers, one for each thing that can be away: a context, or a way out. An operator may hold one open or
//! closed.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use self::circuit::{Circuit, End, Passage, Phase};
use crate::preset::BreakerSettings;

mod circuit;

/// What an operator does with a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "BreakerHold")]
pub enum Hold {
    /// No call goes through.
    Open,
    /// Every call goes through.
    Closed,
}

/// A breaker as people see it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Breaker")]
pub struct Shown {
    pub call: &'static str,
    #[schemars(extend("enum" = ["closed", "half_open", "open"]))]
    pub state: &'static str,
    /// `null`: it goes by what the calls come to.
    pub held: Option<Hold>,
}

/// Why a call came to nothing.
#[derive(Debug)]
pub enum BreakerError<E> {
    /// It was not made.
    Open,
    Failed(E),
}

struct Switch {
    name: &'static str,
    held: Mutex<Option<Hold>>,
    circuit: Mutex<Circuit>,
}

impl Switch {
    fn held(&self) -> Option<Hold> {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As its callers find it.
    fn phase(&self) -> Phase {
        match self.held() {
            Some(Hold::Open) => Phase::Open,
            Some(Hold::Closed) => Phase::Closed,
            None => self.circuit().phase(),
        }
    }

    fn show(&self) -> Shown {
        Shown { call: self.name, state: self.phase().word(), held: self.held() }
    }

    /// Does something to the circuit, and tells if that brought another phase.
    fn turn<T>(&self, turn: impl FnOnce(&mut Circuit) -> T) -> T {
        let mut circuit = self.circuit();
        let from = circuit.phase();
        let turned = turn(&mut circuit);
        let to = circuit.phase();
        drop(circuit);
        if from != to {
            tracing::warn!(call = self.name, from = from.word(), to = to.word(), "circuit breaker");
            metrics::counter!("twelve_breaker_transitions_total", "call" => self.name, "to" => to.word())
                .increment(1);
            self.publish();
        }
        turned
    }

    /// 0 closed, 1 half open, 2 open.
    fn publish(&self) {
        metrics::gauge!("twelve_breaker_state", "call" => self.name).set(self.phase().number());
    }

    fn reject<E>(&self) -> BreakerError<E> {
        metrics::counter!("twelve_breaker_rejected_total", "call" => self.name).increment(1);
        BreakerError::Open
    }
}

/// A call under way; dropped, it was given up.
struct Going<'a> {
    switch: &'a Switch,
    passage: Passage,
    end: End,
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        let (passage, end) = (&self.passage, self.end);
        self.switch.turn(|circuit| circuit.note(passage, end, Instant::now()));
    }
}

/// The breakers of a process; clones share them.
#[derive(Clone, Default)]
pub struct Breakers {
    switches: Arc<Mutex<BTreeMap<&'static str, Arc<Switch>>>>,
}

type Calling<A, E> = Pin<Box<dyn Future<Output = Result<A, E>> + Send>>;

/// Calls to one thing, through its breaker.
pub struct Breaker<Q, A, E> {
    call: Arc<dyn Fn(Q) -> Calling<A, E> + Send + Sync>,
    switch: Arc<Switch>,
}

impl<Q, A, E> Clone for Breaker<Q, A, E> {
    fn clone(&self) -> Self {
        Self { call: Arc::clone(&self.call), switch: Arc::clone(&self.switch) }
    }
}

impl<Q, A, E> Breaker<Q, A, E> {
    /// Calls, unless the breaker is open.
    pub async fn call(&self, request: Q) -> Result<A, BreakerError<E>> {
        let switch = &self.switch;
        match switch.held() {
            Some(Hold::Open) => Err(switch.reject()),
            Some(Hold::Closed) => (self.call)(request).await.map_err(BreakerError::Failed),
            None => {
                let admitted = switch.turn(|circuit| circuit.admit(Instant::now()));
                let passage = admitted.ok_or_else(|| switch.reject())?;
                let mut going = Going { switch, passage, end: End::Dropped };
                let answer = (self.call)(request).await;
                going.end = if answer.is_ok() { End::Success } else { End::Failure };
                answer.map_err(BreakerError::Failed)
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
    ) -> Breaker<Q, A, E>
    where
        C: Fn(Q) -> F + Send + Sync + 'static,
        F: Future<Output = Result<A, E>> + Send + 'static,
    {
        let circuit = Circuit::new(settings.calls(), settings.failure_rate(), settings.open_for());
        let switch = Arc::new(Switch { name, held: Mutex::default(), circuit: Mutex::new(circuit) });
        switch.publish();
        self.switches().insert(name, Arc::clone(&switch));
        Breaker { call: Arc::new(move |request| Box::pin(call(request))), switch }
    }

    fn switches(&self) -> MutexGuard<'_, BTreeMap<&'static str, Arc<Switch>>> {
        self.switches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, by name.
    pub fn show(&self) -> Vec<Shown> {
        self.switches().values().map(|switch| switch.show()).collect()
    }

    /// Holds a breaker, or lets it go by what the calls come to, as if it had just been made; `None` if there is none
    /// of this name.
    pub fn hold(&self, name: &str, hold: Option<Hold>) -> Option<Shown> {
        let switch = self.switches().get(name).cloned()?;
        *switch.held.lock().unwrap_or_else(PoisonError::into_inner) = hold;
        if hold.is_none() {
            switch.circuit().reset();
        }
        tracing::warn!(call = switch.name, ?hold, "an operator holds a circuit breaker, or lets it go");
        metrics::gauge!("twelve_breaker_held", "call" => switch.name)
            .set(f64::from(u8::from(hold.is_some())));
        switch.publish();
        Some(switch.show())
    }
}
