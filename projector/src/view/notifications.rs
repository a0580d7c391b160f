//! `notifications`: what each customer was told of which change, and what they could not be told.

use domain::{
    Event, EventId, OrderId, Status, Timestamp,
    event::NotificationEvent,
    notification::{Language, Medium},
};
use nats::Stored;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::rows::Rows;

use super::{List, View, listed, newest_first};

pub struct Notifications;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    order_id: OrderId,
    about: EventId,
    status: Status,
    medium: Medium,
    to: Option<String>,
    outcome: Outcome,
    at: Timestamp,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Outcome {
    Sent { language: Language, text: String, reference: String },
    Failed { tries: u32, reason: String },
}

impl Row {
    pub const fn order_id(&self) -> OrderId {
        self.order_id
    }

    /// Whether nobody tries any more.
    pub const fn is_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed { .. })
    }
}

/// Newest first. A change is dealt with once, so its record's time is its own.
fn key_of(at: Timestamp, order_id: OrderId, about: EventId) -> Vec<u8> {
    [newest_first(at, order_id), about.0.as_bytes().to_vec()].concat()
}

impl List for Notifications {
    const NAME: &'static str = "notifications";
    const ROWS: Rows = Rows::ByKey(Self::NAME);
    const IS_ROWS: bool = true;
    type Row = Row;

    fn place(_: &Row) -> Option<Vec<u8>> {
        Some(listed())
    }

    fn show(row: &Row) -> Value {
        let (outcome, rest) = match &row.outcome {
            Outcome::Sent { language, text, reference } => {
                ("sent", json!({ "language": language, "text": text, "reference": reference }))
            }
            Outcome::Failed { tries, reason } => ("failed", json!({ "tries": tries, "reason": reason })),
        };
        let mut shown = json!({
            "order_id": row.order_id,
            "about": row.about,
            "order_status": row.status,
            "medium": row.medium,
            "to": row.to,
            "status": outcome,
            "at": row.at,
        });
        if let (Some(shown), Value::Object(rest)) = (shown.as_object_mut(), rest) {
            shown.extend(rest);
        }
        shown
    }
}

impl View for Notifications {
    fn keys(event: &Stored) -> Vec<Vec<u8>> {
        let Event::Notification(told) = &event.recorded.event else { return Vec::new() };
        let about = match told {
            NotificationEvent::NotificationSent(sent) => sent.about,
            NotificationEvent::NotificationFailed(failed) => failed.about,
        };
        vec![key_of(event.recorded.time, event.recorded.order_id, about)]
    }

    fn apply(_: &[u8], row: Option<Row>, event: &Stored) -> Option<Row> {
        let (order_id, at) = (event.recorded.order_id, event.recorded.time);
        let Event::Notification(event) = &event.recorded.event else { return row };
        Some(match event.clone() {
            NotificationEvent::NotificationSent(sent) => Row {
                order_id,
                about: sent.about,
                status: sent.status,
                medium: sent.medium,
                to: Some(sent.to),
                outcome: Outcome::Sent {
                    language: sent.language,
                    text: sent.text,
                    reference: sent.reference,
                },
                at,
            },
            NotificationEvent::NotificationFailed(failed) => Row {
                order_id,
                about: failed.about,
                status: failed.status,
                medium: failed.medium,
                to: failed.to,
                outcome: Outcome::Failed { tries: failed.tries, reason: failed.reason },
                at,
            },
        })
    }
}
