//! `mypage`: a customer's orders, newest first, with order and delivery status.

use serde_json::{Value, json};

use crate::rows::Rows;

use super::{
    List, newest_first,
    orders::{self, Orders, coupon_status, delivery_status, payment_status},
    places_of,
};

pub struct MyPage;

impl List for MyPage {
    const NAME: &'static str = "mypage";
    const ROWS: Rows = Orders::ROWS;
    type Row = orders::Row;

    fn place(row: &orders::Row) -> Option<Vec<u8>> {
        Some([places_of(row.customer_id()?), newest_first(row.placed_at()?, row.order_id)].concat())
    }

    fn show(row: &orders::Row) -> Value {
        let order = row.order();
        let lines = order.as_ref().map(|order| &order.lines);
        json!({
            "order_id": row.order_id,
            "flow": row.flow(),
            "channel": row.channel(),
            "title": lines.and_then(|lines| lines.first()).map(|line| &line.name),
            "lines": lines.map(Vec::len),
            "total": order.as_ref().map(|order| order.total),
            "status": row.state.status(),
            "payment_status": payment_status(row.state.payment),
            "coupon_status": coupon_status(&row.state.coupon),
            "delivery_status": delivery_status(&row.state.delivery),
            "placed_at": row.placed_at(),
            "updated_at": row.updated_at(),
        })
    }
}
