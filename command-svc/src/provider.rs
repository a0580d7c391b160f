//! The payment provider, as a port: charge under a key, ask what became of a key, close a key.
//!
//! A charge under a key that was charged before answers as before. Closing a key gives back what was taken under it,
//! and what arrives under it later takes nothing. Everything else rests on these two: see `docs/payment-provider.md`.

pub mod books;
mod http;
mod sandbox;

use domain::{Money, payment::Charge};
use futures::future::BoxFuture;

pub use http::{Holding, HttpProvider};
pub use sandbox::Sandbox;

/// The provider gave no answer that says what became of the money.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// It is away, or answers what cannot be used; whether it acted is unknown. The same call may go better later.
    #[error("the payment provider is down: {0}")]
    Down(String),
    /// It refuses this very call, and would again; of others this says nothing.
    #[error("the payment provider refuses the call: {0}")]
    Refused(String),
    /// It says that another amount moved than was asked for, or one of another currency.
    #[error("the payment provider moved what was not asked for: {0}")]
    Mismatch(String),
}

/// A payment provider.
pub trait PaymentProvider: Send + Sync {
    /// Takes the money, once a key.
    fn charge<'a>(
        &'a self,
        key: &'a str,
        amount: Money,
        method: &'a str,
        token: &'a str,
    ) -> BoxFuture<'a, Result<Charge, ProviderError>>;

    /// What became of a key under which `asked` was to be taken; `None`: nothing was ever charged or declined under it.
    fn look_up<'a>(
        &'a self,
        key: &'a str,
        asked: Money,
    ) -> BoxFuture<'a, Result<Option<Charge>, ProviderError>>;

    /// Closes a key, and says what was given back; `taken` is what our own log knows of.
    fn close<'a>(&'a self, key: &'a str, taken: Money) -> BoxFuture<'a, Result<Money, ProviderError>>;
}

impl PaymentProvider for HttpProvider {
    fn charge<'a>(
        &'a self,
        key: &'a str,
        amount: Money,
        method: &'a str,
        token: &'a str,
    ) -> BoxFuture<'a, Result<Charge, ProviderError>> {
        Box::pin(self.charge(key, amount, method, token))
    }

    fn look_up<'a>(
        &'a self,
        key: &'a str,
        asked: Money,
    ) -> BoxFuture<'a, Result<Option<Charge>, ProviderError>> {
        Box::pin(self.look_up(key, asked))
    }

    fn close<'a>(&'a self, key: &'a str, taken: Money) -> BoxFuture<'a, Result<Money, ProviderError>> {
        Box::pin(self.close(key, taken.currency))
    }
}
