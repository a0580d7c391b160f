//! Messages of the log that are no order's: they are passed over, and what they are is kept for operators to see.
//!
//! A message can never be taken out of the log. So one of another program, on a subject that is no order's, must
//! not keep the views of its partition from going on.

use domain::Position;
use nats::Undecodable;
use serde::{Deserialize, Serialize};

/// Messages that are told one by one; of more, only how many there are.
const TOLD_MAX: usize = 100;
/// Letters of a subject and of a reason that are kept.
const TEXT_LETTERS_MAX: usize = 200;

/// A message that is no order's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    pub subject: String,
    pub position: Position,
    pub reason: String,
}

/// The messages of a log that are no order's, up to where its views are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// How many there are.
    pub messages: u64,
    /// The first of them.
    pub first: Vec<Quarantined>,
}

impl Quarantine {
    pub(crate) fn add(&mut self, found: Undecodable) {
        let Undecodable { position, subject, reason, .. } = found;
        tracing::error!(subject, %position, reason, "a message of the log is no order's; it is quarantined");
        self.messages += 1;
        if self.first.len() < TOLD_MAX {
            let short = |text: String| text.chars().take(TEXT_LETTERS_MAX).collect();
            self.first.push(Quarantined { subject: short(subject), position, reason: short(reason) });
        }
    }
}
