//! One generation of the views being folded: it serves, or it is built beside the one that does.
//!
//! A generation that is built never goes further than the serving one has gone. So when it takes over, nothing was seen
//! that it does not know, and nothing live is missed or said twice: it goes on exactly where the other stopped.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use nats::{EventLog, Stored, Undecodable, follow::Batch};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::{
    fold::{Pace, Projection, Standing, Visible},
    job::{Job, State, Work},
    node::{Views, precise},
    store::StoreError,
};

/// The least time from one commit's beginning to the next one's, so that a stream of events shares commits.
const COMMIT_DISTANCE: Duration = Duration::from_millis(2);
/// Events, and bytes of their data, that a generation which is built may hold back because the serving one is not there
/// yet: of all partitions together, but for the last batch.
const HELD_MAX: usize = 50_000;
const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Events older than this are not traced.
const TRACED_MAX: Duration = Duration::from_mins(1);
/// How much a rebuild gives way, from 0, not at all, to 19, altogether.
pub(crate) const REBUILD_GIVES_WAY: i32 = 15;
/// How much the fold of a moment does, which a query waits for.
pub(crate) const QUERY_GIVES_WAY: i32 = 5;
const IDLE_PAUSE: Duration = Duration::from_millis(1);

type Event = Result<Stored, Undecodable>;

/// A generation, and what folds it.
pub(crate) struct Worker {
    views: Views,
    projection: Projection,
    /// `None`: it serves.
    job: Option<Arc<Job>>,
    /// Read from the log and not folded yet, by partition.
    held: BTreeMap<u16, Held>,
}

/// What is read of a partition and not folded yet.
#[derive(Default)]
struct Held {
    events: VecDeque<Event>,
    /// Of the events' data.
    bytes: usize,
    /// As in [`Batch::upto`].
    upto: u64,
}

/// Follows the log from where the generation stands, and folds, until `stop`.
pub(crate) fn run(
    tasks: &mut JoinSet<anyhow::Result<()>>,
    log: &EventLog,
    worker: Worker,
    waiting_max: usize,
    stop: &CancellationToken,
) {
    let (sink, batches) = mpsc::channel(waiting_max);
    let over = stop.child_token();
    // On a quiet log no batch comes that would tell the worker that it serves no more, and its store would stay open.
    let (views, generation, ending) =
        (worker.views.clone(), worker.projection.store().generation(), over.clone());
    tasks.spawn(async move {
        ending.run_until_cancelled(views.until_superseded(generation)).await;
        ending.cancel();
        Ok(())
    });
    for (partition, checkpoint) in (0..).zip(worker.projection.checkpoints()) {
        let (log, sink, over, after) = (log.clone(), sink.clone(), over.clone(), checkpoint.sequence);
        tasks.spawn(async move {
            log.follow(partition, after, sink, over).await;
            Ok(())
        });
    }
    tasks.spawn(async move {
        let folded = tokio::task::spawn_blocking(move || worker.work(batches)).await;
        over.cancel();
        Ok(folded?)
    });
}

/// Follows and folds on threads of a low priority and over a connection of its own until the generation serves or is
/// not wanted any more. When it serves, it goes on like any other.
pub(crate) fn run_quietly(
    tasks: &mut JoinSet<anyhow::Result<()>>,
    log: &EventLog,
    worker: Worker,
    (building_max, serving_max): (usize, usize),
    stop: &CancellationToken,
) {
    let (log, stop, job) = (log.clone(), stop.clone(), worker.job.clone());
    tasks.spawn(async move {
        let (done, built) = oneshot::channel();
        let (reading, over) = (log.clone(), stop.child_token());
        std::thread::Builder::new().name("rebuild".into()).spawn(move || {
            // Nobody may have waited.
            drop(done.send(build_quietly(&reading, worker, building_max, &over)));
        })?;
        let worker = match built.await? {
            Ok(Some(worker)) => worker,
            Ok(None) => return Ok(()),
            Err(error) => {
                if let Some(job) = job {
                    job.fail(format!("{error:#}"));
                }
                return Ok(());
            }
        };
        let mut serving = JoinSet::new();
        run(&mut serving, &log, worker, serving_max, &stop);
        while let Some(ended) = serving.join_next().await {
            ended??;
        }
        Ok(())
    });
}

/// From here on this thread, and those that it starts, give way to all others by so much.
pub(crate) fn be_modest(gives_way: i32) {
    if let Err(error) = rustix::process::setpriority_process(None, gives_way) {
        tracing::debug!(%error, "a fold runs at the priority of everything else");
    }
}

/// The worker, once its generation serves.
fn build_quietly(
    log: &EventLog,
    worker: Worker,
    waiting_max: usize,
    over: &CancellationToken,
) -> anyhow::Result<Option<Worker>> {
    be_modest(REBUILD_GIVES_WAY);
    let worker = worker.adopt_what_serves()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (sink, batches) = mpsc::channel(waiting_max);
    let checkpoints = worker.projection.checkpoints().to_vec();
    let folding = std::thread::Builder::new().name("rebuild-fold".into());
    let (ended, ends) = (over.clone(), over.clone());
    let folded = folding.spawn(move || {
        let built = worker.build_to_its_end(batches);
        ends.cancel();
        built
    });
    runtime.block_on(async {
        let log = log.another("twelve-rebuild").await?;
        let mut followers = JoinSet::new();
        for (partition, checkpoint) in (0..).zip(&checkpoints) {
            let (log, sink, over, after) = (log.clone(), sink.clone(), ended.clone(), checkpoint.sequence);
            followers.spawn(async move { log.follow(partition, after, sink, over).await });
        }
        drop(sink);
        followers.join_all().await;
        log.connection().close().await;
        anyhow::Ok(())
    })?;
    folded?.join().map_err(|_| anyhow::anyhow!("the thread that folds the rebuild panicked"))
}

impl Worker {
    pub(crate) const fn serving(views: Views, projection: Projection) -> Self {
        Self { views, projection, job: None, held: BTreeMap::new() }
    }

    pub(crate) const fn building(views: Views, projection: Projection, job: Arc<Job>) -> Self {
        Self { views, projection, job: Some(job), held: BTreeMap::new() }
    }

    /// Folds until the followers end, or until it is not wanted any more. A failing store stops the folding, says so,
    /// and lets the process live.
    fn work(mut self, mut batches: mpsc::Receiver<Batch>) {
        if let Err(error) = self.serve(&mut batches) {
            let why = nats::causes(&error);
            tracing::error!(why, "the views stand still; commands go on. Correct the cause, then restart");
            self.views.set_stopped(format!("the view store failed: {why}"));
            // Keeps taking, so that the followers do not wait for ever.
            while batches.blocking_recv().is_some() {}
        }
        if let Err(error) = self.projection.store().flush() {
            tracing::warn!(error = %nats::causes(&error), "the view store was not flushed; what is missing is folded again");
        }
    }

    /// Builds until the generation serves, and answers with the worker then.
    fn build_to_its_end(mut self, mut batches: mpsc::Receiver<Batch>) -> Option<Self> {
        let job = self.job.clone()?;
        match self.build(&job, &mut batches) {
            Ok(true) => {
                // What is held back is read again by those who follow from now on.
                self.held.clear();
                Some(self)
            }
            Ok(false) => None,
            Err(error) => {
                tracing::warn!(%error, generation = job.generation(), "the rebuild failed; what serves is untouched");
                job.fail(format!("{error:#}"));
                None
            }
        }
    }

    /// Where one view alone is to be built: takes over all others from what serves, unless a crash came after that.
    fn adopt_what_serves(mut self) -> Result<Self, StoreError> {
        let only = self.job.as_ref().and_then(|job| match job.work {
            Work::Rebuild { only, .. } => only.zip(Some(Arc::clone(job))),
            Work::Verify | Work::Rollback | Work::Until(_) => None,
        });
        let Some((only, job)) = only else { return Ok(self) };
        let serving = self.views.serving();
        let gate = self.views.hold();
        let partitions = u16::try_from(self.projection.checkpoints().len()).unwrap_or(u16::MAX);
        let standing = Standing::of(&serving, partitions, only)?;
        drop(gate);
        self.projection.adopt(&serving, standing, only, || !job.is_canceled())?;
        Ok(self)
    }

    fn is_serving(&self) -> bool {
        self.views.generation() == self.projection.store().generation()
    }

    fn serve(&mut self, batches: &mut mpsc::Receiver<Batch>) -> Result<(), StoreError> {
        metrics::gauge!("twelve_view_stopped").set(0.0);
        let mut committed: Option<Instant> = None;
        let mut first = Vec::new();
        let mut ends = self.views.ends_at_start();
        self.tell_behind(&ends);
        loop {
            if first.is_empty() {
                let Some(batch) = batches.blocking_recv() else { return Ok(()) };
                first.push(batch);
            }
            // An event after a quiet moment is committed at once; in a stream of events, commits keep a distance.
            if let Some(since) = committed.map(|committed| committed.elapsed()) {
                sleep(COMMIT_DISTANCE.saturating_sub(since));
            }
            let started = *committed.insert(Instant::now());
            let (mut visible, mut spans) = (Vec::new(), Vec::new());
            for batch in first.drain(..) {
                note_end(&mut ends, &batch);
                spans.extend(trace(&batch));
                visible.extend(self.projection.fold(batch)?);
            }
            while !self.projection.is_commit_due()
                && let Ok(batch) = batches.try_recv()
            {
                note_end(&mut ends, &batch);
                spans.extend(trace(&batch));
                visible.extend(self.projection.fold(batch)?);
            }
            let gate = self.views.hold();
            if !self.is_serving() {
                // Another generation took over; what was folded here and not committed, it folds.
                return Ok(());
            }
            self.projection.commit()?;
            self.views.publish(&self.projection, visible, &gate);
            self.tell_behind(&ends);
            drop((gate, spans));
            metrics::histogram!("twelve_view_commit_seconds").record(started.elapsed().as_secs_f64());
            metrics::counter!("twelve_view_commits_total").increment(1);
            self.tell_if_stopped();
        }
    }

    /// How far each partition is behind its end: also one that is stopped, of which nothing is folded any more.
    fn tell_behind(&self, ends: &[u64]) {
        for ((partition, end), at) in (0_u16..).zip(ends).zip(self.projection.checkpoints()) {
            metrics::gauge!("twelve_view_behind_events", "partition" => partition.to_string())
                .set(precise(end.saturating_sub(at.sequence)));
        }
    }

    fn tell_if_stopped(&self) {
        if let Some(stopped) = self.projection.stopped().values().next()
            && self.views.health().stopped.is_none()
        {
            tracing::error!(why = %stopped, "a partition's views stand still; nothing is skipped. Correct the event's reader, then restart");
            self.views.set_stopped(stopped.to_string());
        }
    }

    /// Builds until this generation serves (true), or is not wanted any more.
    fn build(&mut self, job: &Job, batches: &mut mpsc::Receiver<Batch>) -> anyhow::Result<bool> {
        loop {
            if job.is_canceled() || job.state() == State::Failed {
                return Ok(false);
            }
            if job.serving_is_frozen && self.stands_to_take_over(job)? {
                if batches.is_closed() {
                    return Ok(false);
                }
                sleep(IDLE_PAUSE);
                continue;
            }
            if self.is_serving() {
                self.projection.finish()?;
                self.projection.set_pace(Pace::LIVE);
                return Ok(true);
            }
            self.projection.set_haste(job.haste(self.views.are_read()));
            let ended = self.take(batches);
            let events = self.fold_held(job)?;
            if let Some(stopped) = self.projection.stopped().values().next() {
                anyhow::bail!(stopped.clone());
            }
            if self.projection.is_commit_due() || (events == 0 && self.projection.is_uncommitted()) {
                self.projection.commit()?;
            }
            if events == 0 {
                self.projection.finish()?;
            }
            job.note_reached(&self.projection);
            job.note_events(events);
            if events == 0 {
                if ended {
                    return Ok(false);
                }
                sleep(IDLE_PAUSE);
            }
            sleep(job.pause_for(events, self.views.are_read()));
        }
    }

    /// Whether this generation is about to take the place of a frozen one: then everything that was folded is written,
    /// and nothing more is folded until it serves, for on a quiet log nobody would write that.
    fn stands_to_take_over(&mut self, job: &Job) -> Result<bool, StoreError> {
        if self.is_serving() {
            return Ok(false);
        }
        if job.state() != State::Swapping {
            job.is_presentable.store(false, Ordering::Release);
            return Ok(false);
        }
        if !job.is_presentable.load(Ordering::Acquire) {
            self.projection.commit()?;
            self.projection.finish()?;
            self.projection.set_pace(Pace::LIVE);
            job.note_reached(&self.projection);
            job.is_presentable.store(true, Ordering::Release);
        }
        Ok(true)
    }

    /// Takes what is there; true once the followers ended.
    fn take(&mut self, batches: &mut mpsc::Receiver<Batch>) -> bool {
        let events = |held: &Held| held.events.len();
        let bytes = |held: &Held| held.bytes;
        while self.held.values().map(events).sum::<usize>() < HELD_MAX
            && self.held.values().map(bytes).sum::<usize>() < HELD_BYTES_MAX
        {
            match batches.try_recv() {
                Ok(batch) => {
                    let bytes = batch.bytes();
                    let held = self.held.entry(batch.partition).or_default();
                    held.bytes += bytes;
                    held.events.extend(batch.events);
                    held.upto = held.upto.max(batch.upto);
                }
                Err(mpsc::error::TryRecvError::Empty) => return false,
                Err(mpsc::error::TryRecvError::Disconnected) => return true,
            }
        }
        false
    }

    /// Folds what the serving generation has folded, too; answers with how many events that were.
    fn fold_held(&mut self, job: &Job) -> Result<u64, StoreError> {
        let (mut events, mut left) = (0, job.chunk(self.views.are_read()));
        for (partition, held) in &mut self.held {
            let limit = if job.serving_is_frozen { u64::MAX } else { self.views.applied(*partition) };
            let is_due = |event: &Event| sequence(event) <= limit;
            let due = held.events.iter().take(left).take_while(|event| is_due(event)).count();
            let upto = if due == held.events.len() { held.upto.min(limit) } else { 0 };
            let reached =
                self.projection.checkpoints().get(usize::from(*partition)).map_or(0, |at| at.sequence);
            if due > 0 || upto > reached {
                let events_due = held.events.drain(..due).collect();
                let batch = Batch { partition: *partition, events: events_due, pending: 0, upto };
                held.bytes = held.bytes.saturating_sub(batch.bytes());
                (events, left) = (events + due as u64, left - due);
                // Readers hear of these from the serving generation.
                let _: Vec<Visible> = self.projection.fold(batch)?;
            }
        }
        Ok(events)
    }
}

/// Where a partition ended when these were sent.
fn note_end(ends: &mut [u64], batch: &Batch) {
    if let Some(end) = ends.get_mut(usize::from(batch.partition)) {
        *end = batch.upto + batch.pending;
    }
}

/// A span for each event of a trace, until readers see it. What is read again later belongs to nobody's call.
fn trace(batch: &Batch) -> Vec<Span> {
    if !nats::trace::is_on() {
        return Vec::new();
    }
    let now = nats::now();
    let recent = |stored: &&Stored| now.duration_since(stored.recorded.time).unsigned_abs() < TRACED_MAX;
    let project = |stored: &Stored| {
        let trace_parent = stored.trace_parent.as_deref()?;
        Some(nats::trace::span(Some(trace_parent), || {
            let name = format!("project {}", stored.recorded.event.type_name());
            tracing::info_span!("project", order_id = %stored.recorded.order_id, otel.name = name, otel.kind = "consumer")
        }))
    };
    batch.events.iter().flatten().filter(recent).filter_map(project).collect()
}

fn sequence(event: &Event) -> u64 {
    match event {
        Ok(stored) => stored.recorded.position.sequence,
        Err(undecodable) => undecodable.position.sequence,
    }
}

#[cfg(test)]
mod tests;
