//! `rider-deliveries`: what each rider picked up, newest first.

use domain::{
    Event, OrderId, Timestamp,
    event::{DeliveryEvent, OrderEvent},
};
use nats::Stored;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Part, newest_first, orders, places_of, rider_counts::picked_up_by};

pub struct RiderDeliveries;

/// How a ride ended, as rows keep it.
const COMPLETED: &str = "completed";

/// A delivery that a rider picked up.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RiderDelivery {
    order_id: OrderId,
    rider_id: String,
    status: RideStatus,
    picked_up_at: Timestamp,
    ended_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RideStatus {
    PickedUp,
    Completed,
    Canceled,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    order_id: OrderId,
    pub(super) rider_id: String,
    picked_up_at: Timestamp,
    ended: Option<(String, Timestamp)>,
}

/// How the ride ended, if the event says so.
fn ending(event: &Stored) -> Option<&'static str> {
    match &event.recorded.event {
        Event::Delivery(DeliveryEvent::DeliveryCompleted(_))
        | Event::Ordering(OrderEvent::OrderCompleted(_)) => Some(COMPLETED),
        Event::Delivery(DeliveryEvent::DeliveryCanceled(_)) => Some("canceled"),
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

impl Part for RiderDeliveries {
    const NAME: &'static str = "rider-deliveries";
    type Row = Row;

    fn place(row: &Row) -> Option<Vec<u8>> {
        Some([places_of(&row.rider_id), newest_first(row.picked_up_at, row.order_id)].concat())
    }

    type Shown = RiderDelivery;

    fn shown(row: &Row) -> RiderDelivery {
        RiderDelivery {
            order_id: row.order_id,
            rider_id: row.rider_id.clone(),
            status: match row.ended.as_ref().map(|(how, _)| how.as_str()) {
                None => RideStatus::PickedUp,
                Some(COMPLETED) => RideStatus::Completed,
                Some(_) => RideStatus::Canceled,
            },
            picked_up_at: row.picked_up_at,
            ended_at: row.ended.as_ref().map(|(_, at)| *at),
        }
    }

    fn of(order: &orders::Row) -> Option<&Row> {
        order.parts.rider_deliveries.as_ref()
    }

    fn concerns(event: &Stored) -> bool {
        picked_up_by(event).is_some() || ending(event).is_some()
    }

    fn apply(row: Option<Row>, event: &Stored) -> Option<Row> {
        let recorded = &event.recorded;
        if let Some(rider_id) = picked_up_by(event) {
            let (order_id, rider_id) = (recorded.order_id, rider_id.to_owned());
            return Some(Row { order_id, rider_id, picked_up_at: recorded.time, ended: None });
        }
        let ended = ending(event).map(|how| (how.to_owned(), recorded.time));
        row.map(|row| Row { ended, ..row })
    }
}
