//! What queries answer with, beyond the rows of views: the contract is made of these types.

use domain::{
    Context, Flow, OrderId, Timestamp,
    id::{CommandId, EventId, PositionText},
};
use projector::view::{
    mypage::OrderSummary, orders::Order, orders::TimelineEntry, ratings::Rating, reviews::Review,
    rider_deliveries::RiderDelivery, store_orders::StoreOrder,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// One page of a list.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "{T}Page")]
pub struct Page<T> {
    pub items: Vec<T>,
    /// `cursor` of the next page; `null` at the end.
    pub next_cursor: Option<String>,
}

/// What a rider picked up.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RiderDeliveries {
    pub items: Vec<RiderDelivery>,
    /// `cursor` of the next page; `null` at the end.
    pub next_cursor: Option<String>,
    pub rider_id: String,
    /// Of all pages.
    pub count: u64,
}

/// What customers think of it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Reviews {
    pub items: Vec<Review>,
    /// `cursor` of the next page; `null` at the end.
    pub next_cursor: Option<String>,
    /// Of the store that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_rating: Option<Rating>,
    /// Of the item that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item_rating: Option<Rating>,
}

/// One event of an order, as the log has it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StoredEvent {
    pub position: PositionText,
    pub event_id: EventId,
    /// The event's type; `/asyncapi.json` has the schema of its data.
    pub r#type: &'static str,
    pub context: Context,
    pub time: Timestamp,
    pub command_id: CommandId,
    /// The event in answer to which the saga gave the command.
    pub causation_id: Option<EventId>,
    /// The W3C trace context that it was recorded in.
    pub traceparent: Option<String>,
    #[schemars(extend("type" = "object"))]
    pub data: Value,
}

/// How an order travels.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DeclaredFlow")]
pub struct DeclaredFlow {
    pub name: String,
    /// A hash of the declaration.
    pub version: String,
    pub flow: Flow,
    /// A state diagram, in the Mermaid language.
    pub diagram: String,
}

/// One view of a node.
#[derive(Debug, Serialize, JsonSchema)]
pub struct View {
    pub name: &'static str,
    pub rows: u64,
    #[serde(flatten)]
    pub store: SharedStore,
}

/// What all views of a node share, because they share a store.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SharedStore {
    pub generation: u32,
    pub partitions: Vec<PartitionLag>,
    /// Whether the views have reached the end that the log had at the start.
    pub caught_up: bool,
    /// Why folding stopped, if it did.
    pub stopped: Option<String>,
    /// Orders that are not folded any further, because an event of theirs does not read.
    pub set_aside: Vec<OrderSetAside>,
    /// Messages of the log that are no order's, and were passed over.
    pub quarantined: Quarantined,
    pub store_bytes: u64,
}

/// Messages that are no order's.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Quarantined {
    /// How many there are.
    pub messages: u64,
    /// The first of them.
    pub first: Vec<QuarantinedMessage>,
}

/// A message that is no order's.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct QuarantinedMessage {
    pub subject: String,
    pub position: PositionText,
    pub reason: String,
}

/// How far a partition is folded.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PartitionLag {
    pub position: PositionText,
    /// Events that are in the log and not in the views; `null` if the log did not answer.
    pub lag_events: Option<u64>,
}

/// An order that is not folded any further.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct OrderSetAside {
    pub order_id: OrderId,
    /// Of the event that does not read.
    pub position: PositionText,
    pub reason: String,
}

/// A change of an order, as live streams tell it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct OrderChange {
    #[serde(flatten)]
    pub entry: TimelineEntry,
    pub order_id: OrderId,
}

/// The stream ends here, because its reader was too slow.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Dropped {
    pub reason: &'static str,
    /// Changes that were not told.
    pub missed: u64,
    /// For `Last-Event-ID`.
    pub resume_from: String,
}

/// The stream ends here, because its reader may not read it any more.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Ended {
    #[schemars(extend("enum" = ["not_permitted", "token_expired"]))]
    pub reason: &'static str,
    pub detail: &'static str,
    /// For `Last-Event-ID`.
    pub resume_from: String,
}

/// What a live list begins with.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "{T}Snapshot")]
pub struct Snapshot<T> {
    pub items: Vec<T>,
}

/// One event of a live stream; its `id` is for `Last-Event-ID`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
#[schemars(rename = "{T}Event")]
pub enum LiveEvent<T> {
    /// How it is now.
    Snapshot { id: String, data: T },
    /// What came since.
    Change { id: String, data: OrderChange },
    /// The reader was too slow: come back with what it has.
    Dropped { data: Dropped },
    /// It is not the reader's to see any more.
    Ended { data: Ended },
}

/// One event of a rebuild's progress.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ProgressEvent {
    #[schemars(extend("const" = "progress"))]
    pub event: &'static str,
    pub data: projector::job::Status,
}

/// The live streams, by what they begin with.
pub type OrderEvent = LiveEvent<Order>;
pub type CustomerEvent = LiveEvent<Snapshot<OrderSummary>>;
pub type StoreEvent = LiveEvent<Snapshot<StoreOrder>>;
