//! `coupons`: the marketing context's rows.

use domain::{Context, Event, OrderId, Timestamp, event::CouponEvent};
use nats::Stored;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Part, listed, orders};

pub struct Coupons;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    order_id: OrderId,
    pub(super) coupon_id: String,
    pub(super) kind: String,
    issued_at: Timestamp,
    canceled_at: Option<Timestamp>,
}

/// A coupon as readers see it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "these names are API")]
pub struct Coupon {
    order_id: OrderId,
    coupon_id: String,
    kind: String,
    status: CouponStatus,
    used: bool,
    issued_at: Timestamp,
    canceled_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CouponStatus {
    /// None was issued for the order.
    None,
    Issued,
    Canceled,
}

impl Part for Coupons {
    const NAME: &'static str = "coupons";
    const IS_ROWS: bool = true;
    type Row = Row;

    fn place(_: &Row) -> Option<Vec<u8>> {
        Some(listed())
    }

    type Shown = Coupon;

    fn shown(row: &Row) -> Coupon {
        Coupon {
            order_id: row.order_id,
            coupon_id: row.coupon_id.clone(),
            kind: row.kind.clone(),
            status: if row.canceled_at.is_some() { CouponStatus::Canceled } else { CouponStatus::Issued },
            used: false,
            issued_at: row.issued_at,
            canceled_at: row.canceled_at,
        }
    }

    fn of(order: &orders::Row) -> Option<&Row> {
        order.parts.coupons.as_ref()
    }

    fn concerns(event: &Stored) -> bool {
        event.recorded.event.context() == Context::Marketing
    }

    fn apply(row: Option<Row>, event: &Stored) -> Option<Row> {
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
}
