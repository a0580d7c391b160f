//! `rider-counts`: deliveries per rider, counted when the rider picks the order up. A cancellation does not subtract.

use domain::{Event, event::DeliveryEvent};
use nats::Stored;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rows::Rows;

use super::{List, View, highest_first};

pub struct RiderCounts;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    rider_id: String,
    pub count: u64,
}

/// How often a rider delivered.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RiderCount {
    rider_id: String,
    count: u64,
}

/// The rider who picked the order up, if the event says so.
pub(super) fn picked_up_by(event: &Stored) -> Option<&str> {
    match &event.recorded.event {
        Event::Delivery(DeliveryEvent::DeliveryPickedUp(picked)) => Some(&picked.rider_id),
        Event::Delivery(_)
        | Event::Ordering(_)
        | Event::Payment(_)
        | Event::Store(_)
        | Event::Marketing(_)
        | Event::Review(_)
        | Event::Notification(_)
        | Event::Saga(_) => None,
    }
}

impl List for RiderCounts {
    const NAME: &'static str = "rider-counts";
    const ROWS: Rows = Rows::Shared(Self::NAME);
    type Row = Row;

    fn place(row: &Row) -> Option<Vec<u8>> {
        Some(highest_first(row.count, &row.rider_id))
    }

    type Shown = RiderCount;

    fn shown(row: &Row) -> RiderCount {
        RiderCount { rider_id: row.rider_id.clone(), count: row.count }
    }
}

impl View for RiderCounts {
    fn keys(event: &Stored) -> Vec<Vec<u8>> {
        picked_up_by(event).map(|rider_id| rider_id.as_bytes().to_vec()).into_iter().collect()
    }

    fn apply(_: &[u8], row: Option<Row>, event: &Stored) -> Option<Row> {
        let rider_id = picked_up_by(event)?.to_owned();
        Some(Row { rider_id, count: row.map_or(0, |row| row.count) + 1 })
    }
}
