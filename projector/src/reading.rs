//! Reading the views that serve: a row, a page of a list.

use domain::OrderId;

use crate::{
    node::Views,
    packing,
    store::{Store, StoreError},
    view::{self, List, Part},
};

/// Places of a list that one call looks at, so that a rare filter cannot keep a reader waiting.
pub const SCAN_PLACES_MAX: usize = 5_000;
/// Bytes of the rows of one page, as they are stored; a page has one row at least. Each is told in about four times as
/// many.
pub const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// Some rows of a list, and where the next call goes on.
pub struct Page<L: List> {
    pub rows: Vec<L::Row>,
    pub next: Option<Vec<u8>>,
    /// Rows that were looked at, wanted or not.
    pub looked_at: usize,
}

impl<L: List> Page<L> {
    /// The rows as readers see them.
    pub fn shown(&self) -> Vec<L::Shown> {
        self.rows.iter().map(L::shown).collect()
    }
}

impl Views {
    /// One row.
    pub fn row<L: List>(&self, key: &[u8]) -> Result<Option<L::Row>, StoreError> {
        row::<L>(&self.read(), key)
    }

    /// The rows whose places begin with `prefix`, in order, after the place `after`, that `wanted` holds for.
    pub fn list<L: List>(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        wanted: impl Fn(&L::Row) -> bool,
    ) -> Result<Page<L>, StoreError> {
        self.list_within(prefix, after, (limit, SCAN_PLACES_MAX), wanted)
    }

    /// As [`Self::list`], and looks at so many rows at most.
    pub fn list_within<L: List>(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        (limit, look_at_max): (usize, usize),
        wanted: impl Fn(&L::Row) -> bool,
    ) -> Result<Page<L>, StoreError> {
        let store = self.read();
        let (mut page, mut bytes) = (Page { rows: Vec::new(), next: None, looked_at: 0 }, 0);
        for (looked_at, entry) in
            store.places(L::ROWS, (!L::IS_ROWS).then_some(L::NAME), prefix, after).enumerate()
        {
            let (place, row) = entry?;
            if page.rows.len() == limit || looked_at == look_at_max {
                return Ok(page);
            }
            let row_bytes = row.as_deref().map_or(0, packing::plain_bytes);
            if !page.rows.is_empty() && row_bytes.saturating_add(bytes) > PAGE_BYTES_MAX {
                return Ok(page);
            }
            page.looked_at = looked_at + 1;
            page.next = Some(place);
            if let Some((_, row)) = row.map(|row| packing::decode(&row)).transpose()?
                && L::place(&row).is_some()
                && wanted(&row)
            {
                page.rows.push(row);
                bytes += row_bytes;
            }
        }
        page.next = None;
        Ok(page)
    }

    /// One order's row as readers of a list see it; `None` if it is not in there.
    pub fn show<P: Part>(&self, order_id: OrderId) -> Result<Option<P::Shown>, StoreError> {
        let row = self.row::<P>(&view::order_key(order_id))?;
        Ok(row.as_ref().and_then(P::of).map(P::shown))
    }
}

fn row<L: List>(store: &Store, key: &[u8]) -> Result<Option<L::Row>, StoreError> {
    let bytes = store.row(L::ROWS, key)?;
    Ok(bytes.map(|bytes| packing::decode(&bytes)).transpose()?.map(|(_, row)| row))
}
