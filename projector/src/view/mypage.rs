//! `mypage`: a customer's orders, newest first, with order and delivery status.

use domain::{Event, Money, OrderId, OrderState, Timestamp, event::OrderEvent, order::Channel};
use nats::Stored;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    View, newest_first, order_key,
    orders::{coupon_status, delivery_status, payment_status},
    places_of,
};

pub struct MyPage;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    order_id: OrderId,
    state: OrderState,
    placed: Option<Placed>,
    updated_at: Timestamp,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Placed {
    customer_id: String,
    channel: Channel,
    total: Money,
    /// The first line's item, for a glance.
    title: String,
    lines: u32,
    at: Timestamp,
}

impl Row {
    pub const fn order_id(&self) -> OrderId {
        self.order_id
    }
}

impl View for MyPage {
    const NAME: &'static str = "mypage";
    type Row = Row;

    fn keys(event: &Stored) -> Vec<Vec<u8>> {
        vec![order_key(event.recorded.order_id)]
    }

    fn apply(_: &[u8], row: Option<Row>, event: &Stored) -> Option<Row> {
        let recorded = &event.recorded;
        let mut row = row.unwrap_or_else(|| Row {
            order_id: recorded.order_id,
            state: OrderState::default(),
            placed: None,
            updated_at: recorded.time,
        });
        if let Event::Ordering(OrderEvent::OrderPlaced(placed)) = &recorded.event {
            row.placed = Some(Placed {
                customer_id: placed.customer.id.clone(),
                channel: placed.channel,
                total: placed.total,
                title: placed.lines.first().map(|line| line.name.clone()).unwrap_or_default(),
                lines: u32::try_from(placed.lines.len()).unwrap_or(u32::MAX),
                at: recorded.time,
            });
        }
        row.state = row.state.evolve(recorded);
        row.updated_at = recorded.time;
        Some(row)
    }

    fn place(row: &Row) -> Option<Vec<u8>> {
        let placed = row.placed.as_ref()?;
        Some([places_of(&placed.customer_id), newest_first(placed.at, row.order_id)].concat())
    }

    fn show(row: &Row) -> Value {
        let placed = row.placed.as_ref();
        json!({
            "order_id": row.order_id,
            "flow": row.state.flow.as_ref().map(|flow| &flow.name),
            "channel": placed.map(|placed| placed.channel),
            "title": placed.map(|placed| &placed.title),
            "lines": placed.map(|placed| placed.lines),
            "total": placed.map(|placed| placed.total),
            "status": row.state.status(),
            "payment_status": payment_status(row.state.payment),
            "coupon_status": coupon_status(&row.state.coupon),
            "delivery_status": delivery_status(&row.state.delivery),
            "placed_at": placed.map(|placed| placed.at),
            "updated_at": row.updated_at,
        })
    }
}
