//! A rebuild from its beginning to its end: opened, caught up, compared, in service or put away.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use nats::{
    EventLog,
    follow::{BATCH_BYTES_MAX, PartitionInfo},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    as_of::{self, Moment},
    compare::{self, Comparison},
    fold::{Pace, Projection},
    generation::{self, Worker},
    generations::{self, PREVIOUS},
    job::{Job, JobError, State, Work, lock},
    node::{self, Views, fits, partition_infos},
    store::{self, Store},
    view,
};

/// Bytes of events' data that a rebuild reads ahead.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Batches that a rebuild reads ahead: where the log is long, of a thousand events each, which is enough to go on
/// reading while rows are encoded.
pub(crate) const BATCHES_WAITING_MAX: usize = WAITING_BYTES_MAX / BATCH_BYTES_MAX;
/// How long readers' positions may stand still while two generations are brought to the same one.
pub(crate) const MEETING_MAX: Duration = Duration::from_secs(5);
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause before the log is asked again how far it goes, where it does not answer.
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(1);
/// The pause before outdated views are built again whose rebuild failed; each next one is twice as long.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_mins(1);
/// Names the generation that is being built, so that a crash does not lose the work.
const BUILDING: &str = "building";

impl Views {
    /// Takes the generation that is ready into service, atomically for readers. Refuses on differences, unless told.
    pub fn swap(&self, although_it_differs: bool) -> Result<(), JobError> {
        let job = self.jobs().newest().ok_or(JobError::None)?;
        let state = job.state();
        if state != State::Ready {
            return Err(JobError::NotReady(state));
        }
        let differences = lock(&job.comparison).as_ref().map_or(0, |comparison| comparison.differences);
        if differences > 0 && !although_it_differs {
            return Err(JobError::Differs(differences));
        }
        job.set_state(State::Swapping);
        self.take_over(&job).inspect_err(|_| job.returns_to(State::Ready))
    }

    fn take_over(&self, job: &Job) -> Result<(), JobError> {
        let before = self.generation();
        let gate = self.hold();
        if !self.meet(job) {
            return Err(JobError::NoMeeting);
        }
        // A crash between these leaves a note that names what serves, which stands for nothing.
        note(self.directory(), PREVIOUS, Some(before))?;
        self.serve(job, &gate)?;
        drop(gate);
        note(self.directory(), BUILDING, None)?;
        job.set_state(State::Serving);
        self.jobs().changed();
        tracing::info!(generation = job.generation(), before, "another generation of the views serves");
        Ok(())
    }

    /// Waits, with readers' positions standing still, until the job's generation is at the same ones; where they stand
    /// still anyway, until it only commits what readers may see.
    fn meet(&self, job: &Job) -> bool {
        let started = Instant::now();
        let wanted: Vec<u64> = self.positions().iter().map(|position| position.sequence).collect();
        let met = || {
            if job.serving_is_frozen {
                job.is_presentable.load(Ordering::Acquire)
            } else {
                job.reached() == wanted
            }
        };
        while !met() {
            if started.elapsed() > MEETING_MAX || job.state().is_over() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// What this node has to do unasked: go on where a crash interrupted a rebuild, or rebuild outdated views.
    pub(crate) fn unasked(&self, is_outdated: bool) -> Option<Work> {
        let is_interrupted = self.noted(BUILDING).is_some();
        (is_outdated || is_interrupted).then_some(Work::Rebuild { swap: is_outdated, only: None })
    }

    /// Does what is asked, one job after the other, until `stop`.
    pub(crate) async fn run_jobs(
        self,
        log: EventLog,
        mut asked: mpsc::Receiver<(Work, u64)>,
        first: Option<Work>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut next = first.map(|work| (work, 0));
        let mut tasks = JoinSet::new();
        // How long to wait before outdated views are built again; `None`: there is no need to.
        let (mut retry_after, mut retry_pause) = (None, RETRY_PAUSE);
        loop {
            let (work, most) = if let Some(next) = next.take() {
                next
            } else {
                let pause = retry_after.unwrap_or_default();
                tokio::select! {
                    () = stop.cancelled() => break,
                    Some(asked) = asked.recv() => asked,
                    () = tokio::time::sleep(pause), if retry_after.is_some() => {
                        (Work::Rebuild { swap: true, only: None }, 0)
                    }
                }
            };
            let done = match &work {
                Work::Until(moment) => self.build_until(&log, moment, most, &stop).await,
                Work::Rebuild { .. } | Work::Verify | Work::Rollback => {
                    self.run_job(&log, &work, most, &mut tasks, &stop).await
                }
            };
            let failure = match done {
                Ok(state) => (state == State::Failed).then(|| self.jobs().failure()).flatten(),
                Err(error) => {
                    let why = format!("{error:#}");
                    tracing::error!(error = why, "a rebuild could not be done");
                    self.jobs().has_begun();
                    Some(why)
                }
            };
            let is_rebuild = matches!(work, Work::Rebuild { .. });
            if is_rebuild && self.is_outdated() {
                retry_after = failure.is_some().then_some(retry_pause);
                retry_pause = (retry_pause * 2).min(RETRY_PAUSE_MAX);
                self.note_rebuild_failure(failure);
            }
            if !self.is_outdated() {
                (retry_after, retry_pause) = (None, RETRY_PAUSE);
            }
        }
        joined(tasks).await
    }

    async fn run_job(
        &self,
        log: &EventLog,
        work: &Work,
        most: u64,
        tasks: &mut JoinSet<anyhow::Result<()>>,
        stop: &CancellationToken,
    ) -> anyhow::Result<State> {
        let infos = partition_infos(log).await?;
        let (projection, job) = self.prepare(work, most, &infos)?;
        if !log.is_archived() {
            job.events_missing.store(infos.iter().map(PartitionInfo::missing).sum(), Ordering::Relaxed);
        }
        *lock(&self.jobs().newest) = Some(Arc::clone(&job));
        self.jobs().has_begun();
        let worker = Worker::building(self.clone(), projection, Arc::clone(&job));
        let (building, mut own) = (stop.child_token(), JoinSet::new());
        let waiting = (BATCHES_WAITING_MAX, node::BATCHES_WAITING_MAX);
        generation::run_quietly(&mut own, log, worker, waiting, &building);
        let ends = infos.iter().map(|info| info.last_sequence).collect();
        let done = self.see_through(log, &job, ends, stop).await;
        if let Err(error) = &done {
            job.fail(format!("{error:#}"));
        }
        if job.state() == State::Serving || stop.is_cancelled() {
            tasks.spawn(async move { joined(own).await });
        } else {
            building.cancel();
            joined(own).await?;
            drop(lock(&job.store).take());
            if *work != Work::Rollback {
                generations::remove(self.directory(), job.generation())?;
            }
            note(self.directory(), BUILDING, None)?;
        }
        self.jobs().changed();
        done.map(|()| job.state())
    }

    fn prepare(
        &self,
        work: &Work,
        most: u64,
        infos: &[PartitionInfo],
    ) -> anyhow::Result<(Projection, Arc<Job>)> {
        let directory = self.directory();
        let created: Vec<String> = infos.iter().map(|info| info.created.clone()).collect();
        let serving = self.serving();
        let is_frozen = serving.definition()? != Some(view::definition());
        anyhow::ensure!(!(is_frozen && *work == Work::Verify), JobError::Frozen);
        let generation = match work {
            Work::Rollback => self.previous()?,
            Work::Rebuild { .. } | Work::Verify | Work::Until(_) => {
                let building = self.noted(BUILDING);
                self.clear(building)?;
                building.unwrap_or_else(|| generations::newest(directory) + 1)
            }
        };
        let mut projection =
            Projection::resume(Store::open_generation(directory, generation)?, &created, Pace::BULK)?;
        let is_ours = |projection: &Projection| -> anyhow::Result<bool> {
            let is_defined_so = projection.store().definition()? == Some(view::definition());
            let asides = if *work == Work::Rollback { serving.set_aside()? } else { Vec::new() };
            Ok(fits(projection, infos) && is_defined_so && projection.set_aside().values().eq(&asides))
        };
        if !is_ours(&projection)? {
            anyhow::ensure!(*work != Work::Rollback, JobError::Outdated);
            // What a crash left was folded otherwise: begin anew.
            let generation = generations::newest(directory) + 1;
            projection =
                Projection::resume(Store::open_generation(directory, generation)?, &created, Pace::BULK)?;
        }
        projection.set_unreadable(self.unreadable());
        let generation = projection.store().generation();
        let is_resumed = matches!(work, Work::Rebuild { .. });
        note(directory, BUILDING, is_resumed.then_some(generation))?;
        let folded: u64 = projection.checkpoints().iter().map(|checkpoint| checkpoint.sequence).sum();
        let reached = projection.checkpoints().iter().map(|checkpoint| AtomicU64::new(checkpoint.sequence));
        let left = infos.iter().map(|info| info.last_sequence).sum::<u64>().saturating_sub(folded);
        let store = projection.store().clone();
        let job = Job::new(work.clone(), Some(store), reached.collect(), (left, most), is_frozen);
        Ok((projection, Arc::new(job)))
    }

    /// Removes the generations that nobody needs: all but the serving one, the one before, and the one being built.
    fn clear(&self, building: Option<u32>) -> Result<(), store::StoreError> {
        let kept = [Some(self.generation()), self.noted(PREVIOUS), building];
        for generation in generations::all(self.directory()) {
            if !kept.contains(&Some(generation)) {
                generations::remove(self.directory(), generation)?;
            }
        }
        Ok(())
    }

    /// The generation that served before, which a rollback takes back into service.
    pub fn previous(&self) -> Result<u32, JobError> {
        let noted = self.noted(PREVIOUS);
        noted.filter(|noted| generations::all(self.directory()).contains(noted)).ok_or(JobError::NoPrevious)
    }

    /// A generation, other than the serving one, that a note names.
    fn noted(&self, name: &str) -> Option<u32> {
        let noted = std::fs::read_to_string(self.directory().join(name)).ok()?.trim().parse().ok();
        noted.filter(|generation| *generation != self.generation())
    }

    /// Whether what serves can be taken over by a generation of which one view alone is built.
    pub fn are_whole(&self) -> Result<bool, JobError> {
        let is_defined_so = self.serving().definition()? == Some(view::definition());
        Ok(is_defined_so && self.has_caught_up() && !self.health().is_wanting())
    }

    /// Builds the views of a moment into a folder of their own, as modestly as a rebuild.
    async fn build_until(
        &self,
        log: &EventLog,
        moment: &Moment,
        most: u64,
        stop: &CancellationToken,
    ) -> anyhow::Result<State> {
        let job = Job::new(Work::Until(moment.clone()), None, Vec::new(), (0, most), false);
        let job = Arc::new(job);
        *lock(&self.jobs().newest) = Some(Arc::clone(&job));
        self.jobs().has_begun();
        let (done, mut built) = oneshot::channel();
        let over = stop.child_token();
        let ended = over.clone();
        let (views, log, moment, telling) = (self.clone(), log.clone(), moment.clone(), Arc::clone(&job));
        std::thread::Builder::new().name("rebuild-until".into()).spawn(move || {
            let told = |events: u64, total: u64| {
                telling.events_total.store(total, Ordering::Relaxed);
                telling.note_events(events);
                telling.pause_for(events, views.are_read())
            };
            // Nobody may have waited.
            drop(done.send(as_of::build_quietly(&log, views.directory(), &moment, &over, told)));
        })?;
        let built = tokio::select! {
            built = &mut built => built?,
            () = job.canceled.cancelled() => {
                ended.cancel();
                built.await?
            }
        };
        match built {
            Ok(true) => job.set_state(State::Built),
            Ok(false) => job.set_state(State::Canceled),
            Err(error) => job.fail(format!("{error:#}")),
        }
        self.jobs().changed();
        Ok(job.state())
    }

    /// Waits for the generation to catch up, compares it, and does with it what was asked.
    async fn see_through(
        &self,
        log: &EventLog,
        job: &Arc<Job>,
        ends: Vec<u64>,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        if !self.catch_up(log, job, ends, stop).await {
            return Ok(());
        }
        if job.serving_is_frozen {
            // What does not move any more is compared with nothing; whoever did not ask for a swap is waited for.
            let swaps = job.work != Work::Rebuild { swap: false, only: None };
            job.set_state(if swaps { State::Swapping } else { State::Ready });
            self.jobs().changed();
            while !swaps || !job.is_presentable.load(Ordering::Acquire) {
                if !go_on(job, LOOK_PAUSE, stop).await {
                    return Ok(());
                }
            }
        } else {
            job.set_state(State::Comparing);
            self.jobs().changed();
            let (views, comparing) = (self.clone(), Arc::clone(job));
            let comparison = tokio::task::spawn_blocking(move || views.compare(&comparing)).await??;
            let differences = comparison.differences;
            *lock(&job.comparison) = Some(comparison);
            let swaps = match job.work {
                Work::Rebuild { swap, .. } => swap && differences == 0,
                Work::Rollback => true,
                Work::Verify | Work::Until(_) => false,
            };
            job.set_state(match job.work {
                Work::Verify | Work::Until(_) => State::Verified,
                Work::Rebuild { .. } | Work::Rollback if swaps => State::Swapping,
                Work::Rebuild { .. } | Work::Rollback => State::Ready,
            });
            tracing::info!(
                differences,
                generation = job.generation(),
                "compared with the serving generation"
            );
            self.jobs().changed();
            if !swaps {
                while go_on(job, LOOK_PAUSE, stop).await {}
                return Ok(());
            }
        }
        let (views, taking) = (self.clone(), Arc::clone(job));
        tokio::task::spawn_blocking(move || views.take_over(&taking)).await??;
        Ok(())
    }

    /// Waits until the generation is where the serving one is, or, where that one is frozen, where the log is, which
    /// ended at `ends`; false once it is not wanted any more.
    async fn catch_up(
        &self,
        log: &EventLog,
        job: &Arc<Job>,
        mut ends: Vec<u64>,
        stop: &CancellationToken,
    ) -> bool {
        let mut pause = LOOK_PAUSE;
        loop {
            let has_caught_up = if !job.serving_is_frozen {
                job.has_reached(self.positions().iter().map(|position| position.sequence))
            } else if job.has_reached(ends.iter().copied()) {
                // The log went on meanwhile.
                match partition_infos(log).await {
                    Ok(infos) => {
                        ends = infos.iter().map(|info| info.last_sequence).collect();
                        pause = LOOK_PAUSE;
                        job.has_reached(ends.iter().copied())
                    }
                    Err(error) => {
                        let (generation, error) = (job.generation(), format!("{error:#}"));
                        tracing::warn!(
                            error,
                            generation,
                            "how far the log goes is not known; it is asked again"
                        );
                        pause = (pause * 2).min(LOOK_PAUSE_MAX);
                        false
                    }
                }
            } else {
                false
            };
            if has_caught_up || !go_on(job, pause, stop).await {
                return has_caught_up;
            }
        }
    }

    fn compare(&self, job: &Job) -> Result<Comparison, JobError> {
        let (serving, built) = (self.serving(), job.store()?);
        let (entries, suspects) = compare::suspects(&serving, &built)?;
        let gate = self.hold();
        if !self.meet(job) {
            return Err(JobError::NoMeeting);
        }
        let mut found = compare::settle(&serving, &built, entries, &suspects)?;
        if job.work == Work::Verify {
            job.is_at_rest.store(true, Ordering::Release);
            let positions: Vec<String> = self.positions().iter().map(ToString::to_string).collect();
            found.position = Some(positions.join(","));
            drop(gate);
            found.views = compare::sums(&built)?;
        }
        Ok(found)
    }
}

async fn joined(mut tasks: JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// Waits for so long; false once the job is over, or is to be.
async fn go_on(job: &Job, pause: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => return false,
        () = job.canceled.cancelled() => {
            job.set_state(State::Canceled);
            return false;
        }
        () = tokio::time::sleep(pause) => {}
    }
    !job.state().is_over()
}

fn note(directory: &Path, name: &str, generation: Option<u32>) -> Result<(), store::StoreError> {
    let path = directory.join(name);
    let noted = match generation {
        Some(generation) => std::fs::write(&path, generation.to_string()),
        None => match std::fs::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        },
    };
    noted.map_err(|source| store::StoreError::Directory { path, source })
}
