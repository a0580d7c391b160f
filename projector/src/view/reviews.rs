//! `reviews`: what customers wrote, by order, store and item.

use domain::{
    Event, OrderId, Timestamp,
    event::{OrderEvent, ReviewEvent},
};
use nats::Stored;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{View, newest_first, own_key};

pub struct Reviews;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    order_id: OrderId,
    customer_id: String,
    store_id: Option<String>,
    item_ids: Vec<String>,
    written: Option<(u8, String, Timestamp)>,
}

impl Row {
    pub const fn order_id(&self) -> OrderId {
        self.order_id
    }

    pub fn store_id(&self) -> Option<&str> {
        self.store_id.as_deref()
    }

    /// Whether the order had the item.
    pub fn has_item(&self, item_id: &str) -> bool {
        self.item_ids.iter().any(|id| id == item_id)
    }
}

impl View for Reviews {
    const NAME: &'static str = "reviews";
    type Row = Row;

    fn keys(event: &Stored) -> Vec<Vec<u8>> {
        let is_ours = match &event.recorded.event {
            Event::Review(_) | Event::Ordering(OrderEvent::OrderPlaced(_)) => true,
            Event::Ordering(_)
            | Event::Payment(_)
            | Event::Store(_)
            | Event::Marketing(_)
            | Event::Delivery(_)
            | Event::Notification(_)
            | Event::Saga(_) => false,
        };
        own_key(is_ours, event)
    }

    fn apply(_: &[u8], row: Option<Row>, event: &Stored) -> Option<Row> {
        let recorded = &event.recorded;
        if let Event::Ordering(OrderEvent::OrderPlaced(placed)) = &recorded.event {
            return Some(Row {
                order_id: recorded.order_id,
                customer_id: placed.customer.id.clone(),
                store_id: placed.store_id.clone(),
                item_ids: placed.lines.iter().map(|line| line.item_id.clone()).collect(),
                written: None,
            });
        }
        let Event::Review(ReviewEvent::ReviewWritten(written)) = &recorded.event else { return row };
        let written = Some((written.rating, written.text.clone(), recorded.time));
        row.map(|row| Row { written, ..row })
    }

    fn place(row: &Row) -> Option<Vec<u8>> {
        row.written.as_ref().map(|(_, _, at)| newest_first(*at, row.order_id))
    }

    fn show(row: &Row) -> Value {
        json!({
            "order_id": row.order_id,
            "customer_id": row.customer_id,
            "store_id": row.store_id,
            "item_ids": row.item_ids,
            "rating": row.written.as_ref().map(|(rating, _, _)| rating),
            "text": row.written.as_ref().map(|(_, text, _)| text),
            "written_at": row.written.as_ref().map(|(_, _, at)| at),
        })
    }
}
