//! Rows and checkpoints of one generation of the views, in one sled tree, so that both change in one atomic batch.
//!
//! Keys begin with the view's name: `<view> 0 'r' <row key>` holds a row, `<view> 0 'p' <place>` holds the key of the
//! row at a place in the view's list, `0 'c' <partition>` holds a checkpoint, `0 'n' <view's name>` a count of rows.
//! One generation is one directory.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

/// Memory that sled may keep pages in.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// How long sled may keep committed batches in memory. What a power cut takes is folded again.
const FLUSH_EVERY_MS: u64 = 500;
const CURRENT: &str = "current";
/// What the names of stores begin with that nobody comes back to.
const PASSING: &str = "passing-";
const DEFINITION_KEY: &[u8] = b"\0d";

/// Why the store does not work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the view store {path} cannot be opened; is another process using it?")]
    Open { path: PathBuf, source: sled::Error },
    #[error("the view store failed")]
    Sled(#[from] sled::Error),
    #[error("a stored row does not read; rebuild the views")]
    Row(#[from] postcard::Error),
    #[error("cannot use {path}")]
    Directory { path: PathBuf, source: std::io::Error },
}

/// How far a partition is folded, and of which log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub sequence: u64,
    /// When the partition's stream was made.
    pub log_created: String,
}

/// One generation of the views.
#[derive(Clone)]
pub struct Store {
    db: sled::Db,
    generation: u32,
    /// Removed with the last clone, after the tree is closed.
    _passing: Option<Arc<Passing>>,
}

/// A directory that goes with its store.
struct Passing(PathBuf);

impl Drop for Passing {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, "a passing view store stays on disk");
        }
    }
}

/// Changes that take effect together.
#[derive(Default)]
pub struct Changes {
    batch: sled::Batch,
    count: usize,
}

impl Changes {
    pub(crate) fn put_row(&mut self, view: &str, key: &[u8], row: Vec<u8>) {
        self.batch.insert(row_key(view, key), row);
        self.count += 1;
    }

    pub(crate) fn put_place(&mut self, view: &str, place: &[u8], key: &[u8]) {
        self.batch.insert(place_key(view, place), key);
    }

    pub(crate) fn remove_place(&mut self, view: &str, place: &[u8]) {
        self.batch.remove(place_key(view, place));
    }

    pub(crate) fn put_checkpoint(
        &mut self,
        partition: u16,
        checkpoint: &Checkpoint,
    ) -> Result<(), StoreError> {
        self.batch.insert(checkpoint_key(partition), postcard::to_stdvec(checkpoint)?);
        Ok(())
    }

    pub(crate) fn put_rows(&mut self, view: &str, rows: u64) {
        self.batch.insert(rows_key(view), &rows.to_be_bytes());
    }

    /// How many rows change.
    pub const fn rows(&self) -> usize {
        self.count
    }
}

impl Store {
    /// Opens the serving generation of `directory`, or makes the first.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let generation = current(directory)?.unwrap_or(1);
        let store = Self::open_generation(directory, generation)?;
        make_current(directory, generation)?;
        Ok(store)
    }

    /// Opens a store beside the generations that nobody comes back to.
    pub fn passing(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(format!("{PASSING}{}", uuid::Uuid::new_v4()));
        let store = Self::open_at(path.clone(), 0)?;
        Ok(Self { _passing: Some(Arc::new(Passing(path))), ..store })
    }

    /// Opens one generation, serving or not.
    pub fn open_generation(directory: &Path, generation: u32) -> Result<Self, StoreError> {
        Self::open_at(generation_path(directory, generation), generation)
    }

    fn open_at(path: PathBuf, generation: u32) -> Result<Self, StoreError> {
        std::fs::create_dir_all(&path)
            .map_err(|source| StoreError::Directory { path: path.clone(), source })?;
        let db = sled::Config::new()
            .path(&path)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(Some(FLUSH_EVERY_MS))
            .open()
            .map_err(|source| StoreError::Open { path, source })?;
        Ok(Self { db, generation, _passing: None })
    }

    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// By which definition of the views the rows were folded; `None` if there are none yet.
    pub fn definition(&self) -> Result<Option<String>, StoreError> {
        let bytes = self.db.get(DEFINITION_KEY)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    pub(crate) fn define(&self, definition: &str) -> Result<(), StoreError> {
        self.db.insert(DEFINITION_KEY, definition.as_bytes())?;
        Ok(())
    }

    /// Overwrites a stored row, for tests of what finds such things.
    #[doc(hidden)]
    pub fn overwrite(&self, view: &str, key: &[u8], row: Vec<u8>) -> Result<(), StoreError> {
        self.db.insert(row_key(view, key), row)?;
        self.flush()
    }

    /// Claims another definition, for tests of what finds such things.
    #[doc(hidden)]
    pub fn redefine(&self, definition: &str) -> Result<(), StoreError> {
        self.define(definition)?;
        self.flush()
    }

    pub(crate) fn checkpoint(&self, partition: u16) -> Result<Option<Checkpoint>, StoreError> {
        let bytes = self.db.get(checkpoint_key(partition))?;
        Ok(bytes.map(|bytes| postcard::from_bytes(&bytes)).transpose()?)
    }

    /// How many rows a view has.
    pub fn rows(&self, view: &str) -> Result<u64, StoreError> {
        let bytes = self.db.get(rows_key(view))?;
        Ok(bytes.and_then(|bytes| bytes.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes))
    }

    /// A row as it is stored.
    pub fn row(&self, view: &str, key: &[u8]) -> Result<Option<sled::IVec>, StoreError> {
        Ok(self.db.get(row_key(view, key))?)
    }

    /// The row keys of a view's list whose places begin with `prefix`, after the place `after`, with their places.
    pub(crate) fn places(
        &self,
        view: &str,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = Result<(Vec<u8>, sled::IVec), StoreError>> + use<> {
        let all = place_key(view, &[]);
        let skip = all.len();
        let bound = place_key(view, prefix);
        let start = match after {
            Some(after) => [&all[..], after, &[0]].concat(),
            None => bound.clone(),
        };
        self.db
            .range(start..)
            .map(|entry| entry.map_err(StoreError::from))
            .take_while(move |entry| entry.as_ref().map_or(true, |(key, _)| key.starts_with(&bound)))
            .map(move |entry| entry.map(|(key, value)| (key[skip..].to_vec(), value)))
    }

    pub(crate) fn commit(&self, changes: Changes) -> Result<(), StoreError> {
        Ok(self.db.apply_batch(changes.batch)?)
    }

    /// Puts everything committed on disk.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.db.flush()?;
        Ok(())
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> Result<u64, StoreError> {
        Ok(self.db.size_on_disk()?)
    }

    /// What is stored under a key of [`Self::contents`].
    pub(crate) fn content(&self, key: &[u8]) -> Result<Option<sled::IVec>, StoreError> {
        Ok(self.db.get(key)?)
    }

    /// Every key and value but checkpoints and counts, in order: what two builds of the same log must agree on.
    pub fn contents(&self) -> impl Iterator<Item = Result<(sled::IVec, sled::IVec), StoreError>> {
        self.db.range([1]..).map(|entry| entry.map_err(StoreError::from))
    }
}

/// The view and the row's key that a key of [`Store::contents`] stands for; `None` if it is a place.
pub(crate) fn row_of(key: &[u8]) -> Option<(&str, &[u8])> {
    let end = key.iter().position(|byte| *byte == 0)?;
    let view = std::str::from_utf8(&key[..end]).ok()?;
    (key.get(end + 1) == Some(&b'r')).then(|| (view, &key[end + 2..]))
}

fn row_key(view: &str, key: &[u8]) -> Vec<u8> {
    [view.as_bytes(), b"\0r", key].concat()
}

fn place_key(view: &str, place: &[u8]) -> Vec<u8> {
    [view.as_bytes(), b"\0p", place].concat()
}

fn rows_key(view: &str) -> Vec<u8> {
    [b"\0n", view.as_bytes()].concat()
}

fn checkpoint_key(partition: u16) -> Vec<u8> {
    [b"\0c", &partition.to_be_bytes()[..]].concat()
}

fn generation_path(directory: &Path, generation: u32) -> PathBuf {
    directory.join(format!("generation-{generation:06}"))
}

/// The number of the serving generation.
pub fn current(directory: &Path) -> Result<Option<u32>, StoreError> {
    let path = directory.join(CURRENT);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::Directory { path, source }),
    }
}

/// Makes a generation the serving one, atomically; a process that serves already keeps its own until it restarts.
pub fn make_current(directory: &Path, generation: u32) -> Result<(), StoreError> {
    let path = directory.join(CURRENT);
    let next = directory.join("current.next");
    let written = std::fs::write(&next, generation.to_string()).and_then(|()| std::fs::rename(&next, &path));
    written.map_err(|source| StoreError::Directory { path, source })
}

/// Removes the passing stores that a crash left.
pub(crate) fn remove_passing(directory: &Path) -> Result<(), StoreError> {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PASSING) {
            let path = entry.path();
            std::fs::remove_dir_all(&path).map_err(|source| StoreError::Directory { path, source })?;
        }
    }
    Ok(())
}

/// Removes a generation that nobody serves or builds.
pub fn remove(directory: &Path, generation: u32) -> Result<(), StoreError> {
    let path = generation_path(directory, generation);
    std::fs::remove_dir_all(&path).map_err(|source| StoreError::Directory { path, source })
}

/// The generations there are, ascending.
pub fn generations(directory: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let numbers =
        entries.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("generation-")?.parse().ok());
    let mut numbers: Vec<u32> = numbers.collect();
    numbers.sort_unstable();
    numbers
}

/// The highest generation there is, serving or not; 0 if there is none.
pub fn newest(directory: &Path) -> u32 {
    generations(directory).last().copied().unwrap_or(0)
}
