//! `coupons`: the marketing context's rows.

use domain::{Event, OrderId, Timestamp};
use nats::Stored;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{View, newest_first, order_key};

pub struct Coupons;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    order_id: OrderId,
    coupon_id: String,
    kind: String,
    issued_at: Timestamp,
    canceled_at: Option<Timestamp>,
}

impl View for Coupons {
    const NAME: &'static str = "coupons";
    type Row = Row;

    fn key(event: &Stored) -> Option<Vec<u8>> {
        let is_ours = matches!(event.recorded.event, Event::CouponIssued(_) | Event::CouponCanceled(_));
        is_ours.then(|| order_key(event.recorded.order_id))
    }

    fn apply(row: Option<Row>, event: &Stored) -> Option<Row> {
        let recorded = &event.recorded;
        match &recorded.event {
            Event::CouponIssued(issued) => Some(Row {
                order_id: recorded.order_id,
                coupon_id: issued.coupon_id.clone(),
                kind: issued.kind.clone(),
                issued_at: recorded.time,
                canceled_at: None,
            }),
            Event::CouponCanceled(_) => row.map(|row| Row { canceled_at: Some(recorded.time), ..row }),
            Event::OrderPlaced(_)
            | Event::OrderExpired(_)
            | Event::OrderCancelRequested(_)
            | Event::OrderCanceled(_)
            | Event::PaymentRequested(_)
            | Event::PaymentApproved(_)
            | Event::PaymentDeclined(_)
            | Event::PaymentCanceled(_)
            | Event::DeliveryRequested(_)
            | Event::DeliveryStarted(_)
            | Event::DeliveryCompleted(_)
            | Event::DeliveryCanceled(_)
            | Event::SagaParked(_)
            | Event::SagaResumed(_) => row,
        }
    }

    fn place(row: &Row) -> Option<Vec<u8>> {
        Some(newest_first(row.issued_at, row.order_id))
    }

    fn show(row: &Row) -> Value {
        json!({
            "order_id": row.order_id,
            "coupon_id": row.coupon_id,
            "kind": row.kind,
            "status": if row.canceled_at.is_some() { "canceled" } else { "issued" },
            "used": false,
            "issued_at": row.issued_at,
            "canceled_at": row.canceled_at,
        })
    }
}
