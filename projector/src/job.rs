//! Rebuilds beside the living: begun, watched, slowed, compared, swapped in, rolled back. One at a time.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    as_of::Moment,
    beside::MEETING_MAX,
    compare::Comparison,
    fold::Projection,
    rows::Rows,
    store::{self, Haste, Store},
};

/// Rests of a rebuild that is slowed down.
const RESTS_PER_SECOND: u64 = 50;
/// Events a second that a rebuild folds while readers ask, unless it is told how many.
const BESIDE_READERS_PER_SECOND: u64 = 6_000;

/// What is asked of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Builds the next generation; takes it into service by itself if it agrees with the serving one. With `only`,
    /// just these rows: all others are taken over from the serving one.
    Rebuild { swap: bool, only: Option<Rows> },
    /// Builds the views of a moment, into a folder that nobody serves.
    Until(Moment),
    /// Builds a generation only to compare it.
    Verify,
    /// Brings the generation that served before up to now, and takes it into service again.
    Rollback,
}

/// Why something is not done.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error("a rebuild is under way already: cancel it, or wait for its end")]
    Busy,
    #[error("there is no rebuild under way")]
    None,
    #[error("the generation is not ready: it is {0:?}")]
    NotReady(State),
    #[error(
        "the generations differ in {0} entries; look at the first of them, and swap all the same if that is right"
    )]
    Differs(u64),
    #[error("there is no generation to go back to")]
    NoPrevious,
    #[error("the generation that served before was folded by another definition, or from another log")]
    Outdated,
    #[error(
        "the views that serve are of an older definition and do not move, so there is nothing to verify them against; build them anew"
    )]
    Frozen,
    #[error("the generations did not come to the same position within {MEETING_MAX:?}")]
    NoMeeting,
    #[error(
        "the views have not caught up with the log as it was at the start; verify them once the node is ready"
    )]
    CatchingUp,
    #[error(
        "one view alone is built beside others that are whole: defined as they are now, caught up with the log, no order quarantined; build all of them instead"
    )]
    NotWhole,
    #[error("this node is not following a log")]
    Closed,
    #[error(transparent)]
    Store(#[from] store::StoreError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "RebuildState")]
pub enum State {
    Building,
    Comparing,
    /// Compared, and kept up with the log, until it is swapped in or canceled.
    Ready,
    /// Being taken into service.
    Swapping,
    /// In service.
    Serving,
    /// Compared and put away.
    Verified,
    /// As of a moment, beside what serves.
    Built,
    Canceled,
    Failed,
}

impl State {
    /// Nothing becomes of it any more.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Serving | Self::Verified | Self::Built | Self::Canceled | Self::Failed)
    }
}

/// How far a job is, for people.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Rebuild")]
pub struct Status {
    pub state: State,
    /// `null` for the views of a moment, which are no generation.
    pub generation: Option<u32>,
    /// Events folded, and to fold.
    pub events: u64,
    pub events_total: u64,
    /// Events that the log lacks, and so does what is built.
    pub events_missing: u64,
    pub events_per_second: u64,
    /// At this speed; `null` before there is one, and after the end.
    pub seconds_left: Option<u64>,
    /// Events a second at most; 0: as fast as it goes, and 6,000 while readers ask.
    pub events_per_second_max: u64,
    pub comparison: Option<Comparison>,
    pub failure: Option<String>,
}

/// One generation being built beside the serving one.
pub struct Job {
    pub(crate) work: Work,
    pub(crate) generation: u32,
    /// Until it is put away.
    pub(crate) store: Mutex<Option<Store>>,
    /// The serving generation does not move, as its definition is outdated.
    pub(crate) serving_is_frozen: bool,
    pub(crate) reached: Vec<AtomicU64>,
    /// Whether its commits are such that readers may look on.
    pub(crate) is_presentable: AtomicBool,
    /// Whether what was built is folded no further, for good.
    pub(crate) is_at_rest: AtomicBool,
    pub(crate) events: AtomicU64,
    pub(crate) events_total: AtomicU64,
    pub(crate) events_missing: AtomicU64,
    pub(crate) events_per_second_max: AtomicU64,
    pub(crate) started: Instant,
    pub(crate) state: Mutex<State>,
    pub(crate) comparison: Mutex<Option<Comparison>>,
    pub(crate) failure: Mutex<Option<String>>,
    pub(crate) canceled: CancellationToken,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Job {
    /// One that has just begun; `store` is of no use to anybody else, and there is none for the views of a moment.
    pub(crate) fn new(
        work: Work,
        store: Option<Store>,
        reached: Vec<AtomicU64>,
        (events_total, events_per_second_max): (u64, u64),
        serving_is_frozen: bool,
    ) -> Self {
        Self {
            work,
            generation: store.as_ref().map_or(0, Store::generation),
            store: Mutex::new(store),
            serving_is_frozen,
            reached,
            is_presentable: AtomicBool::new(false),
            is_at_rest: AtomicBool::new(false),
            events: AtomicU64::new(0),
            events_total: AtomicU64::new(events_total),
            events_missing: AtomicU64::new(0),
            events_per_second_max: AtomicU64::new(events_per_second_max),
            started: Instant::now(),
            state: Mutex::new(State::Building),
            comparison: Mutex::default(),
            failure: Mutex::default(),
            canceled: CancellationToken::new(),
        }
    }

    pub const fn generation(&self) -> u32 {
        self.generation
    }

    pub(crate) fn store(&self) -> Result<Store, JobError> {
        lock(&self.store).clone().ok_or(JobError::None)
    }

    pub fn state(&self) -> State {
        *lock(&self.state)
    }

    pub(crate) fn set_state(&self, state: State) {
        *lock(&self.state) = state;
    }

    /// Back from [`State::Swapping`], unless it is over meanwhile.
    pub(crate) fn returns_to(&self, state: State) {
        let mut is = lock(&self.state);
        if *is == State::Swapping {
            *is = state;
        }
    }

    pub(crate) fn is_canceled(&self) -> bool {
        self.canceled.is_cancelled() || self.is_at_rest.load(Ordering::Acquire)
    }

    pub(crate) fn fail(&self, why: String) {
        *lock(&self.failure) = Some(why);
        self.set_state(State::Failed);
    }

    pub(crate) fn reached(&self) -> Vec<u64> {
        self.reached.iter().map(|reached| reached.load(Ordering::Acquire)).collect()
    }

    /// Whether each partition is written at least up to there.
    pub(crate) fn has_reached(&self, ends: impl IntoIterator<Item = u64>) -> bool {
        self.reached().into_iter().zip(ends).all(|(reached, end)| reached >= end)
    }

    pub(crate) fn note_reached(&self, projection: &Projection) {
        for (reached, checkpoint) in self.reached.iter().zip(projection.stored()) {
            reached.store(checkpoint.sequence, Ordering::Release);
        }
    }

    pub(crate) fn events_total(&self) -> u64 {
        self.events_total.load(Ordering::Relaxed)
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and no log has 2^53 events")]
    pub(crate) fn note_events(&self, events: u64) {
        let folded = self.events.fetch_add(events, Ordering::Relaxed) + events;
        metrics::gauge!("twelve_rebuild_events").set(folded as f64);
        metrics::gauge!("twelve_rebuild_events_total").set(self.events_total() as f64);
    }

    /// Events to fold before the next rest: few enough to be told soon to end, or to go at another speed.
    pub(crate) fn chunk(&self, are_readers_there: bool) -> usize {
        let at_most = |most: u64| usize::try_from(most / RESTS_PER_SECOND).unwrap_or(usize::MAX).max(1);
        self.limit(are_readers_there).map_or(usize::MAX, at_most)
    }

    /// How long to rest after so many events, so as not to exceed the speed that was asked for, or that readers bear.
    pub(crate) fn pause_for(&self, events: u64, are_readers_there: bool) -> Duration {
        let at_most = |most: u64| Duration::from_micros(events.saturating_mul(1_000_000) / most);
        self.limit(are_readers_there).map_or(Duration::ZERO, at_most)
    }

    /// How commits are to be written.
    pub(crate) fn haste(&self, are_readers_there: bool) -> Haste {
        if self.limit(are_readers_there).is_some() { Haste::Gentle } else { Haste::Full }
    }

    fn limit(&self, are_readers_there: bool) -> Option<u64> {
        match self.events_per_second_max.load(Ordering::Relaxed) {
            0 => are_readers_there.then_some(BESIDE_READERS_PER_SECOND),
            most => Some(most),
        }
    }

    /// Events a second at most from now on; 0: as fast as it goes, and 6,000 while readers ask.
    pub fn slow_down(&self, events_per_second_max: u64) {
        self.events_per_second_max.store(events_per_second_max, Ordering::Relaxed);
    }

    pub fn status(&self) -> Status {
        let (state, events) = (self.state(), self.events.load(Ordering::Relaxed));
        let milliseconds = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let events_per_second = events.saturating_mul(1_000) / milliseconds;
        let left = self.events_total().saturating_sub(events);
        let is_telling = state == State::Building && events_per_second > 0;
        Status {
            state,
            generation: (self.generation > 0).then_some(self.generation),
            events,
            events_total: self.events_total(),
            events_missing: self.events_missing.load(Ordering::Relaxed),
            events_per_second,
            seconds_left: is_telling.then(|| left.div_ceil(events_per_second)),
            events_per_second_max: self.events_per_second_max.load(Ordering::Relaxed),
            comparison: lock(&self.comparison).clone(),
            failure: lock(&self.failure).clone(),
        }
    }
}

/// The rebuilds of one node.
#[derive(Default)]
pub struct Jobs {
    asked: OnceLock<mpsc::Sender<(Work, u64)>>,
    pub(crate) newest: Mutex<Option<Arc<Job>>>,
    /// Counts the changes of any job's state.
    changes: watch::Sender<u64>,
    /// Between a job's being asked for and its being the newest.
    is_beginning: AtomicBool,
}

impl Jobs {
    /// From here on jobs may be asked for; not yet, if one begins by itself.
    pub(crate) fn open(&self, asked: mpsc::Sender<(Work, u64)>, begins_by_itself: bool) {
        self.is_beginning.store(begins_by_itself, Ordering::Release);
        // A node is started once.
        drop(self.asked.set(asked));
    }

    /// The newest job, running or over.
    pub fn newest(&self) -> Option<Arc<Job>> {
        lock(&self.newest).clone()
    }

    /// Why the newest job failed, if it did.
    pub(crate) fn failure(&self) -> Option<String> {
        self.newest().and_then(|job| lock(&job.failure).clone())
    }

    /// Tells of changes of the newest job.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(crate) fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Begins a job, at `events_per_second_max` (0: as fast as it goes, and 6,000 while readers ask).
    pub fn begin(&self, work: Work, events_per_second_max: u64) -> Result<(), JobError> {
        if self.newest().is_some_and(|job| !job.state().is_over()) {
            return Err(JobError::Busy);
        }
        let asked = self.asked.get().ok_or(JobError::Closed)?;
        if self.is_beginning.swap(true, Ordering::AcqRel) {
            return Err(JobError::Busy);
        }
        asked.try_send((work, events_per_second_max)).map_err(|_| JobError::Closed)
    }

    /// What was asked for is the newest job now, or could not be begun.
    pub(crate) fn has_begun(&self) {
        self.is_beginning.store(false, Ordering::Release);
        self.changed();
    }

    /// Ends the running job; what serves is untouched.
    pub fn cancel(&self) -> Result<(), JobError> {
        let job = self.newest().filter(|job| !job.state().is_over()).ok_or(JobError::None)?;
        job.canceled.cancel();
        Ok(())
    }
}
