//! The edge: connections of peers who may be slow, gone or hostile.
//!
//! No peer is waited for without a deadline: not for a connection's first call ([`EdgeSettings::head_within_ms`]), for
//! the rest of a call's body, for the next call, or for an answer to be read. What peers can make us hold has a bound:
//! connections, in all and of one address, bodies that are not whole yet, and answers that are not read yet. At a
//! bound, what is given up is of the peer that holds most, or that has been idle longest.

mod answer;
mod bodies;
mod connection;
mod connections;
mod serve;
mod watched;

use std::time::Duration;

use clap::Args;
use ipnet::IpNet;

use crate::hosts::Hosts;

pub(crate) use self::bodies::{Bodies, BodyThere};
pub use self::serve::serve;

/// How long peers are waited for, and how much they can make us hold.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connections")]
pub struct EdgeSettings {
    /// Connections that may be open; at this number the one goes that has been idle longest
    #[arg(long, env = "TWELVE_CONNECTIONS_MAX", value_name = "N", default_value_t = 10_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub connections_max: u32,
    /// Connections of one address (of IPv6, one /64) that may be open; trusted proxies, and this machine's own address,
    /// may have them all
    #[arg(long, env = "TWELVE_CONNECTIONS_EACH_MAX", value_name = "N", default_value_t = 1_024,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub connections_each_max: u32,
    /// Calls that one HTTP/2 connection may have in progress
    #[arg(long, env = "TWELVE_STREAMS_MAX", value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub streams_max: u32,
    /// Milliseconds within which a connection begins a call, or ends the head of one that it began
    #[arg(long, env = "TWELVE_HEAD_WITHIN_MS", value_name = "MS", default_value_t = 10_000,
          value_parser = clap::value_parser!(u64).range(10..=600_000))]
    pub head_within_ms: u64,
    /// Milliseconds from a call's head to the end of its body
    #[arg(long, env = "TWELVE_BODY_WITHIN_MS", value_name = "MS", default_value_t = 10_000,
          value_parser = clap::value_parser!(u64).range(10..=600_000))]
    pub body_within_ms: u64,
    /// Milliseconds that a connection may stay open without a call
    #[arg(long, env = "TWELVE_IDLE_MAX_MS", value_name = "MS", default_value_t = 75_000,
          value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    pub idle_max_ms: u64,
    /// Milliseconds for which a peer may read nothing of an answer that waits for it, or so much less than it has to
    #[arg(long, env = "TWELVE_UNREAD_MAX_MS", value_name = "MS", default_value_t = 20_000,
          value_parser = clap::value_parser!(u64).range(10..=600_000))]
    pub unread_max_ms: u64,
    /// Bytes of an answer that its peer reads in a second, on average, at the least
    #[arg(long, env = "TWELVE_UNREAD_BYTES_PER_SECOND_MIN", value_name = "BYTES", default_value_t = 4_096,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub unread_bytes_per_second_min: u32,
    /// Bytes of all answers that peers have not read yet; beyond it those go of whom most is held, the slowest first
    #[arg(long, env = "TWELVE_UNREAD_BYTES_MAX", value_name = "BYTES", default_value_t = 134_217_728,
          value_parser = clap::value_parser!(u64).range(1_048_576..))]
    pub unread_bytes_max: u64,
    /// Bytes of all bodies that are not whole yet; beyond it one of the caller is refused who has
    /// most of them
    #[arg(long, env = "TWELVE_BODIES_BYTES_MAX", value_name = "BYTES", default_value_t = 33_554_432,
          value_parser = clap::value_parser!(u64).range(1_048_576..))]
    pub bodies_bytes_max: u64,
    /// Bodies that may be not whole yet; beyond it the oldest is refused of the caller who has most
    #[arg(long, env = "TWELVE_BODIES_MAX", value_name = "N", default_value_t = 4_096,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub bodies_max: u32,
}

impl EdgeSettings {
    pub(crate) const fn head_within(&self) -> Duration {
        Duration::from_millis(self.head_within_ms)
    }

    pub(crate) const fn body_within(&self) -> Duration {
        Duration::from_millis(self.body_within_ms)
    }

    pub(crate) const fn idle_max(&self) -> Duration {
        Duration::from_millis(self.idle_max_ms)
    }

    pub(crate) const fn unread_max(&self) -> Duration {
        Duration::from_millis(self.unread_max_ms)
    }
}

/// How a listener treats its peers.
#[derive(Clone, Debug)]
pub struct Door {
    pub settings: EdgeSettings,
    /// Addresses whose connections are not counted: those of the gateway.
    pub trusted: Vec<IpNet>,
    pub hosts: Hosts,
}
