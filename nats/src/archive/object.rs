//! An object of the archive: gzipped JSON lines, an event each, and what it says about itself.

use std::{
    io::{BufWriter, Read, Write},
    ops::Range,
};

use async_nats::HeaderMap;
use domain::{OrderId, Position};
use flate2::{Compression, bufread::GzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize};

use crate::{
    broker::{Failure, Raw},
    codec::{self, Stored, Undecodable},
    subject,
};

/// So many sequences without an event of an object part two stretches of it, ...
const APART: u64 = 1_000;
/// ... of which it has so many at most, parted by the widest gaps.
const STRETCHES_MAX: usize = 32;
/// What the server's own headers begin with.
const SERVERS_OWN: &str = "Nats-";

/// An object of the archive, as it describes itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    pub partition: u16,
    /// Of the oldest event in it.
    pub first: u64,
    /// Of the newest.
    pub last: u64,
    pub events: u64,
    /// Where the events are, ascending: an order's last event, which closed it, is far from the others.
    #[serde(default)]
    pub(super) stretches: Vec<(u64, u64)>,
    /// The lower halves of the orders' ids, ascending. Two orders may share one.
    pub(super) orders: Vec<u64>,
}

impl About {
    pub fn orders(&self) -> usize {
        self.orders.len()
    }

    /// Whether the object may have events of the partition from a sequence on up to another.
    pub(super) fn may_reach(&self, partition: u16, from: u64, to: u64) -> bool {
        let whole = [(self.first, self.last)];
        let stretches = if self.stretches.is_empty() { &whole[..] } else { &self.stretches };
        self.partition == partition && stretches.iter().any(|(first, last)| *first <= to && *last >= from)
    }

    pub(super) fn may_hold(&self, order_id: OrderId) -> bool {
        self.orders.binary_search(&mark(order_id)).is_ok()
    }
}

pub(super) fn mark(order_id: OrderId) -> u64 {
    order_id.0.as_u64_pair().1
}

/// The stretches of the log that have these sequences, which ascend.
pub(super) fn stretches(sequences: &[u64]) -> Vec<(u64, u64)> {
    let mut gaps: Vec<u64> = sequences.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort_unstable_by(|a, b| b.cmp(a));
    let apart = gaps.get(STRETCHES_MAX - 1).copied().unwrap_or_default().max(APART);
    let stretches = sequences.chunk_by(|a, b| b - a <= apart);
    stretches.filter_map(|stretch| Some((*stretch.first()?, *stretch.last()?))).collect()
}

/// An event as the log had it, without the headers that are the server's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) sequence: u64,
    pub(super) order_id: OrderId,
    headers: Vec<(String, String)>,
    data: String,
}

impl Kept {
    pub(super) fn of(order_id: OrderId, raw: &Raw) -> Self {
        let texts = |(name, values): (&_, &Vec<async_nats::HeaderValue>)| {
            let name: &async_nats::HeaderName = name;
            values.iter().map(|value| (name.to_string(), value.to_string())).collect::<Vec<_>>()
        };
        let mut headers: Vec<_> = raw.headers.iter().flat_map(texts).collect();
        headers.retain(|(name, _)| !name.starts_with(SERVERS_OWN));
        headers.sort();
        let data = String::from_utf8_lossy(&raw.body).into_owned();
        Self { sequence: raw.sequence, order_id, headers, data }
    }

    pub(super) fn raw(&self) -> Raw {
        let mut headers = HeaderMap::new();
        self.headers.iter().for_each(|(name, value)| headers.append(name.as_str(), value.as_str()));
        Raw { sequence: self.sequence, headers, body: self.data.clone().into() }
    }

    pub(super) fn stored(&self, partition: u16) -> Result<Stored, Undecodable> {
        let Raw { sequence, headers, body } = self.raw();
        let position = Position { partition, sequence };
        codec::decode(&subject::order(partition, self.order_id), position, &headers, body)
    }
}

/// An object's events in the order of the log, each read when it is wanted: as text they take a third of the memory.
pub(super) struct Opened {
    text: String,
    places: Vec<Place>,
}

/// Where an event is in the text.
#[derive(Deserialize)]
struct Place {
    sequence: u64,
    order_id: OrderId,
    #[serde(skip)]
    line: Range<usize>,
}

impl Opened {
    /// About the memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.text.len() + size_of_val(self.places.as_slice())
    }

    /// An order's events.
    pub(super) fn story(&self, order_id: OrderId) -> serde_json::Result<Vec<Kept>> {
        self.read(self.places.iter().filter(|place| place.order_id == order_id))
    }

    /// The events from a sequence on up to another.
    pub(super) fn within(&self, from: u64, to: u64) -> serde_json::Result<Vec<Kept>> {
        let begins = self.places.partition_point(|place| place.sequence < from);
        self.read(self.places[begins..].iter().take_while(|place| place.sequence <= to))
    }

    pub(super) fn all(&self) -> serde_json::Result<Vec<Kept>> {
        self.read(self.places.iter())
    }

    fn read<'a>(&self, places: impl Iterator<Item = &'a Place>) -> serde_json::Result<Vec<Kept>> {
        places.map(|place| serde_json::from_str(&self.text[place.line.clone()])).collect()
    }
}

pub(super) fn pack(events: &[Kept]) -> Result<Vec<u8>, Failure> {
    // The encoder clears all the room it has left at each write, and JSON is written in many small ones.
    let mut packing = BufWriter::new(GzEncoder::new(Vec::new(), Compression::default()));
    for event in events {
        serde_json::to_writer(&mut packing, event)?;
        packing.write_all(b"\n")?;
    }
    Ok(packing.into_inner()?.finish()?)
}

pub(super) fn unpack(bytes: &[u8]) -> Result<Opened, Failure> {
    let (mut text, mut places, mut begins) = (String::new(), Vec::new(), 0);
    GzDecoder::new(bytes).read_to_string(&mut text)?;
    for line in text.split_inclusive('\n') {
        let place: Place = serde_json::from_str(line)?;
        places.push(Place { line: begins..begins + line.len(), ..place });
        begins += line.len();
    }
    Ok(Opened { text, places })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_says_where_its_events_are_in_the_log_and_where_none_is_for_long() {
        assert_eq!(stretches(&[]), []);
        assert_eq!(stretches(&[3, 4, 900, 50_000, 50_001]), [(3, 900), (50_000, 50_001)]);
        let scattered: Vec<u64> = (1..=100).map(|number| number * number * APART).collect();
        let found = stretches(&scattered);
        assert_eq!(found.len(), STRETCHES_MAX, "the widest gaps part them");
        assert!(scattered.iter().all(|sequence| found.iter().any(|(a, b)| (a..=b).contains(&sequence))));
        let about =
            About { partition: 1, first: 3, last: 50_001, events: 5, stretches: found, orders: vec![] };
        assert!(about.may_reach(1, 0, APART) && !about.may_reach(0, 0, APART) && !about.may_reach(1, 0, 5));
        let older = About { stretches: vec![], ..about };
        assert!(older.may_reach(1, 900, 1_000) && !older.may_reach(1, 50_002, 60_000));
    }
}
