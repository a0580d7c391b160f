//! `notifications`: what each customer was told of which change, and what they could not be told.
//!
//! All of it stands in the order's timeline, and is read from there.

use domain::{
    Context, EventId, Status, Timestamp,
    event::{NotificationFailed, NotificationSent},
};
use serde_json::{Value, json};

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
    pub fn show(&self, row: &orders::Row) -> Value {
        let about = |id: EventId, status: Status| (row.order_id, id, status);
        let ((order_id, about, order_status), medium, to, at) = match self {
            Self::Sent(sent, at) => (about(sent.about, sent.status), sent.medium, Some(&sent.to), at),
            Self::Failed(failed, at) => {
                (about(failed.about, failed.status), failed.medium, failed.to.as_ref(), at)
            }
        };
        let mut shown = json!({
            "order_id": order_id,
            "about": about,
            "order_status": order_status,
            "medium": medium,
            "to": to,
            "status": if self.is_failed() { "failed" } else { "sent" },
            "at": at,
        });
        match self {
            Self::Sent(sent, _) => {
                shown["language"] = json!(sent.language);
                shown["text"] = json!(sent.text);
                shown["reference"] = json!(sent.reference);
            }
            Self::Failed(failed, _) => {
                shown["tries"] = json!(failed.tries);
                shown["reason"] = json!(failed.reason);
            }
        }
        shown
    }
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

    fn show(row: &orders::Row) -> Value {
        told(row).map(|told| told.show(row)).collect()
    }
}
