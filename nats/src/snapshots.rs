//! Snapshots of views, in JetStream's object store beside the log: a way to start a view node without the whole log.
//!
//! The object store keeps a SHA-256 digest of every object and checks it when one is read.

use std::{collections::HashMap, path::Path, time::Duration};

use async_nats::jetstream::{
    context::ObjectStoreErrorKind,
    object_store::{Config, ObjectMetadata, ObjectStore},
};
use futures::StreamExt;
use tokio::{fs::File, io, time::timeout};

use crate::log::EventLog;

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
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("snapshot {name} does not read as it was written")]
    Torn { name: String, source: io::Error },
    #[error("a snapshot's file cannot be used")]
    File(#[source] io::Error),
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
pub struct Snapshots(ObjectStore);

fn failed<E: std::error::Error + Send + Sync + 'static>(error: E) -> SnapshotError {
    SnapshotError::Store(Box::new(error))
}

impl EventLog {
    /// The snapshots beside this log; `None` if there never were any.
    pub async fn find_snapshots(&self) -> Result<Option<Snapshots>, SnapshotError> {
        match self.connection().shared.jetstream.get_object_store(BUCKET).await {
            Ok(store) => Ok(Some(Snapshots(store))),
            Err(error) if error.kind() == ObjectStoreErrorKind::GetStore => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// The snapshots beside this log, and a place for new ones.
    pub async fn snapshots(&self) -> Result<Snapshots, SnapshotError> {
        if let Some(found) = self.find_snapshots().await? {
            return Ok(found);
        }
        let config = Config {
            bucket: BUCKET.into(),
            description: Some("Twelve: snapshots of views; each can be made again from the log".into()),
            max_age: KEPT_FOR,
            num_replicas: self.replicas,
            ..Config::default()
        };
        self.connection().shared.jetstream.create_object_store(config).await.map(Snapshots).map_err(failed)
    }
}

impl Snapshots {
    /// All snapshots, in no order.
    pub async fn list(&self) -> Result<Vec<Kept>, SnapshotError> {
        let mut list = self.0.list().await.map_err(failed)?;
        let mut kept = Vec::new();
        while let Some(info) = list.next().await {
            let info = info.map_err(failed)?;
            let about = info.metadata.get(ABOUT).cloned().unwrap_or_default();
            kept.push(Kept { name: info.name, about, bytes: info.size as u64 });
        }
        Ok(kept)
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
        put.map_err(|_| SnapshotError::Slow(name.to_owned()))?.map(drop).map_err(failed)
    }

    /// Fetches a snapshot into a file. What does not match its digest is an error.
    pub async fn fetch(&self, name: &str, into: &Path) -> Result<(), SnapshotError> {
        let mut object = self.0.get(name).await.map_err(failed)?;
        let mut file = File::create(into).await.map_err(SnapshotError::File)?;
        let copied = timeout(TRANSFER_MAX, io::copy(&mut object, &mut file)).await;
        let copied = copied.map_err(|_| SnapshotError::Slow(name.to_owned()))?;
        copied.map_err(|source| SnapshotError::Torn { name: name.to_owned(), source })?;
        file.sync_all().await.map_err(SnapshotError::File)
    }

    pub async fn remove(&self, name: &str) -> Result<(), SnapshotError> {
        self.0.delete(name).await.map_err(failed)
    }
}
