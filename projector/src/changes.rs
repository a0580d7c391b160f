//! What a commit changes of a store: rows, their places, and all the rest.

use domain::OrderId;

use crate::{
    fold::SetAside,
    quarantine::Quarantine,
    rows::{Found, Rows, aside_key, checkpoint_key, index_key, place_key, rows_key},
    store::{Checkpoint, DEFINITION_KEY, QUARANTINE_KEY, StoreError},
};

/// A key, and what is to be under it from now on.
pub(crate) type Entry = (Vec<u8>, Option<Vec<u8>>);

/// Changes that take effect together.
///
/// What belongs to one order may be written ahead of the rest: the row says up to which event it is folded, so
/// that event is not folded into it twice.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) rows: Vec<Entry>,
    pub(crate) places: Vec<Entry>,
    pub(crate) rest: sled::Batch,
}

impl Changes {
    pub(crate) fn put_row(&mut self, rows: Rows, found: Found<'_>, row: Vec<u8>) {
        let key = rows.key(found);
        if rows.are_shared() {
            self.rest.insert(key, row);
        } else {
            self.rows.push((key, Some(row)));
        }
    }

    /// How a row is found by its key, where its place in the store does not follow from that.
    pub(crate) fn put_index(&mut self, rows: Rows, found: Found<'_>) {
        if let Rows::ByAge(name) = rows {
            self.places.push((index_key(name, found.key), Some(found.cluster.to_be_bytes().to_vec())));
        }
    }

    pub(crate) fn put_place(&mut self, rows: Rows, list: &str, place: &[u8], found: Found<'_>) {
        let key = place_key(list, place);
        match rows {
            Rows::Shared(_) => self.rest.insert(key, found.key),
            Rows::ByAge(_) => {
                self.places.push((key, Some([&found.cluster.to_be_bytes()[..], found.key].concat())));
            }
        }
    }

    pub(crate) fn remove_place(&mut self, rows: Rows, list: &str, place: &[u8]) {
        let key = place_key(list, place);
        match rows {
            Rows::Shared(_) => self.rest.remove(key),
            Rows::ByAge(_) => self.places.push((key, None)),
        }
    }

    pub(crate) fn put_checkpoint(
        &mut self,
        partition: u16,
        checkpoint: &Checkpoint,
    ) -> Result<(), StoreError> {
        self.rest.insert(checkpoint_key(partition), postcard::to_stdvec(checkpoint)?);
        Ok(())
    }

    /// Whatever it is, with all the rest at the end.
    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.rest.insert(key, value);
    }

    pub(crate) fn put_definition(&mut self, definition: &str) {
        self.rest.insert(DEFINITION_KEY, definition.as_bytes());
    }

    /// Rows that may be written ahead.
    pub(crate) const fn rows_of_orders(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn put_set_aside<'a>(
        &mut self,
        set_aside: impl Iterator<Item = &'a SetAside>,
        mended: &[OrderId],
    ) -> Result<(), StoreError> {
        for aside in set_aside {
            self.rest.insert(aside_key(aside.order_id), postcard::to_stdvec(aside)?);
        }
        for order_id in mended {
            self.rest.remove(aside_key(*order_id));
        }
        Ok(())
    }

    pub(crate) fn put_quarantine(&mut self, quarantine: &Quarantine) -> Result<(), StoreError> {
        self.rest.insert(QUARANTINE_KEY, postcard::to_stdvec(quarantine)?);
        Ok(())
    }

    /// Only the first entries of those that may be written ahead.
    pub(crate) fn keep(&mut self, entries: usize) {
        self.places.truncate(entries);
        self.rows.truncate(entries.saturating_sub(self.places.len()));
    }

    pub(crate) fn put_rows(&mut self, list: &str, rows: u64) {
        self.rest.insert(rows_key(list), &rows.to_be_bytes());
    }
}
