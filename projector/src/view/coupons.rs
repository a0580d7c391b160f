//! `coupons`: the marketing context's rows.

use domain::{Context, Event, OrderId, Timestamp, event::CouponEvent};
use nats::Stored;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{View, newest_first, own_key};

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

    fn keys(event: &Stored) -> Vec<Vec<u8>> {
        let is_ours = event.recorded.event.context() == Context::Marketing;
        own_key(is_ours, event)
    }

    fn apply(_: &[u8], row: Option<Row>, event: &Stored) -> Option<Row> {
        let recorded = &event.recorded;
        let Event::Marketing(event) = &recorded.event else { return row };
        match event {
            CouponEvent::CouponIssued(issued) => Some(Row {
                order_id: recorded.order_id,
                coupon_id: issued.coupon_id.clone(),
                kind: issued.kind.clone(),
                issued_at: recorded.time,
                canceled_at: None,
            }),
            CouponEvent::CouponCanceled(_) => row.map(|row| Row { canceled_at: Some(recorded.time), ..row }),
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
