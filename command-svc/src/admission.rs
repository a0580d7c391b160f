//! How many commands are worked on at a time: as many as are decided and stored within a goal.
//!
//! The limit grows by one with each command that met the goal, and shrinks with each that did not (additive increase,
//! multiplicative decrease). What is beyond it is refused at once, so that those that are admitted stay fast. The
//! saga's commands are not counted: work that was begun goes before work that is new.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tower_resilience_adaptive::{Aimd, ConcurrencyAlgorithm};

/// Commands that are always admitted at a time: a burst that any machine masters.
const LIMIT_MIN: usize = 64;
/// Commands that are admitted at a time before anything is known.
const LIMIT_FIRST: usize = 256;
const LIMIT_MAX: usize = 2_048;
/// What is left of the limit after a command that did not meet the goal.
const DECREASE: f64 = 0.9;

/// Admits commands; clones share the count.
#[derive(Clone)]
pub struct Admission {
    limit: Arc<Aimd>,
    goal: Duration,
    in_progress: Arc<AtomicUsize>,
}

/// A command that was admitted, counted until it is answered or given up.
pub struct Admitted(Arc<AtomicUsize>);

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
        Ok(Self { limit: Arc::new(limit), goal, in_progress: Arc::default() })
    }

    /// A place for one more command; `None` if there are as many as there should be.
    pub fn admit(&self) -> Option<Admitted> {
        if self.in_progress.fetch_add(1, Ordering::AcqRel) < self.limit.limit() {
            return Some(Admitted(Arc::clone(&self.in_progress)));
        }
        self.in_progress.fetch_sub(1, Ordering::AcqRel);
        None
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

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
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
}
