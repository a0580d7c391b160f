//! What can be set.

use std::time::Duration;

use clap::{Args, ValueEnum};
use domain::Context;

/// A context whose commands this process decides, or the saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    Ordering,
    Payment,
    Store,
    Marketing,
    Delivery,
    Review,
    Saga,
}

impl Role {
    /// The context that the role decides for.
    pub const fn context(self) -> Context {
        match self {
            Self::Ordering => Context::Ordering,
            Self::Payment => Context::Payment,
            Self::Store => Context::Store,
            Self::Marketing => Context::Marketing,
            Self::Delivery => Context::Delivery,
            Self::Review => Context::Review,
            Self::Saga => Context::Saga,
        }
    }
}

#[derive(Args, Clone, Debug)]
pub struct CommandSettings {
    /// The contexts that this process serves
    #[arg(
        long,
        env = "TWELVE_ROLES",
        value_enum,
        value_delimiter = ',',
        value_name = "ROLE,…",
        default_value = "ordering,payment,store,marketing,delivery,review,saga"
    )]
    pub roles: Vec<Role>,
    /// Milliseconds that another context may take to answer a command
    #[arg(long, env = "TWELVE_CALL_TIMEOUT_MS", value_name = "MS", default_value_t = 2_000,
          value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub call_timeout_ms: u64,
    /// Milliseconds that the payment provider may take
    #[arg(long, env = "TWELVE_PROVIDER_TIMEOUT_MS", value_name = "MS", default_value_t = 3_000,
          value_parser = clap::value_parser!(u64).range(10..=20_000))]
    pub provider_timeout_ms: u64,
    /// Longest pause, in milliseconds, before the saga tries a step again
    #[arg(long, env = "TWELVE_RETRY_PAUSE_MAX_MS", value_name = "MS", default_value_t = 5_000,
          value_parser = clap::value_parser!(u64).range(100..=600_000))]
    pub retry_pause_max_ms: u64,
    /// Milliseconds that a breaker stays open before it lets a call through to see
    #[arg(long, env = "TWELVE_BREAKER_OPEN_MS", value_name = "MS", default_value_t = 1_000,
          value_parser = clap::value_parser!(u64).range(10..=600_000))]
    pub breaker_open_ms: u64,
    /// Calls that a breaker looks back on, and the fewest on which it judges
    #[arg(long, env = "TWELVE_BREAKER_CALLS", value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub breaker_calls: u16,
    /// Per cent of those calls that must fail for a breaker to open
    #[arg(long, env = "TWELVE_BREAKER_FAILURE_PERCENT", value_name = "PERCENT", default_value_t = 30,
          value_parser = clap::value_parser!(u8).range(1..=100))]
    pub breaker_failure_percent: u8,
    /// Milliseconds that this process's contexts wait before each answer: a rehearsal of slowness
    #[arg(long, env = "TWELVE_ANSWER_DELAY_MS", value_name = "MS", default_value_t = 0,
          value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub answer_delay_ms: u64,
}

impl CommandSettings {
    pub const fn call_timeout(&self) -> Duration {
        Duration::from_millis(self.call_timeout_ms)
    }

    pub const fn provider_timeout(&self) -> Duration {
        Duration::from_millis(self.provider_timeout_ms)
    }

    pub const fn retry_pause_max(&self) -> Duration {
        Duration::from_millis(self.retry_pause_max_ms)
    }
}
