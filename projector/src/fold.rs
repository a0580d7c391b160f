//! Events in, changed rows out: one writer folds all views in memory and commits rows and checkpoints together.

use std::collections::{BTreeMap, HashMap};

use domain::Position;
use nats::{Stored, Undecodable, follow::Batch};

use crate::{
    store::{Changes, Checkpoint, Store, StoreError},
    view::{self, View, orders},
};

/// How much is kept in memory, which buys speed.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Rows of one view that stay in memory between commits.
    pub rows_kept: usize,
    /// Changed rows after which a commit is due even if more events are waiting.
    pub commit_rows: usize,
}

impl Pace {
    /// Following the log as it grows.
    pub const LIVE: Self = Self { rows_kept: 5_000, commit_rows: 20_000 };
    /// Reading the whole log: larger, sorted commits. Beyond about so many rows the store copies more than it saves,
    /// and keeps what it copied until the end of the commit.
    pub const BULK: Self = Self { rows_kept: 50_000, commit_rows: 10_000 };
}

/// A view at work, whatever its rows are.
pub(crate) trait Fold: Send {
    fn name(&self) -> &'static str;
    fn version(&self) -> u32;
    fn show(&self, row: &[u8]) -> Option<serde_json::Value>;
    fn note(&mut self, store: &Store, event: &Stored) -> Result<(), StoreError>;
    fn changed(&self) -> usize;
    fn drain(&mut self, store: &Store, changes: &mut Changes, rows_kept: usize) -> Result<(), StoreError>;
}

/// The rows of one view that are in memory.
pub(crate) struct Folder<V: View> {
    rows: HashMap<Vec<u8>, V::Row>,
    /// Changed since the last commit, with the place in the list that the store knows.
    dirty: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Rows that the store does not know yet.
    new: u64,
}

impl<V: View> Default for Folder<V> {
    fn default() -> Self {
        Self { rows: HashMap::new(), dirty: BTreeMap::new(), new: 0 }
    }
}

impl<V: View> Folder<V> {
    fn row(&self, key: &[u8]) -> Option<&V::Row> {
        self.rows.get(key)
    }

    fn note_one(&mut self, store: &Store, event: &Stored, key: Vec<u8>) -> Result<(), StoreError> {
        let before = match self.rows.remove(&key) {
            Some(row) => Some(row),
            None => store.row(V::NAME, &key)?.map(|bytes| postcard::from_bytes(&bytes)).transpose()?,
        };
        let was_there = before.is_some();
        let place_before = before.as_ref().and_then(V::place);
        let Some(row) = V::apply(&key, before, event) else { return Ok(()) };
        self.new += u64::from(!was_there);
        self.dirty.entry(key.clone()).or_insert(place_before);
        self.rows.insert(key, row);
        Ok(())
    }
}

impl<V: View> Fold for Folder<V> {
    fn name(&self) -> &'static str {
        V::NAME
    }

    fn version(&self) -> u32 {
        V::VERSION
    }

    fn show(&self, row: &[u8]) -> Option<serde_json::Value> {
        postcard::from_bytes(row).ok().map(|row| V::show(&row))
    }

    fn note(&mut self, store: &Store, event: &Stored) -> Result<(), StoreError> {
        for key in V::keys(event) {
            self.note_one(store, event, key)?;
        }
        Ok(())
    }

    fn changed(&self) -> usize {
        self.dirty.len()
    }

    fn drain(&mut self, store: &Store, changes: &mut Changes, rows_kept: usize) -> Result<(), StoreError> {
        let new = std::mem::take(&mut self.new);
        if new > 0 {
            changes.put_rows(V::NAME, store.rows(V::NAME)? + new);
        }
        for (key, place_before) in std::mem::take(&mut self.dirty) {
            let Some(row) = self.rows.get(&key) else { continue };
            let place = V::place(row);
            if place != place_before {
                if let Some(before) = place_before {
                    changes.remove_place(V::NAME, &before);
                }
                if let Some(place) = place {
                    changes.put_place(V::NAME, &place, &key);
                }
            }
            changes.put_row(V::NAME, &key, postcard::to_stdvec(row)?);
        }
        if self.rows.len() > rows_kept {
            self.rows.clear();
        }
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
    stopped: BTreeMap<u16, Stopped>,
    pace: Pace,
}

impl Projection {
    /// Goes on where the store stands. `log_created` names, per partition, the log that is to be followed.
    pub fn resume(store: Store, log_created: &[String], pace: Pace) -> Result<Self, StoreError> {
        if store.definition()?.is_none() {
            store.define(&view::definition())?;
        }
        let mut checkpoints = Vec::new();
        for (partition, created) in (0..).zip(log_created) {
            let fresh = Checkpoint { sequence: 0, log_created: created.clone() };
            checkpoints.push(store.checkpoint(partition)?.unwrap_or(fresh));
        }
        let orders = Folder::default();
        Ok(Self { store, orders, views: view::all(), checkpoints, stopped: BTreeMap::new(), pace })
    }

    pub const fn store(&self) -> &Store {
        &self.store
    }

    pub fn checkpoints(&self) -> &[Checkpoint] {
        &self.checkpoints
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

    /// Commits rows and checkpoints in one atomic batch.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        let mut changes = Changes::default();
        self.orders.drain(&self.store, &mut changes, self.pace.rows_kept)?;
        for view in &mut self.views {
            view.drain(&self.store, &mut changes, self.pace.rows_kept)?;
        }
        for (partition, checkpoint) in (0..).zip(&self.checkpoints) {
            changes.put_checkpoint(partition, checkpoint)?;
        }
        self.store.commit(changes)
    }
}
