//! Every fact the platform records. One decision is one event is one message in the log.
//!
//! An event's type name and field names are stored for ever: a change of shape is a new schema version, lifted in
//! the codec of the `nats` crate and pinned by a golden file.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Timestamp,
    flow::FlowRef,
    id::{CommandId, EventId, OrderId, Position},
    money::Money,
    notification::{Language, Medium},
    order::{Address, Channel, Customer, Item, Line},
    status::Status,
};

/// A bounded context: who decides about one side of an order, and who may be deployed alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Context {
    Ordering,
    Payment,
    Store,
    Marketing,
    Delivery,
    Review,
    Notification,
    /// The process manager itself; its facts are about what it could not do.
    Saga,
}

impl Context {
    pub const ALL: [Self; 8] = [
        Self::Ordering,
        Self::Payment,
        Self::Store,
        Self::Marketing,
        Self::Delivery,
        Self::Review,
        Self::Notification,
        Self::Saga,
    ];

    /// The context's name in headers, in subjects and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ordering => "ordering",
            Self::Payment => "payment",
            Self::Store => "store",
            Self::Marketing => "marketing",
            Self::Delivery => "delivery",
            Self::Review => "review",
            Self::Notification => "notification",
            Self::Saga => "saga",
        }
    }
}

/// Declares the events once: an enum for each context and one over all, type names, writing and reading by type name.
macro_rules! events {
    ($($(#[$meta:meta])* $context:ident($enum:ident) { $($name:ident),+ $(,)? })+) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Debug, PartialEq)]
            pub enum $enum { $($name($name),)+ }

            $(impl From<$name> for Event {
                fn from(data: $name) -> Self { Self::$context($enum::$name(data)) }
            })+
        )+

        /// One fact of an order, by the context that recorded it.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Event { $($context($enum),)+ }

        impl Event {
            /// Every event type there is.
            pub const TYPES: &'static [&'static str] = &[$($(stringify!($name),)+)+];

            /// The type's name, as the log stores it.
            pub fn type_name(&self) -> &'static str {
                match self { $($(Self::$context($enum::$name(_)) => stringify!($name),)+)+ }
            }

            /// The context that recorded it.
            pub fn context(&self) -> Context {
                match self { $(Self::$context(_) => Context::$context,)+ }
            }

            /// Each type's name, the context that records it, and the JSON Schema of its data.
            pub fn schemas(generator: &mut SchemaGenerator) -> Vec<(&'static str, Context, Schema)> {
                vec![$($((stringify!($name), Context::$context, $name::json_schema(generator)),)+)+]
            }

            /// Writes the event's data, without its type.
            pub fn serialize_data<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self { $($(Self::$context($enum::$name(data)) => data.serialize(serializer),)+)+ }
            }

            /// Reads the data of an event of the named type; `None` if this program knows no such type.
            pub fn deserialize_data<'de, D: Deserializer<'de>>(
                type_name: &str,
                deserializer: D,
            ) -> Option<Result<Self, D::Error>> {
                match type_name {
                    $($(stringify!($name) => Some($name::deserialize(deserializer).map(Self::from)),)+)+
                    _ => None,
                }
            }
        }
    };
}

events! {
    /// Facts of the ordering context.
    #[expect(clippy::large_enum_variant, reason = "orders are placed far more often than anything else happens here")]
    Ordering(OrderEvent) {
        OrderPlaced, OrderExpired, OrderRejected, OrderCompleted, OrderCancelRequested, OrderCanceled, ReturnRequested,
        OrderReturned,
    }
    /// Facts of the payment context.
    Payment(PaymentEvent) { PaymentRequested, PaymentApproved, PaymentDeclined, PaymentDeferred, PaymentCanceled }
    /// Facts of the store context.
    Store(StoreEvent) {
        StoreOrderReceived, StoreOrderAccepted, StoreOrderRejected, PreparationStarted, PreparationFinished,
        StoreOrderCanceled,
    }
    /// Facts of the marketing context.
    Marketing(CouponEvent) { CouponIssued, CouponCanceled }
    /// Facts of the delivery context.
    Delivery(DeliveryEvent) {
        DeliveryRequested, DeliveryListed, DeliveryPickedUp, DeliveryStarted, DeliveryCompleted, DeliveryCanceled,
        ReturnPickupStarted, ReturnPickupCompleted,
    }
    /// Facts of the review context.
    Review(ReviewEvent) { ReviewWritten }
    /// Facts of the notification context.
    Notification(NotificationEvent) { NotificationSent, NotificationFailed }
    /// Facts of the process manager.
    Saga(SagaEvent) { SagaParked, SagaResumed, OrderArchived }
}

/// The order stands: it is complete, and paid if its flow takes the payment with the order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrderPlaced {
    pub flow: FlowRef,
    pub channel: Channel,
    pub customer: Customer,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_id: Option<String>,
    pub lines: Vec<Line>,
    pub total: Money,
    pub address: Address,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_type: Option<String>,
    /// The customer pays in a second step; until then no store hears of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub awaits_payment: bool,
}

/// Nobody carried the order on in time: it is over. Whatever was taken goes back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrderExpired {
    pub reason: String,
}

/// The store will not make it. Whatever was taken goes back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrderRejected {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The customer has what they ordered, and says so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrderCompleted {}

/// The customer wants the order undone, in time. From here no context may carry it past its cancel cut-off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrderCancelRequested {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Everything the order had set in motion is undone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrderCanceled {}

/// The customer wants to give back what was delivered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReturnRequested {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What was delivered is back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrderReturned {}

/// The intent to charge, recorded before the provider is called, so that a lost answer can be asked for again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentRequested {
    pub flow: FlowRef,
    pub customer_id: String,
    pub amount: Money,
    pub method: String,
}

/// The provider took the money.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentApproved {
    pub amount: Money,
    /// The provider's own name for the charge.
    pub reference: String,
}

/// The provider will not take the money.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentDeclined {
    pub reason: String,
}

/// The attempt got no answer, and the provider knows nothing of it: it is given up. Before another is made, it is
/// closed with the provider, so that a charge which is still under way takes nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentDeferred {}

/// What had been taken is back with the customer; `returned` is zero if nothing had been taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentCanceled {
    pub returned: Money,
}

/// The store has the order before it, and knows what to make.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StoreOrderReceived {
    pub store_id: String,
    pub items: Vec<Item>,
}

/// The store will make it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StoreOrderAccepted {}

/// The store will not make it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StoreOrderRejected {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Cooking, or packing, began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PreparationStarted {}

/// Cooked, or packed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PreparationFinished {}

/// The store need not make it any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StoreOrderCanceled {}

/// The customer holds a coupon of this order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CouponIssued {
    pub coupon_id: String,
    pub kind: String,
}

/// The coupon is worth nothing any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CouponCanceled {
    pub coupon_id: String,
}

/// The delivery team knows of the order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeliveryRequested {
    pub address: Address,
}

/// Riders may pick the order up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeliveryListed {
    pub address: Address,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_type: Option<String>,
}

/// One rider took it; the goods left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeliveryPickedUp {
    pub rider_id: String,
}

/// The goods left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeliveryStarted {}

/// The goods arrived.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeliveryCompleted {}

/// The goods stay, or came back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeliveryCanceled {}

/// Somebody fetches what the customer gives back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReturnPickupStarted {}

/// It is back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReturnPickupCompleted {}

/// What the customer thinks of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReviewWritten {
    /// From 1, worst, to 5.
    pub rating: u8,
    pub text: String,
    /// Where and what was ordered, so that ratings can be counted from this fact alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_id: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub item_ids: Vec<String>,
}

/// The customer was told of a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NotificationSent {
    /// The event that made the change.
    pub about: EventId,
    pub status: Status,
    pub medium: Medium,
    pub language: Language,
    pub to: String,
    pub text: String,
    /// The name under which the message left: a mail's `Message-ID`, a webhook's `webhook-id`.
    pub reference: String,
}

/// The customer could not be told of a change, and nobody tries any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NotificationFailed {
    /// The event that made the change.
    pub about: EventId,
    pub status: Status,
    pub medium: Medium,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    pub tries: u32,
    pub reason: String,
}

/// A step of the saga was refused for good; the order waits for an operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SagaParked {
    pub step: String,
    pub code: String,
    pub detail: String,
}

/// An operator lets a parked order go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SagaResumed {}

/// The order is at its end, and its last event is this: from now on its story may move from the log to the archive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrderArchived {}

/// An event with everything the log knows of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    pub order_id: OrderId,
    pub position: Position,
    pub event_id: EventId,
    /// When it was decided.
    pub time: Timestamp,
    /// The command that led to it.
    pub command_id: CommandId,
    /// The fingerprint of the caller's body, if the command came with an idempotency key.
    pub fingerprint: Option<String>,
    pub event: Event,
}
