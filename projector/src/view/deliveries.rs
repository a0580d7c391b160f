//! `deliveries`: the delivery context's rows.

use domain::{Event, OrderId, Timestamp, event::DeliveryEvent, order::Address};
use nats::Stored;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Part, listed, orders};

pub struct Deliveries;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    order_id: OrderId,
    address: Address,
    delivery_type: Option<String>,
    pub(super) rider_id: Option<String>,
    requested_at: Timestamp,
    started_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
    canceled_at: Option<Timestamp>,
    return_started_at: Option<Timestamp>,
    returned_at: Option<Timestamp>,
}

impl Part for Deliveries {
    const NAME: &'static str = "deliveries";
    const IS_ROWS: bool = true;
    type Row = Row;

    fn place(_: &Row) -> Option<Vec<u8>> {
        Some(listed())
    }

    fn show(row: &Row) -> Value {
        let latest = [
            ("canceled", row.canceled_at),
            ("returned", row.returned_at),
            ("returning", row.return_started_at),
            ("completed", row.completed_at),
            ("started", row.started_at),
        ];
        let status = latest.iter().find(|(_, at)| at.is_some()).map_or("requested", |(status, _)| status);
        json!({
            "order_id": row.order_id,
            "address": row.address,
            "status": status,
            "delivery_type": row.delivery_type,
            "rider_id": row.rider_id,
            "requested_at": row.requested_at,
            "started_at": row.started_at,
            "completed_at": row.completed_at,
            "canceled_at": row.canceled_at,
            "return_started_at": row.return_started_at,
            "returned_at": row.returned_at,
        })
    }

    fn of(order: &orders::Row) -> Option<&Row> {
        order.parts.deliveries.as_ref()
    }

    fn concerns(event: &Stored) -> bool {
        event.recorded.event.context() == domain::Context::Delivery
    }

    fn apply(row: Option<Row>, event: &Stored) -> Option<Row> {
        let recorded = &event.recorded;
        let at = Some(recorded.time);
        let Event::Delivery(event) = &recorded.event else { return row };
        match event {
            DeliveryEvent::DeliveryRequested(requested) => Some(Row {
                order_id: recorded.order_id,
                address: requested.address.clone(),
                delivery_type: None,
                rider_id: None,
                requested_at: recorded.time,
                started_at: None,
                completed_at: None,
                canceled_at: None,
                return_started_at: None,
                returned_at: None,
            }),
            DeliveryEvent::DeliveryListed(listed) => Some(Row {
                order_id: recorded.order_id,
                address: listed.address.clone(),
                delivery_type: listed.delivery_type.clone(),
                rider_id: None,
                requested_at: recorded.time,
                started_at: None,
                completed_at: None,
                canceled_at: None,
                return_started_at: None,
                returned_at: None,
            }),
            DeliveryEvent::DeliveryPickedUp(picked) => {
                row.map(|row| Row { started_at: at, rider_id: Some(picked.rider_id.clone()), ..row })
            }
            DeliveryEvent::DeliveryStarted(_) => row.map(|row| Row { started_at: at, ..row }),
            DeliveryEvent::DeliveryCompleted(_) => row.map(|row| Row { completed_at: at, ..row }),
            DeliveryEvent::ReturnPickupStarted(_) => row.map(|row| Row { return_started_at: at, ..row }),
            DeliveryEvent::ReturnPickupCompleted(_) => row.map(|row| Row { returned_at: at, ..row }),
            DeliveryEvent::DeliveryCanceled(_) => row.map(|row| Row { canceled_at: at, ..row }),
        }
    }
}
