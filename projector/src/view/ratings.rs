//! `ratings`: how many reviews each store and each item has, and their average. A review counts once, for its store
//! and for each item of its order.

use domain::{
    Event,
    event::{ReviewEvent, ReviewWritten},
};
use nats::Stored;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rows::Rows;

use super::{List, View, places_of};

pub struct Ratings;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    key: Vec<u8>,
    count: u64,
    /// Of all ratings.
    sum: u64,
}

/// How many reviews there are, and what they come to.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Rating {
    count: u64,
    /// With two decimals; `null` if there is none.
    average: Option<f64>,
}

/// The key of a store's row.
pub fn store_key(store_id: &str) -> Vec<u8> {
    [places_of("store"), store_id.as_bytes().to_vec()].concat()
}

/// The key of an item's row.
pub fn item_key(item_id: &str) -> Vec<u8> {
    [places_of("item"), item_id.as_bytes().to_vec()].concat()
}

fn written(event: &Stored) -> Option<&ReviewWritten> {
    let Event::Review(ReviewEvent::ReviewWritten(written)) = &event.recorded.event else { return None };
    Some(written)
}

impl List for Ratings {
    const NAME: &'static str = "ratings";
    const ROWS: Rows = Rows::Shared(Self::NAME);
    type Row = Row;

    fn place(row: &Row) -> Option<Vec<u8>> {
        Some(row.key.clone())
    }

    type Shown = Rating;

    fn shown(row: &Row) -> Rating {
        Rating { count: row.count, average: average(row) }
    }
}

impl View for Ratings {
    fn keys(event: &Stored) -> Vec<Vec<u8>> {
        let Some(written) = written(event) else { return Vec::new() };
        let store = written.store_id.iter().map(|id| store_key(id));
        let mut keys: Vec<Vec<u8>> = store.chain(written.item_ids.iter().map(|id| item_key(id))).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    fn apply(key: &[u8], row: Option<Row>, event: &Stored) -> Option<Row> {
        let Some(written) = written(event) else { return row };
        let before = row.unwrap_or_default();
        let (count, sum) = (before.count + 1, before.sum + u64::from(written.rating));
        Some(Row { key: key.to_vec(), count, sum })
    }
}

/// With two decimals, as people compare them.
#[expect(clippy::cast_precision_loss, reason = "an average of numbers from 1 to 5, shown with two decimals")]
fn average(row: &Row) -> Option<f64> {
    (row.count > 0).then(|| (row.sum as f64 * 100.0 / row.count as f64).round() / 100.0)
}
