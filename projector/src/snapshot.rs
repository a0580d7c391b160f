//! Snapshots of views: taken while they move, kept beside the log, and a start for new nodes and for past moments.
//!
//! A snapshot names two positions. Rows in which orders meet, and the checkpoints, are of the first; an order's row
//! may be as far as the second, for it says itself up to which event it is folded. So nothing stands still while the
//! many rows are copied, and whoever goes on from the first position folds nothing twice. Places and counts follow
//! from the rows, and are not in it.

use std::{
    fs::File,
    io::{BufReader, BufWriter, Read, Write},
    path::Path,
    time::{Duration, Instant},
};

use domain::{Position, Timestamp};
use nats::{EventLog, follow::PartitionInfo, snapshots::SnapshotError};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{
    generations::{self, Passing},
    node::{Views, partition_infos},
    quarantine::Quarantine,
    restoring::Restoring,
    store::{Checkpoint, Store, StoreError},
    view,
};

/// Snapshots that are kept.
const KEPT_MAX: usize = 3;
/// The file that a snapshot travels in.
const FILE: &str = "snapshot";
/// No key and no row is longer.
const BYTES_MAX: u32 = 64 * 1024 * 1024;
/// Rows that are restored together.
pub(crate) const RESTORED_TOGETHER: usize = 30_000;
/// How often a node looks whether a snapshot is due, at most and at least.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_EVERY_MAX: Duration = Duration::from_mins(1);

/// Why a snapshot was not taken, or is of no use.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    #[error("the views stand still or are built anew; a snapshot would be of no use")]
    NotNow,
    #[error("a snapshot's file cannot be written or read")]
    File(#[from] std::io::Error),
    #[error("the snapshot does not say what it is of")]
    About(#[from] serde_json::Error),
    #[error(transparent)]
    Kept(#[from] SnapshotError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the log did not say when its events were")]
    Log(#[from] nats::TopologyError),
    #[error("the log did not describe its partitions")]
    Infos(#[source] anyhow::Error),
    #[error("the thread that copies the views ended")]
    Thread(#[from] tokio::task::JoinError),
}

/// What a snapshot is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// How the views are defined.
    pub definition: String,
    /// From where to go on, by partition.
    pub from: Vec<Checkpoint>,
    /// How far an order's row may be, by partition.
    pub to: Vec<u64>,
    /// The time of the newest event that it may hold.
    pub newest: Timestamp,
    /// The messages up to there that are no order's.
    #[serde(default)]
    pub quarantine: Quarantine,
    pub taken_at: Timestamp,
}

impl About {
    /// Whether views of this program can start from it on this log.
    fn fits(&self, infos: &[PartitionInfo]) -> bool {
        self.definition == view::definition()
            && self.from.len() == infos.len()
            && self.from.iter().zip(&self.to).zip(infos).all(|((from, to), info)| {
                from.log_created == info.created && *to <= info.last_sequence && from.sequence <= *to
            })
    }

    /// Events that need not be folded any more.
    pub fn events(&self) -> u64 {
        self.from.iter().map(|checkpoint| checkpoint.sequence).sum()
    }
}

/// The snapshots of this log that fit this program, newest first.
pub(crate) async fn list(log: &EventLog, infos: &[PartitionInfo]) -> Result<Vec<(String, About)>, TakeError> {
    let Some(snapshots) = log.find_snapshots().await? else { return Ok(Vec::new()) };
    let mut fitting = Vec::new();
    for kept in snapshots.list().await? {
        match serde_json::from_str::<About>(&kept.about) {
            Ok(about) if about.fits(infos) => fitting.push((kept.name, about)),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, name = kept.name, "a snapshot does not say what it is of"),
        }
    }
    fitting.sort_by_key(|(_, about)| std::cmp::Reverse((about.events(), about.taken_at)));
    Ok(fitting)
}

/// The snapshots of this log as it is now, newest first.
pub async fn fitting(log: &EventLog) -> Result<Vec<(String, About)>, TakeError> {
    let infos = partition_infos(log).await.map_err(TakeError::Infos)?;
    list(log, &infos).await
}

/// Takes a snapshot of what `views` serves, keeps it beside the log, and lets the oldest go.
pub async fn take(views: &Views, log: &EventLog) -> Result<About, TakeError> {
    let started = Instant::now();
    let passing = Passing::new(views.directory())?;
    let file = passing.path().join(FILE);
    let (copying, into) = (views.clone(), file.clone());
    let mut about = tokio::task::spawn_blocking(move || copy(&copying, &into)).await??;
    for (partition, to) in (0..).zip(&about.to).filter(|(_, to)| **to > 0) {
        let time = log.time_of(Position { partition, sequence: *to }).await?;
        about.newest = about.newest.max(time.unwrap_or_default());
    }
    let name = format!("{:020}-{}", about.events(), uuid::Uuid::new_v4());
    let snapshots = log.snapshots().await?;
    snapshots.put(&name, serde_json::to_string(&about)?, &file).await?;
    for (name, _) in fitting(log).await?.iter().skip(KEPT_MAX) {
        snapshots.remove(name).await?;
    }
    metrics::histogram!("twelve_view_snapshot_seconds").record(started.elapsed().as_secs_f64());
    tracing::info!(events = about.events(), took = ?started.elapsed(), "a snapshot of the views is kept");
    Ok(about)
}

fn copy(views: &Views, into: &Path) -> Result<About, TakeError> {
    let partitions = u16::try_from(views.positions().len()).unwrap_or(u16::MAX);
    let mut file = BufWriter::new(File::create(into)?);
    let store = views.serving();
    if store.definition()? != Some(view::definition())
        || views.health().is_wanting()
        || !views.has_caught_up()
    {
        return Err(TakeError::NotNow);
    }
    let gate = views.hold();
    let from: Vec<Checkpoint> = (0..partitions)
        .filter_map(|partition| store.checkpoint(partition).transpose())
        .collect::<Result<_, _>>()?;
    let (shared, quarantine) = (store.shared(None)?, store.quarantine()?);
    drop(gate);
    if from.len() != usize::from(partitions) {
        return Err(TakeError::NotNow);
    }
    for (key, value) in shared {
        write(&mut file, &key, &value)?;
    }
    for entry in store.rows_of_orders(None) {
        let (key, value) = entry?;
        write(&mut file, &key, &value)?;
    }
    file.flush()?;
    // Whatever was committed is said by now, or the gate is still held.
    let gate = views.hold();
    let to = views.positions().iter().map(|position| position.sequence).collect();
    drop(gate);
    let (definition, newest) = (view::definition(), Timestamp::UNIX_EPOCH);
    Ok(About { definition, from, to, newest, quarantine, taken_at: nats::now() })
}

fn write(file: &mut impl Write, key: &[u8], value: &[u8]) -> std::io::Result<()> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| std::io::ErrorKind::FileTooLarge);
    file.write_all(&length(key)?.to_le_bytes())?;
    file.write_all(&length(value)?.to_le_bytes())?;
    file.write_all(key)?;
    file.write_all(value)
}

fn read(file: &mut impl Read) -> std::io::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let (mut key, mut value) = ([0; 4], [0; 4]);
    match file.read(&mut key[..1])? {
        0 => return Ok(None),
        _ => file.read_exact(&mut key[1..])?,
    }
    file.read_exact(&mut value)?;
    let mut take = |length: [u8; 4]| {
        let length = u32::from_le_bytes(length);
        if length > BYTES_MAX {
            return Err(std::io::Error::from(std::io::ErrorKind::InvalidData));
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact(&mut bytes).map(|()| bytes)
    };
    let key = take(key)?;
    Ok(Some((key, take(value)?)))
}

/// Fetches a snapshot and fills an empty store with it.
pub(crate) async fn restore(
    log: &EventLog,
    (name, about): (&str, &About),
    directory: &Path,
    store: &Store,
) -> Result<(), TakeError> {
    let passing = Passing::new(directory)?;
    let file = passing.path().join(FILE);
    log.snapshots().await?.fetch(name, &file).await?;
    let (store, about) = (store.clone(), about.clone());
    tokio::task::spawn_blocking(move || fill(&store, &about, &file)).await?
}

fn fill(store: &Store, about: &About, from: &Path) -> Result<(), TakeError> {
    let mut file = BufReader::new(File::open(from)?);
    let mut restoring = Restoring::new(store);
    while let Some((key, value)) = read(&mut file)? {
        restoring.put(key, value)?;
        if restoring.waiting() >= RESTORED_TOGETHER {
            restoring.write()?;
        }
    }
    restoring.quarantine(&about.quarantine)?;
    Ok(restoring.finish(&about.definition, &about.from)?)
}

/// Makes the first generation of `directory` from the newest snapshot that fits, if there is one.
pub(crate) async fn begin(
    log: &EventLog,
    directory: &Path,
    infos: &[PartitionInfo],
) -> Result<Option<About>, TakeError> {
    let Some((name, about)) = list(log, infos).await?.into_iter().next() else { return Ok(None) };
    let started = Instant::now();
    let generation = generations::newest(directory) + 1;
    let store = Store::open_generation(directory, generation)?;
    if let Err(error) = restore(log, (&name, &about), directory, &store).await {
        drop(store);
        generations::remove(directory, generation)?;
        return Err(error);
    }
    store.flush()?;
    generations::make_current(directory, generation)?;
    tracing::info!(events = about.events(), took = ?started.elapsed(), "the views begin with a snapshot");
    Ok(Some(about))
}

/// Takes a snapshot whenever none is younger than `every` and something has happened since, until `stop`.
pub(crate) async fn schedule(
    views: Views,
    log: EventLog,
    every: Duration,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let look = every.clamp(LOOK_EVERY, LOOK_EVERY_MAX);
    let taking = Box::pin(async {
        loop {
            tokio::time::sleep(look).await;
            match is_due(&views, &log, every).await {
                Ok(false) => {}
                Ok(true) => {
                    if let Err(error) = take(&views, &log).await {
                        tracing::warn!(error = %nats::causes(&error), "no snapshot was taken");
                    }
                }
                Err(error) => tracing::debug!(%error, "whether a snapshot is due is not known"),
            }
        }
    });
    // The stop does not wait for a server that is away; half a snapshot is none.
    stop.run_until_cancelled(taking).await;
    Ok(())
}

async fn is_due(views: &Views, log: &EventLog, every: Duration) -> anyhow::Result<bool> {
    let folded: u64 = views.positions().iter().map(|position| position.sequence).sum();
    if folded == 0 || !views.has_caught_up() {
        return Ok(false);
    }
    let newest = fitting(log).await?.into_iter().next();
    Ok(newest.is_none_or(|(_, about)| {
        let age = Duration::try_from(nats::now().duration_since(about.taken_at)).unwrap_or_default();
        about.events() < folded && age >= every
    }))
}
