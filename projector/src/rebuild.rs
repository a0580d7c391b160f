//! Builds a generation of the views from nothing, up to where the log stands.

use std::{path::Path, time::Instant};

use nats::EventLog;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    fold::{Pace, Projection},
    generations,
    store::Store,
};

const BATCHES_WAITING_MAX: usize = 64;

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
}

/// Builds the next generation in `directory` from the whole log and leaves it beside the serving one.
///
/// `progress` is told after every commit. Stopped early by `stop`, the unfinished generation stays unused.
pub async fn rebuild(
    log: &EventLog,
    directory: &Path,
    stop: CancellationToken,
    progress: impl Fn(Progress) + Send + 'static,
) -> anyhow::Result<Report> {
    let started = Instant::now();
    let mut targets = Vec::new();
    let mut created = Vec::new();
    for partition in 0..log.partitions() {
        let info = log.partition_info(partition).await?;
        targets.push(info.last_sequence);
        created.push(info.created);
    }
    let events_total = targets.iter().sum();
    std::fs::create_dir_all(directory)?;
    let generation = generations::newest(directory) + 1;
    let store = Store::open_generation(directory, generation)?;
    let mut projection = Projection::resume(store, &created, Pace::BULK)?;
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
    Ok(Report { generation, events, seconds: started.elapsed().as_secs_f64(), bytes })
}
