//! `open-deliveries`: what a rider may pick up now.

use domain::{
    Event, OrderId, Timestamp,
    event::{DeliveryEvent, OrderEvent},
    order::Address,
    sight::Sight,
};
use nats::Stored;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Part, newest_first, orders};

pub struct OpenDeliveries;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    order_id: OrderId,
    address: Address,
    delivery_type: Option<String>,
    listed_at: Timestamp,
    is_open: bool,
}

/// A delivery that a rider may pick up.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct OpenDelivery {
    order_id: OrderId,
    address: Address,
    region: Option<String>,
    delivery_type: Option<String>,
    listed_at: Timestamp,
}

impl Row {
    pub fn region(&self) -> Option<&str> {
        self.address.region.as_deref()
    }

    pub fn delivery_type(&self) -> Option<&str> {
        self.delivery_type.as_deref()
    }

    /// The row as a reader of this sight sees it.
    pub fn shown_to(&self, sight: Sight) -> OpenDelivery {
        OpenDelivery {
            order_id: self.order_id,
            address: sight.address(&self.address),
            region: self.address.region.clone(),
            delivery_type: self.delivery_type.clone(),
            listed_at: self.listed_at,
        }
    }
}

impl Part for OpenDeliveries {
    const NAME: &'static str = "open-deliveries";
    const VERSION: u32 = 2;
    type Row = Row;

    fn place(row: &Row) -> Option<Vec<u8>> {
        row.is_open.then(|| newest_first(row.listed_at, row.order_id))
    }

    type Shown = OpenDelivery;

    fn shown(row: &Row) -> OpenDelivery {
        row.shown_to(Sight::WHOLE)
    }

    fn of(order: &orders::Row) -> Option<&Row> {
        order.parts.open_deliveries.as_ref()
    }

    fn concerns(event: &Stored) -> bool {
        match &event.recorded.event {
            Event::Delivery(_) => true,
            // Neither a canceled order nor an expired one is any rider's to pick up.
            Event::Ordering(event) => match event {
                OrderEvent::OrderCancelRequested(_) | OrderEvent::OrderExpired(_) => true,
                OrderEvent::OrderPlaced(_)
                | OrderEvent::OrderRejected(_)
                | OrderEvent::OrderCompleted(_)
                | OrderEvent::OrderCanceled(_)
                | OrderEvent::ReturnRequested(_)
                | OrderEvent::OrderReturned(_) => false,
            },
            Event::Saga(_)
            | Event::Payment(_)
            | Event::Store(_)
            | Event::Marketing(_)
            | Event::Review(_)
            | Event::Notification(_) => false,
        }
    }

    fn apply(row: Option<Row>, event: &Stored) -> Option<Row> {
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
}
