//! The payment provider, as a port: charge under a key, ask what became of a key, close a key.
//!
//! A charge under a key that was charged before answers as before. Closing a key gives back what was taken under it,
//! and what arrives under it later takes nothing. Everything else rests on these two: see `docs/payment-provider.md`.

mod http;

use std::time::Duration;

use domain::{Money, payment::Charge};

pub use http::HttpProvider;

/// The longest a sandbox token may ask the sandbox to wait.
const SANDBOX_SLOW_MS_MAX: u64 = 60_000;

/// The provider gave no usable answer; whether it acted is unknown.
#[derive(Debug, thiserror::Error)]
#[error("the payment provider is down: {0}")]
pub struct ProviderDown(pub String);

/// A payment provider.
#[derive(Clone, Debug)]
pub enum Provider {
    /// The built-in one, which answers by token and remembers nothing: the same call has the same answer.
    Sandbox,
    Http(HttpProvider),
}

impl Provider {
    /// Takes the money, once a key.
    pub async fn charge(
        &self,
        key: &str,
        amount: Money,
        method: &str,
        token: &str,
    ) -> Result<Charge, ProviderDown> {
        match self {
            Self::Sandbox => sandbox_charge(key, token).await,
            Self::Http(provider) => provider.charge(key, amount, method, token).await,
        }
    }

    /// What became of a key; `None`: nothing was ever charged or declined under it.
    pub async fn look_up(&self, key: &str) -> Result<Option<Charge>, ProviderDown> {
        match self {
            Self::Sandbox => Ok(None),
            Self::Http(provider) => provider.look_up(key).await,
        }
    }

    /// Closes a key, and says what was given back; `taken` is what our own log knows of.
    pub async fn close(&self, key: &str, taken: Money) -> Result<Money, ProviderDown> {
        match self {
            Self::Sandbox => Ok(taken),
            Self::Http(provider) => provider.close(key, taken.currency).await,
        }
    }
}

/// `tok_ok` approves, `tok_declined` declines, `tok_slow:<ms>` approves late, `tok_down` fails.
async fn sandbox_charge(key: &str, token: &str) -> Result<Charge, ProviderDown> {
    let approved = || Charge::Approved { reference: format!("sandbox-{key}") };
    if let Some(ms) = token.strip_prefix("tok_slow:").and_then(|ms| ms.parse::<u64>().ok()) {
        tokio::time::sleep(Duration::from_millis(ms.min(SANDBOX_SLOW_MS_MAX))).await;
        return Ok(approved());
    }
    match token {
        "tok_ok" => Ok(approved()),
        "tok_down" => Err(ProviderDown("the token asks for it".into())),
        "tok_declined" => Ok(Charge::Declined { reason: "the card was declined".into() }),
        _ => Ok(Charge::Declined { reason: "the token is not known".into() }),
    }
}
