//! `orders`: one order, whole, with its timeline, and with its part of every list in which it is once.

mod shown;

use std::borrow::Cow;

use domain::{
    Context, Event, OrderId, OrderState, Position, Status, Timestamp,
    access::Parties,
    event::{OrderEvent, OrderPlaced},
    id::PositionText,
    order,
    sight::Sight,
};
use nats::Stored;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

pub use shown::{DeliveryStatus, Order, StoreStatus, TimelineEntry, store_status};
pub(super) use shown::{coupon_status, delivery_status, payment_status};

use crate::{live::Topic, rows::Rows};

use super::{
    List, Part, Places, View,
    coupons::{self, Coupons},
    deliveries::{self, Deliveries},
    listed,
    mypage::MyPage,
    notifications::Notifications,
    open_deliveries::{self, OpenDeliveries},
    order_key,
    payments::{self, Payments},
    reviews::{self, Reviews},
    rider_deliveries::{self, RiderDeliveries},
    sagas::{ParkedSagas, Sagas},
    store_orders::{self, StoreOrders},
};

/// Events that most orders have at least: room is made for so many at once.
const TIMELINE_EVENTS: usize = 8;

pub struct Orders;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub order_id: OrderId,
    // On the heap, as the parts are: rows are moved at each event.
    pub state: Box<OrderState>,
    placed: Option<Placed>,
    pub(super) parts: Box<Parts>,
    /// Every event so far, oldest first.
    pub timeline: Vec<Entry>,
}

/// What the order was placed with, and when.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Placed {
    /// The place of `OrderPlaced` in the timeline.
    entry: usize,
    customer_id: String,
    channel: order::Channel,
    at: Timestamp,
}

/// One event of an order's story.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    pub position: Position,
    pub time: Timestamp,
    pub context: Context,
    pub event_type: Cow<'static, str>,
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

    /// The events that followers of a topic hear of: from the one on by which the order came before them.
    pub fn seen_by(&self, topic: &Topic) -> &[Entry] {
        let first = match topic {
            Topic::Order(_) | Topic::Customer(_) => self.placed.as_ref().map(|placed| placed.entry),
            Topic::Store(_) => self.timeline.iter().position(|entry| entry.context == Context::Store),
        };
        first.and_then(|first| self.timeline.get(first..)).unwrap_or_default()
    }

    /// The store that has the order before it.
    pub fn at_store(&self) -> Option<&str> {
        self.parts.store_orders.as_ref().and_then(|_| self.store_id())
    }

    /// Whose the order is: a store's only once it has it before it.
    pub fn parties(&self) -> Parties {
        Parties {
            customer_id: self.customer_id().map(ToOwned::to_owned),
            store_id: self.at_store().map(ToOwned::to_owned),
            rider_id: self.parts.deliveries.as_ref().and_then(|delivery| delivery.rider_id.clone()),
            is_open: <OpenDeliveries as List>::place(self).is_some(),
            is_with_delivery_team: self.is_with_delivery_team(),
        }
    }

    /// Whether the delivery team delivers it, because it never was for riders, or fetches it back.
    fn is_with_delivery_team(&self) -> bool {
        let is_returned = matches!(self.state.order, order::Order::ReturnRequested | order::Order::Returned);
        is_returned || (self.parts.deliveries.is_some() && self.parts.open_deliveries.is_none())
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

    /// What was ordered, once it was.
    pub fn order(&self) -> Option<OrderPlaced> {
        self.timeline.get(self.placed.as_ref()?.entry)?.read()
    }

    pub fn placed_at(&self) -> Option<Timestamp> {
        self.placed.as_ref().map(|placed| placed.at)
    }

    pub fn began_at(&self) -> Option<Timestamp> {
        self.timeline.first().map(|entry| entry.time)
    }

    pub fn updated_at(&self) -> Option<Timestamp> {
        self.timeline.last().map(|entry| entry.time)
    }
}

/// What the order is in the lists of one context each.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Parts {
    pub(super) coupons: Option<coupons::Row>,
    pub(super) payments: Option<payments::Row>,
    pub(super) deliveries: Option<deliveries::Row>,
    pub(super) store_orders: Option<store_orders::Row>,
    pub(super) open_deliveries: Option<open_deliveries::Row>,
    pub(super) rider_deliveries: Option<rider_deliveries::Row>,
    pub(super) reviews: Option<reviews::Row>,
}

impl Parts {
    fn note(&mut self, event: &Stored) {
        note::<Coupons>(&mut self.coupons, event);
        note::<Payments>(&mut self.payments, event);
        note::<Deliveries>(&mut self.deliveries, event);
        note::<StoreOrders>(&mut self.store_orders, event);
        note::<OpenDeliveries>(&mut self.open_deliveries, event);
        note::<RiderDeliveries>(&mut self.rider_deliveries, event);
        note::<Reviews>(&mut self.reviews, event);
    }
}

fn note<P: Part>(part: &mut Option<P::Row>, event: &Stored) {
    if P::concerns(event) {
        *part = P::apply(part.take(), event);
    }
}

impl Entry {
    /// The event's data, if it is such an event's.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(&self.data).ok()
    }

    /// The entry as a reader sees it; its data is empty where nothing of it is theirs to see.
    pub fn shown_to(&self, sight: Sight) -> TimelineEntry {
        let data = if sight.is_whole() { Some(parsed(&self.data)) } else { self.seen_by(sight) };
        TimelineEntry {
            position: PositionText(self.position),
            time: self.time,
            context: self.context,
            r#type: self.event_type.clone(),
            status: self.status,
            data: data.unwrap_or_else(|| json!({})),
        }
    }

    fn seen_by(&self, sight: Sight) -> Option<Value> {
        let mut data = serde_json::Deserializer::from_str(&self.data);
        // What does not read as its type is not shown in part.
        shown_data(&Event::deserialize_data(&self.event_type, &mut data)?.ok()?, sight)
    }
}

impl List for Orders {
    const NAME: &'static str = "orders";
    const ROWS: Rows = Rows::ByAge(Self::NAME);
    const VERSION: u32 = 2;
    const IS_ROWS: bool = true;
    type Row = Row;

    fn place(row: &Row) -> Option<Vec<u8>> {
        row.placed.as_ref().map(|_| listed())
    }

    type Shown = Order;

    fn shown(row: &Row) -> Order {
        Self::shown_to(row, Sight::WHOLE)
    }
}

impl Orders {
    /// An order's row as a reader of this sight sees it.
    pub fn shown_to(row: &Row, sight: Sight) -> Order {
        shown::order(row, sight)
    }
}

impl View for Orders {
    fn began(row: &Row) -> Timestamp {
        row.began_at().unwrap_or_default()
    }

    fn lists() -> Vec<Places<Row>> {
        vec![
            Places::of::<Self>(),
            Places::of::<MyPage>(),
            Places::of::<Sagas>(),
            Places::of::<ParkedSagas>(),
            Places::of::<Coupons>(),
            Places::of::<Payments>(),
            Places::of::<Deliveries>(),
            Places::of::<StoreOrders>(),
            Places::of::<OpenDeliveries>(),
            Places::of::<RiderDeliveries>(),
            Places::of::<Reviews>(),
            Places::of::<Notifications>(),
        ]
    }

    fn keys(event: &Stored) -> Vec<Vec<u8>> {
        vec![order_key(event.recorded.order_id)]
    }

    fn apply(_: &[u8], row: Option<Row>, event: &Stored) -> Option<Row> {
        let recorded = &event.recorded;
        let mut row = row.unwrap_or_else(|| Row {
            order_id: recorded.order_id,
            state: Box::default(),
            placed: None,
            parts: Box::default(),
            timeline: Vec::with_capacity(TIMELINE_EVENTS),
        });
        // It was read as JSON, so it is text.
        let data = std::str::from_utf8(&event.data).unwrap_or_default().to_owned();
        if let Event::Ordering(OrderEvent::OrderPlaced(placed)) = &recorded.event {
            row.placed = Some(Placed {
                entry: row.timeline.len(),
                customer_id: placed.customer.id.clone(),
                channel: placed.channel,
                at: recorded.time,
            });
        }
        row.parts.note(event);
        *row.state = std::mem::take(&mut *row.state).evolve(recorded);
        row.timeline.push(Entry {
            position: recorded.position,
            time: recorded.time,
            context: recorded.event.context(),
            event_type: recorded.event.type_name().into(),
            data,
            status: row.state.status(),
        });
        Some(row)
    }
}

/// An event's data as a reader of this sight sees it; `None` if nothing of it is theirs to see.
pub fn shown_data(event: &Event, sight: Sight) -> Option<Value> {
    sight.event(event)?.serialize_data(serde_json::value::Serializer).ok()
}

fn parsed(data: &str) -> Value {
    serde_json::from_str(data).unwrap_or(Value::Null)
}
