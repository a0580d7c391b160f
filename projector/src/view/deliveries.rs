//! `deliveries`: the delivery context's rows.

use domain::{Event, OrderId, Timestamp, event::DeliveryEvent, order::Address};
use nats::Stored;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// A delivery as readers see it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "these names are API")]
pub struct Delivery {
    order_id: OrderId,
    address: Address,
    status: Progress,
    delivery_type: Option<String>,
    rider_id: Option<String>,
    requested_at: Timestamp,
    started_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
    canceled_at: Option<Timestamp>,
    return_started_at: Option<Timestamp>,
    returned_at: Option<Timestamp>,
}

/// How far a delivery is.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "DeliveryProgress")]
pub enum Progress {
    Requested,
    Started,
    Completed,
    Returning,
    Returned,
    Canceled,
}

impl Part for Deliveries {
    const NAME: &'static str = "deliveries";
    const IS_ROWS: bool = true;
    type Row = Row;

    fn place(_: &Row) -> Option<Vec<u8>> {
        Some(listed())
    }

    type Shown = Delivery;

    fn shown(row: &Row) -> Delivery {
        let latest = [
            (Progress::Canceled, row.canceled_at),
            (Progress::Returned, row.returned_at),
            (Progress::Returning, row.return_started_at),
            (Progress::Completed, row.completed_at),
            (Progress::Started, row.started_at),
        ];
        let status = latest.iter().find(|(_, at)| at.is_some()).map(|(status, _)| *status);
        Delivery {
            order_id: row.order_id,
            address: row.address.clone(),
            status: status.unwrap_or(Progress::Requested),
            delivery_type: row.delivery_type.clone(),
            rider_id: row.rider_id.clone(),
            requested_at: row.requested_at,
            started_at: row.started_at,
            completed_at: row.completed_at,
            canceled_at: row.canceled_at,
            return_started_at: row.return_started_at,
            returned_at: row.returned_at,
        }
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
