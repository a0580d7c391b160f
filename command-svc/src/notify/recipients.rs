//! How many messages one recipient gets: a shop that writes to one address without an end is used against it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use domain::notification::Medium;

/// For so long messages to one recipient are counted.
const WINDOW: Duration = Duration::from_hours(1);
/// Recipients that are counted in one window; more have to wait for the next.
const RECIPIENTS_MAX: usize = 200_000;

#[derive(Default)]
struct Window {
    began: Option<Instant>,
    sent: HashMap<String, u32>,
}

/// The messages to each recipient within the hour.
pub(super) struct Recipients {
    most: u32,
    window: Mutex<Window>,
}

/// An address or a number, however it is written.
pub(super) fn recipient(medium: Medium, to: &str) -> String {
    match medium {
        Medium::Mail => to.to_lowercase(),
        Medium::Sms | Medium::Kakao => to.chars().filter(char::is_ascii_digit).collect(),
    }
}

impl Recipients {
    /// At most `most` messages within the hour to each.
    pub(super) fn new(most: u32) -> Self {
        Self { most, window: Mutex::default() }
    }

    /// Counts one more message; false if this recipient has got as many as one may get.
    pub(super) fn take(&self, recipient: &str, now: Instant) -> bool {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.began.is_none_or(|began| now.duration_since(began) >= WINDOW) {
            *window = Window { began: Some(now), sent: HashMap::new() };
        }
        let sent = window.sent.get(recipient).copied().unwrap_or_default();
        let has_room = sent > 0 || window.sent.len() < RECIPIENTS_MAX;
        let may = has_room && sent < self.most;
        if may {
            window.sent.insert(recipient.to_owned(), sent + 1);
        }
        may
    }

    /// The message did not leave.
    pub(super) fn give_back(&self, recipient: &str) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sent) = window.sent.get_mut(recipient) {
            *sent = sent.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_recipient_gets_so_many_messages_an_hour_however_the_address_is_written() {
        let (recipients, now) = (Recipients::new(2), Instant::now());
        let (mail, number) = (recipient(Medium::Mail, "A@Example.org"), recipient(Medium::Sms, "+82 10-1"));
        assert_eq!(mail, recipient(Medium::Mail, "a@example.ORG"));
        assert_eq!(number, recipient(Medium::Kakao, "82101"));
        assert!(recipients.take(&mail, now) && recipients.take(&mail, now) && !recipients.take(&mail, now));
        assert!(recipients.take(&number, now), "another is counted apart");
        recipients.give_back(&mail);
        assert!(
            recipients.take(&mail, now) && !recipients.take(&mail, now),
            "what did not leave does not count"
        );
        assert!(recipients.take(&mail, now + WINDOW));
    }
}
