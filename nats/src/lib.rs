//! The log on NATS JetStream: the only crate that names a subject, a stream or a header.
//!
//! [`server`] finds, installs and runs a local nats-server; [`connection`] connects to it; [`topology`] declares the
//! streams and [`setup`] makes them; [`broker`] is what the commands' side asks of a server; [`log`] loads and appends
//! an order's events ([`health`]: whether it can), in groups where each append waits for the disk; [`follow`]
//! reads a partition as it grows, and says what it lost; [`worklist`] hands a
//! partition's events to exactly one worker, and with it [`deadline`] what comes due and [`notice`] who is to be
//! told; [`flows`] keeps every flow that an order follows, [`snapshots`] what views were, [`archive`] orders that are
//! over; [`ask`] carries commands to the context that decides about them; [`contract`] tells others how to read it all.

pub mod subject;
pub mod accounts;
mod header;
pub mod codec;
pub mod contract;
pub mod server;
pub mod connection;
pub mod topology;
pub mod setup;
pub mod nack;
pub mod broker;
pub mod log;
pub mod health;
mod direct;
mod objects;
mod group;
pub mod follow;
mod losses;
pub mod room;
pub mod worklist;
pub mod deadline;
pub mod notice;
mod keeper;
pub mod flows;
pub mod snapshots;
pub mod archive;
mod here;
pub mod ask;
pub mod trace;
pub mod checkup;
pub mod bench;

pub use broker::Broker;
pub use codec::{Stored, Undecodable};
pub use connection::{ConnectError, Connection, Identity};
pub use flows::{FlowBook, FlowBookError};
pub use log::{AppendError, EventLog, LoadError, NewEvent};
pub use topology::{Durability, TopologyError};

/// The current moment, in whole microseconds. The domain never asks; the edges hand it in.
pub fn now() -> domain::Timestamp {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

/// An error with all its causes on one line, for the one place where it is logged or answered.
pub fn causes(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
