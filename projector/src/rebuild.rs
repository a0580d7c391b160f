//! Builds a generation of the views from nothing, up to where the log stands.

use std::{path::Path, time::Instant};

use nats::{EventLog, follow::PartitionInfo};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    beside::BATCHES_WAITING_MAX,
    fold::{Pace, Projection, Standing},
    generations,
    job::JobError,
    node::{fits, partition_infos},
    rows::Rows,
    store::Store,
    view,
};

/// How far a rebuild is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub events: u64,
    pub events_total: u64,
}

/// What a rebuild did.
#[derive(Clone, Debug)]
pub struct Report {
    pub generation: u32,
    pub events: u64,
    pub seconds: f64,
    pub bytes: u64,
    /// Events that the log lacks, and so does the generation.
    pub events_missing: u64,
}

/// Builds the next generation in `directory` from the whole log and leaves it beside the serving one. With `only`, just
/// these rows: all others are taken over from the generation that is current.
///
/// `progress` is told after every commit. Stopped early by `stop`, the unfinished generation stays unused.
pub async fn rebuild(
    log: &EventLog,
    directory: &Path,
    only: Option<Rows>,
    stop: CancellationToken,
    progress: impl Fn(Progress) + Send + 'static,
) -> anyhow::Result<Report> {
    let started = Instant::now();
    // Opened, it would be there.
    anyhow::ensure!(only.is_none() || generations::current(directory)?.is_some(), JobError::NotWhole);
    let infos = partition_infos(log).await?;
    let targets: Vec<u64> = infos.iter().map(|info| info.last_sequence).collect();
    let created: Vec<String> = infos.iter().map(|info| info.created.clone()).collect();
    let events_total = infos.iter().map(|info| info.events).sum();
    let events_missing = if log.is_archived() { 0 } else { infos.iter().map(PartitionInfo::missing).sum() };
    std::fs::create_dir_all(directory)?;
    let generation = generations::newest(directory) + 1;
    let store = Store::open_generation(directory, generation)?;
    let mut projection = Projection::resume(store, &created, Pace::BULK)?;
    if let Some(only) = only {
        let serving = Projection::resume(Store::open(directory)?, &created, Pace::LIVE)?;
        let is_whole = serving.store().definition()? == Some(view::definition())
            && fits(&serving, &infos)
            && serving.set_aside().is_empty();
        anyhow::ensure!(is_whole, JobError::NotWhole);
        let standing = Standing::of(serving.store(), log.partitions(), only)?;
        projection.adopt(serving.store(), standing, only, || !stop.is_cancelled())?;
    }
    let (sink, mut batches) = mpsc::channel(BATCHES_WAITING_MAX);
    let following = stop.child_token();
    let mut followers = JoinSet::new();
    for partition in (0..log.partitions()).filter(|partition| targets[usize::from(*partition)] > 0) {
        let (log, sink, stop) = (log.clone(), sink.clone(), following.clone());
        followers.spawn(async move { log.follow(partition, 0, sink, stop).await });
    }
    drop(sink);
    let folding = tokio::task::spawn_blocking(move || {
        let mut events = 0;
        let done = |projection: &Projection| {
            projection.checkpoints().iter().zip(&targets).all(|(is, target)| is.sequence >= *target)
        };
        while !done(&projection) {
            let Some(batch) = batches.blocking_recv() else { anyhow::bail!("the rebuild was stopped") };
            events += batch.events.len() as u64;
            projection.fold(batch)?;
            if let Some(stopped) = projection.stopped().values().next() {
                anyhow::bail!(stopped.clone());
            }
            if projection.is_commit_due() {
                projection.commit()?;
            }
            progress(Progress { events, events_total });
        }
        projection.commit()?;
        projection.finish()?;
        projection.store().flush()?;
        Ok((events, projection.store().bytes()?))
    });
    let folded = folding.await?;
    following.cancel();
    followers.join_all().await;
    let (events, bytes) = folded?;
    Ok(Report { generation, events, seconds: started.elapsed().as_secs_f64(), bytes, events_missing })
}
