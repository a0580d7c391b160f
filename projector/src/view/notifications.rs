//! `notifications`: what each customer was told of which change, and what they could not be told.
//!
//! All of it stands in the order's timeline, and is read from there.

use domain::{
    Context, EventId, OrderId, Status, Timestamp,
    event::{NotificationFailed, NotificationSent},
    notification::{Language, Medium},
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::rows::Rows;

use super::{
    List, listed,
    orders::{self, Orders},
};

pub struct Notifications;

/// One change of an order that its customer was told of, or was not.
#[derive(Clone, Debug)]
pub enum Told {
    Sent(NotificationSent, Timestamp),
    /// Nobody tries any more.
    Failed(NotificationFailed, Timestamp),
}

/// What the order's customer was told, the newest first.
pub fn told(row: &orders::Row) -> impl Iterator<Item = Told> {
    let entries = row.timeline.iter().rev().filter(|entry| entry.context == Context::Notification);
    entries.filter_map(|entry| {
        let failed = || Some(Told::Failed(entry.read()?, entry.time));
        entry.read().map(|sent| Told::Sent(sent, entry.time)).or_else(failed)
    })
}

impl Told {
    pub const fn is_failed(&self) -> bool {
        matches!(self, Self::Failed(..))
    }

    /// As readers see it.
    pub fn shown(&self, row: &orders::Row) -> Notification {
        match self {
            Self::Sent(sent, at) => Notification {
                order_id: row.order_id,
                about: sent.about,
                order_status: sent.status,
                medium: sent.medium,
                to: Some(sent.to.clone()),
                status: if sent.is_recorded_only() { Outcome::Recorded } else { Outcome::Sent },
                at: *at,
                language: Some(sent.language),
                text: Some(sent.text.clone()),
                reference: Some(sent.reference.clone()),
                tries: None,
                reason: None,
            },
            Self::Failed(failed, at) => Notification {
                order_id: row.order_id,
                about: failed.about,
                order_status: failed.status,
                medium: failed.medium,
                to: failed.to.clone(),
                status: Outcome::Failed,
                at: *at,
                language: None,
                text: None,
                reference: None,
                tries: Some(failed.tries),
                reason: Some(failed.reason.clone()),
            },
        }
    }
}

/// What a customer was told of a change, or could not be told.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Notification {
    order_id: OrderId,
    /// The event that it tells of.
    about: EventId,
    /// The order's status by that event.
    order_status: Status,
    medium: Medium,
    /// `null` if the customer has no such address.
    to: Option<String>,
    status: Outcome,
    at: Timestamp,
    /// Of one that was sent or recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<Language>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The name under which the message left.
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    /// Of one that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    tries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "NotificationStatus")]
enum Outcome {
    Sent,
    /// No transport is set for its medium, so it reached no customer.
    Recorded,
    /// Not tried any more.
    Failed,
}

impl List for Notifications {
    const NAME: &'static str = "notifications";
    const ROWS: Rows = Orders::ROWS;
    const VERSION: u32 = 2;
    const IS_ROWS: bool = true;
    type Row = orders::Row;

    fn place(row: &orders::Row) -> Option<Vec<u8>> {
        row.timeline.iter().any(|entry| entry.context == Context::Notification).then(listed)
    }

    type Shown = Vec<Notification>;

    fn shown(row: &orders::Row) -> Vec<Notification> {
        told(row).map(|told| told.shown(row)).collect()
    }
}
