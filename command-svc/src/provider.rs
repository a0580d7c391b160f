//! The payment provider, as a port: charge under a key, give back under the same key.
//!
//! Both calls are idempotent at the provider: the key is the order id.

use std::{
    future::{Ready, ready},
    time::Duration,
};

use domain::{Money, OrderId};

/// The longest a sandbox token may ask the sandbox to wait.
const SANDBOX_SLOW_MS_MAX: u64 = 60_000;

/// What the provider said to a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Charge {
    Approved { reference: String },
    Declined { reason: String },
}

/// The provider gave no usable answer; whether it acted is unknown.
#[derive(Debug, thiserror::Error)]
#[error("the payment provider is down")]
pub struct ProviderDown;

/// The built-in provider, which answers by token and remembers nothing: the same call has the same answer, so a
/// repeat under the same key changes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sandbox;

impl Sandbox {
    /// `tok_ok` approves, `tok_declined` declines, `tok_slow:<ms>` approves late, `tok_down` fails.
    pub async fn charge(self, key: OrderId, token: &str) -> Result<Charge, ProviderDown> {
        if let Some(ms) = token.strip_prefix("tok_slow:").and_then(|ms| ms.parse::<u64>().ok()) {
            tokio::time::sleep(Duration::from_millis(ms.min(SANDBOX_SLOW_MS_MAX))).await;
            return Ok(approved(key));
        }
        match token {
            "tok_ok" => Ok(approved(key)),
            "tok_down" => Err(ProviderDown),
            "tok_declined" => Ok(Charge::Declined { reason: "the card was declined".into() }),
            _ => Ok(Charge::Declined { reason: "the token is not known".into() }),
        }
    }

    /// Gives back what was taken under the key; `taken` is what our own log knows of it.
    pub fn give_back(self, _key: OrderId, taken: Money) -> Ready<Result<Money, ProviderDown>> {
        ready(Ok(taken))
    }
}

fn approved(key: OrderId) -> Charge {
    Charge::Approved { reference: format!("sandbox-{key}") }
}
