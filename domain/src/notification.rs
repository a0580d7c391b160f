//! The notification context: what the customer was told of which change, or why not.
//!
//! Which changes are told follows from the story alone ([`due`]), and each is recorded once, told or given up. The
//! record is made after the message left: a crash in between sends it again, under the same id.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    command::Refusal,
    event::{
        Event, NotificationEvent, NotificationFailed, NotificationSent, OrderEvent, PaymentEvent, Recorded,
    },
    flow::Flow,
    id::EventId,
    payment::Payment,
    state::OrderState,
    status::Status,
};

/// Begins the reference of a message for whose medium no transport is set: it was recorded, and reached no customer.
pub const RECORDED_ONLY: &str = "sandbox-";

impl NotificationSent {
    /// Whether it was only recorded, because no transport was set.
    pub fn is_recorded_only(&self) -> bool {
        self.reference.starts_with(RECORDED_ONLY)
    }
}

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Medium {
    Mail,
    Sms,
    /// A message of Korea's messenger.
    Kakao,
}

impl Medium {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mail => "mail",
            Self::Sms => "sms",
            Self::Kakao => "kakao",
        }
    }
}

/// The language of a message (ISO 639-1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Language {
    #[default]
    #[serde(rename = "ko")]
    Korean,
    #[serde(rename = "en")]
    English,
}

/// What the customers of a flow are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotifyRule {
    pub medium: Medium,
    /// For a customer who did not say.
    #[serde(default)]
    pub language: Language,
    /// The statuses whose beginning is told; empty: every one.
    #[serde(default)]
    pub on: Vec<Status>,
}

/// The changes of one order that were dealt with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notifications(Vec<EventId>);

/// What notification may be asked to record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotificationCommand {
    RecordSent(Box<NotificationSent>),
    RecordFailed(Box<NotificationFailed>),
}

/// A change that the customer is to be told of, and was not yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The event that made the change; it names the message for good.
    pub about: EventId,
    pub sequence: u64,
    pub status: Status,
    pub since: Timestamp,
    /// Whether the customer paid, or may have: only then does a message about the end of an order speak of a refund.
    pub has_paid: bool,
}

/// The changes of a story that wait to be told, oldest first. Of an order whose customer left nothing to be reached by,
/// the first change alone is dealt with: the record that says so is not repeated with each of the others.
pub fn due<'a>(flow: &Flow, story: impl IntoIterator<Item = &'a Recorded>) -> Vec<Notice> {
    let Some(rule) = &flow.notify else { return Vec::new() };
    let (mut state, mut told, mut notices) = (OrderState::default(), None, Vec::new());
    let (mut is_reachable, mut has_paid) = (true, false);
    for recorded in story {
        if let Event::Ordering(OrderEvent::OrderPlaced(placed)) = &recorded.event {
            is_reachable = placed.customer.reached_by(rule.medium).is_some();
        }
        state = state.evolve(recorded);
        has_paid = may_have_paid(has_paid, &recorded.event, state.payment);
        let status = state.is_visible().then(|| state.status());
        if let Some(status) = status.filter(|status| told != Some(*status)) {
            told = Some(status);
            if rule.on.is_empty() || rule.on.contains(&status) {
                let (about, sequence) = (recorded.event_id, recorded.position.sequence);
                notices.push(Notice { about, sequence, status, since: recorded.time, has_paid });
            }
        }
    }
    if !is_reachable {
        notices.truncate(1);
    }
    notices.retain(|notice| !state.notifications.0.contains(&notice.about));
    notices
}

/// Whether money of the customer was taken, as far as the story up to this event says. An attempt without an outcome
/// counts, as it may have been charged; what was given back was taken.
fn may_have_paid(before: bool, event: &Event, payment: Payment) -> bool {
    if let Event::Payment(PaymentEvent::PaymentCanceled(canceled)) = event {
        return canceled.returned.amount > 0;
    }
    match payment {
        Payment::Requested { .. } | Payment::Approved { .. } => true,
        Payment::None | Payment::Declined { .. } => false,
        Payment::Deferred { .. } | Payment::Canceled => before,
    }
}

/// Decides about a record; `None` means that the change was dealt with already.
pub fn decide(known: &Notifications, command: &NotificationCommand) -> Result<Option<Event>, Refusal> {
    let (about, event): (_, Event) = match command {
        NotificationCommand::RecordSent(sent) => (sent.about, (**sent).clone().into()),
        NotificationCommand::RecordFailed(failed) => (failed.about, (**failed).clone().into()),
    };
    Ok((!known.0.contains(&about)).then_some(event))
}

/// The changes that were dealt with, after a fact.
#[must_use]
pub fn evolve(mut known: Notifications, event: &NotificationEvent) -> Notifications {
    known.0.push(match event {
        NotificationEvent::NotificationSent(sent) => sent.about,
        NotificationEvent::NotificationFailed(failed) => failed.about,
    });
    known
}
