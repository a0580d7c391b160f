//! A bucket of JetStream's object store, read by direct gets (the client library reads by a consumer, which readers
//! may not make: ADR 27). What is written and removed goes by the library; so what is stored is as everywhere.

use std::time::Duration;

use async_nats::jetstream::{
    context::{GetStreamError, ObjectStoreError},
    object_store::{ObjectInfo, ObjectMetadata, ObjectStore},
    stream::{Config, DiscardPolicy, StorageType},
};
use aws_lc_rs::digest::{Context, SHA256};
use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use bytes::Bytes;
use tokio::io::AsyncRead;

use crate::{
    broker::{Broker, Failure, Raw},
    connection::Connection,
    direct::Pages,
    topology,
};

/// How often a list is read that lacks what the stream's leader has, because a replica answered that is behind.
const LIST_TRIES_MAX: u32 = 100;
const LIST_PAUSE: Duration = Duration::from_millis(20);

/// A bucket that is there.
pub(crate) struct Bucket {
    connection: Connection,
    name: &'static str,
    store: ObjectStore,
}

/// The stream of a bucket.
pub(crate) fn stream(bucket: &str) -> String {
    format!("OBJ_{bucket}")
}

/// The declaration of a bucket's stream, as the client library makes it.
pub(crate) fn declared(bucket: &str, description: &str, max_age: Duration, replicas: usize) -> Config {
    Config {
        name: stream(bucket),
        description: Some(description.to_owned()),
        subjects: vec![format!("$O.{bucket}.C.>"), format!("$O.{bucket}.M.>")],
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        max_age,
        num_replicas: replicas,
        allow_rollup: true,
        allow_direct: true,
        ..Config::default()
    }
}

/// Not so where the server merely did not answer.
fn is_absent(error: &ObjectStoreError) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<GetStreamError>());
    source.is_some_and(|source| topology::is_absent(source.kind()))
}

impl Bucket {
    /// The bucket, if it is there.
    pub(crate) async fn find(connection: &Connection, name: &'static str) -> Result<Option<Self>, Failure> {
        match connection.shared.jetstream.get_object_store(name).await {
            Ok(store) => Ok(Some(Self { connection: connection.clone(), name, store })),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What is said of each object that is there, in no order; of all that were put before this was asked.
    pub(crate) async fn list(&self) -> Result<Vec<ObjectInfo>, Failure> {
        for _ in 0..LIST_TRIES_MAX {
            let newest = self.connection.last(stream(self.name), self.abouts()).await?;
            let (all, upto) = self.list_once().await?;
            if newest.is_none_or(|Raw { sequence, .. }| sequence <= upto) {
                return Ok(all);
            }
            tokio::time::sleep(LIST_PAUSE).await;
        }
        Err(format!("the replicas of bucket {} do not have its newest object", self.name).into())
    }

    /// The subjects of what is said of objects.
    fn abouts(&self) -> String {
        format!("$O.{}.M.>", self.name)
    }

    /// As a replica has it, and the sequence of the newest of it.
    async fn list_once(&self) -> Result<(Vec<ObjectInfo>, u64), Failure> {
        let mut all = Vec::new();
        let mut pages = Pages::new(&self.connection, stream(self.name), self.abouts());
        loop {
            let page = pages.next().await?;
            if page.is_empty() {
                return Ok((all, pages.upto()));
            }
            for body in page {
                let info: ObjectInfo = serde_json::from_slice(&body)?;
                if !info.deleted {
                    all.push(info);
                }
            }
        }
    }

    /// An object, to be read piece by piece.
    pub(crate) async fn open(&self, object: &str) -> Result<Object, Failure> {
        let info = self.store.info(object).await?;
        if info.deleted {
            return Err(format!("object {object} was removed").into());
        }
        let chunks = format!("$O.{}.C.{}", self.name, info.nuid);
        let pages = Pages::new(&self.connection, stream(self.name), chunks);
        Ok(Object { info, pages, digest: Context::new(&SHA256), size: 0 })
    }

    pub(crate) async fn put(
        &self,
        meta: ObjectMetadata,
        content: &mut (impl AsyncRead + Unpin),
    ) -> Result<(), Failure> {
        self.store.put(meta, content).await?;
        Ok(())
    }

    pub(crate) async fn remove(&self, object: &str) -> Result<(), Failure> {
        self.store.delete(object).await?;
        Ok(())
    }
}

/// An object that is being read.
pub(crate) struct Object {
    info: ObjectInfo,
    pages: Pages,
    digest: Context,
    size: usize,
}

impl Object {
    /// The next pieces; none at the end, and an error there if all of them are not what was put.
    pub(crate) async fn next(&mut self) -> Result<Vec<Bytes>, Failure> {
        let pieces = self.pages.next().await?;
        for piece in &pieces {
            self.digest.update(piece);
            self.size += piece.len();
        }
        if pieces.is_empty() {
            let digest = format!("SHA-256={}", URL_SAFE.encode(self.digest.clone().finish()));
            if self.size != self.info.size || self.info.digest.as_ref() != Some(&digest) {
                return Err("its digest is another than when it was put".into());
            }
        }
        Ok(pieces)
    }
}
