//! `store-orders`: a store's orders, by state.

use domain::{Event, OrderId, Timestamp, event::StoreEvent, order::Item, store};
use nats::Stored;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Part, newest_first,
    orders::{self, StoreStatus, store_status},
    places_of,
};

pub struct StoreOrders;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    order_id: OrderId,
    store_id: String,
    items: Vec<Item>,
    state: store::StoreOrder,
    received_at: Timestamp,
    updated_at: Timestamp,
}

/// An order that a store has before it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "StoreOrder")]
pub struct StoreOrder {
    order_id: OrderId,
    store_id: String,
    state: StoreStatus,
    items: Vec<Item>,
    received_at: Timestamp,
    updated_at: Timestamp,
}

impl Row {
    /// The state by which stores ask for their orders.
    pub const fn status(&self) -> &'static str {
        store_status(self.state).as_str()
    }
}

impl Part for StoreOrders {
    const NAME: &'static str = "store-orders";
    type Row = Row;

    fn place(row: &Row) -> Option<Vec<u8>> {
        Some([places_of(&row.store_id), newest_first(row.received_at, row.order_id)].concat())
    }

    type Shown = StoreOrder;

    fn shown(row: &Row) -> StoreOrder {
        StoreOrder {
            order_id: row.order_id,
            store_id: row.store_id.clone(),
            state: store_status(row.state),
            items: row.items.clone(),
            received_at: row.received_at,
            updated_at: row.updated_at,
        }
    }

    fn of(order: &orders::Row) -> Option<&Row> {
        order.parts.store_orders.as_ref()
    }

    fn concerns(event: &Stored) -> bool {
        event.recorded.event.context() == domain::Context::Store
    }

    fn apply(row: Option<Row>, event: &Stored) -> Option<Row> {
        let recorded = &event.recorded;
        let Event::Store(event) = &recorded.event else { return row };
        let row = match event {
            StoreEvent::StoreOrderReceived(received) => Some(Row {
                order_id: recorded.order_id,
                store_id: received.store_id.clone(),
                items: received.items.clone(),
                state: store::StoreOrder::NotReceived,
                received_at: recorded.time,
                updated_at: recorded.time,
            }),
            StoreEvent::StoreOrderAccepted(_)
            | StoreEvent::StoreOrderRejected(_)
            | StoreEvent::PreparationStarted(_)
            | StoreEvent::PreparationFinished(_)
            | StoreEvent::StoreOrderCanceled(_) => row,
        };
        row.map(|row| Row { state: store::evolve(row.state, event), updated_at: recorded.time, ..row })
    }
}
