//! One view at work: its rows in memory, what changed of them, and what is to be written.

use std::collections::HashMap;

use nats::Stored;
use serde_json::Value;

use crate::{
    changes::Changes,
    packing::{Packer, decode},
    rows::{Found, Rows},
    store::{Store, StoreError},
    view::{self, Places, View},
};

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
    /// Puts a stored row and its places, as [`Self::drain`] would; answers with the lists that it is in.
    fn restore(
        &self,
        key: &[u8],
        row: Vec<u8>,
        changes: &mut Changes,
    ) -> Result<Vec<&'static str>, StoreError>;
    fn note(&mut self, store: &Store, event: &Stored) -> Result<(), StoreError>;
    fn changed(&self) -> usize;
    fn drain(&mut self, store: &Store, changes: &mut Changes, rows_kept: usize) -> Result<(), StoreError>;
}

/// A row in memory.
struct Held<R> {
    /// `None` only while its first event is folded.
    row: Option<R>,
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
    /// The keys of those that the store does not know as they are now, each once.
    changed: Vec<Vec<u8>>,
    /// Rows in each list; empty: as many as the store says.
    counts: Vec<u64>,
    packer: Packer,
}

impl<V: View> Default for Folder<V> {
    fn default() -> Self {
        let (rows, changed, counts) = (HashMap::new(), Vec::new(), Vec::new());
        Self { lists: V::lists(), rows, changed, counts, packer: Packer::default() }
    }
}

impl<V: View> Folder<V> {
    pub(crate) fn row(&self, key: &[u8]) -> Option<&V::Row> {
        self.rows.get(key).and_then(|held| held.row.as_ref())
    }

    fn note_one(&mut self, store: &Store, event: &Stored, key: &[u8]) -> Result<(), StoreError> {
        let sequence = if V::ROWS.are_shared() { 0 } else { event.recorded.position.sequence };
        let held = if let Some(held) = self.rows.get_mut(key) {
            held
        } else {
            let held = match store.row(V::ROWS, key)? {
                Some(stored) => {
                    let (sequence, row) = decode(&stored)?;
                    Held { row: Some(row), sequence, change: Change::Nothing }
                }
                None => Held { row: None, sequence: 0, change: Change::New },
            };
            self.rows.entry(key.to_vec()).or_insert(held)
        };
        if held.row.is_some() && !V::ROWS.are_shared() && held.sequence >= sequence {
            // Written ahead of the checkpoint, before a crash.
            return Ok(());
        }
        match (&held.row, &held.change) {
            (Some(row), Change::Nothing) => {
                held.change = Change::From(self.lists.iter().map(|list| (list.place)(row)).collect());
                self.changed.push(key.to_vec());
            }
            (None, _) => self.changed.push(key.to_vec()),
            (Some(_), Change::New | Change::From(_)) => {}
        }
        (held.row, held.sequence) = (V::apply(key, held.row.take(), event), sequence);
        if held.row.is_none() {
            self.rows.remove(key);
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

    fn restore(
        &self,
        key: &[u8],
        row: Vec<u8>,
        changes: &mut Changes,
    ) -> Result<Vec<&'static str>, StoreError> {
        let (found, places) = (V::ROWS.found(key), self.places(&row)?);
        changes.put_index(V::ROWS, found);
        let mut lists = Vec::new();
        for (list, place) in self.lists.iter().zip(places) {
            let Some(place) = place else { continue };
            lists.push(list.name);
            if !list.is_rows {
                changes.put_place(V::ROWS, list.name, &place, found);
            }
        }
        changes.put_row(V::ROWS, found, row);
        Ok(lists)
    }

    fn note(&mut self, store: &Store, event: &Stored) -> Result<(), StoreError> {
        for key in V::keys(event) {
            self.note_one(store, event, &key)?;
        }
        Ok(())
    }

    fn changed(&self) -> usize {
        self.changed.len()
    }

    fn drain(&mut self, store: &Store, changes: &mut Changes, rows_kept: usize) -> Result<(), StoreError> {
        if self.rows.len() > rows_kept {
            // The store has these.
            self.rows.retain(|_, held| !matches!(held.change, Change::Nothing));
        }
        if self.changed.is_empty() {
            return Ok(());
        }
        if self.counts.is_empty() {
            self.counts = self.lists.iter().map(|list| store.rows(list.name)).collect::<Result<_, _>>()?;
        }
        for key in self.changed.drain(..) {
            // Where no row came of the event, there is none.
            let Some(Held { row: Some(row), sequence, change }) = self.rows.get_mut(&key) else { continue };
            let found = Found { key: &key, cluster: view::newest_least(V::began(row)) };
            let before = match std::mem::replace(change, Change::Nothing) {
                Change::Nothing => continue,
                Change::From(places) => places,
                Change::New => {
                    changes.put_index(V::ROWS, found);
                    vec![None; self.lists.len()]
                }
            };
            for ((list, count), before) in self.lists.iter().zip(&mut self.counts).zip(before) {
                let place = (list.place)(row);
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
            let stored = self.packer.encode(&(*sequence, &*row))?;
            changes.put_row(V::ROWS, found, stored);
        }
        for (list, count) in self.lists.iter().zip(&self.counts) {
            changes.put_rows(list.name, *count);
        }
        Ok(())
    }
}
