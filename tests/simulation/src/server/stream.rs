//! One stream: messages in sequence, each on a subject.

use std::collections::{BTreeMap, HashMap};

use async_nats::HeaderMap;
use bytes::Bytes;
use nats::broker::Raw;

/// A stream's messages.
pub(super) struct Stream {
    messages: BTreeMap<u64, (String, Raw)>,
    /// The sequences of each subject's messages, oldest first.
    subjects: HashMap<String, Vec<u64>>,
    newest: u64,
    /// Of each subject, only the last message stays.
    keeps_last: bool,
}

impl Stream {
    pub(super) fn new(keeps_last: bool) -> Self {
        Self { messages: BTreeMap::new(), subjects: HashMap::new(), newest: 0, keeps_last }
    }

    pub(super) fn store(&mut self, subject: &str, headers: HeaderMap, body: Bytes) -> u64 {
        self.newest += 1;
        let sequence = self.newest;
        let sequences = self.subjects.entry(subject.to_owned()).or_default();
        if self.keeps_last {
            for old in sequences.drain(..) {
                self.messages.remove(&old);
            }
        }
        sequences.push(sequence);
        self.messages.insert(sequence, (subject.to_owned(), Raw { sequence, headers, body }));
        sequence
    }

    pub(super) const fn newest(&self) -> u64 {
        self.newest
    }

    pub(super) fn messages(&self) -> impl Iterator<Item = (&str, &Raw)> {
        self.messages.values().map(|(subject, raw)| (subject.as_str(), raw))
    }

    pub(super) fn of(&self, subject: &str) -> impl Iterator<Item = &Raw> {
        let sequences = self.subjects.get(subject).into_iter().flatten();
        sequences.filter_map(|sequence| self.messages.get(sequence)).map(|(_, raw)| raw)
    }

    pub(super) fn last(&self, subject: &str) -> Option<&Raw> {
        self.messages.get(self.subjects.get(subject)?.last()?).map(|(_, raw)| raw)
    }

    /// The subject of the message that is still there.
    pub(super) fn subject(&self, sequence: u64) -> Option<&str> {
        self.messages.get(&sequence).map(|(subject, _)| subject.as_str())
    }

    /// The message that is still there.
    pub(super) fn raw(&self, sequence: u64) -> Option<&Raw> {
        self.messages.get(&sequence).map(|(_, raw)| raw)
    }

    /// The newest so many messages are gone, as if they had never been.
    pub(super) fn lose(&mut self, count: u64) {
        for _ in 0..count {
            let Some((sequence, (subject, _))) = self.messages.pop_last() else { return };
            self.newest = sequence - 1;
            if let Some(sequences) = self.subjects.get_mut(&subject) {
                sequences.retain(|other| *other != sequence);
            }
        }
    }
}
