//! A view node: one generation of the views serves readers, and another may be built beside it.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use domain::{OrderId, Position};
use nats::{EventLog, LoadError, follow::PartitionInfo};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    fold::{Pace, Projection, SetAside, Unreadable, Visible},
    generation::{self, Worker},
    generations,
    job::{Job, JobError, Jobs},
    live::{Followers, Following, Missed, Topic},
    quarantine::Quarantine,
    snapshot,
    store::{self, CACHE_MB, Store, StoreError},
    view,
};

/// Batches that may wait to be folded; beyond it, the followers wait.
pub(crate) const BATCHES_WAITING_MAX: usize = 16;
/// How long after a query readers count as being there.
const READERS_STAY: Duration = Duration::from_secs(2);

/// How a view node behaves.
#[derive(Clone, Copy, Debug)]
pub struct NodeSettings {
    /// How old the newest snapshot of the views may become before another is taken; `None`: none are taken.
    pub snapshot_every: Option<Duration>,
    pub unreadable: Unreadable,
    /// Megabytes of memory in which a store keeps pages.
    pub cache_mb: u32,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self { snapshot_every: None, unreadable: Unreadable::default(), cache_mb: CACHE_MB }
    }
}

/// What readers see of the folding.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Why folding stopped, if it did.
    pub stopped: Option<String>,
    /// The orders that are not folded any further.
    pub set_aside: Vec<SetAside>,
    /// The messages that are no order's, and were passed over.
    pub quarantine: Quarantine,
    /// Whether what serves is of an older definition, and does not move until it is built anew.
    pub is_outdated: bool,
    /// Why building it anew failed the last time, which is tried again.
    pub rebuild_failure: Option<String>,
}

impl Health {
    /// Whether something of the log is not in the views and will not be by itself.
    pub const fn is_wanting(&self) -> bool {
        self.stopped.is_some() || !self.set_aside.is_empty()
    }
}

/// The views, open for reading; clones share everything.
#[derive(Clone)]
pub struct Views {
    shared: Arc<Shared>,
}

struct Shared {
    directory: PathBuf,
    serving: watch::Sender<Store>,
    applied: Vec<watch::Sender<u64>>,
    /// The last sequences of the partitions when this node started.
    at_start: Vec<u64>,
    started: Instant,
    /// When readers asked last: milliseconds from the start on; 0: never.
    read_at_ms: AtomicU64,
    health: Mutex<Health>,
    unreadable: Unreadable,
    followers: Followers,
    /// Held while the serving generation moves: while it commits and says so, and while another takes its place.
    gate: Mutex<()>,
    jobs: Jobs,
}

impl Views {
    /// Opens the views in `directory` and begins to follow `log`; the tasks end after `stop`.
    ///
    /// Views that were built from another log, or from more than the log has, are dropped and rebuilt. Views that
    /// were built by another definition serve as they stand while they are built anew, and so does a rebuild that a
    /// crash interrupted go on.
    pub async fn start(
        log: &EventLog,
        directory: &Path,
        settings: NodeSettings,
        stop: &CancellationToken,
    ) -> anyhow::Result<(Self, JoinSet<anyhow::Result<()>>)> {
        store::keep_in_memory(settings.cache_mb);
        let infos = partition_infos(log).await?;
        if generations::current(directory)?.is_none()
            && let Err(error) = snapshot::begin(log, directory, &infos).await
        {
            tracing::warn!(error = %nats::causes(&error), "no snapshot helps; the views begin with the first event");
        }
        let mut projection = open(directory, &infos)?;
        projection.set_unreadable(settings.unreadable);
        mend(log, &mut projection).await?;
        metrics::gauge!("twelve_view_messages_quarantined").set(precise(projection.quarantine().messages));
        let is_outdated = projection.store().definition()? != Some(view::definition());
        let views = Self::over(&projection, directory, &infos);
        let mut tasks = JoinSet::new();
        let looking = log.clone().watch_losses(stop.clone());
        tasks.spawn(async move {
            looking.await;
            Ok(())
        });
        views.set_outdated(is_outdated);
        if is_outdated {
            tracing::warn!(
                "the views are defined otherwise now: they serve as they stand and are built anew"
            );
        } else {
            let worker = Worker::serving(views.clone(), projection);
            generation::run(&mut tasks, log, worker, BATCHES_WAITING_MAX, stop);
        }
        if let Some(every) = settings.snapshot_every {
            tasks.spawn(snapshot::schedule(views.clone(), log.clone(), every, stop.clone()));
        }
        let (asked, jobs) = mpsc::channel(1);
        let first = views.unasked(is_outdated);
        views.shared.jobs.open(asked, first.is_some());
        let (running, log, stop) = (views.clone(), log.clone(), stop.clone());
        tasks.spawn(async move { running.run_jobs(log, jobs, first, stop).await });
        Ok((views, tasks))
    }

    /// Views that nobody folds any further.
    pub(crate) fn over(projection: &Projection, directory: &Path, infos: &[PartitionInfo]) -> Self {
        let sequences: Vec<u64> =
            projection.checkpoints().iter().map(|checkpoint| checkpoint.sequence).collect();
        let followers = Followers::new(sequences.clone());
        let shared = Shared {
            directory: directory.to_owned(),
            serving: watch::channel(projection.store().clone()).0,
            applied: sequences.into_iter().map(|sequence| watch::channel(sequence).0).collect(),
            at_start: infos.iter().map(|info| info.last_sequence).collect(),
            started: Instant::now(),
            read_at_ms: AtomicU64::new(0),
            health: Mutex::new(Health {
                set_aside: projection.set_aside().values().cloned().collect(),
                quarantine: projection.quarantine().clone(),
                ..Health::default()
            }),
            unreadable: projection.unreadable(),
            followers,
            gate: Mutex::default(),
            jobs: Jobs::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Where the generations are.
    pub fn directory(&self) -> &Path {
        &self.shared.directory
    }

    /// Rebuilds, their progress and their outcome.
    pub fn jobs(&self) -> &Jobs {
        &self.shared.jobs
    }

    /// The generation that readers see.
    pub fn serving(&self) -> Store {
        self.shared.serving.borrow().clone()
    }

    /// Ends once another generation than this one serves.
    pub(crate) async fn until_superseded(&self, generation: u32) {
        let mut serving = self.shared.serving.subscribe();
        // The sender lives as long as these views.
        drop(serving.wait_for(|store| store.generation() != generation).await);
    }

    /// Nothing that readers see moves while this is held.
    pub(crate) fn hold(&self) -> MutexGuard<'_, ()> {
        self.shared.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Readers see another generation from here on. The gate is held, and both stand at the same positions; where the
    /// one that served was frozen, this one may be further.
    pub(crate) fn serve(&self, job: &Job, _gate: &MutexGuard<'_, ()>) -> Result<(), JobError> {
        let store = job.store()?;
        generations::make_current(&self.shared.directory, store.generation())?;
        self.shared.serving.send_replace(store);
        let reached = job.reached();
        self.shared.followers.jump(&reached);
        for (applied, reached) in self.shared.applied.iter().zip(reached) {
            applied.send_if_modified(|sequence| std::mem::replace(sequence, reached) != reached);
        }
        self.health_of().stopped = None;
        metrics::gauge!("twelve_view_stopped").set(0.0);
        self.set_outdated(false);
        Ok(())
    }

    fn health_of(&self) -> MutexGuard<'_, Health> {
        self.shared.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what serves from here on is of an older definition.
    fn set_outdated(&self, is_outdated: bool) {
        metrics::gauge!("twelve_view_outdated").set(f64::from(u8::from(is_outdated)));
        let mut health = self.health_of();
        health.is_outdated = is_outdated;
        health.rebuild_failure = None;
    }

    pub(crate) fn is_outdated(&self) -> bool {
        self.health_of().is_outdated
    }

    /// Why outdated views could not be built anew; `None`: nothing is known against it.
    pub(crate) fn note_rebuild_failure(&self, why: Option<String>) {
        self.health_of().rebuild_failure = why;
    }

    /// What was committed becomes known: positions, and what is visible live.
    pub(crate) fn publish(&self, projection: &Projection, visible: Vec<Visible>, _gate: &MutexGuard<'_, ()>) {
        let checkpoints = (0_u16..).zip(self.shared.applied.iter()).zip(projection.checkpoints());
        for ((partition, applied), checkpoint) in checkpoints {
            metrics::gauge!("twelve_view_position", "partition" => partition.to_string())
                .set(precise(checkpoint.sequence));
            applied.send_if_modified(|sequence| {
                std::mem::replace(sequence, checkpoint.sequence) != checkpoint.sequence
            });
        }
        let mut health = self.health_of();
        if health.set_aside.len() != projection.set_aside().len() {
            health.set_aside = projection.set_aside().values().cloned().collect();
            metrics::gauge!("twelve_view_orders_quarantined").set(precise(health.set_aside.len() as u64));
        }
        if health.quarantine.messages != projection.quarantine().messages {
            health.quarantine = projection.quarantine().clone();
            metrics::gauge!("twelve_view_messages_quarantined").set(precise(health.quarantine.messages));
        }
        drop(health);
        let upto = projection.checkpoints().iter().map(|checkpoint| checkpoint.sequence);
        self.shared.followers.tell(visible, upto);
    }

    pub(crate) fn set_stopped(&self, why: String) {
        metrics::gauge!("twelve_view_stopped").set(1.0);
        self.health_of().stopped = Some(why);
    }

    /// What this node does at an event that does not read.
    pub(crate) fn unreadable(&self) -> Unreadable {
        self.shared.unreadable
    }

    /// Whether folding goes on.
    pub fn health(&self) -> Health {
        self.health_of().clone()
    }

    /// The serving generation, for a query.
    pub(crate) fn read(&self) -> Store {
        self.shared.read_at_ms.store(self.milliseconds().max(1), Ordering::Relaxed);
        self.serving()
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.shared.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether there are readers, whom a rebuild gives way to.
    pub(crate) fn are_read(&self) -> bool {
        let read_at = Duration::from_millis(self.shared.read_at_ms.load(Ordering::Relaxed));
        !read_at.is_zero() && self.shared.started.elapsed() < read_at + READERS_STAY
    }

    /// The serving generation.
    pub fn generation(&self) -> u32 {
        self.serving().generation()
    }

    /// How many rows a list has.
    pub fn rows(&self, list: &str) -> Result<u64, StoreError> {
        self.serving().rows(list)
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> Result<u64, StoreError> {
        self.serving().bytes()
    }

    /// How far one partition is folded.
    pub(crate) fn applied(&self, partition: u16) -> u64 {
        self.shared.applied.get(usize::from(partition)).map_or(0, |applied| *applied.borrow())
    }

    /// Tells how far one partition is folded, now and whenever that changes; `None` if there is no such partition.
    pub fn follow_position(&self, partition: u16) -> Option<watch::Receiver<u64>> {
        self.shared.applied.get(usize::from(partition)).map(watch::Sender::subscribe)
    }

    /// How far each partition is folded.
    pub fn positions(&self) -> Vec<Position> {
        let sequences = self.shared.applied.iter().map(|applied| *applied.borrow());
        (0..).zip(sequences).map(|(partition, sequence)| Position { partition, sequence }).collect()
    }

    /// The last sequences of the partitions when this node started.
    pub(crate) fn ends_at_start(&self) -> Vec<u64> {
        self.shared.at_start.clone()
    }

    /// Whether everything that was in the log at the start is folded.
    pub fn has_caught_up(&self) -> bool {
        let targets = self.shared.applied.iter().zip(self.shared.at_start.iter());
        targets.into_iter().all(|(applied, target)| *applied.borrow() >= *target)
    }

    /// Waits until the views have reached `position`; false if they have not within `limit`, or never can.
    pub async fn wait_for(&self, position: Position, limit: Duration) -> bool {
        let Some(applied) = self.shared.applied.get(usize::from(position.partition)) else { return false };
        let _waiter = Waiter::new();
        let mut applied = applied.subscribe();
        let reached = applied.wait_for(|sequence| *sequence >= position.sequence);
        matches!(tokio::time::timeout(limit, reached).await, Ok(Ok(_)))
    }

    /// Everything of this topic that becomes visible from now on.
    pub fn follow(&self, topic: Topic) -> Following {
        self.shared.followers.follow(topic)
    }

    /// As [`Self::follow`], and what became visible since `seen`; `None` instead of that if it is not remembered.
    pub fn resume(&self, topic: Topic, seen: &[Position]) -> (Following, Option<Missed>) {
        self.shared.followers.resume(topic, seen)
    }
}

/// A reader who waits for a position, as the metric counts them.
struct Waiter;

impl Waiter {
    fn new() -> Self {
        metrics::gauge!("twelve_view_waiters").increment(1.0);
        Self
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        metrics::gauge!("twelve_view_waiters").decrement(1.0);
    }
}

pub(crate) async fn partition_infos(log: &EventLog) -> anyhow::Result<Vec<PartitionInfo>> {
    let mut infos = Vec::new();
    for partition in 0..log.partitions() {
        infos.push(log.partition_info(partition).await?);
    }
    Ok(infos)
}

/// Orders that an older program could not read to the end are folded from there on, if this one can.
async fn mend(log: &EventLog, projection: &mut Projection) -> anyhow::Result<()> {
    let waiting: Vec<OrderId> = projection.set_aside().keys().copied().collect();
    for order_id in waiting {
        match log.load(order_id, 0).await {
            Ok(story) => {
                projection.mend(order_id, &story)?;
                tracing::info!(%order_id, "a quarantined order can be decoded now, and is folded");
            }
            Err(LoadError::Undecodable(error)) => {
                tracing::warn!(%order_id, %error, "an order stays quarantined");
            }
            Err(error) => return Err(error.into()),
        }
    }
    metrics::gauge!("twelve_view_orders_quarantined").set(precise(projection.set_aside().len() as u64));
    Ok(())
}

/// Opens the serving generation, or begins a new one if it is of no use.
fn open(directory: &Path, infos: &[PartitionInfo]) -> Result<Projection, StoreError> {
    let created: Vec<String> = infos.iter().map(|info| info.created.clone()).collect();
    let opened = Store::open(directory).and_then(|store| Projection::resume(store, &created, Pace::LIVE));
    generations::remove_passing(directory)?;
    let why = match opened {
        Ok(projection) if fits(&projection, infos) => return Ok(projection),
        Ok(_) => "they belong to another log, or to more than this one has",
        Err(StoreError::Torn { .. } | StoreError::Row(_) | StoreError::Packed) => "their files are torn",
        Err(error) => return Err(error),
    };
    let generation = generations::newest(directory) + 1;
    tracing::warn!(generation, why, "the views are dropped and rebuilt from the log");
    let store = Store::open_generation(directory, generation)?;
    generations::make_current(directory, generation)?;
    Projection::resume(store, &created, Pace::LIVE)
}

/// Whether a generation was folded from this very log.
pub(crate) fn fits(projection: &Projection, infos: &[PartitionInfo]) -> bool {
    projection.checkpoints().iter().zip(infos).all(|(checkpoint, info)| {
        checkpoint.log_created == info.created && checkpoint.sequence <= info.last_sequence
    })
}

/// A sequence as a gauge's number; exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and no log has 2^53 events")]
pub(crate) const fn precise(sequence: u64) -> f64 {
    sequence as f64
}
