//! What a person calls the state of an order.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a person calls the order's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not visible to customers: the payment that makes the order stand is not approved yet.
    AwaitingPayment,
    Placed,
    Paid,
    Accepted,
    Rejected,
    Preparing,
    Prepared,
    OutForDelivery,
    Delivered,
    Completed,
    CancelRequested,
    Canceled,
    Expired,
    ReturnRequested,
    ReturnInTransit,
    Returned,
}

impl Status {
    /// Every status there is.
    pub const ALL: [Self; 16] = [
        Self::AwaitingPayment,
        Self::Placed,
        Self::Paid,
        Self::Accepted,
        Self::Rejected,
        Self::Preparing,
        Self::Prepared,
        Self::OutForDelivery,
        Self::Delivered,
        Self::Completed,
        Self::CancelRequested,
        Self::Canceled,
        Self::Expired,
        Self::ReturnRequested,
        Self::ReturnInTransit,
        Self::Returned,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AwaitingPayment => "awaiting_payment",
            Self::Placed => "placed",
            Self::Paid => "paid",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Preparing => "preparing",
            Self::Prepared => "prepared",
            Self::OutForDelivery => "out_for_delivery",
            Self::Delivered => "delivered",
            Self::Completed => "completed",
            Self::CancelRequested => "cancel_requested",
            Self::Canceled => "canceled",
            Self::Expired => "expired",
            Self::ReturnRequested => "return_requested",
            Self::ReturnInTransit => "return_in_transit",
            Self::Returned => "returned",
        }
    }
}
