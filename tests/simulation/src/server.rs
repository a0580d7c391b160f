//! The log's server in memory, with a nats-server's semantics: streams with guards and batches, replicas that are
//! behind, messages that are scheduled, and worklists that hand out, wait, and hand out again.
//!
//! It does nothing by itself about time: whoever holds it tells it the moment, and asks when it is to be told again.

mod list;
mod stream;

use std::collections::BTreeMap;

use async_nats::{
    HeaderMap,
    header::{NATS_SCHEDULE, NATS_SCHEDULE_TARGET},
};
use bytes::Bytes;
use domain::{OrderId, Recorded};
use nats::{
    Durability,
    broker::{Message, Page, Raw, Unpublished, Word},
    subject,
    worklist::List,
};
use tokio::time::Instant;

pub use self::list::Handing;
use self::{list::Hands, stream::Stream};
use crate::chance::Chance;

/// A server that does not do what it promises, to show that this is noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flaw {
    #[default]
    None,
    /// It says that it stored what a power cut still takes.
    AcknowledgesEarly,
    /// It does not look at guards.
    IgnoresGuards,
}

/// The server's memory and its disk.
pub struct Server {
    durability: Durability,
    flaw: Flaw,
    streams: BTreeMap<String, Stream>,
    lists: BTreeMap<(List, u16), Hands>,
    /// What is in each order's subject, read once.
    stories: BTreeMap<OrderId, Vec<Recorded>>,
    /// When what was scheduled under a subject is to be delivered, in seconds since 1970, and where; with its headers.
    scheduled: BTreeMap<String, (i64, String, HeaderMap)>,
    members: u64,
}

impl Server {
    pub fn new(durability: Durability, flaw: Flaw) -> Self {
        let (streams, lists) = (BTreeMap::new(), BTreeMap::new());
        let (stories, scheduled) = (BTreeMap::new(), BTreeMap::new());
        Self { durability, flaw, streams, lists, stories, scheduled, members: 0 }
    }

    pub const fn durability(&self) -> Durability {
        self.durability
    }

    /// What the log says of every order, oldest event first.
    pub const fn stories(&self) -> &BTreeMap<OrderId, Vec<Recorded>> {
        &self.stories
    }

    /// Every message of a stream, oldest first, with its subject.
    pub fn messages(&self, stream: &str) -> impl Iterator<Item = (&str, &Raw)> {
        self.streams.get(stream).into_iter().flat_map(Stream::messages)
    }

    /// The deadline that a message of a list is for, if it says so.
    pub fn due_in(&self, list: List, partition: u16, sequence: u64) -> Option<domain::Timestamp> {
        let raw = self.streams.get(&list.stream(partition))?.raw(sequence)?;
        nats::deadline::due_in(&raw.headers)
    }

    /// Stores a message under its guard, at once.
    pub fn publish(&mut self, message: Message) -> Result<u64, Unpublished> {
        self.guard(&message)?;
        Ok(self.store(message))
    }

    /// Stores messages, all or none.
    pub fn publish_together(&mut self, messages: Vec<Message>) -> Option<u64> {
        messages.iter().try_for_each(|message| self.guard(message)).ok()?;
        let sequences: Vec<u64> = messages.into_iter().map(|message| self.store(message)).collect();
        sequences.first().copied()
    }

    /// Whether a message's guard holds.
    pub fn guard(&self, message: &Message) -> Result<(), Unpublished> {
        let last = self.last_sequence(&message.subject);
        match message.expected {
            Some(expected) if expected != last && self.flaw != Flaw::IgnoresGuards => {
                Err(Unpublished::Conflict { last: Some(last) })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn last_sequence(&self, subject: &str) -> u64 {
        let stream = self.streams.get(&stream_of(subject));
        stream.and_then(|stream| stream.last(subject)).map_or(0, |raw| raw.sequence)
    }

    fn store(&mut self, message: Message) -> u64 {
        let Message { subject, headers, body, .. } = message;
        if let (Some(at), Some(target)) = (headers.get(NATS_SCHEDULE), headers.get(NATS_SCHEDULE_TARGET)) {
            let due = at.as_str().strip_prefix("@at ").and_then(|due| due.parse::<domain::Timestamp>().ok());
            let second = due.map_or(0, domain::Timestamp::as_second);
            let kept = headers.iter().filter(|(name, _)| !name.to_string().starts_with("Nats-Schedule"));
            let kept =
                kept.filter_map(|(name, values)| Some((name.clone(), values.first()?.clone()))).collect();
            self.scheduled.insert(subject.clone(), (second, target.as_str().to_owned(), kept));
        }
        let name = stream_of(&subject);
        let keeps_last = !subject.starts_with("orders.");
        let stream = self.streams.entry(name.clone()).or_insert_with(|| Stream::new(keeps_last));
        let sequence = stream.store(&subject, headers, body);
        if let Some((partition, order_id)) = subject::parse_order(&subject).filter(|_| !keeps_last)
            && let Some(raw) = stream.last(&subject)
        {
            let position = domain::Position { partition, sequence };
            if let Ok(stored) = nats::codec::decode(&subject, position, &raw.headers, raw.body.clone()) {
                self.stories.entry(order_id).or_default().push(stored.recorded);
            }
        }
        for ((list, partition), hands) in &mut self.lists {
            if list.stream(*partition) == name {
                hands.note(&subject, sequence);
            }
        }
        sequence
    }

    /// A subject's messages from a sequence on; a replica that is behind lacks the newest so many of the stream.
    pub fn read(&self, subject: &str, from: u64, behind: u64) -> Page {
        let Some(stream) = self.streams.get(&stream_of(subject)) else { return Page::default() };
        let until = stream.newest().saturating_sub(behind);
        let in_reach = |raw: &&Raw| (from..=until).contains(&raw.sequence);
        Page { messages: stream.of(subject).filter(in_reach).cloned().collect(), next: None }
    }

    /// A subject's last message.
    pub fn last(&self, subject: &str) -> Option<Raw> {
        self.streams.get(&stream_of(subject))?.last(subject).cloned()
    }

    /// Delivers what is due by now, in seconds since 1970; answers with the second in which the next will be.
    pub fn deliver_due(&mut self, now_s: i64) -> Option<i64> {
        let is_due = |_: &String, (second, ..): &mut (i64, String, HeaderMap)| *second <= now_s;
        let due: Vec<_> = self.scheduled.extract_if(.., is_due).collect();
        for (_, (_, subject, headers)) in due {
            self.store(Message { subject, headers, body: Bytes::new(), expected: None });
        }
        self.scheduled.values().map(|(second, ..)| *second).min()
    }

    /// A worker joins a list's group, and is known by the number from here on.
    pub fn join(&mut self, list: List, partition: u16, take_over: bool) -> u64 {
        self.members += 1;
        let streams = &self.streams;
        let hands = self.lists.entry((list, partition)).or_insert_with(|| {
            let mut hands = Hands::new(&list.filter(partition));
            let there = streams.get(&list.stream(partition));
            there
                .into_iter()
                .flat_map(Stream::messages)
                .for_each(|(subject, raw)| hands.note(subject, raw.sequence));
            hands
        });
        hands.join(self.members, take_over);
        self.members
    }

    /// A worker is gone.
    pub fn leave(&mut self, list: List, partition: u16, member: u64) {
        if let Some(hands) = self.lists.get_mut(&(list, partition)) {
            hands.leave(member);
        }
    }

    /// What is to be handed to a worker at this moment, and when there is more, if nothing happens before; `None` if
    /// the server knows the worker no more.
    pub fn hand_out(&mut self, list: List, partition: u16, member: u64, now: Instant) -> Option<Handing> {
        let (hands, streams) = (self.lists.get_mut(&(list, partition))?, &self.streams);
        let stream = streams.get(&list.stream(partition));
        hands.hand_out(member, now, |sequence| stream.and_then(|stream| stream.subject(sequence)))
    }

    /// A worker's word about a message.
    pub fn tell(&mut self, list: List, partition: u16, sequence: u64, word: Word, now: Instant) {
        if let Some(hands) = self.lists.get_mut(&(list, partition)) {
            hands.tell(sequence, word, now);
        }
    }

    /// The server ends and starts anew: its workers are gone, and of what they said lately, some is forgotten. A power
    /// cut also takes what was not synced; of a server that keeps its promise, nothing of that was acknowledged.
    pub fn restart(&mut self, chance: &Chance, is_power_cut: bool) {
        for hands in self.lists.values_mut() {
            hands.restart(chance);
        }
        if is_power_cut && self.flaw == Flaw::AcknowledgesEarly {
            let lost = chance.below(4);
            for stream in self.streams.values_mut() {
                stream.lose(lost);
            }
            let newest: BTreeMap<String, u64> =
                self.streams.iter().map(|(name, stream)| (name.clone(), stream.newest())).collect();
            for story in self.stories.values_mut() {
                story.retain(|event| {
                    let name = subject::stream(event.position.partition);
                    newest.get(&name).is_some_and(|newest| event.position.sequence <= *newest)
                });
            }
        }
    }

    /// How far a replica may be behind.
    pub fn behind(&self, chance: &Chance) -> u64 {
        let is_behind = self.durability == Durability::Replicated && chance.permille(150);
        if is_behind { 1 + chance.below(4) } else { 0 }
    }
}

/// The stream that takes a subject's messages.
fn stream_of(subject: &str) -> String {
    match subject.split_once('.') {
        Some(("orders", rest)) => {
            let partition = rest.split('.').next().and_then(|number| number.parse().ok());
            subject::stream(partition.unwrap_or_default())
        }
        Some(("deadlines" | "due", _)) => List::Due.stream(0),
        Some(("notices", _)) => List::Notices.stream(0),
        Some(_) | None => "FLOWS".to_owned(),
    }
}
