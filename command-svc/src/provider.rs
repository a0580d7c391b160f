//! The payment provider, as a port: charge under a key, ask what became of a key, close a key.
//!
//! A charge under a key that was charged before answers as before. Closing a key gives back what was taken under it,
//! and what arrives under it later takes nothing. Everything else rests on these two: see `docs/payment-provider.md`.

mod http;

use std::{future::ready, time::Duration};

use domain::{Money, payment::Charge};
use futures::future::BoxFuture;

pub use http::HttpProvider;

/// The longest a sandbox token may ask the sandbox to wait.
const SANDBOX_SLOW_MS_MAX: u64 = 60_000;

/// The provider gave no usable answer; whether it acted is unknown.
#[derive(Debug, thiserror::Error)]
#[error("the payment provider is down: {0}")]
pub struct ProviderDown(pub String);

/// A payment provider.
pub trait PaymentProvider: Send + Sync {
    /// Takes the money, once a key.
    fn charge<'a>(
        &'a self,
        key: &'a str,
        amount: Money,
        method: &'a str,
        token: &'a str,
    ) -> BoxFuture<'a, Result<Charge, ProviderDown>>;

    /// What became of a key; `None`: nothing was ever charged or declined under it.
    fn look_up<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Charge>, ProviderDown>>;

    /// Closes a key, and says what was given back; `taken` is what our own log knows of.
    fn close<'a>(&'a self, key: &'a str, taken: Money) -> BoxFuture<'a, Result<Money, ProviderDown>>;
}

/// The built-in one, which answers by token and remembers nothing: the same call has the same answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sandbox;

impl PaymentProvider for Sandbox {
    fn charge<'a>(
        &'a self,
        key: &'a str,
        _: Money,
        _: &'a str,
        token: &'a str,
    ) -> BoxFuture<'a, Result<Charge, ProviderDown>> {
        Box::pin(sandbox_charge(key, token))
    }

    fn look_up<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Charge>, ProviderDown>> {
        Box::pin(ready(Ok(None)))
    }

    fn close<'a>(&'a self, _: &'a str, taken: Money) -> BoxFuture<'a, Result<Money, ProviderDown>> {
        Box::pin(ready(Ok(taken)))
    }
}

impl PaymentProvider for HttpProvider {
    fn charge<'a>(
        &'a self,
        key: &'a str,
        amount: Money,
        method: &'a str,
        token: &'a str,
    ) -> BoxFuture<'a, Result<Charge, ProviderDown>> {
        Box::pin(self.charge(key, amount, method, token))
    }

    fn look_up<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Charge>, ProviderDown>> {
        Box::pin(self.look_up(key))
    }

    fn close<'a>(&'a self, key: &'a str, taken: Money) -> BoxFuture<'a, Result<Money, ProviderDown>> {
        Box::pin(self.close(key, taken.currency))
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
