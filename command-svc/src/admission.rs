//! How many commands are worked on at a time: as many as are decided and stored within a goal.
//!
//! The limit grows by one with each command that met the goal, and shrinks with each that did not (additive increase,
//! multiplicative decrease). What is beyond it is refused at once, so that those that are admitted stay fast. The
//! saga's commands are not counted: work that was begun goes before work that is new.
//!
//! What counts is the log's part of a caller's command, once, in the process where it is worked on. While a payment
//! provider, another context or an outcome is waited for, the command gives its place back, and takes one again after
//! that; calls out have a limit of their own: slow cards leave the stores room.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use tower_resilience_adaptive::{Aimd, ConcurrencyAlgorithm};

/// Commands that are always admitted at a time: a burst that any machine masters.
const LIMIT_MIN: usize = 64;
/// Commands that are admitted at a time before anything is known.
const LIMIT_FIRST: usize = 256;
const LIMIT_MAX: usize = 2_048;
/// What is left of the limit after a command that did not meet the goal.
const DECREASE: f64 = 0.9;

/// Commands of one process that wait for a payment provider or for another context at a time; each holds a connection
/// and a body of at most 64 KiB.
pub const CALLS_OUT_MAX: usize = 1_000;

/// Admits commands; clones share the count.
#[derive(Clone)]
pub struct Admission {
    limit: Arc<Aimd>,
    goal: Duration,
    in_progress: Arc<AtomicUsize>,
    calls_out: Arc<Semaphore>,
}

/// A command that was admitted, counted until it is answered, given up, or waits for something else than the log.
pub struct Admitted {
    in_progress: Arc<AtomicUsize>,
    is_counted: AtomicBool,
}

/// A command that waits for a payment provider or for another context.
pub struct CallOut {
    _permit: OwnedSemaphorePermit,
}

impl Admission {
    /// `goal`: within which a command is to be decided and stored.
    pub fn new(goal: Duration) -> anyhow::Result<Self> {
        let limit = Aimd::builder()
            .initial_limit(LIMIT_FIRST)
            .min_limit(LIMIT_MIN)
            .max_limit(LIMIT_MAX)
            .increase_by(1)
            .decrease_factor(DECREASE)
            .latency_threshold(goal)
            .build()?;
        let calls_out = Arc::new(Semaphore::new(CALLS_OUT_MAX));
        Ok(Self { limit: Arc::new(limit), goal, in_progress: Arc::default(), calls_out })
    }

    /// A place for one more command; `None` if there are as many as there should be.
    pub fn admit(&self) -> Option<Admitted> {
        let admitted = self.count();
        let place = self.in_progress.load(Ordering::Acquire);
        (place <= self.limit.limit()).then_some(admitted)
    }

    /// Counts a command that was begun before, and is refused no more.
    pub fn count(&self) -> Admitted {
        self.in_progress.fetch_add(1, Ordering::AcqRel);
        Admitted { in_progress: Arc::clone(&self.in_progress), is_counted: AtomicBool::new(true) }
    }

    /// A place for a command that waits for a payment provider or for another context; `None` if [`CALLS_OUT_MAX`] do.
    pub fn call_out(&self) -> Option<CallOut> {
        let permit = Arc::clone(&self.calls_out).try_acquire_owned().ok()?;
        metrics::gauge!("twelve_calls_out").increment(1.0);
        Some(CallOut { _permit: permit })
    }

    /// A command, a caller's or the saga's, was decided and stored, which took so long.
    pub fn was_stored(&self, took: Duration) {
        // That few commands are fast says nothing of many.
        let is_used = 2 * self.in_progress.load(Ordering::Acquire) >= self.limit.limit();
        if is_used || took > self.goal {
            self.limit.record_success(took);
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and the limit is small")]
        metrics::gauge!("twelve_commands_at_once_max").set(self.limit.limit() as f64);
    }
}

impl Admitted {
    /// Gives the place back: what comes now does not wait for the log.
    pub fn release(&self) {
        if self.is_counted.swap(false, Ordering::AcqRel) {
            self.in_progress.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Takes a place again, if it was given back: the log has a part in what comes now. It is not refused.
    pub fn resume(&self) {
        if !self.is_counted.swap(true, Ordering::AcqRel) {
            self.in_progress.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Drop for CallOut {
    fn drop(&mut self) {
        metrics::gauge!("twelve_calls_out").decrement(1.0);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_commands_make_room_for_fewer_and_fast_ones_for_more() {
        let admission = Admission::new(Duration::from_millis(50)).unwrap();
        let all = || std::iter::from_fn(|| admission.admit()).collect::<Vec<_>>();
        assert_eq!(all().len(), LIMIT_FIRST);
        (0..10).for_each(|_| admission.was_stored(Duration::from_millis(2)));
        assert_eq!(all().len(), LIMIT_FIRST, "nobody needed more");
        let busy = all();
        (0..10).for_each(|_| admission.was_stored(Duration::from_millis(2)));
        drop(busy);
        assert_eq!(all().len(), LIMIT_FIRST + 10);
        (0..100).for_each(|_| admission.was_stored(Duration::from_millis(200)));
        assert_eq!(all().len(), LIMIT_MIN);
        assert_eq!(all().len(), LIMIT_MIN, "each was given back");
    }

    #[test]
    fn a_command_that_waits_for_something_else_makes_room_for_another_once() {
        let admission = Admission::new(Duration::from_millis(50)).unwrap();
        let all: Vec<Admitted> = std::iter::from_fn(|| admission.admit()).collect();
        assert!(admission.admit().is_none());
        all[0].release();
        all[0].release();
        let another = admission.admit();
        assert!(another.is_some() && admission.admit().is_none(), "one place, and no more");
        all[0].resume();
        all[0].resume();
        drop(another);
        assert!(
            admission.admit().is_none(),
            "it has its place again, once, and refuses nobody else's but new ones"
        );
        all[0].release();
        let another = admission.admit();
        let begun = admission.count();
        drop((all, another, begun));
        assert_eq!(std::iter::from_fn(|| admission.admit()).collect::<Vec<_>>().len(), LIMIT_FIRST);
        let waiting: Vec<CallOut> = std::iter::from_fn(|| admission.call_out()).collect();
        assert_eq!(waiting.len(), CALLS_OUT_MAX);
    }
}
