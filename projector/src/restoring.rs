//! A store that is filled from a snapshot: rows as they were, places and counts as they follow from them.

use std::collections::BTreeMap;

use crate::{
    changes::Changes,
    folder::Fold,
    quarantine::Quarantine,
    rows::row_of,
    store::{Checkpoint, Haste, Store, StoreError},
    view,
};

/// A store that is being filled from a snapshot. A crash leaves it unfinished, and as good as empty.
pub(crate) struct Restoring<'a> {
    store: &'a Store,
    views: Vec<Box<dyn Fold>>,
    changes: Changes,
    counts: BTreeMap<&'static str, u64>,
    /// What is to be written at the end.
    last: Changes,
}

impl<'a> Restoring<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        let (changes, last, counts) = (Changes::default(), Changes::default(), BTreeMap::new());
        Self { store, views: view::everything(), changes, counts, last }
    }

    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        let of_order = row_of(&key).and_then(|(name, row_key)| {
            let view = self.views.iter().find(|view| view.rows().name() == name)?;
            (!view.rows().are_shared()).then_some((view, row_key))
        });
        let Some((view, row_key)) = of_order else {
            self.last.put(key, value);
            return Ok(());
        };
        for list in view.restore(row_key, value, &mut self.changes)? {
            *self.counts.entry(list).or_default() += 1;
        }
        Ok(())
    }

    /// Rows that are not written yet.
    pub(crate) const fn waiting(&self) -> usize {
        self.changes.rows_of_orders()
    }

    pub(crate) fn write(&mut self) -> Result<(), StoreError> {
        self.store.write_ahead(std::mem::take(&mut self.changes), Haste::Full).map(drop)
    }

    /// Notes what of the log is passed over up to where the snapshot is.
    pub(crate) fn quarantine(&mut self, quarantine: &Quarantine) -> Result<(), StoreError> {
        self.last.put_quarantine(quarantine)
    }

    /// Writes the rest at once; from here on the store is what the snapshot was of.
    pub(crate) fn finish(mut self, definition: &str, from: &[Checkpoint]) -> Result<(), StoreError> {
        self.write()?;
        for (list, count) in self.counts {
            self.last.put_rows(list, count);
        }
        for (partition, checkpoint) in (0..).zip(from) {
            self.last.put_checkpoint(partition, checkpoint)?;
        }
        self.last.put_definition(definition);
        self.store.commit_ahead(self.last, Haste::Full)
    }
}
