//! `reviews`: what customers wrote, by order, store and item.

use domain::{
    Event, OrderId, Timestamp,
    event::{OrderEvent, ReviewEvent},
};
use nats::Stored;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Part, newest_first, orders};

pub struct Reviews;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    order_id: OrderId,
    customer_id: String,
    store_id: Option<String>,
    item_ids: Vec<String>,
    pub(super) written: Option<(u8, String, Timestamp)>,
}

/// A review as readers see it; of an order without one, the last three are `null`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Review {
    /// `null`, as is whose it is, to readers who may not see the order.
    order_id: Option<OrderId>,
    customer_id: Option<String>,
    store_id: Option<String>,
    item_ids: Vec<String>,
    /// 1 to 5.
    rating: Option<u8>,
    text: Option<String>,
    written_at: Option<Timestamp>,
}

impl Review {
    /// The review, but not whose it is and of which order.
    #[must_use]
    pub fn without_its_writer(self) -> Self {
        Self { order_id: None, customer_id: None, ..self }
    }
}

impl Row {
    pub fn store_id(&self) -> Option<&str> {
        self.store_id.as_deref()
    }

    /// Whether the order had the item.
    pub fn has_item(&self, item_id: &str) -> bool {
        self.item_ids.iter().any(|id| id == item_id)
    }
}

impl Part for Reviews {
    const NAME: &'static str = "reviews";
    type Row = Row;

    fn place(row: &Row) -> Option<Vec<u8>> {
        row.written.as_ref().map(|(_, _, at)| newest_first(*at, row.order_id))
    }

    type Shown = Review;

    fn shown(row: &Row) -> Review {
        let written = row.written.as_ref();
        Review {
            order_id: Some(row.order_id),
            customer_id: Some(row.customer_id.clone()),
            store_id: row.store_id.clone(),
            item_ids: row.item_ids.clone(),
            rating: written.map(|(rating, _, _)| *rating),
            text: written.map(|(_, text, _)| text.clone()),
            written_at: written.map(|(_, _, at)| *at),
        }
    }

    fn of(order: &orders::Row) -> Option<&Row> {
        order.parts.reviews.as_ref()
    }

    fn concerns(event: &Stored) -> bool {
        match &event.recorded.event {
            Event::Review(_) | Event::Ordering(OrderEvent::OrderPlaced(_)) => true,
            Event::Ordering(_)
            | Event::Payment(_)
            | Event::Store(_)
            | Event::Marketing(_)
            | Event::Delivery(_)
            | Event::Notification(_)
            | Event::Saga(_) => false,
        }
    }

    fn apply(row: Option<Row>, event: &Stored) -> Option<Row> {
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
}
