//! Events in, changed rows out: one writer folds all views in memory and commits rows and checkpoints together.

use std::{
    collections::{BTreeMap, HashMap},
    thread::JoinHandle,
};

use domain::Position;
use nats::{Stored, Undecodable, follow::Batch};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    store::{Changes, Checkpoint, Found, Rows, Store, StoreError},
    view::{self, Places, View, orders},
};

/// How much is kept in memory, which buys speed.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Rows of one view that stay in memory between commits.
    pub rows_kept: usize,
    /// Changed rows after which a commit is due even if more events are waiting.
    pub commit_rows: usize,
    /// Whether a commit may write rows ahead of its checkpoint, which only a generation that nobody reads can bear.
    pub is_ahead: bool,
}

impl Pace {
    /// Following the log as it grows.
    pub const LIVE: Self = Self { rows_kept: 5_000, commit_rows: 5_000, is_ahead: false };
    /// Reading the whole log: each row is written once in many events, in the order of the keys.
    pub const BULK: Self = Self { rows_kept: 30_000, commit_rows: 30_000, is_ahead: true };
}

/// Rows up to here are written in one piece.
const ROW_BYTES: usize = 64 * 1024;

/// A view at work, whatever its rows are.
pub(crate) trait Fold: Send {
    fn rows(&self) -> Rows;
    /// The lists and their versions.
    fn definition(&self) -> String;
    /// A stored row as readers of its lists see it.
    fn show(&self, row: &[u8]) -> Option<Value>;
    /// The names of the lists of these rows, and whether they are the rows themselves.
    fn lists(&self) -> Vec<(&'static str, bool)>;
    /// The places of a stored row, by list.
    fn places(&self, row: &[u8]) -> Result<Vec<Option<Vec<u8>>>, StoreError>;
    fn note(&mut self, store: &Store, event: &Stored) -> Result<(), StoreError>;
    fn changed(&self) -> usize;
    fn drain(&mut self, store: &Store, changes: &mut Changes, rows_kept: usize) -> Result<(), StoreError>;
}

/// A row in memory.
struct Held<R> {
    row: R,
    /// The newest event that it is folded from; 0 where events of several orders meet in one row.
    sequence: u64,
    change: Change,
}

/// What the store does not know yet of a row.
enum Change {
    Nothing,
    /// That there is one.
    New,
    /// How it is now; it has it at these places, by list.
    From(Vec<Option<Vec<u8>>>),
}

/// The rows of one view that are in memory.
pub(crate) struct Folder<V: View> {
    lists: Vec<Places<V::Row>>,
    rows: HashMap<Vec<u8>, Held<V::Row>>,
    changed: usize,
    /// Rows in each list; empty: as many as the store says.
    counts: Vec<u64>,
    /// To encode rows in.
    buffer: Vec<u8>,
}

impl<V: View> Default for Folder<V> {
    fn default() -> Self {
        Self { lists: V::lists(), rows: HashMap::new(), changed: 0, counts: Vec::new(), buffer: Vec::new() }
    }
}

/// A row as the store keeps it, with the newest event that it is folded from.
pub(crate) fn decode<R: DeserializeOwned>(bytes: &[u8]) -> Result<(u64, R), StoreError> {
    Ok(postcard::from_bytes(bytes)?)
}

/// Postcard grows a vector byte by byte, but fills a slice at a stroke.
fn encode<T: Serialize>(row: &T, buffer: &mut Vec<u8>) -> Result<Vec<u8>, StoreError> {
    buffer.resize(ROW_BYTES, 0);
    match postcard::to_slice(row, buffer) {
        Ok(written) => Ok(written.to_vec()),
        Err(postcard::Error::SerializeBufferFull) => Ok(postcard::to_stdvec(row)?),
        Err(error) => Err(error.into()),
    }
}

impl<V: View> Folder<V> {
    fn row(&self, key: &[u8]) -> Option<&V::Row> {
        self.rows.get(key).map(|held| &held.row)
    }

    fn note_one(&mut self, store: &Store, event: &Stored, key: Vec<u8>) -> Result<(), StoreError> {
        let before = match self.rows.remove(&key) {
            Some(held) => Some(held),
            None => store
                .row(V::ROWS, &key)?
                .map(|bytes| decode(&bytes))
                .transpose()?
                .map(|(sequence, row)| Held { row, sequence, change: Change::Nothing }),
        };
        let sequence = if V::ROWS.are_shared() { 0 } else { event.recorded.position.sequence };
        let (row, change) = match before {
            // Written ahead of the checkpoint, before a crash.
            Some(held) if !V::ROWS.are_shared() && held.sequence >= sequence => {
                self.rows.insert(key, held);
                return Ok(());
            }
            Some(Held { row, change: Change::Nothing, .. }) => {
                let places = self.lists.iter().map(|list| (list.place)(&row)).collect();
                (Some(row), Change::From(places))
            }
            Some(held) => {
                self.changed -= 1;
                (Some(held.row), held.change)
            }
            None => (None, Change::New),
        };
        if let Some(row) = V::apply(&key, row, event) {
            self.changed += 1;
            self.rows.insert(key, Held { row, sequence, change });
        }
        Ok(())
    }
}

impl<V: View> Fold for Folder<V> {
    fn rows(&self) -> Rows {
        V::ROWS
    }

    fn definition(&self) -> String {
        self.lists.iter().map(|list| format!("{}:{}", list.name, list.version)).collect::<Vec<_>>().join(",")
    }

    fn show(&self, row: &[u8]) -> Option<Value> {
        let (_, row) = decode(row).ok()?;
        let mut shown = V::show(&row);
        for list in self.lists.iter().filter(|list| list.name != V::NAME) {
            shown[list.name] = (list.show)(&row);
        }
        Some(shown)
    }

    fn lists(&self) -> Vec<(&'static str, bool)> {
        self.lists.iter().map(|list| (list.name, list.is_rows)).collect()
    }

    fn places(&self, row: &[u8]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let (_, row) = decode(row)?;
        Ok(self.lists.iter().map(|list| (list.place)(&row)).collect())
    }

    fn note(&mut self, store: &Store, event: &Stored) -> Result<(), StoreError> {
        for key in V::keys(event) {
            self.note_one(store, event, key)?;
        }
        Ok(())
    }

    fn changed(&self) -> usize {
        self.changed
    }

    fn drain(&mut self, store: &Store, changes: &mut Changes, rows_kept: usize) -> Result<(), StoreError> {
        if self.rows.len() > rows_kept {
            // The store has these.
            self.rows.retain(|_, held| !matches!(held.change, Change::Nothing));
        }
        if self.changed == 0 {
            return Ok(());
        }
        if self.counts.is_empty() {
            self.counts = self.lists.iter().map(|list| store.rows(list.name)).collect::<Result<_, _>>()?;
        }
        for (key, held) in &mut self.rows {
            let found = Found { key, cluster: view::newest_least(V::began(&held.row)) };
            let before = match std::mem::replace(&mut held.change, Change::Nothing) {
                Change::Nothing => continue,
                Change::From(places) => places,
                Change::New => {
                    changes.put_index(V::ROWS, found);
                    vec![None; self.lists.len()]
                }
            };
            for ((list, count), before) in self.lists.iter().zip(&mut self.counts).zip(before) {
                let place = (list.place)(&held.row);
                *count = (*count + u64::from(place.is_some())).saturating_sub(u64::from(before.is_some()));
                if !list.is_rows && place != before {
                    if let Some(before) = before {
                        changes.remove_place(V::ROWS, list.name, &before);
                    }
                    if let Some(place) = place {
                        changes.put_place(V::ROWS, list.name, &place, found);
                    }
                }
            }
            let stored = encode(&(held.sequence, &held.row), &mut self.buffer)?;
            changes.put_row(V::ROWS, found, stored);
        }
        for (list, count) in self.lists.iter().zip(&self.counts) {
            changes.put_rows(list.name, *count);
        }
        self.changed = 0;
        Ok(())
    }
}

/// Why the views of a partition stand still.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the views stand still before {}: {}", .0.position, .0.reason)]
pub struct Stopped(pub Undecodable);

/// An event that readers of the live feed may see.
#[derive(Clone, Debug)]
pub struct Visible {
    pub order_id: domain::OrderId,
    pub customer_id: String,
    pub store_id: Option<String>,
    pub entry: orders::Entry,
}

/// All views of one store, being folded.
pub struct Projection {
    store: Store,
    orders: Folder<orders::Orders>,
    views: Vec<Box<dyn Fold>>,
    checkpoints: Vec<Checkpoint>,
    /// The checkpoints that the store has.
    stored: Vec<Checkpoint>,
    /// A commit that is being written while more is folded.
    writing: Option<Writing>,
    stopped: BTreeMap<u16, Stopped>,
    pace: Pace,
}

type Writing = (JoinHandle<Result<(), StoreError>>, Vec<Checkpoint>);

impl Projection {
    /// Goes on where the store stands. `log_created` names, per partition, the log that is to be followed.
    pub fn resume(store: Store, log_created: &[String], pace: Pace) -> Result<Self, StoreError> {
        if store.definition()?.is_none() {
            store.define(&view::definition())?;
        }
        let orders = Folder::default();
        let views = view::all();
        if store.is_unfinished()? {
            store.repair(views.iter().map(AsRef::as_ref).chain([&orders as &dyn Fold]))?;
        }
        let mut checkpoints = Vec::new();
        for (partition, created) in (0..).zip(log_created) {
            let fresh = Checkpoint { sequence: 0, log_created: created.clone() };
            checkpoints.push(store.checkpoint(partition)?.unwrap_or(fresh));
        }
        let (stored, stopped) = (checkpoints.clone(), BTreeMap::new());
        Ok(Self { store, orders, views, checkpoints, stored, writing: None, stopped, pace })
    }

    pub const fn store(&self) -> &Store {
        &self.store
    }

    pub fn checkpoints(&self) -> &[Checkpoint] {
        &self.checkpoints
    }

    /// The checkpoints that the store has by now.
    pub fn stored(&self) -> &[Checkpoint] {
        &self.stored
    }

    /// From here on at another pace.
    pub const fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// Whether a commit is due although more events are waiting.
    pub fn is_commit_due(&self) -> bool {
        self.changed() >= self.pace.commit_rows
    }

    pub const fn stopped(&self) -> &BTreeMap<u16, Stopped> {
        &self.stopped
    }

    /// Folds a batch in memory; answers with what became visible. A partition whose event does not read stands still
    /// from there on: nothing is skipped, and the others go on.
    pub fn fold(&mut self, batch: Batch) -> Result<Vec<Visible>, StoreError> {
        let mut visible = Vec::new();
        for event in batch.events {
            if self.stopped.contains_key(&batch.partition) {
                break;
            }
            match event {
                Ok(stored) => visible.extend(self.note(&stored)?),
                Err(undecodable) => drop(self.stopped.insert(batch.partition, Stopped(undecodable))),
            }
        }
        Ok(visible)
    }

    fn note(&mut self, stored: &Stored) -> Result<Option<Visible>, StoreError> {
        let Position { partition, sequence } = stored.recorded.position;
        let Some(checkpoint) = self.checkpoints.get_mut(usize::from(partition)) else { return Ok(None) };
        if sequence <= checkpoint.sequence {
            return Ok(None);
        }
        let recorded = &stored.recorded;
        tracing::debug!(order_id = %recorded.order_id, position = %recorded.position, event = recorded.event.type_name(), "folded");
        self.orders.note(&self.store, stored)?;
        for view in &mut self.views {
            view.note(&self.store, stored)?;
        }
        checkpoint.sequence = sequence;
        if self.pace.is_ahead {
            return Ok(None);
        }
        let row = self.orders.row(&view::order_key(stored.recorded.order_id));
        Ok(row.filter(|row| row.is_visible()).and_then(|row| {
            Some(Visible {
                order_id: row.order_id,
                customer_id: row.customer_id()?.to_owned(),
                store_id: row.store_id().map(ToOwned::to_owned),
                entry: row.timeline.last()?.clone(),
            })
        }))
    }

    /// Rows changed since the last commit.
    pub fn changed(&self) -> usize {
        self.orders.changed() + self.views.iter().map(|view| view.changed()).sum::<usize>()
    }

    /// Gives up in the middle of a commit, after so many entries, for tests of what comes after.
    #[doc(hidden)]
    pub fn interrupt(&mut self, entries: usize) -> Result<(), StoreError> {
        self.finish()?;
        let mut changes = self.drain()?;
        changes.keep(entries);
        self.store.write_ahead(changes).map(drop)
    }

    fn drain(&mut self) -> Result<Changes, StoreError> {
        let mut changes = Changes::default();
        self.orders.drain(&self.store, &mut changes, self.pace.rows_kept)?;
        for view in &mut self.views {
            view.drain(&self.store, &mut changes, self.pace.rows_kept)?;
        }
        for (partition, checkpoint) in (0..).zip(&self.checkpoints) {
            changes.put_checkpoint(partition, checkpoint)?;
        }
        Ok(changes)
    }

    /// Commits rows and checkpoints: in one atomic batch, or, where nobody reads, the rows first, and while more is
    /// folded. [`Self::finish`] waits for that.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        self.finish()?;
        let changes = self.drain()?;
        if self.pace.is_ahead {
            let store = self.store.clone();
            let writing = std::thread::spawn(move || store.commit_ahead(changes));
            self.writing = Some((writing, self.checkpoints.clone()));
        } else {
            self.store.commit(changes)?;
            self.stored.clone_from(&self.checkpoints);
        }
        Ok(())
    }

    /// Waits until the store has what was committed.
    pub fn finish(&mut self) -> Result<(), StoreError> {
        let Some((writing, checkpoints)) = self.writing.take() else { return Ok(()) };
        writing.join().map_err(|_| StoreError::Writer)??;
        self.stored = checkpoints;
        Ok(())
    }
}
