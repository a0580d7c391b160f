//! Intents, by context, and the ways to refuse them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    coupon::CouponCommand,
    delivery::DeliveryCommand,
    event::{Context, PaymentRequested},
    flow::FlowRef,
    notification::NotificationCommand,
    order::OrderCommand,
    payment::PaymentCommand,
    review::ReviewCommand,
    store::StoreCommand,
};

/// An intent for one context of one order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    Ordering(OrderCommand),
    Payment(PaymentCommand),
    /// The payment context records the intent, asks the provider to charge, and records the outcome. The token is
    /// for the provider alone and is never stored.
    ChargePayment {
        request: Box<PaymentRequested>,
        token: String,
    },
    /// The payment context asks the provider what became of an attempt that got no answer, and records that.
    SettlePayment,
    /// The payment context asks the provider to give back what it took, then records that.
    ReturnPayment,
    Store(StoreCommand),
    Marketing(CouponCommand),
    Delivery(DeliveryCommand),
    Review(ReviewCommand),
    Notification(NotificationCommand),
    Saga(SagaCommand),
}

/// What the process manager, or an operator, records about an order that cannot go on, or needs not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SagaCommand {
    Park { step: String, code: String, detail: String },
    Resume,
    Archive,
}

impl Command {
    /// Who decides about it.
    pub fn context(&self) -> Context {
        match self {
            Self::Ordering(_) => Context::Ordering,
            Self::Payment(_) | Self::ChargePayment { .. } | Self::SettlePayment | Self::ReturnPayment => {
                Context::Payment
            }
            Self::Store(_) => Context::Store,
            Self::Marketing(_) => Context::Marketing,
            Self::Delivery(_) => Context::Delivery,
            Self::Review(_) => Context::Review,
            Self::Notification(_) => Context::Notification,
            Self::Saga(_) => Context::Saga,
        }
    }

    /// The flow that a first command brings to an order.
    pub fn names_flow(&self) -> Option<&FlowRef> {
        match self {
            Self::Ordering(OrderCommand::Place(placed)) => Some(&placed.flow),
            Self::Payment(PaymentCommand::Request(request)) => Some(&request.flow),
            Self::Ordering(_)
            | Self::Payment(_)
            | Self::ChargePayment { .. }
            | Self::SettlePayment
            | Self::ReturnPayment
            | Self::Store(_)
            | Self::Review(_)
            | Self::Notification(_)
            | Self::Marketing(_)
            | Self::Delivery(_)
            | Self::Saga(_) => None,
        }
    }

    /// Whether it brings an order to its end, so that it is taken of one that takes nothing else any more.
    pub const fn ends_order(&self) -> bool {
        match self {
            Self::Ordering(OrderCommand::RequestCancel { .. }) | Self::Saga(SagaCommand::Archive) => true,
            Self::Ordering(_)
            | Self::Payment(_)
            | Self::ChargePayment { .. }
            | Self::SettlePayment
            | Self::ReturnPayment
            | Self::Store(_)
            | Self::Review(_)
            | Self::Notification(_)
            | Self::Marketing(_)
            | Self::Delivery(_)
            | Self::Saga(_) => false,
        }
    }

    /// The command's name in log lines, in the `sagas` view and in derived ids.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ordering(command) => match command {
                OrderCommand::Place(_) => "place_order",
                OrderCommand::Expire { .. } => "expire_order",
                OrderCommand::Reject { .. } => "reject_order",
                OrderCommand::Complete => "complete_order",
                OrderCommand::RequestCancel { .. } => "request_cancel",
                OrderCommand::Cancel => "cancel_order",
                OrderCommand::RequestReturn { .. } => "request_return",
                OrderCommand::Return => "return_order",
            },
            Self::Payment(command) => match command {
                PaymentCommand::Request(_) => "request_payment",
                PaymentCommand::Approve { .. } => "approve_payment",
                PaymentCommand::Decline { .. } => "decline_payment",
                PaymentCommand::Defer { .. } => "defer_payment",
                PaymentCommand::Cancel { .. } => "cancel_payment",
            },
            Self::ChargePayment { .. } => "charge_payment",
            Self::SettlePayment => "settle_payment",
            Self::ReturnPayment => "return_payment",
            Self::Store(command) => match command {
                StoreCommand::Receive(_) => "receive_store_order",
                StoreCommand::Accept => "accept_store_order",
                StoreCommand::Reject { .. } => "reject_store_order",
                StoreCommand::Start => "start_preparation",
                StoreCommand::Finish => "finish_preparation",
                StoreCommand::Cancel => "cancel_store_order",
            },
            Self::Review(ReviewCommand::Write { .. }) => "write_review",
            Self::Notification(command) => match command {
                NotificationCommand::RecordSent(_) => "record_sent",
                NotificationCommand::RecordFailed(_) => "record_failed",
            },
            Self::Marketing(command) => match command {
                CouponCommand::Issue { .. } => "issue_coupon",
                CouponCommand::Cancel => "cancel_coupon",
            },
            Self::Delivery(command) => match command {
                DeliveryCommand::Request { .. } => "request_delivery",
                DeliveryCommand::List(_) => "list_delivery",
                DeliveryCommand::PickUp { .. } => "pick_up_delivery",
                DeliveryCommand::Start => "start_delivery",
                DeliveryCommand::Complete => "complete_delivery",
                DeliveryCommand::Cancel => "cancel_delivery",
                DeliveryCommand::StartReturn => "start_return",
                DeliveryCommand::CompleteReturn => "complete_return",
            },
            Self::Saga(command) => match command {
                SagaCommand::Park { .. } => "park",
                SagaCommand::Resume => "resume",
                SagaCommand::Archive => "archive",
            },
        }
    }
}

/// Why a command is refused. A refusal leaves nothing in the log; its code is API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    #[error("there is no such order")]
    OrderNotFound,
    #[error(
        "the order was not completed in time and has expired; a payment that was taken is refunded; place a new order"
    )]
    OrderExpired,
    #[error("the order stands already")]
    AlreadyPlaced,
    #[error("the order is canceled, or being canceled")]
    AlreadyCanceled,
    #[error("the order was delivered already")]
    AlreadyDelivered,
    #[error("the store rejected the order")]
    AlreadyRejected,
    #[error("the customer confirmed the receipt already")]
    AlreadyCompleted,
    #[error("the store accepted the order already")]
    AlreadyAccepted,
    #[error("a rider has picked the order up already")]
    AlreadyPickedUp,
    #[error("the preparation has started")]
    PreparationStarted,
    #[error("the preparation has not started yet")]
    PreparationNotStarted,
    #[error("the store has not received the order yet")]
    StoreOrderNotReceived,
    #[error("the store has not accepted the order yet")]
    StoreOrderNotAccepted,
    #[error("the store's order was canceled")]
    StoreOrderCanceled,
    #[error("the order is not ready to be picked up yet")]
    DeliveryNotListed,
    #[error("the order has not reached the customer yet")]
    NotDelivered,
    #[error("the order was reviewed already")]
    AlreadyReviewed,
    #[error("the order's flow has no such step")]
    NotInFlow,
    #[error("the order has been shipped already")]
    AlreadyShipped,
    #[error("nobody asked to return the order")]
    ReturnNotRequested,
    #[error("the return has not been picked up yet")]
    ReturnNotPickedUp,
    #[error("nobody asked to cancel the order")]
    CancelNotRequested,
    #[error("the order is being canceled")]
    CancelRequested,
    #[error("no payment was asked for")]
    PaymentNotRequested,
    #[error("the payment was declined")]
    PaymentDeclined,
    #[error(
        "the last attempt to pay is being closed with the payment provider; please try again in a moment"
    )]
    PaymentDeferred,
    #[error("the payment was approved already")]
    PaymentApproved,
    #[error("the payment was canceled")]
    PaymentCanceled,
    #[error("the attempts to pay this order are used up")]
    PaymentAttemptsExhausted,
    #[error("the payment provider gave back less than it took; ask it to give back the rest, then resume")]
    RefundIncomplete,
    #[error(
        "the payment provider says that another amount moved than was asked for; have that put right there, then resume"
    )]
    AmountMismatch,
    #[error("the payment provider refuses to say what became of the payment, or to close it")]
    ProviderRefused,
    #[error("the order's flow wants a coupon before its delivery starts, and none is issued yet")]
    CouponRequired,
    #[error("the coupon was canceled")]
    CouponCanceled,
    #[error("the order's coupon is still valid; it is canceled before the delivery is")]
    CouponStillValid,
    #[error("no delivery was asked for yet")]
    DeliveryNotRequested,
    #[error("the delivery has not started yet")]
    DeliveryNotStarted,
    #[error("the delivery was canceled")]
    DeliveryCanceled,
    #[error("the order's saga is not parked")]
    NotParked,
    #[error("the order is not at its end: somebody may still carry it on, or is owed something")]
    NotAtItsEnd,
    #[error("the order is archived: it can be read, and nothing about it changes any more")]
    OrderArchived,
    #[error("the order has as many events as an order may have; it can be canceled, and nothing else")]
    OrderTooLong,
    #[error("the idempotency key was used before with another body; a new intent needs a new key")]
    IdempotencyKeyReused,
}

impl Refusal {
    /// The stable code of the refusal.
    pub const fn code(self) -> &'static str {
        match self {
            Self::OrderNotFound => "order_not_found",
            Self::OrderExpired => "order_expired",
            Self::AlreadyPlaced => "already_placed",
            Self::AlreadyCanceled => "already_canceled",
            Self::AlreadyDelivered => "already_delivered",
            Self::AlreadyRejected => "already_rejected",
            Self::AlreadyCompleted => "already_completed",
            Self::AlreadyAccepted => "already_accepted",
            Self::AlreadyPickedUp => "already_picked_up",
            Self::PreparationStarted => "preparation_started",
            Self::PreparationNotStarted => "preparation_not_started",
            Self::StoreOrderNotReceived => "store_order_not_received",
            Self::StoreOrderNotAccepted => "store_order_not_accepted",
            Self::StoreOrderCanceled => "store_order_canceled",
            Self::DeliveryNotListed => "delivery_not_listed",
            Self::NotDelivered => "not_delivered",
            Self::AlreadyReviewed => "already_reviewed",
            Self::NotInFlow => "not_in_flow",
            Self::AlreadyShipped => "already_shipped",
            Self::ReturnNotRequested => "return_not_requested",
            Self::ReturnNotPickedUp => "return_not_picked_up",
            Self::CancelNotRequested => "cancel_not_requested",
            Self::CancelRequested => "cancel_requested",
            Self::PaymentNotRequested => "payment_not_requested",
            Self::PaymentDeclined => "payment_declined",
            Self::PaymentDeferred => "payment_deferred",
            Self::PaymentApproved => "payment_approved",
            Self::PaymentCanceled => "payment_canceled",
            Self::PaymentAttemptsExhausted => "payment_attempts_exhausted",
            Self::RefundIncomplete => "refund_incomplete",
            Self::AmountMismatch => "amount_mismatch",
            Self::ProviderRefused => "provider_refused",
            Self::CouponRequired => "coupon_required",
            Self::CouponCanceled => "coupon_canceled",
            Self::CouponStillValid => "coupon_still_valid",
            Self::DeliveryNotRequested => "delivery_not_requested",
            Self::DeliveryNotStarted => "delivery_not_started",
            Self::DeliveryCanceled => "delivery_canceled",
            Self::NotParked => "not_parked",
            Self::NotAtItsEnd => "not_at_its_end",
            Self::OrderArchived => "order_archived",
            Self::OrderTooLong => "order_too_long",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
        }
    }
}
