//! An object of the archive: gzipped JSON lines, an event each, and what it says about itself.

use std::io::{BufRead, BufReader, BufWriter, Write};

use async_nats::HeaderMap;
use domain::{OrderId, Position};
use flate2::{Compression, bufread::GzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize};

use crate::{
    broker::{Failure, Raw},
    codec::{self, Stored, Undecodable},
    subject,
};

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
    /// The lower halves of the orders' ids, ascending. Two orders may share one.
    pub(super) orders: Vec<u64>,
}

impl About {
    pub fn orders(&self) -> usize {
        self.orders.len()
    }

    pub(super) fn may_hold(&self, order_id: OrderId) -> bool {
        self.orders.binary_search(&mark(order_id)).is_ok()
    }
}

pub(super) fn mark(order_id: OrderId) -> u64 {
    order_id.0.as_u64_pair().1
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

/// An object's events in the order of the log, and about how much memory they take.
pub(super) struct Opened {
    pub(super) events: Vec<Kept>,
    pub(super) bytes: usize,
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
    let mut opened = Opened { events: Vec::new(), bytes: 0 };
    for line in BufReader::new(GzDecoder::new(bytes)).lines() {
        let line = line?;
        opened.bytes += line.len();
        opened.events.push(serde_json::from_str(&line)?);
    }
    Ok(opened)
}
