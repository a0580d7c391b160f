//! How long other contexts may take to answer, and when their breakers open: each number by itself, or all by a name.

use std::time::Duration;

use clap::{Args, ValueEnum};
use domain::Context;

/// Numbers that go together: ours, and those that shops of each flow have run with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// 2000 ms; 30 % of 20 calls, open for 1 s
    Standard,
    /// 500 ms; 30 % of 20 calls, open for 5 s
    Marketplace,
    /// 610 ms; 50 % of 20 calls, open for 5 s
    Appliance,
    /// 610 ms; 50 % of 20 calls, open for 5 s
    Rental,
    /// 500 ms; 50 % of 20 calls, open for 5 s
    Food,
    /// 500 ms, 200 ms for payment; 50 % of 20 calls, open for 5 s
    Kitchen,
}

impl Preset {
    const fn call_timeout_ms(self, context: Context) -> u64 {
        match self {
            Self::Standard => 2_000,
            Self::Appliance | Self::Rental => 610,
            Self::Kitchen if matches!(context, Context::Payment) => 200,
            Self::Marketplace | Self::Food | Self::Kitchen => 500,
        }
    }

    const fn failure_percent(self) -> u8 {
        match self {
            Self::Standard | Self::Marketplace => 30,
            Self::Appliance | Self::Rental | Self::Food | Self::Kitchen => 50,
        }
    }

    const fn calls(self) -> u16 {
        match self {
            Self::Standard
            | Self::Marketplace
            | Self::Appliance
            | Self::Rental
            | Self::Food
            | Self::Kitchen => 20,
        }
    }

    const fn open_ms(self) -> u64 {
        match self {
            Self::Standard => 1_000,
            Self::Marketplace | Self::Appliance | Self::Rental | Self::Food | Self::Kitchen => 5_000,
        }
    }
}

/// Calls to other contexts and their breakers, as set.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Circuit breakers")]
pub struct BreakerSettings {
    /// Time limit and breakers by name; each may be set by itself as well
    #[arg(long, env = "TWELVE_BREAKERS", value_enum, value_name = "PRESET", default_value = "standard")]
    pub breakers: Preset,
    /// Milliseconds that another context may take to answer a command [default: as the preset says]
    #[arg(long, env = "TWELVE_CALL_TIMEOUT_MS", value_name = "MS",
          value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub call_timeout_ms: Option<u64>,
    /// Milliseconds that a breaker stays open before it lets a call through to see [default: as the preset says]
    #[arg(long, env = "TWELVE_BREAKER_OPEN_MS", value_name = "MS",
          value_parser = clap::value_parser!(u64).range(10..=600_000))]
    pub breaker_open_ms: Option<u64>,
    /// Calls that a breaker looks back on, and the fewest on which it judges [default: as the preset says]
    #[arg(long, env = "TWELVE_BREAKER_CALLS", value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub breaker_calls: Option<u16>,
    /// Per cent of those calls that must fail for a breaker to open [default: as the preset says]
    #[arg(long, env = "TWELVE_BREAKER_FAILURE_PERCENT", value_name = "PERCENT",
          value_parser = clap::value_parser!(u8).range(1..=100))]
    pub breaker_failure_percent: Option<u8>,
}

impl BreakerSettings {
    pub fn call_timeout(&self, context: Context) -> Duration {
        let preset = self.breakers.call_timeout_ms(context);
        Duration::from_millis(self.call_timeout_ms.unwrap_or(preset))
    }

    pub(crate) fn open_for(&self) -> Duration {
        Duration::from_millis(self.breaker_open_ms.unwrap_or_else(|| self.breakers.open_ms()))
    }

    pub(crate) fn calls(&self) -> usize {
        usize::from(self.breaker_calls.unwrap_or_else(|| self.breakers.calls()))
    }

    /// A fraction.
    pub(crate) fn failure_rate(&self) -> f64 {
        let preset = self.breakers.failure_percent();
        f64::from(self.breaker_failure_percent.unwrap_or(preset)) / 100.0
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        settings: BreakerSettings,
    }

    #[test]
    fn a_preset_sets_all_numbers_and_each_may_be_set_otherwise() {
        let of = |arguments: &[&str]| Program::parse_from([&["program"], arguments].concat()).settings;
        let ms = |settings: BreakerSettings, context| settings.call_timeout(context).as_millis();
        let standard = of(&[]);
        assert_eq!((ms(standard, Context::Payment), standard.calls()), (2_000, 20));
        let kitchen = of(&["--breakers", "kitchen"]);
        assert_eq!((ms(kitchen, Context::Payment), ms(kitchen, Context::Delivery)), (200, 500));
        assert_eq!((kitchen.failure_rate().to_string(), kitchen.open_for().as_secs()), ("0.5".to_owned(), 5));
        let rental = of(&["--breakers", "rental", "--breaker-open-ms", "200"]);
        assert_eq!((ms(rental, Context::Delivery), rental.open_for().as_millis()), (610, 200));
    }
}
