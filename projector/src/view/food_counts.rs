//! `food-counts`: orders per food, counted once per order line when the store receives the order. A cancellation does
//! not subtract.

use domain::{Event, Position, Timestamp, event::StoreEvent, order::Item};
use nats::Stored;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::rows::Rows;

use super::{List, View, highest_first};

pub struct FoodCounts;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    item_id: String,
    name: String,
    count: u64,
    /// The event that the name is of. Orders of several partitions meet here, and come in any order: the name is the
    /// one of the greatest time and position, whichever of them was folded last.
    #[serde(deserialize_with = "or_unknown")]
    named_by: (Timestamp, Position),
}

/// Rows of the first version end before this field, and are served until they are built again.
#[expect(clippy::unnecessary_wraps, reason = "serde asks for it")]
fn or_unknown<'de, D: Deserializer<'de>>(bytes: D) -> Result<(Timestamp, Position), D::Error> {
    let unknown = (Timestamp::UNIX_EPOCH, Position { partition: 0, sequence: 0 });
    Ok(Deserialize::deserialize(bytes).unwrap_or(unknown))
}

/// How often an item was ordered.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ItemCount {
    pub item_id: String,
    /// As it was ordered last; `null` if it never was.
    pub name: Option<String>,
    pub count: u64,
}

fn received(event: &Stored) -> &[Item] {
    match &event.recorded.event {
        Event::Store(StoreEvent::StoreOrderReceived(received)) => &received.items,
        Event::Store(_)
        | Event::Ordering(_)
        | Event::Payment(_)
        | Event::Marketing(_)
        | Event::Delivery(_)
        | Event::Review(_)
        | Event::Notification(_)
        | Event::Saga(_) => &[],
    }
}

impl List for FoodCounts {
    const NAME: &'static str = "food-counts";
    const ROWS: Rows = Rows::Shared(Self::NAME);
    const VERSION: u32 = 2;
    type Row = Row;

    fn place(row: &Row) -> Option<Vec<u8>> {
        Some(highest_first(row.count, &row.item_id))
    }

    type Shown = ItemCount;

    fn shown(row: &Row) -> ItemCount {
        ItemCount { item_id: row.item_id.clone(), name: Some(row.name.clone()), count: row.count }
    }
}

impl View for FoodCounts {
    fn keys(event: &Stored) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> =
            received(event).iter().map(|item| item.item_id.as_bytes().to_vec()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    fn apply(key: &[u8], row: Option<Row>, event: &Stored) -> Option<Row> {
        let by = (event.recorded.time, event.recorded.position);
        let lines = received(event).iter().filter(|item| item.item_id.as_bytes() == key);
        lines.fold(row, |row, item| {
            Some(match row {
                Some(row) if row.named_by > by => Row { count: row.count + 1, ..row },
                row => Row {
                    item_id: item.item_id.clone(),
                    name: item.name.clone(),
                    count: row.map_or(0, |row| row.count) + 1,
                    named_by: by,
                },
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_the_first_version_reads() {
        #[derive(Serialize)]
        struct First {
            item_id: &'static str,
            name: &'static str,
            count: u64,
        }
        let first = First { item_id: "42", name: "bibimbap", count: 300 };
        let bytes = postcard::to_stdvec(&first).expect("it is written");
        let row: Row = postcard::from_bytes(&bytes).expect("it reads");
        assert_eq!((&*row.item_id, &*row.name, row.count), ("42", "bibimbap", 300));
        let again: Row =
            postcard::from_bytes(&postcard::to_stdvec(&row).expect("it is written")).expect("it reads");
        assert_eq!(again.named_by, row.named_by);
    }
}
