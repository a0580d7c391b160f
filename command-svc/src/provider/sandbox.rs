//! The built-in payment provider: no real money, and as unkind as a real one.
//!
//! It keeps books, and what a call does it does whether or not its caller is still there for the answer: a charge may
//! land late, land twice, or land and never be answered, and a key may be closed in between. The token says which.

use std::{
    collections::BTreeSet,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use domain::{Money, payment::Charge};
use futures::future::BoxFuture;
use tokio::time::sleep;

use super::{
    PaymentProvider, ProviderError,
    books::{Books, charge_of},
};

/// The longest a token may ask the sandbox to wait.
const SLOW_MS_MAX: u64 = 60_000;
/// When the second of two charges arrives after the first.
const DUPLICATE_AFTER: Duration = Duration::from_millis(50);
/// Keys that are remembered; about 200 bytes each.
const KEYS_MAX: usize = 200_000;
/// Keys whose money is not given back at the first call; one more is an ordinary key.
const REFUSED_MAX: usize = 10_000;
/// Charges that are on their way and that no caller waits for; one more is not made.
const LATE_MAX: usize = 10_000;

/// The sandbox; clones share its books.
///
/// A key that it has forgotten, or that another process's sandbox charged, it closes with what our own log says was
/// taken.
#[derive(Clone)]
pub struct Sandbox {
    books: Arc<Mutex<Books>>,
    late: Arc<tokio::sync::Semaphore>,
    refused: Arc<Mutex<BTreeSet<String>>>,
}

impl Default for Sandbox {
    fn default() -> Self {
        let books = Arc::new(Mutex::new(Books::of_at_most(KEYS_MAX)));
        Self { books, late: Arc::new(tokio::sync::Semaphore::new(LATE_MAX)), refused: Arc::default() }
    }
}

impl Sandbox {
    /// Its books.
    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn book(&self, key: &str, amount: Money, pays: bool) -> Charge {
        let mut books = self.books();
        let entry = books.charge(key, amount, pays).clone();
        drop(books);
        charge_of(key, &entry)
    }

    /// The charge lands after a while, whether or not its caller is still there.
    async fn book_late(&self, key: &str, amount: Money, after: Duration) -> Result<Charge, ProviderError> {
        let Ok(place) = Arc::clone(&self.late).try_acquire_owned() else {
            return Err(ProviderError::Down("too many charges are on their way".into()));
        };
        let (sandbox, key) = (self.clone(), key.to_owned());
        let booked = tokio::spawn(async move {
            let _place = place;
            sleep(after).await;
            sandbox.book(&key, amount, true)
        });
        booked.await.map_err(|error| ProviderError::Down(error.to_string()))
    }

    /// `tok_ok` approves and `tok_declined` declines. `tok_slow:<ms>` takes the money that much later, `tok_lost` takes
    /// it and never answers, `tok_error` takes it and answers with an error, `tok_twice` takes it in two calls under
    /// one key, `tok_refund_refused` takes it and refuses the first call that would give it back. `tok_down` fails and
    /// `tok_refused` refuses the call, and neither takes anything.
    async fn answer(&self, key: &str, amount: Money, token: &str) -> Result<Charge, ProviderError> {
        if let Some(ms) = token.strip_prefix("tok_slow:").and_then(|ms| ms.parse::<u64>().ok()) {
            return self.book_late(key, amount, Duration::from_millis(ms.min(SLOW_MS_MAX))).await;
        }
        match token {
            "tok_lost" if self.books().entry(key).is_none() => {
                self.book(key, amount, true);
                pending().await
            }
            "tok_error" if self.books().entry(key).is_none() => {
                self.book(key, amount, true);
                Err(ProviderError::Down("the money was taken, and the token asks for an error".into()))
            }
            "tok_twice" => {
                let first = self.book(key, amount, true);
                let (sandbox, key) = (self.clone(), key.to_owned());
                // What it finds is what the first one left, or what was closed meanwhile.
                tokio::spawn(async move { sandbox.book_late(&key, amount, DUPLICATE_AFTER).await.map(drop) });
                Ok(first)
            }
            "tok_refund_refused" if self.books().entry(key).is_none() => {
                let mut refused = self.refused();
                if refused.len() < REFUSED_MAX {
                    refused.insert(key.to_owned());
                }
                drop(refused);
                Ok(self.book(key, amount, true))
            }
            // The repeat of a call that got no answer gets one.
            "tok_ok" | "tok_lost" | "tok_error" | "tok_refund_refused" => Ok(self.book(key, amount, true)),
            "tok_down" => Err(ProviderError::Down("the token asks for it".into())),
            "tok_refused" => Err(ProviderError::Refused("the token asks for it".into())),
            "tok_declined" => Ok(self.book(key, amount, false)),
            _ => {
                self.book(key, amount, false);
                Ok(Charge::Declined { reason: "the token is not known".into() })
            }
        }
    }
}

impl PaymentProvider for Sandbox {
    fn charge<'a>(
        &'a self,
        key: &'a str,
        amount: Money,
        _: &'a str,
        token: &'a str,
    ) -> BoxFuture<'a, Result<Charge, ProviderError>> {
        Box::pin(self.answer(key, amount, token))
    }

    fn look_up<'a>(&'a self, key: &'a str, _: Money) -> BoxFuture<'a, Result<Option<Charge>, ProviderError>> {
        Box::pin(async move { Ok(self.books().entry(key).map(|entry| charge_of(key, entry))) })
    }

    fn close<'a>(&'a self, key: &'a str, taken: Money) -> BoxFuture<'a, Result<Money, ProviderError>> {
        Box::pin(async move {
            if self.refused().remove(key) {
                return Err(ProviderError::Refused("the token asks for it, once".into()));
            }
            Ok(self.books().close(key, taken))
        })
    }
}

#[cfg(test)]
mod tests {
    use domain::Currency;

    use super::*;

    const AMOUNT: Money = Money { amount: 9_000, currency: Currency::WON };
    const NOTHING: Money = Money { amount: 0, currency: Currency::WON };

    #[tokio::test(start_paused = true)]
    async fn a_charge_lands_although_its_caller_has_left() {
        for token in ["tok_slow:2000", "tok_lost"] {
            let sandbox = Sandbox::default();
            let call = sandbox.charge("k", AMOUNT, "card", token);
            assert!(
                tokio::time::timeout(Duration::from_millis(100), call).await.is_err(),
                "{token}: no answer"
            );
            sleep(Duration::from_secs(3)).await;
            assert_eq!(sandbox.books().held().collect::<Vec<_>>(), [("k", 9_000)], "{token}");
            assert_eq!(
                sandbox.close("k", NOTHING).await.unwrap(),
                AMOUNT,
                "{token}: it knows better than we do"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_charge_that_arrives_under_a_closed_key_takes_nothing() {
        let sandbox = Sandbox::default();
        let call = sandbox.charge("k", AMOUNT, "card", "tok_slow:2000");
        assert!(tokio::time::timeout(Duration::from_millis(100), call).await.is_err());
        assert_eq!(sandbox.close("k", NOTHING).await.unwrap(), NOTHING);
        sleep(Duration::from_secs(3)).await;
        assert_eq!(sandbox.books().held().count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn two_charges_under_one_key_take_the_money_once() {
        let sandbox = Sandbox::default();
        sandbox.charge("k", AMOUNT, "card", "tok_twice").await.unwrap();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(sandbox.books().held().collect::<Vec<_>>(), [("k", 9_000)]);
    }

    #[tokio::test]
    async fn a_refund_that_was_refused_is_made_at_the_next_call() {
        let sandbox = Sandbox::default();
        sandbox.charge("k", AMOUNT, "card", "tok_refund_refused").await.unwrap();
        assert!(matches!(sandbox.close("k", AMOUNT).await, Err(ProviderError::Refused(_))));
        assert_eq!(sandbox.close("k", AMOUNT).await.unwrap(), AMOUNT);
    }

    #[tokio::test]
    async fn what_another_process_took_goes_back_by_our_own_log() {
        assert_eq!(Sandbox::default().close("k", AMOUNT).await.unwrap(), AMOUNT);
    }
}
