//! An order as readers see it, and the words for where each side of it stands.

use std::borrow::Cow;

use domain::{
    Context, Money, OrderId, Status, Timestamp,
    coupon::Coupon,
    delivery::Delivery,
    id::PositionText,
    order::{Address, Channel, Line},
    payment::Payment,
    sight::Sight,
    store::StoreOrder,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::Row;
use crate::view::{
    coupons::CouponStatus,
    payments::{self, PaymentStatus},
};

/// One order, whole. Only orders that were placed are shown: what they were placed with is always there.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "these names are API")]
pub struct Order {
    order_id: OrderId,
    #[schemars(with = "String")]
    flow: Option<String>,
    /// A hash of the flow's declaration.
    #[schemars(with = "String")]
    flow_version: Option<String>,
    #[schemars(with = "Channel")]
    channel: Option<Channel>,
    /// `null` to readers who do not see whose it is.
    customer: Option<OrderCustomer>,
    store_id: Option<String>,
    /// Empty to readers who do not see what was ordered.
    lines: Vec<Line>,
    /// `null` to readers who do not see what was ordered.
    total: Option<Money>,
    #[schemars(with = "Address")]
    address: Option<Address>,
    delivery_type: Option<String>,
    status: Status,
    payment: OrderPayment,
    coupon: OrderCoupon,
    store: OrderStore,
    delivery: OrderDelivery,
    review: Option<OrderReview>,
    #[schemars(with = "Timestamp")]
    placed_at: Option<Timestamp>,
    #[schemars(with = "Timestamp")]
    updated_at: Option<Timestamp>,
    /// Of its newest event: the order's `ETag`.
    #[schemars(with = "PositionText")]
    position: Option<PositionText>,
    /// Every event so far, oldest first.
    timeline: Vec<TimelineEntry>,
}

/// Who ordered.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct OrderCustomer {
    id: String,
    name: String,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct OrderPayment {
    status: PaymentStatus,
    amount: Option<Money>,
    method: Option<String>,
    /// The provider's own name for the charge.
    reference: Option<String>,
    /// What the customer has got back.
    returned: Option<Money>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct OrderCoupon {
    status: CouponStatus,
    coupon_id: Option<String>,
    kind: Option<String>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct OrderStore {
    status: StoreStatus,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct OrderDelivery {
    status: DeliveryStatus,
    rider_id: Option<String>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct OrderReview {
    /// 1 to 5.
    rating: u8,
    text: String,
}

/// One event of an order.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TimelineEntry {
    pub(super) position: PositionText,
    pub(super) time: Timestamp,
    pub(super) context: Context,
    /// The event's type; `/asyncapi.json` has the schema of its data.
    pub(super) r#type: Cow<'static, str>,
    /// The order's status right after it.
    pub(super) status: Status,
    /// The event's data.
    #[schemars(extend("type" = "object"))]
    pub(super) data: Value,
}

/// Where the store's side of an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StoreStatus {
    /// No store has it before it.
    None,
    Received,
    Accepted,
    Rejected,
    Preparing,
    Prepared,
    /// Stopped, because the order is being canceled.
    Halted,
    Canceled,
}

impl StoreStatus {
    /// Every status there is.
    pub const ALL: [Self; 8] = [
        Self::None,
        Self::Received,
        Self::Accepted,
        Self::Rejected,
        Self::Preparing,
        Self::Prepared,
        Self::Halted,
        Self::Canceled,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Received => "received",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Preparing => "preparing",
            Self::Prepared => "prepared",
            Self::Halted => "halted",
            Self::Canceled => "canceled",
        }
    }
}

/// Where the delivery of an order stands.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStatus {
    /// Not asked for yet.
    None,
    Requested,
    /// Open: a rider may pick it up.
    Listed,
    PickedUp,
    Started,
    Completed,
    Returning,
    Returned,
    /// Stopped, because the order is being canceled.
    Halted,
    Canceled,
}

/// An order's row as a reader of this sight sees it.
pub(super) fn order(row: &Row, sight: Sight) -> Order {
    let (placed, parts) = (row.order(), &row.parts);
    let payment = parts.payments.as_ref();
    let (charge, means) = (payment.filter(|_| sight.sees_goods()), payment.filter(|_| sight.sees_payment()));
    let coupon = parts.coupons.as_ref().filter(|_| sight.sees_payment());
    let review = parts.reviews.as_ref().and_then(|review| review.written.as_ref());
    let placed = placed.as_ref();
    let customer = placed.and_then(|order| sight.customer(&order.customer));
    let goods = placed.filter(|_| sight.sees_goods());
    Order {
        order_id: row.order_id,
        flow: row.flow().map(ToOwned::to_owned),
        flow_version: row.state.flow.as_ref().map(|flow| flow.version.clone()),
        channel: placed.map(|order| order.channel),
        customer: customer.map(|customer| OrderCustomer { id: customer.id, name: customer.name }),
        store_id: placed.and_then(|order| order.store_id.clone()),
        lines: goods.map(|order| order.lines.clone()).unwrap_or_default(),
        total: goods.map(|order| order.total),
        address: placed.map(|order| sight.address(&order.address)),
        delivery_type: placed.and_then(|order| order.delivery_type.clone()),
        status: row.state.status(),
        payment: OrderPayment {
            status: payment_status(row.state.payment),
            amount: charge.map(|payment| payment.amount),
            method: means.map(|payment| payment.method.clone()),
            reference: means.and_then(payments::Row::reference).cloned(),
            returned: charge.and_then(payments::Row::returned),
        },
        coupon: OrderCoupon {
            status: coupon_status(&row.state.coupon),
            coupon_id: coupon.map(|coupon| coupon.coupon_id.clone()),
            kind: coupon.map(|coupon| coupon.kind.clone()),
        },
        store: OrderStore { status: store_status(row.state.store) },
        delivery: OrderDelivery {
            status: delivery_status(&row.state.delivery),
            rider_id: parts.rider_deliveries.as_ref().map(|ride| ride.rider_id.clone()),
        },
        review: review.map(|(rating, text, _)| OrderReview { rating: *rating, text: text.clone() }),
        placed_at: row.placed_at(),
        updated_at: row.updated_at(),
        position: row.position().map(PositionText),
        timeline: row.timeline.iter().map(|entry| entry.shown_to(sight)).collect(),
    }
}

/// A payment's state as readers see it.
pub(in crate::view) const fn payment_status(payment: Payment) -> PaymentStatus {
    match payment {
        Payment::None => PaymentStatus::None,
        Payment::Requested { .. } => PaymentStatus::Requested,
        Payment::Approved { .. } => PaymentStatus::Approved,
        Payment::Declined { .. } => PaymentStatus::Declined,
        Payment::Deferred { .. } => PaymentStatus::Deferred,
        Payment::Canceled => PaymentStatus::Canceled,
    }
}

/// A coupon's state as readers see it.
pub(in crate::view) const fn coupon_status(coupon: &Coupon) -> CouponStatus {
    match coupon {
        Coupon::None => CouponStatus::None,
        Coupon::Issued { .. } => CouponStatus::Issued,
        Coupon::Canceled => CouponStatus::Canceled,
    }
}

/// A store's order as readers see it; one that is halted for a cancel reads as such.
pub const fn store_status(store: StoreOrder) -> StoreStatus {
    match store {
        StoreOrder::NotReceived | StoreOrder::HaltedUnreceived => StoreStatus::None,
        StoreOrder::Received => StoreStatus::Received,
        StoreOrder::Accepted => StoreStatus::Accepted,
        StoreOrder::Rejected => StoreStatus::Rejected,
        StoreOrder::Preparing => StoreStatus::Preparing,
        StoreOrder::Prepared => StoreStatus::Prepared,
        StoreOrder::Halted => StoreStatus::Halted,
        StoreOrder::Canceled => StoreStatus::Canceled,
    }
}

/// A delivery's state as readers see it; one that is halted for a cancel reads as such.
pub(in crate::view) const fn delivery_status(delivery: &Delivery) -> DeliveryStatus {
    match delivery {
        Delivery::NotRequested | Delivery::HaltedUnrequested => DeliveryStatus::None,
        Delivery::Requested => DeliveryStatus::Requested,
        Delivery::Listed => DeliveryStatus::Listed,
        Delivery::PickedUp { .. } => DeliveryStatus::PickedUp,
        Delivery::Started => DeliveryStatus::Started,
        Delivery::Completed => DeliveryStatus::Completed,
        Delivery::Returning => DeliveryStatus::Returning,
        Delivery::Returned => DeliveryStatus::Returned,
        Delivery::Halted => DeliveryStatus::Halted,
        Delivery::Canceled => DeliveryStatus::Canceled,
    }
}
