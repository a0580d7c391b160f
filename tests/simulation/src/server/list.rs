//! One worklist: what was handed to whom, what comes again and when.

use std::{collections::BTreeMap, time::Duration};

use nats::{broker::Word, worklist::WORK_WAIT};
use tokio::time::Instant;

use crate::chance::Chance;

/// What is to be handed to a worker now.
#[derive(Clone, Debug, Default)]
pub struct Handing {
    /// Subject, sequence, and how often it was handed out.
    pub messages: Vec<(String, u64, u32)>,
    /// When there is more, if nothing happens before.
    pub next: Option<Instant>,
}

/// A message that is not done with.
#[derive(Clone, Copy, Debug)]
struct Open {
    deliveries: u32,
    /// Handed out then, for the first time or again; `None`: at once.
    not_before: Option<Instant>,
}

/// The state of a list.
pub(super) struct Hands {
    /// Of the subjects on the list; empty: all.
    begins: String,
    open: BTreeMap<u64, Open>,
    /// Those who wait for work, the longest first; the first is the active one.
    members: Vec<u64>,
}

impl Hands {
    pub(super) fn new(filter: &str) -> Self {
        let begins = filter.trim_end_matches('*').to_owned();
        Self { begins, open: BTreeMap::new(), members: Vec::new() }
    }

    /// A message was stored.
    pub(super) fn note(&mut self, subject: &str, sequence: u64) {
        if subject.starts_with(&self.begins) {
            self.open.insert(sequence, Open { deliveries: 0, not_before: None });
        }
    }

    pub(super) fn join(&mut self, member: u64, take_over: bool) {
        if take_over {
            self.members.insert(0, member);
        } else {
            self.members.push(member);
        }
    }

    pub(super) fn leave(&mut self, member: u64) {
        self.members.retain(|other| *other != member);
    }

    pub(super) fn hand_out<'a>(
        &mut self,
        member: u64,
        now: Instant,
        subject_of: impl Fn(u64) -> Option<&'a str>,
    ) -> Option<Handing> {
        if !self.members.contains(&member) {
            return None;
        }
        let mut handing = Handing::default();
        if self.members.first() != Some(&member) {
            return Some(handing);
        }
        self.open.retain(|sequence, _| subject_of(*sequence).is_some());
        for (sequence, open) in &mut self.open {
            if open.not_before.is_none_or(|moment| moment <= now) {
                open.deliveries += 1;
                open.not_before = Some(now + WORK_WAIT);
                let subject = subject_of(*sequence).unwrap_or_default().to_owned();
                handing.messages.push((subject, *sequence, open.deliveries));
            }
            handing.next = match (handing.next, open.not_before) {
                (Some(next), Some(moment)) => Some(next.min(moment)),
                (next, moment) => next.or(moment),
            };
        }
        Some(handing)
    }

    pub(super) fn tell(&mut self, sequence: u64, word: Word, now: Instant) {
        let Some(open) = self.open.get_mut(&sequence) else { return };
        match word {
            Word::Done => drop(self.open.remove(&sequence)),
            Word::Going => open.not_before = Some(now + WORK_WAIT),
            Word::Later(pause) => open.not_before = Some(now + pause.max(Duration::from_millis(1))),
        }
    }

    /// Its workers are gone, and so is what it knew of when to hand out again.
    pub(super) fn restart(&mut self, chance: &Chance) {
        self.members.clear();
        for open in self.open.values_mut() {
            if chance.permille(700) {
                open.not_before = None;
            }
        }
    }
}
