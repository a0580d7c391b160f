//! `open-deliveries`: what a rider may pick up now.

use domain::{
    Event, OrderId, Timestamp,
    event::{DeliveryEvent, OrderEvent},
    order::Address,
};
use nats::Stored;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{View, newest_first, own_key};

pub struct OpenDeliveries;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    order_id: OrderId,
    address: Address,
    delivery_type: Option<String>,
    listed_at: Timestamp,
    is_open: bool,
}

impl Row {
    pub fn region(&self) -> Option<&str> {
        self.address.region.as_deref()
    }

    pub fn delivery_type(&self) -> Option<&str> {
        self.delivery_type.as_deref()
    }
}

impl View for OpenDeliveries {
    const NAME: &'static str = "open-deliveries";
    type Row = Row;

    fn keys(event: &Stored) -> Vec<Vec<u8>> {
        let is_ours = match &event.recorded.event {
            Event::Delivery(_) | Event::Ordering(OrderEvent::OrderCancelRequested(_)) => true,
            Event::Ordering(_)
            | Event::Payment(_)
            | Event::Store(_)
            | Event::Marketing(_)
            | Event::Review(_)
            | Event::Notification(_)
            | Event::Saga(_) => false,
        };
        own_key(is_ours, event)
    }

    fn apply(_: &[u8], row: Option<Row>, event: &Stored) -> Option<Row> {
        let recorded = &event.recorded;
        if let Event::Delivery(DeliveryEvent::DeliveryListed(listed)) = &recorded.event {
            return Some(Row {
                order_id: recorded.order_id,
                address: listed.address.clone(),
                delivery_type: listed.delivery_type.clone(),
                listed_at: recorded.time,
                is_open: true,
            });
        }
        row.map(|row| Row { is_open: false, ..row })
    }

    fn place(row: &Row) -> Option<Vec<u8>> {
        row.is_open.then(|| newest_first(row.listed_at, row.order_id))
    }

    fn show(row: &Row) -> Value {
        json!({
            "order_id": row.order_id,
            "address": row.address,
            "region": row.address.region,
            "delivery_type": row.delivery_type,
            "listed_at": row.listed_at,
        })
    }
}
