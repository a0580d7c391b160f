//! What a breaker knows: how the last calls ended, and so whether the next one may go through.
//!
//! The circuit breaker of Nygard's "Release It!", over the last calls, however long ago they were: closed while few of
//! them fail; open for a while once many do; then half open, for a few calls that show whether the other side is back.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// The calls that a half-open breaker lets through to see whether the other side is back.
const TRIALS: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Closed,
    HalfOpen,
    Open,
}

impl Phase {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }

    /// As a gauge shows it.
    pub(super) const fn number(self) -> f64 {
        match self {
            Self::Closed => 0.0,
            Self::HalfOpen => 1.0,
            Self::Open => 2.0,
        }
    }
}

enum State {
    Closed { failed: VecDeque<bool> },
    Open { until: Instant },
    HalfOpen { under_way: usize, succeeded: usize },
}

/// A call that was let through; how it ended counts only for the phase that let it through.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Passage {
    era: u64,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Success,
    Failure,
    /// Nobody waited for it any more.
    Dropped,
}

pub(super) struct Circuit {
    /// Calls to look back on.
    calls: usize,
    /// The share of them that opens it.
    failure_rate: f64,
    open_for: Duration,
    state: State,
    /// Counts the phases.
    era: u64,
}

impl Circuit {
    pub(super) fn new(calls: usize, failure_rate: f64, open_for: Duration) -> Self {
        let state = State::Closed { failed: VecDeque::with_capacity(calls) };
        Self { calls, failure_rate, open_for, state, era: 0 }
    }

    pub(super) const fn phase(&self) -> Phase {
        match self.state {
            State::Closed { .. } => Phase::Closed,
            State::Open { .. } => Phase::Open,
            State::HalfOpen { .. } => Phase::HalfOpen,
        }
    }

    fn begin(&mut self, state: State) {
        self.state = state;
        self.era += 1;
    }

    /// Closed, and nothing is known.
    pub(super) fn reset(&mut self) {
        self.begin(State::Closed { failed: VecDeque::with_capacity(self.calls) });
    }

    /// Whether a call may go through now; its end is to be noted.
    pub(super) fn admit(&mut self, now: Instant) -> Option<Passage> {
        if matches!(self.state, State::Open { until } if now >= until) {
            self.begin(State::HalfOpen { under_way: 0, succeeded: 0 });
        }
        match &mut self.state {
            State::Closed { .. } => {}
            State::HalfOpen { under_way, succeeded } if *under_way + *succeeded < TRIALS => *under_way += 1,
            State::Open { .. } | State::HalfOpen { .. } => return None,
        }
        Some(Passage { era: self.era })
    }

    /// Notes how a call ended.
    pub(super) fn note(&mut self, passage: &Passage, end: End, now: Instant) {
        if passage.era != self.era {
            return;
        }
        let opens = match (&mut self.state, end) {
            (State::Closed { failed }, End::Success | End::Failure) => {
                if failed.len() >= self.calls {
                    failed.pop_front();
                }
                failed.push_back(end == End::Failure);
                failed.len() >= self.calls && is_share(failed, self.failure_rate)
            }
            (State::HalfOpen { .. }, End::Failure) => true,
            (State::HalfOpen { under_way, succeeded }, End::Success) => {
                *under_way -= 1;
                *succeeded += 1;
                if *succeeded >= TRIALS {
                    self.reset();
                }
                false
            }
            (State::HalfOpen { under_way, .. }, End::Dropped) => {
                *under_way -= 1;
                false
            }
            (State::Closed { .. }, End::Dropped) | (State::Open { .. }, _) => false,
        };
        if opens {
            self.begin(State::Open { until: now + self.open_for });
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand calls at most")]
fn is_share(failed: &VecDeque<bool>, share: f64) -> bool {
    failed.iter().filter(|failed| **failed).count() as f64 >= share * failed.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN_FOR: Duration = Duration::from_secs(5);

    fn circuit() -> (Circuit, Instant) {
        (Circuit::new(4, 0.5, OPEN_FOR), Instant::now())
    }

    fn end(circuit: &mut Circuit, end: End, now: Instant) {
        let passage = circuit.admit(now).expect("let through");
        circuit.note(&passage, end, now);
    }

    #[test]
    fn it_looks_back_on_the_last_calls_only_however_many_went_well_before() {
        let (mut circuit, now) = circuit();
        for _ in 0..1_000 {
            end(&mut circuit, End::Success, now);
        }
        end(&mut circuit, End::Failure, now);
        assert_eq!(circuit.phase(), Phase::Closed);
        end(&mut circuit, End::Failure, now);
        assert_eq!(circuit.phase(), Phase::Open, "two of the last four failed");
    }

    #[test]
    fn it_judges_on_no_fewer_calls_than_it_looks_back_on() {
        let (mut circuit, now) = circuit();
        for _ in 0..3 {
            end(&mut circuit, End::Failure, now);
        }
        assert_eq!(circuit.phase(), Phase::Closed);
    }

    #[test]
    fn after_a_while_a_few_calls_decide_whether_it_closes_or_opens_again() {
        for (last, phase) in [(End::Success, Phase::Closed), (End::Failure, Phase::Open)] {
            let (mut circuit, now) = circuit();
            (0..4).for_each(|_| end(&mut circuit, End::Failure, now));
            assert_eq!(circuit.admit(now + OPEN_FOR / 2), None);
            let later = now + OPEN_FOR;
            let trials: Vec<Passage> = (0..TRIALS).filter_map(|_| circuit.admit(later)).collect();
            assert_eq!((trials.len(), circuit.admit(later)), (TRIALS, None), "and no more meanwhile");
            circuit.note(&trials[0], End::Success, later);
            circuit.note(&trials[1], End::Success, later);
            assert_eq!((circuit.phase(), circuit.admit(later)), (Phase::HalfOpen, None));
            circuit.note(&trials[2], last, later);
            assert_eq!(circuit.phase(), phase);
        }
    }

    #[test]
    fn a_trial_that_nobody_waits_for_any_more_makes_room_for_another() {
        let (mut circuit, now) = circuit();
        (0..4).for_each(|_| end(&mut circuit, End::Failure, now));
        let later = now + OPEN_FOR;
        for _ in 0..10 {
            end(&mut circuit, End::Dropped, later);
        }
        (0..TRIALS).for_each(|_| end(&mut circuit, End::Success, later));
        assert_eq!(circuit.phase(), Phase::Closed);
    }

    #[test]
    fn a_call_that_ends_in_a_later_phase_counts_for_nothing() {
        let (mut circuit, now) = circuit();
        let late = circuit.admit(now).expect("let through");
        (0..4).for_each(|_| end(&mut circuit, End::Failure, now));
        let later = now + OPEN_FOR;
        let _trial = circuit.admit(later).expect("a trial");
        circuit.note(&late, End::Failure, later);
        assert_eq!(circuit.phase(), Phase::HalfOpen);
    }
}
