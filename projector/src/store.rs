//! Rows and checkpoints of one generation of the views, in one sled tree, so that both change in one atomic batch.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    changes::{Changes, Entry},
    fold::{Adopted, SetAside},
    folder::Fold,
    generations::{Passing, current, make_current, path},
    quarantine::Quarantine,
    rows::{ASIDE, Rows, checkpoint_key, index_key, place_key, prefix, row_key, rows_key},
    view,
};

/// Megabytes of memory that one store may keep pages in, unless told otherwise.
pub const CACHE_MB: u32 = 128;
/// What [`keep_in_memory`] was told.
static CACHE_MB_TOLD: AtomicU32 = AtomicU32::new(CACHE_MB);
/// Megabytes of memory for a store that is read a few times and then goes.
const PASSING_CACHE_MB: u32 = 16;
/// Bytes that sled writes together.
const SEGMENT_BYTES: usize = 2 * 1024 * 1024;
/// How long sled may keep committed batches in memory. What a power cut takes is folded again.
const FLUSH_EVERY_MS: u64 = 500;
/// How long a store that is in use is waited for.
const LOCKED_MAX: Duration = Duration::from_secs(2);
const LOCKED_PAUSE: Duration = Duration::from_millis(20);
/// Entries between two pauses of a gentle write, and how long a pause is: up to 50,000 entries a second.
const GENTLE_ENTRIES: usize = 64;
const GENTLE_PAUSE: Duration = Duration::from_micros(2_500);
/// By which definition of the views the rows were folded.
pub(crate) const DEFINITION_KEY: &[u8] = b"\0d";
/// What was taken over from another store.
pub(crate) const ADOPTED_KEY: &[u8] = b"\0o";
/// Which messages of the log are no order's.
pub(crate) const QUARANTINE_KEY: &[u8] = b"\0q";
/// There while rows are written ahead of their checkpoint.
const UNFINISHED_KEY: &[u8] = b"\0u";

/// Why the store does not work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the view store {path} cannot be opened; is another process using it?")]
    Open { path: PathBuf, source: sled::Error },
    #[error("the files of the view store {path} are torn")]
    Torn { path: PathBuf },
    #[error("the view store failed")]
    Sled(#[from] sled::Error),
    #[error("a stored row does not read; rebuild the views")]
    Row(#[from] postcard::Error),
    #[error("a stored row cannot be unpacked; rebuild the views")]
    Packed,
    #[error("the thread that writes the view store panicked")]
    Writer,
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

/// How a generation that nobody reads is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Haste {
    /// As fast as it goes.
    #[default]
    Full,
    /// With a pause every few entries, so that those who read another generation hardly wait.
    Gentle,
}

/// How many megabytes of memory each store that is opened from now on may keep pages in. What does not fit is read
/// from the disk when it is needed.
pub(crate) fn keep_in_memory(megabytes: u32) {
    CACHE_MB_TOLD.store(megabytes, Ordering::Relaxed);
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
        let passing = Passing::new(directory)?;
        let store = Self::open_at(passing.path().to_owned(), 0, PASSING_CACHE_MB)?;
        Ok(Self { _passing: Some(Arc::new(passing)), ..store })
    }

    /// Opens one generation, serving or not.
    pub fn open_generation(directory: &Path, generation: u32) -> Result<Self, StoreError> {
        let cache_mb = CACHE_MB_TOLD.load(Ordering::Relaxed);
        Self::open_at(path(directory, generation), generation, cache_mb)
    }

    fn open_at(path: PathBuf, generation: u32, cache_mb: u32) -> Result<Self, StoreError> {
        std::fs::create_dir_all(&path)
            .map_err(|source| StoreError::Directory { path: path.clone(), source })?;
        let config = sled::Config::new()
            .path(&path)
            .cache_capacity(u64::from(cache_mb) << 20)
            .mode(sled::Mode::HighThroughput)
            .segment_size(SEGMENT_BYTES)
            .flush_every_ms(Some(FLUSH_EVERY_MS));
        let asked = Instant::now();
        let db = loop {
            // Of some torn files sled does not say so, it panics.
            let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| config.open()));
            match opened {
                Ok(Ok(db)) => break db,
                // A store that was just closed is let go by the store's own threads, a moment later.
                Ok(Err(source)) if is_locked(&source) && asked.elapsed() < LOCKED_MAX => {
                    std::thread::sleep(LOCKED_PAUSE);
                }
                Ok(Err(source)) if is_torn(&source) => return Err(StoreError::Torn { path }),
                Ok(Err(source)) => return Err(StoreError::Open { path, source }),
                Err(_) => return Err(StoreError::Torn { path }),
            }
        };
        Ok(Self { db, generation, _passing: None })
    }

    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// By which definition of the views the rows were folded; `None` if there are none yet.
    pub fn definition(&self) -> Result<Option<String>, StoreError> {
        Ok(self.db.get(DEFINITION_KEY)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    pub(crate) fn define(&self, definition: &str) -> Result<(), StoreError> {
        self.db.insert(DEFINITION_KEY, definition.as_bytes())?;
        Ok(())
    }

    /// Overwrites a stored row, for tests of what finds such things.
    #[doc(hidden)]
    pub fn overwrite(&self, rows: Rows, key: &[u8], row: Vec<u8>) -> Result<(), StoreError> {
        let cluster = match rows {
            Rows::ByAge(name) => self.db.get(index_key(name, key))?.unwrap_or_default(),
            Rows::Shared(_) => sled::IVec::default(),
        };
        self.db.insert([rows.name().as_bytes(), b"\0r", &cluster, key].concat(), row)?;
        self.flush()
    }

    /// Claims another definition, for tests of what finds such things.
    #[doc(hidden)]
    pub fn redefine(&self, definition: &str) -> Result<(), StoreError> {
        self.define(definition)?;
        self.flush()
    }

    /// The orders that are not folded any further.
    pub fn set_aside(&self) -> Result<Vec<SetAside>, StoreError> {
        let entries = self.db.scan_prefix(ASIDE);
        entries.values().map(|aside| Ok(postcard::from_bytes(&aside?)?)).collect()
    }

    /// The messages of the log that are no order's.
    pub fn quarantine(&self) -> Result<Quarantine, StoreError> {
        let kept = self.db.get(QUARANTINE_KEY)?;
        Ok(kept.map(|bytes| postcard::from_bytes(&bytes)).transpose()?.unwrap_or_default())
    }

    /// What was taken over from another store, if this one began so.
    pub(crate) fn adopted(&self) -> Result<Option<Adopted>, StoreError> {
        self.db.get(ADOPTED_KEY)?.map(|bytes| Ok(postcard::from_bytes(&bytes)?)).transpose()
    }

    pub(crate) fn checkpoint(&self, partition: u16) -> Result<Option<Checkpoint>, StoreError> {
        self.db.get(checkpoint_key(partition))?.map(|bytes| Ok(postcard::from_bytes(&bytes)?)).transpose()
    }

    /// How many rows a list has.
    pub fn rows(&self, list: &str) -> Result<u64, StoreError> {
        let bytes = self.db.get(rows_key(list))?;
        Ok(bytes.and_then(|bytes| bytes.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes))
    }

    /// A row as it is stored.
    pub fn row(&self, rows: Rows, key: &[u8]) -> Result<Option<sled::IVec>, StoreError> {
        let found = match rows {
            Rows::Shared(name) => row_key(name, key),
            Rows::ByAge(name) => match self.db.get(index_key(name, key))? {
                Some(cluster) => [name.as_bytes(), b"\0r", &cluster, key].concat(),
                None => return Ok(None),
            },
        };
        Ok(self.db.get(found)?)
    }

    /// The places of a list that begin with `prefix`, after the place `after`, each with its row, if there is one. With
    /// no list: the rows as they lie.
    pub(crate) fn places<'a>(
        &'a self,
        rows: Rows,
        list: Option<&str>,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = Result<(Vec<u8>, Option<sled::IVec>), StoreError>> + use<'a> {
        let is_itself = list.is_none();
        let all = list.map_or_else(|| row_key(rows.name(), &[]), |list| place_key(list, &[]));
        let skip = all.len();
        let bound = [&all[..], prefix].concat();
        let start = match after {
            Some(after) => [&all[..], after, &[0]].concat(),
            None => bound.clone(),
        };
        let entries = self.db.range(start..);
        let ours =
            entries.take_while(move |entry| entry.as_ref().map_or(true, |(key, _)| key.starts_with(&bound)));
        ours.map(move |entry| {
            let (key, value) = entry?;
            let row = if is_itself { Some(value) } else { self.db.get(row_key(rows.name(), &value))? };
            Ok((key[skip..].to_vec(), row))
        })
    }

    /// All changes at once.
    pub(crate) fn commit(&self, changes: Changes) -> Result<(), StoreError> {
        let mut batch = changes.rest;
        for (key, value) in changes.places.into_iter().chain(changes.rows) {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        Ok(self.db.apply_batch(batch)?)
    }

    /// What belongs to one order first, in the order of the keys, which costs the store a fraction of a large batch;
    /// then all the rest at once. A crash in between leaves rows ahead of their checkpoint, and a note of that.
    pub(crate) fn commit_ahead(&self, changes: Changes, haste: Haste) -> Result<(), StoreError> {
        let mut rest = self.write_ahead(changes, haste)?;
        rest.remove(UNFINISHED_KEY);
        Ok(self.db.apply_batch(rest)?)
    }

    /// Writes what belongs to one order; answers with the rest.
    pub(crate) fn write_ahead(&self, changes: Changes, haste: Haste) -> Result<sled::Batch, StoreError> {
        self.db.insert(UNFINISHED_KEY, &[])?;
        self.write(changes.places, haste)?;
        // After their places: a row that is there is in all its lists.
        self.write(changes.rows, haste)?;
        Ok(changes.rest)
    }

    /// Writes entries one by one, in the order of their keys, in two threads.
    fn write(&self, mut entries: Vec<Entry>, haste: Haste) -> Result<(), StoreError> {
        entries.sort_unstable();
        let second = entries.split_off(entries.len() / 2);
        let write = |entries: Vec<Entry>| -> Result<(), StoreError> {
            for (written, (key, value)) in entries.into_iter().enumerate() {
                match value {
                    Some(value) => self.db.insert(key, value)?,
                    None => self.db.remove(key)?,
                };
                if haste == Haste::Gentle && written % GENTLE_ENTRIES == GENTLE_ENTRIES - 1 {
                    std::thread::sleep(GENTLE_PAUSE);
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| write(second));
            write(entries)?;
            other.join().map_err(|_| StoreError::Writer)?
        })
    }

    /// Whether a crash ended [`Self::commit_ahead`].
    pub(crate) fn is_unfinished(&self) -> Result<bool, StoreError> {
        Ok(self.db.contains_key(UNFINISHED_KEY)?)
    }

    /// Takes back what an unfinished commit wrote and its rows do not know: places, and counts.
    pub(crate) fn repair<'a>(&self, views: impl Iterator<Item = &'a dyn Fold>) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for view in views {
            let rows = view.rows();
            for (position, (list, is_rows)) in view.lists().into_iter().enumerate() {
                let mut count = 0_u64;
                for entry in self.places(rows, (!is_rows).then_some(list), &[], None) {
                    let (place, row) = entry?;
                    let is = row.map(|row| view.places(&row)).transpose()?;
                    let is = is.and_then(|mut places| places.swap_remove(position));
                    let is_there = if is_rows { is.is_some() } else { is.as_ref() == Some(&place) };
                    count += u64::from(is_there);
                    if !is_rows && !is_there {
                        batch.remove(place_key(list, &place));
                    }
                }
                batch.insert(rows_key(list), &count.to_be_bytes());
            }
        }
        batch.remove(UNFINISHED_KEY);
        self.db.apply_batch(batch)?;
        self.flush()
    }

    /// Everything in which orders meet, `but` one view's: rows, places and counts.
    pub(crate) fn shared(&self, but: Option<Rows>) -> Result<Vec<(sled::IVec, sled::IVec)>, StoreError> {
        let mut entries = Vec::new();
        let is_wanted = |rows: Rows| rows.are_shared() && Some(rows) != but;
        for view in view::everything().iter().filter(|view| is_wanted(view.rows())) {
            for entry in self.db.scan_prefix(row_key(view.rows().name(), &[])) {
                entries.push(entry?);
            }
            for (list, _) in view.lists() {
                for entry in self.db.scan_prefix(place_key(list, &[])) {
                    entries.push(entry?);
                }
                let count = rows_key(list);
                if let Some(rows) = self.db.get(&count)? {
                    entries.push((count.into(), rows));
                }
            }
        }
        Ok(entries)
    }

    /// Every row that belongs to one order, `but` one view's, with its whole key.
    pub(crate) fn rows_of_orders(
        &self,
        but: Option<Rows>,
    ) -> impl Iterator<Item = Result<(sled::IVec, sled::IVec), StoreError>> {
        let is_wanted = move |rows: &Rows| !rows.are_shared() && Some(*rows) != but;
        let views = view::everything().into_iter().map(|view| view.rows()).filter(is_wanted);
        views.flat_map(|rows| self.db.scan_prefix(row_key(rows.name(), &[]))).map(|entry| Ok(entry?))
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

    /// What a view's rows or a list's places are, in order.
    pub(crate) fn entries_of(
        &self,
        name: &str,
    ) -> impl Iterator<Item = Result<(sled::IVec, sled::IVec), StoreError>> {
        self.db.scan_prefix(prefix(name)).map(|entry| Ok(entry?))
    }

    /// Every key and value but checkpoints and counts, in order: what two builds of the same log must agree on.
    pub fn contents(&self) -> impl Iterator<Item = Result<(sled::IVec, sled::IVec), StoreError>> {
        self.db.range([1]..).map(|entry| entry.map_err(StoreError::from))
    }
}

fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

fn is_torn(error: &sled::Error) -> bool {
    use std::io::ErrorKind;
    match error {
        sled::Error::Corruption { .. } | sled::Error::ReportableBug(_) | sled::Error::Unsupported(_) => true,
        sled::Error::Io(error) => matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData),
        sled::Error::CollectionNotFound(_) => false,
    }
}
