//! How rows lie in the store: the shape of its keys.
//!
//! Keys begin with the view's name: `<view> 0 'r' <row key>` holds a row ([`Rows`] says how they lie), `<view> 0 'k'
//! <key>` where one that lies by age lies, `<list> 0 'p' <place>` the row key of the row at a place in a list, `0 'c'
//! <partition>` a checkpoint, `0 'n' <list>` how many rows a list has, `0 'd'` the definition of the views, `0 'q'`
//! what is quarantined, `0 'u'` is there while a commit is unfinished.

use domain::OrderId;

/// What the keys of orders that are set aside begin with.
pub(crate) const ASIDE: &[u8] = b"\0x";
/// What the row keys of rows that lie by age begin with.
pub(crate) const CLUSTER_BYTES: usize = size_of::<u64>();

/// How a view's rows lie in the store, under the view's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// By key. Events of several orders meet in one row.
    Shared(&'static str),
    /// Each is of one order. They lie by age, the newest first, so that those that change lie together; an index has
    /// their keys.
    ByAge(&'static str),
}

/// A row's key, and the number that [`Rows::ByAge`] goes by.
#[derive(Clone, Copy)]
pub(crate) struct Found<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) cluster: u64,
}

impl Rows {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shared(name) | Self::ByAge(name) => name,
        }
    }

    pub(crate) const fn are_shared(self) -> bool {
        matches!(self, Self::Shared(_))
    }

    /// A row key, taken apart.
    pub(crate) fn found(self, row_key: &[u8]) -> Found<'_> {
        match self {
            Self::Shared(_) => Found { key: row_key, cluster: 0 },
            Self::ByAge(_) => match row_key.split_first_chunk() {
                Some((cluster, key)) => Found { key, cluster: u64::from_be_bytes(*cluster) },
                None => Found { key: row_key, cluster: 0 },
            },
        }
    }

    pub(crate) fn key(self, found: Found<'_>) -> Vec<u8> {
        match self {
            Self::Shared(name) => row_key(name, found.key),
            Self::ByAge(name) => [name.as_bytes(), b"\0r", &found.cluster.to_be_bytes(), found.key].concat(),
        }
    }
}

/// The view and the row key that a key of [`Store::contents`] stands for; `None` if it stands for no row.
pub(crate) fn row_of(key: &[u8]) -> Option<(&str, &[u8])> {
    let end = key.iter().position(|byte| *byte == 0)?;
    let view = std::str::from_utf8(&key[..end]).ok()?;
    (key.get(end + 1) == Some(&b'r')).then(|| (view, &key[end + 2..]))
}

/// What all keys of a view's rows, or of a list's places, begin with.
pub(crate) fn prefix(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

pub(crate) fn row_key(view: &str, key: &[u8]) -> Vec<u8> {
    [view.as_bytes(), b"\0r", key].concat()
}

pub(crate) fn index_key(view: &str, key: &[u8]) -> Vec<u8> {
    [view.as_bytes(), b"\0k", key].concat()
}

pub(crate) fn place_key(view: &str, place: &[u8]) -> Vec<u8> {
    [view.as_bytes(), b"\0p", place].concat()
}

pub(crate) fn rows_key(list: &str) -> Vec<u8> {
    [b"\0n", list.as_bytes()].concat()
}

pub(crate) fn checkpoint_key(partition: u16) -> Vec<u8> {
    [b"\0c", &partition.to_be_bytes()[..]].concat()
}

pub(crate) fn aside_key(order_id: OrderId) -> Vec<u8> {
    [ASIDE, order_id.0.as_bytes()].concat()
}
