//! A view node: follows the log into its store, and answers readers.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use domain::{OrderId, Position};
use nats::{
    EventLog,
    follow::{Batch, PartitionInfo},
};
use serde_json::Value;
use tokio::{
    sync::{broadcast, mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    fold::{COMMIT_ROWS_MAX, Projection, Visible},
    store::{self, Store, StoreError},
    view::View,
};

/// Batches that may wait to be folded; beyond it, the followers wait.
const BATCHES_WAITING_MAX: usize = 16;
/// Live events that a slow reader may be behind before it is told to resume.
const LIVE_EVENTS_MAX: usize = 4_096;
/// Places of a list that one call looks at, so that a rare filter cannot keep a reader waiting.
const SCAN_PLACES_MAX: usize = 5_000;

/// The least time from one commit's beginning to the next one's, so that a stream of events shares commits.
const COMMIT_DISTANCE: Duration = Duration::from_millis(2);

/// A visible event, with the position of its partition.
pub type LiveEvent = Arc<Visible>;

/// What readers see of the folding.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Why folding stopped, if it did.
    pub stopped: Option<String>,
}

/// The views, open for reading; clones share everything.
#[derive(Clone)]
pub struct Views {
    store: Store,
    applied: Arc<Vec<watch::Sender<u64>>>,
    /// The last sequences of the partitions when this node started.
    at_start: Arc<Vec<u64>>,
    health: Arc<Mutex<Health>>,
    live: broadcast::Sender<LiveEvent>,
}

/// Some rows of a list, and where the next call goes on.
pub struct Page<R> {
    pub rows: Vec<R>,
    pub next: Option<Vec<u8>>,
}

impl Views {
    /// Opens the views in `directory` and begins to follow `log`; the tasks end after `stop`.
    ///
    /// Views that were built from another log, or from more than the log has, are set aside and built anew.
    pub async fn start(
        log: &EventLog,
        directory: &Path,
        stop: &CancellationToken,
    ) -> anyhow::Result<(Self, JoinSet<anyhow::Result<()>>)> {
        let mut infos = Vec::new();
        for partition in 0..log.partitions() {
            infos.push(log.partition_info(partition).await?);
        }
        let projection = open(directory, &infos)?;
        let sequences = projection.checkpoints().iter().map(|checkpoint| checkpoint.sequence);
        let views = Self {
            store: projection.store().clone(),
            applied: Arc::new(sequences.clone().map(|sequence| watch::channel(sequence).0).collect()),
            at_start: Arc::new(infos.iter().map(|info| info.last_sequence).collect()),
            health: Arc::default(),
            live: broadcast::channel(LIVE_EVENTS_MAX).0,
        };
        let (sink, batches) = mpsc::channel(BATCHES_WAITING_MAX);
        let mut tasks = JoinSet::new();
        for (partition, after) in (0..).zip(sequences) {
            let (log, sink, stop) = (log.clone(), sink.clone(), stop.clone());
            tasks.spawn(async move {
                log.follow(partition, after, sink, stop).await;
                Ok(())
            });
        }
        drop(sink);
        let folding = views.clone();
        tasks.spawn(async move {
            tokio::task::spawn_blocking(move || folding.fold_all(projection, batches)).await?;
            Ok(())
        });
        Ok((views, tasks))
    }

    /// Folds until the followers end. A failing store stops the folding, says so, and lets the process live.
    fn fold_all(&self, mut projection: Projection, mut batches: mpsc::Receiver<Batch>) {
        metrics::gauge!("twelve_view_stopped").set(0.0);
        let mut committed: Option<Instant> = None;
        while let Some(first) = batches.blocking_recv() {
            // An event after a quiet moment is committed at once; in a stream of events, commits keep a distance.
            if let Some(since) = committed.map(|committed| committed.elapsed()) {
                std::thread::sleep(COMMIT_DISTANCE.saturating_sub(since));
            }
            committed = Some(Instant::now());
            if let Err(error) = self.fold_some(&mut projection, first, &mut batches) {
                let why = nats::causes(&error);
                tracing::error!(
                    why,
                    "the views stand still; commands go on. Correct the cause, then restart"
                );
                self.set_stopped(format!("the view store failed: {why}"));
                // Keeps taking, so that the followers do not wait for ever.
                while batches.blocking_recv().is_some() {}
                return;
            }
        }
        if let Err(error) = projection.store().flush() {
            tracing::warn!(error = %nats::causes(&error), "the view store was not flushed; what is missing is folded again");
        }
    }

    fn fold_some(
        &self,
        projection: &mut Projection,
        first: Batch,
        batches: &mut mpsc::Receiver<Batch>,
    ) -> Result<(), StoreError> {
        let started = Instant::now();
        let mut visible = projection.fold(first)?;
        while projection.changed() < COMMIT_ROWS_MAX
            && let Ok(batch) = batches.try_recv()
        {
            visible.extend(projection.fold(batch)?);
        }
        projection.commit()?;
        for ((partition, applied), checkpoint) in
            (0_u16..).zip(self.applied.iter()).zip(projection.checkpoints())
        {
            metrics::gauge!("twelve_view_position", "partition" => partition.to_string())
                .set(precise(checkpoint.sequence));
            applied.send_if_modified(|sequence| {
                let moved = *sequence != checkpoint.sequence;
                *sequence = checkpoint.sequence;
                moved
            });
        }
        metrics::histogram!("twelve_view_commit_seconds").record(started.elapsed().as_secs_f64());
        metrics::counter!("twelve_view_commits_total").increment(1);
        for event in visible {
            // Nobody may be listening.
            drop(self.live.send(Arc::new(event)));
        }
        if let Some(stopped) = projection.stopped().values().next()
            && self.health().stopped.is_none()
        {
            tracing::error!(why = %stopped, "a partition's views stand still; nothing is skipped. Correct the event's reader, then restart");
            self.set_stopped(stopped.to_string());
        }
        Ok(())
    }

    fn set_stopped(&self, why: String) {
        metrics::gauge!("twelve_view_stopped").set(1.0);
        self.health.lock().unwrap_or_else(PoisonError::into_inner).stopped = Some(why);
    }

    /// Whether folding goes on.
    pub fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The serving generation.
    pub const fn generation(&self) -> u32 {
        self.store.generation()
    }

    /// How many rows a view has.
    pub fn rows(&self, view: &str) -> Result<u64, StoreError> {
        self.store.rows(view)
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> Result<u64, StoreError> {
        self.store.bytes()
    }

    /// How far each partition is folded.
    pub fn positions(&self) -> Vec<Position> {
        let sequences = self.applied.iter().map(|applied| *applied.borrow());
        (0..).zip(sequences).map(|(partition, sequence)| Position { partition, sequence }).collect()
    }

    /// Whether everything that was in the log at the start is folded.
    pub fn has_caught_up(&self) -> bool {
        self.applied.iter().zip(self.at_start.iter()).all(|(applied, target)| *applied.borrow() >= *target)
    }

    /// Waits until the views have reached `position`; false if they have not within `limit`, or never can.
    pub async fn wait_for(&self, position: Position, limit: Duration) -> bool {
        let Some(applied) = self.applied.get(usize::from(position.partition)) else { return false };
        let mut applied = applied.subscribe();
        let reached = applied.wait_for(|sequence| *sequence >= position.sequence);
        matches!(tokio::time::timeout(limit, reached).await, Ok(Ok(_)))
    }

    /// Everything visible from now on.
    pub fn live(&self) -> broadcast::Receiver<LiveEvent> {
        self.live.subscribe()
    }

    /// One row.
    pub fn row<V: View>(&self, key: &[u8]) -> Result<Option<V::Row>, StoreError> {
        let bytes = self.store.row(V::NAME, key)?;
        Ok(bytes.map(|bytes| postcard::from_bytes(&bytes)).transpose()?)
    }

    /// The rows whose places begin with `prefix`, in order, after the place `after`, that `wanted` holds for.
    pub fn list<V: View>(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        wanted: impl Fn(&V::Row) -> bool,
    ) -> Result<Page<V::Row>, StoreError> {
        let mut page = Page { rows: Vec::new(), next: None };
        for (looked_at, entry) in self.store.places(V::NAME, prefix, after).enumerate() {
            let (place, key) = entry?;
            if page.rows.len() == limit || looked_at == SCAN_PLACES_MAX {
                return Ok(page);
            }
            page.next = Some(place);
            if let Some(row) = self.row::<V>(&key)?
                && wanted(&row)
            {
                page.rows.push(row);
            }
        }
        page.next = None;
        Ok(page)
    }

    /// One order's row as readers see it.
    pub fn show<V: View>(&self, order_id: OrderId) -> Result<Option<Value>, StoreError> {
        Ok(self.row::<V>(&crate::view::order_key(order_id))?.map(|row| V::show(&row)))
    }
}

/// Opens the serving generation, or begins a new one if it belongs to another log.
fn open(directory: &Path, infos: &[PartitionInfo]) -> Result<Projection, StoreError> {
    let created: Vec<String> = infos.iter().map(|info| info.created.clone()).collect();
    let projection = Projection::resume(Store::open(directory)?, &created)?;
    let fits = projection.checkpoints().iter().zip(infos).all(|(checkpoint, info)| {
        checkpoint.log_created == info.created && checkpoint.sequence <= info.last_sequence
    });
    if fits {
        return Ok(projection);
    }
    let generation = store::newest(directory) + 1;
    tracing::warn!(
        generation,
        "the views belong to another log, or to more than this one has; building anew"
    );
    let store = Store::open_generation(directory, generation)?;
    store::make_current(directory, generation)?;
    Projection::resume(store, &created)
}

/// A sequence as a gauge's number; exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and no log has 2^53 events")]
pub(crate) const fn precise(sequence: u64) -> f64 {
    sequence as f64
}
