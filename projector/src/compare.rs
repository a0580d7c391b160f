//! Two generations, row by row.

use std::collections::BTreeSet;

use aws_lc_rs::digest::{Context, SHA256};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    rows::{CLUSTER_BYTES, Rows, row_of},
    store::{Store, StoreError},
    view,
};

/// Differing entries that are looked at again once both generations stand still.
const SUSPECTS_MAX: usize = 100_000;
/// Differences that are told in full.
const TOLD_MAX: usize = 20;

/// What a comparison found.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Comparison {
    /// Rows and list places that were looked at.
    pub entries: u64,
    /// How many of them differ.
    pub differences: u64,
    /// The first of them.
    pub first: Vec<Difference>,
    /// What was proven of each view, if it was; the same program has the same on every node at the same position.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub views: Vec<Sum>,
    /// Where both stood.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
}

/// How much a view has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "ViewSum")]
pub struct Sum {
    pub view: &'static str,
    pub rows: u64,
    /// Of all keys and values in order: SHA-256, in hexadecimal. Lists that are parts of the orders' rows have theirs.
    pub checksum: String,
}

/// What each view has in a store that stands still.
pub fn sums(store: &Store) -> Result<Vec<Sum>, StoreError> {
    let mut sums = Vec::new();
    for (list, rows, is_rows) in view::lists() {
        let mut whole = Context::new(&SHA256);
        let owner = if is_rows { rows.name() } else { list };
        for entry in store.entries_of(owner) {
            let (key, value) = entry?;
            for part in [&key, &value] {
                whole.update(&(part.len() as u64).to_be_bytes());
                whole.update(part);
            }
        }
        let checksum =
            whole.finish().as_ref().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        sums.push(Sum { view: list, rows: store.rows(list)?, checksum });
    }
    Ok(sums)
}

/// One entry on which the generations disagree.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Difference {
    pub view: String,
    /// The row's key: as text where it is one, else in hexadecimal.
    pub key: String,
    /// The fields that differ, each with what the old and the new generation say; `null` for a row that is missing.
    pub fields: Map<String, Value>,
}

/// The keys on which two generations disagree now, while one or both may still move.
pub fn suspects(old: &Store, new: &Store) -> Result<(u64, BTreeSet<Vec<u8>>), StoreError> {
    let (mut old, mut new) = (old.contents(), new.contents());
    let (mut left, mut right) = (old.next().transpose()?, new.next().transpose()?);
    let (mut entries, mut suspects) = (0, BTreeSet::new());
    loop {
        let order = match (&left, &right) {
            (None, None) => return Ok((entries, suspects)),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((left, _)), Some((right, _))) => left.cmp(right),
        };
        entries += 1;
        if order.is_ne() || left != right {
            let one = if order.is_le() { &left } else { &right };
            if let Some((key, _)) = one.as_ref().filter(|_| suspects.len() < SUSPECTS_MAX) {
                suspects.insert(key.to_vec());
            }
        }
        if order.is_le() {
            left = old.next().transpose()?;
        }
        if order.is_ge() {
            right = new.next().transpose()?;
        }
    }
}

/// Looks at the suspects again; both generations stand still, at the same positions.
pub fn settle(
    old: &Store,
    new: &Store,
    entries: u64,
    suspects: &BTreeSet<Vec<u8>>,
) -> Result<Comparison, StoreError> {
    let mut found = Comparison { entries, ..Comparison::default() };
    for key in suspects {
        let (before, after) = (old.content(key)?, new.content(key)?);
        if before == after {
            continue;
        }
        found.differences += 1;
        if found.first.len() < TOLD_MAX {
            found.first.push(tell(key, before.as_deref(), after.as_deref()));
        }
    }
    Ok(found)
}

/// Compares two generations that stand still.
pub fn compare(old: &Store, new: &Store) -> Result<Comparison, StoreError> {
    let (entries, suspects) = suspects(old, new)?;
    settle(old, new, entries, &suspects)
}

fn tell(key: &[u8], old: Option<&[u8]>, new: Option<&[u8]>) -> Difference {
    let Some((view, row)) = row_of(key) else {
        let view = key.split(|byte| *byte == 0).next().unwrap_or_default();
        let place =
            |there: Option<&[u8]>| Value::from(if there.is_some() { "is there" } else { "is not there" });
        let fields =
            Map::from_iter([("place in the list".to_owned(), Value::from(vec![place(old), place(new)]))]);
        return Difference { view: String::from_utf8_lossy(view).into_owned(), key: readable(key), fields };
    };
    let shown =
        |bytes: Option<&[u8]>| bytes.map_or(Value::Null, |bytes| view::show(view, bytes).unwrap_or_default());
    let key = match view::rows(view) {
        Some(Rows::ByAge(_)) => row.get(CLUSTER_BYTES..).unwrap_or(row),
        Some(Rows::Shared(_)) | None => row,
    };
    let mut fields = differing(&shown(old), &shown(new));
    if fields.is_empty() {
        let bytes = |there: Option<&[u8]>| Value::from(there.map_or(0, <[u8]>::len));
        fields.insert("bytes that no reader sees".to_owned(), Value::from(vec![bytes(old), bytes(new)]));
    }
    Difference { view: view.to_owned(), key: readable(key), fields }
}

/// The fields of two objects that differ, each as `[old, new]`.
fn differing(old: &Value, new: &Value) -> Map<String, Value> {
    let pair = |old: &Value, new: &Value| Value::from(vec![old.clone(), new.clone()]);
    let (Some(before), Some(after)) = (old.as_object(), new.as_object()) else {
        return Map::from_iter([("row".to_owned(), pair(old, new))]);
    };
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let field = |object: &Map<String, Value>, name: &String| object.get(name).cloned().unwrap_or_default();
    let differ = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    differ.map(|name| (name.clone(), pair(&field(before, name), &field(after, name)))).collect()
}

fn readable(key: &[u8]) -> String {
    if let Ok(id) = <[u8; 16]>::try_from(key) {
        return uuid::Uuid::from_bytes(id).to_string();
    }
    match std::str::from_utf8(key) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => key.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")),
    }
}
