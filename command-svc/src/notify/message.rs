//! What a customer is told of a change, in their language.

use std::{collections::BTreeMap, sync::LazyLock};

use domain::{
    EventId, OrderId, Status,
    event::OrderPlaced,
    notification::{Language, Medium, Notice, NotifyRule},
    text::name_in_message,
};
use serde::Deserialize;

/// The templates of one language.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Templates {
    subject: String,
    /// What a customer is called whose name may not stand in a message.
    nameless: String,
    /// Stands where a text says `{refund}`, for a customer who paid.
    refund: String,
    text: BTreeMap<Status, String>,
}

static KOREAN: LazyLock<Option<Templates>> = LazyLock::new(|| read(include_str!("messages/ko.toml")).ok());
static ENGLISH: LazyLock<Option<Templates>> = LazyLock::new(|| read(include_str!("messages/en.toml")).ok());

fn read(text: &str) -> Result<Templates, toml::de::Error> {
    toml::from_str(text)
}

/// One message to one customer about one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Names the message for good: whoever gets it twice can tell.
    pub about: EventId,
    pub order_id: OrderId,
    pub status: Status,
    pub medium: Medium,
    pub language: Language,
    pub to: String,
    pub subject: String,
    pub text: String,
}

/// Writes the message; `None` if the customer left nothing to reach them by.
pub(super) fn write(
    rule: &NotifyRule,
    notice: &Notice,
    order_id: OrderId,
    placed: &OrderPlaced,
) -> Option<Message> {
    let customer = &placed.customer;
    let to = customer.reached_by(rule.medium)?.to_owned();
    let language = customer.language.unwrap_or(rule.language);
    let templates = match language {
        Language::Korean => KOREAN.as_ref(),
        Language::English => ENGLISH.as_ref(),
    }?;
    let short = name_in_message(&customer.name);
    let name = short.as_deref().unwrap_or(&templates.nameless);
    let id = order_id.to_string();
    let order = id.rsplit('-').next().unwrap_or_default();
    let fill = |template: &str| {
        let refund = if notice.has_paid { templates.refund.as_str() } else { "" };
        let filled = template.replace("{order}", order).replace("{total}", &placed.total.to_string());
        let filled = filled.replace("{refund}", refund);
        // Last, so that nothing in a name is taken for a placeholder.
        filled.replace("{name}", name)
    };
    Some(Message {
        about: notice.about,
        order_id,
        status: notice.status,
        medium: rule.medium,
        language,
        to,
        subject: fill(&templates.subject),
        text: fill(templates.text.get(&notice.status)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_can_be_told_in_korean_and_english() {
        for text in [include_str!("messages/ko.toml"), include_str!("messages/en.toml")] {
            let templates = read(text).unwrap();
            for status in Status::ALL {
                let text = &templates.text[&status];
                assert!(text.contains("{name}") && text.contains("{order}"), "{text}");
            }
            assert_eq!(templates.text.len(), Status::ALL.len());
        }
    }
}
