//! Snapshots of views, in JetStream's object store beside the log: a way to start a view node without the whole log.
//!
//! The object store keeps a SHA-256 digest of every object; it is checked when one is read.

use std::{collections::HashMap, path::Path, time::Duration};

use async_nats::jetstream::{object_store::ObjectMetadata, stream::Config};
use tokio::{fs::File, io::AsyncWriteExt, time::timeout};

use crate::{
    broker::Failure,
    log::EventLog,
    objects::{self, Bucket},
};

pub(crate) const BUCKET: &str = "TWELVE-VIEWS";
/// The description of an object, as JSON, under this name.
const ABOUT: &str = "about";
/// After so long a snapshot is no help any more, whoever made it.
const KEPT_FOR: Duration = Duration::from_hours(7 * 24);
/// Bytes of an object that are sent together.
const CHUNK_BYTES: usize = 512 * 1024;
/// How long one object may take to be sent or fetched.
const TRANSFER_MAX: Duration = Duration::from_mins(30);

/// Why a snapshot is not to be had, or was not kept.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("the object store did not answer")]
    Store(#[source] Failure),
    #[error("the bucket {BUCKET} is not there; make it: twelve nats setup")]
    Missing,
    #[error("snapshot {name} does not read as it was written")]
    Torn { name: String, source: Failure },
    #[error("a snapshot's file cannot be used")]
    File(#[source] std::io::Error),
    #[error("snapshot {0} took too long")]
    Slow(String),
}

/// A snapshot that can be fetched.
#[derive(Clone, Debug)]
pub struct Kept {
    pub name: String,
    /// What its maker said of it.
    pub about: String,
    pub bytes: u64,
}

/// The snapshots beside a log.
pub struct Snapshots(Bucket);

/// The bucket's stream as declared.
pub(crate) fn declared(replicas: usize) -> Config {
    let description = "Twelve: snapshots of views; each can be made again from the log";
    objects::declared(BUCKET, description, KEPT_FOR, replicas)
}

impl EventLog {
    /// The snapshots beside this log; `None` if there is no bucket for them.
    pub async fn find_snapshots(&self) -> Result<Option<Snapshots>, SnapshotError> {
        let found = Bucket::find(self.connection(), BUCKET).await.map_err(SnapshotError::Store)?;
        Ok(found.map(Snapshots))
    }

    /// The snapshots beside this log, and a place for new ones.
    pub async fn snapshots(&self) -> Result<Snapshots, SnapshotError> {
        self.find_snapshots().await?.ok_or(SnapshotError::Missing)
    }
}

impl Snapshots {
    /// All snapshots, in no order.
    pub async fn list(&self) -> Result<Vec<Kept>, SnapshotError> {
        let all = self.0.list().await.map_err(SnapshotError::Store)?;
        let kept = all.into_iter().map(|info| {
            let about = info.metadata.get(ABOUT).cloned().unwrap_or_default();
            Kept { name: info.name, about, bytes: info.size as u64 }
        });
        Ok(kept.collect())
    }

    /// Keeps the file under `name`.
    pub async fn put(&self, name: &str, about: String, file: &Path) -> Result<(), SnapshotError> {
        let mut file = File::open(file).await.map_err(SnapshotError::File)?;
        let meta = ObjectMetadata {
            name: name.to_owned(),
            metadata: HashMap::from([(ABOUT.to_owned(), about)]),
            chunk_size: Some(CHUNK_BYTES),
            ..ObjectMetadata::default()
        };
        let put = timeout(TRANSFER_MAX, self.0.put(meta, &mut file)).await;
        put.map_err(|_| SnapshotError::Slow(name.to_owned()))?.map_err(SnapshotError::Store)
    }

    /// Fetches a snapshot into a file. What does not match its digest is an error.
    pub async fn fetch(&self, name: &str, into: &Path) -> Result<(), SnapshotError> {
        let mut file = File::create(into).await.map_err(SnapshotError::File)?;
        let reading = async {
            let mut object = self.0.open(name).await?;
            loop {
                let pieces = object.next().await?;
                if pieces.is_empty() {
                    return Ok(());
                }
                for piece in pieces {
                    file.write_all(&piece).await?;
                }
            }
        };
        let read = timeout(TRANSFER_MAX, reading).await;
        let read = read.map_err(|_| SnapshotError::Slow(name.to_owned()))?;
        read.map_err(|source: Failure| SnapshotError::Torn { name: name.to_owned(), source })?;
        file.sync_all().await.map_err(SnapshotError::File)
    }

    pub async fn remove(&self, name: &str) -> Result<(), SnapshotError> {
        self.0.remove(name).await.map_err(SnapshotError::Store)
    }
}
