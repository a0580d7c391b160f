//! `mypage`: a customer's orders, newest first, with order and delivery status.

use domain::{Money, OrderId, Status, Timestamp, order::Channel};
use schemars::JsonSchema;
use serde::Serialize;

use crate::rows::Rows;

use super::{
    List,
    coupons::CouponStatus,
    newest_first,
    orders::{self, DeliveryStatus, Orders, coupon_status, delivery_status, payment_status},
    payments::PaymentStatus,
    places_of,
};

pub struct MyPage;

/// An order in its customer's list.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct OrderSummary {
    order_id: OrderId,
    #[schemars(with = "String")]
    flow: Option<String>,
    #[schemars(with = "Channel")]
    channel: Option<Channel>,
    /// The name of its first item.
    #[schemars(with = "String")]
    title: Option<String>,
    /// How many lines it has.
    #[schemars(with = "usize")]
    lines: Option<usize>,
    #[schemars(with = "Money")]
    total: Option<Money>,
    status: Status,
    payment_status: PaymentStatus,
    coupon_status: CouponStatus,
    delivery_status: DeliveryStatus,
    #[schemars(with = "Timestamp")]
    placed_at: Option<Timestamp>,
    #[schemars(with = "Timestamp")]
    updated_at: Option<Timestamp>,
}

impl List for MyPage {
    const NAME: &'static str = "mypage";
    const ROWS: Rows = Orders::ROWS;
    type Row = orders::Row;

    fn place(row: &orders::Row) -> Option<Vec<u8>> {
        Some([places_of(row.customer_id()?), newest_first(row.placed_at()?, row.order_id)].concat())
    }

    type Shown = OrderSummary;

    fn shown(row: &orders::Row) -> OrderSummary {
        let order = row.order();
        let lines = order.as_ref().map(|order| &order.lines);
        OrderSummary {
            order_id: row.order_id,
            flow: row.flow().map(ToOwned::to_owned),
            channel: order.as_ref().map(|order| order.channel),
            title: lines.and_then(|lines| lines.first()).map(|line| line.name.clone()),
            lines: lines.map(Vec::len),
            total: order.as_ref().map(|order| order.total),
            status: row.state.status(),
            payment_status: payment_status(row.state.payment),
            coupon_status: coupon_status(&row.state.coupon),
            delivery_status: delivery_status(&row.state.delivery),
            placed_at: row.placed_at(),
            updated_at: row.updated_at(),
        }
    }
}
