//! The ordering context: an order comes to stand, is wished undone, is undone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    command::Refusal,
    event::{
        Event, OrderCancelRequested, OrderCanceled, OrderCompleted, OrderEvent, OrderExpired, OrderPlaced,
        OrderRejected, OrderReturned, ReturnRequested,
    },
    notification::{Language, Medium},
};

/// The most lines of one order.
pub const LINES_MAX: usize = 100;
/// The most pieces of one line.
pub const QUANTITY_MAX: u32 = 9_999;

/// How the order reached us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    Web,
    Phone,
}

impl Channel {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Phone => "phone",
        }
    }
}

/// Who ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Customer {
    pub id: String,
    pub name: String,
    #[serde(default)]
    pub phone: Option<String>,
    #[serde(default)]
    pub email: Option<String>,
    /// In which they want to be written to; `None`: the flow's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<Language>,
}

impl Customer {
    /// Where a message by this medium goes; `None` if they left nothing for it.
    pub fn reached_by(&self, medium: Medium) -> Option<&str> {
        match medium {
            Medium::Mail => self.email.as_deref(),
            Medium::Sms | Medium::Kakao => self.phone.as_deref(),
        }
    }
}

/// One item of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    pub item_id: String,
    pub name: String,
    pub quantity: u32,
    /// Minor units of the order's currency.
    pub unit_price: i64,
    #[serde(default)]
    pub options: Vec<String>,
}

/// What a store is to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Item {
    pub item_id: String,
    pub name: String,
    pub quantity: u32,
    #[serde(default)]
    pub options: Vec<String>,
}

/// Where it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Address {
    pub line: String,
    #[serde(default)]
    pub region: Option<String>,
}

/// The order as its own context sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    #[default]
    NotPlaced,
    Placed,
    CancelRequested,
    Canceled,
    Expired,
    Rejected,
    Completed,
    ReturnRequested,
    Returned,
}

/// What ordering may be asked to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderCommand {
    Place(Box<OrderPlaced>),
    Expire { reason: String },
    Reject { reason: Option<String> },
    Complete,
    RequestCancel { reason: Option<String> },
    Cancel,
    RequestReturn { reason: Option<String> },
    Return,
}

/// Decides about the order; `None` means that the fact already holds.
pub fn decide(order: Order, command: &OrderCommand) -> Result<Option<Event>, Refusal> {
    match command {
        OrderCommand::Place(placed) => match order {
            Order::NotPlaced => Ok(Some((**placed).clone().into())),
            Order::Placed | Order::Completed | Order::Rejected | Order::ReturnRequested | Order::Returned => {
                Ok(None)
            }
            Order::CancelRequested | Order::Canceled => Err(Refusal::AlreadyCanceled),
            Order::Expired => Err(Refusal::OrderExpired),
        },
        OrderCommand::Reject { reason } => match order {
            Order::NotPlaced => Err(Refusal::OrderNotFound),
            Order::Expired => Err(Refusal::OrderExpired),
            Order::Placed => Ok(Some(OrderRejected { reason: reason.clone() }.into())),
            Order::Rejected => Ok(None),
            Order::CancelRequested | Order::Canceled => Err(Refusal::AlreadyCanceled),
            Order::Completed | Order::ReturnRequested | Order::Returned => Err(Refusal::AlreadyCompleted),
        },
        OrderCommand::Complete => match order {
            Order::NotPlaced => Err(Refusal::OrderNotFound),
            Order::Expired => Err(Refusal::OrderExpired),
            Order::Placed => Ok(Some(OrderCompleted {}.into())),
            Order::Completed | Order::ReturnRequested | Order::Returned => Ok(None),
            Order::Rejected => Err(Refusal::AlreadyRejected),
            Order::CancelRequested | Order::Canceled => Err(Refusal::AlreadyCanceled),
        },
        OrderCommand::Expire { reason } => match order {
            Order::NotPlaced | Order::Placed => Ok(Some(OrderExpired { reason: reason.clone() }.into())),
            Order::Expired => Ok(None),
            Order::CancelRequested | Order::Canceled => Err(Refusal::AlreadyCanceled),
            Order::Rejected => Err(Refusal::AlreadyRejected),
            Order::Completed | Order::ReturnRequested | Order::Returned => Err(Refusal::AlreadyCompleted),
        },
        OrderCommand::RequestCancel { reason } => match order {
            Order::NotPlaced => Err(Refusal::OrderNotFound),
            Order::Expired => Err(Refusal::OrderExpired),
            Order::Placed => Ok(Some(OrderCancelRequested { reason: reason.clone() }.into())),
            Order::CancelRequested | Order::Canceled => Ok(None),
            Order::Rejected => Err(Refusal::AlreadyRejected),
            Order::Completed | Order::ReturnRequested | Order::Returned => Err(Refusal::AlreadyCompleted),
        },
        OrderCommand::Cancel => match order {
            Order::NotPlaced => Err(Refusal::OrderNotFound),
            Order::Expired => Err(Refusal::OrderExpired),
            Order::Placed | Order::CancelRequested => Ok(Some(OrderCanceled {}.into())),
            Order::Canceled => Ok(None),
            Order::Rejected | Order::Completed | Order::ReturnRequested | Order::Returned => {
                Err(Refusal::CancelNotRequested)
            }
        },
        OrderCommand::RequestReturn { reason } => match order {
            Order::NotPlaced => Err(Refusal::OrderNotFound),
            Order::Expired => Err(Refusal::OrderExpired),
            Order::Placed | Order::Completed => Ok(Some(ReturnRequested { reason: reason.clone() }.into())),
            Order::ReturnRequested | Order::Returned => Ok(None),
            Order::CancelRequested | Order::Canceled => Err(Refusal::AlreadyCanceled),
            Order::Rejected => Err(Refusal::AlreadyRejected),
        },
        OrderCommand::Return => match order {
            Order::NotPlaced => Err(Refusal::OrderNotFound),
            Order::Expired => Err(Refusal::OrderExpired),
            Order::ReturnRequested => Ok(Some(OrderReturned {}.into())),
            Order::Returned => Ok(None),
            Order::Placed | Order::Completed => Err(Refusal::ReturnNotRequested),
            Order::CancelRequested | Order::Canceled => Err(Refusal::AlreadyCanceled),
            Order::Rejected => Err(Refusal::AlreadyRejected),
        },
    }
}

/// The order after a fact.
#[must_use]
pub fn evolve(_: Order, event: &OrderEvent) -> Order {
    match event {
        OrderEvent::OrderPlaced(_) => Order::Placed,
        OrderEvent::OrderExpired(_) => Order::Expired,
        OrderEvent::OrderRejected(_) => Order::Rejected,
        OrderEvent::OrderCompleted(_) => Order::Completed,
        OrderEvent::ReturnRequested(_) => Order::ReturnRequested,
        OrderEvent::OrderReturned(_) => Order::Returned,
        OrderEvent::OrderCancelRequested(_) => Order::CancelRequested,
        OrderEvent::OrderCanceled(_) => Order::Canceled,
    }
}
