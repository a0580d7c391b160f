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
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    fold::{Pace, Projection, Visible},
    job::{Job, State},
    node::Views,
    store::StoreError,
};

/// The least time from one commit's beginning to the next one's, so that a stream of events shares commits.
const COMMIT_DISTANCE: Duration = Duration::from_millis(2);
/// Events that a generation which is built may hold back because the serving one is not there yet.
const HELD_MAX: usize = 50_000;
const IDLE_PAUSE: Duration = Duration::from_millis(1);

type Event = Result<Stored, Undecodable>;

/// A generation, and what folds it.
pub(crate) struct Worker {
    views: Views,
    projection: Projection,
    /// `None`: it serves.
    job: Option<Arc<Job>>,
    /// Read from the log and not folded yet, by partition.
    held: BTreeMap<u16, VecDeque<Event>>,
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
        if let Some(job) = self.job.clone() {
            match self.build(&job, &mut batches) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, generation = job.generation(), "the rebuild failed; what serves is untouched");
                    return job.fail(format!("{error:#}"));
                }
            }
        }
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

    fn is_serving(&self) -> bool {
        self.views.generation() == self.projection.store().generation()
    }

    fn serve(&mut self, batches: &mut mpsc::Receiver<Batch>) -> Result<(), StoreError> {
        metrics::gauge!("twelve_view_stopped").set(0.0);
        let mut committed: Option<Instant> = None;
        let mut first = self.release();
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
            let mut visible = Vec::new();
            for batch in first.drain(..) {
                visible.extend(self.projection.fold(batch)?);
            }
            while !self.projection.is_commit_due()
                && let Ok(batch) = batches.try_recv()
            {
                visible.extend(self.projection.fold(batch)?);
            }
            let gate = self.views.hold();
            if !self.is_serving() {
                // Another generation took over; what was folded here and not committed, it folds.
                return Ok(());
            }
            self.projection.commit()?;
            self.views.publish(&self.projection, visible, &gate);
            drop(gate);
            metrics::histogram!("twelve_view_commit_seconds").record(started.elapsed().as_secs_f64());
            metrics::counter!("twelve_view_commits_total").increment(1);
            self.tell_if_stopped();
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

    /// What was held back, as batches.
    fn release(&mut self) -> Vec<Batch> {
        let held = std::mem::take(&mut self.held).into_iter();
        held.map(|(partition, events)| Batch { partition, events: events.into(), pending: 0 }).collect()
    }

    /// Builds until this generation serves (true), or is not wanted any more.
    fn build(&mut self, job: &Job, batches: &mut mpsc::Receiver<Batch>) -> anyhow::Result<bool> {
        loop {
            if job.is_canceled() {
                return Ok(false);
            }
            if job.serving_is_frozen && job.state() == State::Ready {
                self.projection.finish()?;
                self.projection.set_pace(Pace::LIVE);
                job.is_presentable.store(true, Ordering::Release);
            }
            if self.is_serving() {
                self.projection.finish()?;
                self.projection.set_pace(Pace::LIVE);
                return Ok(true);
            }
            let ended = self.take(batches);
            let events = self.fold_held(job)?;
            if let Some(stopped) = self.projection.stopped().values().next() {
                anyhow::bail!(stopped.clone());
            }
            if self.projection.is_commit_due() || (events == 0 && self.projection.changed() > 0) {
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
            sleep(job.pause_for(events));
        }
    }

    /// Takes what is there; true once the followers ended.
    fn take(&mut self, batches: &mut mpsc::Receiver<Batch>) -> bool {
        while self.held.values().map(VecDeque::len).sum::<usize>() < HELD_MAX {
            match batches.try_recv() {
                Ok(batch) => self.held.entry(batch.partition).or_default().extend(batch.events),
                Err(mpsc::error::TryRecvError::Empty) => return false,
                Err(mpsc::error::TryRecvError::Disconnected) => return true,
            }
        }
        false
    }

    /// Folds what the serving generation has folded, too; answers with how many events that were.
    fn fold_held(&mut self, job: &Job) -> Result<u64, StoreError> {
        let (mut events, mut left) = (0, job.chunk());
        for (partition, held) in &mut self.held {
            let limit = if job.serving_is_frozen { u64::MAX } else { self.views.applied(*partition) };
            let is_due = |event: &Event| sequence(event) <= limit;
            let due = held.iter().take(left).take_while(|event| is_due(event)).count();
            if due > 0 {
                let batch = Batch { partition: *partition, events: held.drain(..due).collect(), pending: 0 };
                (events, left) = (events + due as u64, left - due);
                // Readers hear of these from the serving generation.
                let _: Vec<Visible> = self.projection.fold(batch)?;
            }
        }
        Ok(events)
    }
}

fn sequence(event: &Event) -> u64 {
    match event {
        Ok(stored) => stored.recorded.position.sequence,
        Err(undecodable) => undecodable.position.sequence,
    }
}
