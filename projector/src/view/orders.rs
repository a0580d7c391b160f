//! `orders`: one order, whole, with its timeline.

use domain::{
    Context, Event, Money, OrderId, OrderState, Position, Status, Timestamp,
    coupon::Coupon,
    delivery::Delivery,
    event::{CouponEvent, DeliveryEvent, OrderEvent, OrderPlaced, PaymentEvent, ReviewEvent},
    payment::Payment,
    store::StoreOrder,
};
use nats::Stored;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{View, newest_first, order_key};

pub struct Orders;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub order_id: OrderId,
    pub state: OrderState,
    placed: Option<Placed>,
    method: Option<String>,
    reference: Option<String>,
    amount: Option<Money>,
    returned: Option<Money>,
    coupon_kind: Option<String>,
    coupon_id: Option<String>,
    rider_id: Option<String>,
    review: Option<(u8, String)>,
    /// Every event so far, oldest first.
    pub timeline: Vec<Entry>,
}

/// What the order was placed with, and when.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Placed {
    /// `OrderPlaced` as JSON text: the store's encoding wants fixed shapes.
    order: String,
    customer_id: String,
    channel: domain::order::Channel,
    at: Timestamp,
}

/// One event of an order's story.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    pub position: Position,
    pub time: Timestamp,
    pub context: Context,
    pub event_type: String,
    /// The event's data as JSON text.
    data: String,
    /// The order's status right after it.
    pub status: Status,
}

impl Row {
    /// Whether readers may see the order: it came to stand.
    pub fn is_visible(&self) -> bool {
        self.state.is_visible()
    }

    pub fn customer_id(&self) -> Option<&str> {
        self.placed.as_ref().map(|placed| placed.customer_id.as_str())
    }

    pub fn store_id(&self) -> Option<&str> {
        self.state.brief.as_ref().and_then(|brief| brief.store_id.as_deref())
    }

    pub fn flow(&self) -> Option<&str> {
        self.state.flow.as_ref().map(|flow| flow.name.as_str())
    }

    pub fn channel(&self) -> Option<&'static str> {
        self.placed.as_ref().map(|placed| placed.channel.as_str())
    }

    /// The position of the order's newest event.
    pub fn position(&self) -> Option<Position> {
        self.timeline.last().map(|entry| entry.position)
    }

    fn note(&mut self, event: &Event, data: &str, time: Timestamp) {
        match event {
            Event::Ordering(OrderEvent::OrderPlaced(placed)) => {
                self.placed = Some(Placed {
                    order: data.to_owned(),
                    customer_id: placed.customer.id.clone(),
                    channel: placed.channel,
                    at: time,
                });
            }
            Event::Payment(event) => match event {
                PaymentEvent::PaymentRequested(requested) => {
                    self.amount = Some(requested.amount);
                    self.method = Some(requested.method.clone());
                }
                PaymentEvent::PaymentApproved(approved) => self.reference = Some(approved.reference.clone()),
                PaymentEvent::PaymentDeclined(_) | PaymentEvent::PaymentDeferred(_) => {}
                PaymentEvent::PaymentCanceled(canceled) => self.returned = Some(canceled.returned),
            },
            Event::Marketing(CouponEvent::CouponIssued(issued)) => {
                self.coupon_id = Some(issued.coupon_id.clone());
                self.coupon_kind = Some(issued.kind.clone());
            }
            Event::Delivery(DeliveryEvent::DeliveryPickedUp(picked)) => {
                self.rider_id = Some(picked.rider_id.clone());
            }
            Event::Review(ReviewEvent::ReviewWritten(written)) => {
                self.review = Some((written.rating, written.text.clone()));
            }
            Event::Marketing(CouponEvent::CouponCanceled(_))
            | Event::Ordering(_)
            | Event::Store(_)
            | Event::Delivery(_)
            | Event::Notification(_)
            | Event::Saga(_) => {}
        }
    }
}

impl Entry {
    /// The entry as readers see it.
    pub fn show(&self) -> Value {
        json!({
            "position": self.position.to_string(),
            "time": self.time,
            "context": self.context,
            "type": self.event_type,
            "status": self.status,
            "data": parsed(&self.data),
        })
    }
}

impl View for Orders {
    const NAME: &'static str = "orders";
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
            method: None,
            reference: None,
            amount: None,
            returned: None,
            coupon_kind: None,
            coupon_id: None,
            rider_id: None,
            review: None,
            timeline: Vec::new(),
        });
        let data = String::from_utf8_lossy(&event.data).into_owned();
        row.note(&recorded.event, &data, recorded.time);
        row.state = row.state.evolve(recorded);
        row.timeline.push(Entry {
            position: recorded.position,
            time: recorded.time,
            context: recorded.event.context(),
            event_type: recorded.event.type_name().to_owned(),
            data,
            status: row.state.status(),
        });
        Some(row)
    }

    fn place(row: &Row) -> Option<Vec<u8>> {
        row.placed.as_ref().map(|placed| newest_first(placed.at, row.order_id))
    }

    fn show(row: &Row) -> Value {
        let order = |placed: &Placed| serde_json::from_str::<OrderPlaced>(&placed.order).ok();
        let placed = row.placed.as_ref().and_then(|placed| Some((placed, order(placed)?)));
        let coupon = json!({
            "status": coupon_status(&row.state.coupon),
            "coupon_id": row.coupon_id,
            "kind": row.coupon_kind,
        });
        json!({
            "order_id": row.order_id,
            "flow": row.flow(),
            "flow_version": row.state.flow.as_ref().map(|flow| &flow.version),
            "channel": row.channel(),
            "customer": placed.as_ref().map(|(_, order)| json!({ "id": order.customer.id, "name": order.customer.name })),
            "store_id": placed.as_ref().and_then(|(_, order)| order.store_id.clone()),
            "lines": placed.as_ref().map(|(_, order)| &order.lines),
            "total": placed.as_ref().map(|(_, order)| order.total),
            "address": placed.as_ref().map(|(_, order)| &order.address),
            "delivery_type": placed.as_ref().and_then(|(_, order)| order.delivery_type.clone()),
            "status": row.state.status(),
            "payment": {
                "status": payment_status(row.state.payment),
                "amount": row.amount,
                "method": row.method,
                "reference": row.reference,
                "returned": row.returned,
            },
            "coupon": coupon,
            "store": { "status": store_status(row.state.store) },
            "delivery": { "status": delivery_status(&row.state.delivery), "rider_id": row.rider_id },
            "review": row.review.as_ref().map(|(rating, text)| json!({ "rating": rating, "text": text })),
            "placed_at": placed.as_ref().map(|(placed, _)| placed.at),
            "updated_at": row.timeline.last().map(|entry| entry.time),
            "position": row.position().map(|position| position.to_string()),
            "timeline": row.timeline.iter().map(Entry::show).collect::<Vec<_>>(),
        })
    }
}

fn parsed(data: &str) -> Value {
    serde_json::from_str(data).unwrap_or(Value::Null)
}

/// A payment's state as readers see it.
pub(super) const fn payment_status(payment: Payment) -> &'static str {
    match payment {
        Payment::None => "none",
        Payment::Requested { .. } => "requested",
        Payment::Approved { .. } => "approved",
        Payment::Declined { .. } => "declined",
        Payment::Deferred { .. } => "deferred",
        Payment::Canceled => "canceled",
    }
}

/// A coupon's state as readers see it.
pub(super) const fn coupon_status(coupon: &Coupon) -> &'static str {
    match coupon {
        Coupon::None => "none",
        Coupon::Issued { .. } => "issued",
        Coupon::Canceled => "canceled",
    }
}

/// A store's order as readers see it; one that is halted for a cancel reads as such.
pub const fn store_status(store: StoreOrder) -> &'static str {
    match store {
        StoreOrder::NotReceived | StoreOrder::HaltedUnreceived => "none",
        StoreOrder::Received => "received",
        StoreOrder::Accepted => "accepted",
        StoreOrder::Rejected => "rejected",
        StoreOrder::Preparing => "preparing",
        StoreOrder::Prepared => "prepared",
        StoreOrder::Halted => "halted",
        StoreOrder::Canceled => "canceled",
    }
}

/// A delivery's state as readers see it; one that is halted for a cancel reads as such.
pub(super) const fn delivery_status(delivery: &Delivery) -> &'static str {
    match delivery {
        Delivery::NotRequested | Delivery::HaltedUnrequested => "none",
        Delivery::Requested => "requested",
        Delivery::Listed => "listed",
        Delivery::PickedUp { .. } => "picked_up",
        Delivery::Started => "started",
        Delivery::Completed => "completed",
        Delivery::Returning => "returning",
        Delivery::Returned => "returned",
        Delivery::Halted => "halted",
        Delivery::Canceled => "canceled",
    }
}
