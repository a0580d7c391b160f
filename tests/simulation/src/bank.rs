//! A payment provider that keeps its promises (`docs/payment-provider.md`), is slow, refuses calls, and whose answers
//! get lost.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use command_svc::provider::{
    PaymentProvider, ProviderError,
    books::{Books, charge_of},
};
use domain::{Money, OrderId, payment::Charge};
use futures::future::BoxFuture;
use tokio::time::sleep;

use crate::net::Net;

/// Longer than a process waits.
const SLOW_MOST: Duration = Duration::from_secs(8);

/// Of the calls to charge that may go wrong, one of so many is refused.
const REFUSED_PART: u64 = 4;

/// The bank's books.
pub struct Bank {
    net: Arc<Net>,
    /// Calls of a thousand that go wrong.
    trouble: u64,
    books: Mutex<Books>,
    this: std::sync::Weak<Self>,
}

impl Bank {
    pub fn new(net: &Arc<Net>, trouble: u64) -> Arc<Self> {
        let net = Arc::clone(net);
        Arc::new_cyclic(|this| Self { net, trouble, books: Mutex::default(), this: this.clone() })
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the bank holds of an order's money, by its keys.
    pub fn held(&self, order_id: OrderId) -> i64 {
        self.books().held_of(order_id).values().sum()
    }

    /// A call arrives, perhaps late, perhaps never; and its answer comes, or not.
    async fn called<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, ProviderError> {
        let goes_wrong = !self.net.is_calm() && self.net.chance.permille(self.trouble);
        if !goes_wrong {
            return Ok(act(self));
        }
        match self.net.chance.below(4) {
            0 => {
                self.net.tell(|| "the bank refuses to answer".to_owned());
                Err(ProviderError::Down("it answers 503".into()))
            }
            1 => {
                act(self);
                self.net.tell(|| "the bank acts, and its answer is lost".to_owned());
                sleep(SLOW_MOST).await;
                Err(ProviderError::Down("the answer is lost".into()))
            }
            2 => {
                // It lands although nobody waits any more.
                let (bank, late) = (self.this.clone(), self.net.chance.while_up_to(SLOW_MOST));
                let (sender, answer) = tokio::sync::oneshot::channel();
                self.net.tell(|| format!("a call takes {late:?} to the bank"));
                self.net.goes_on(async move {
                    sleep(late).await;
                    if let Some(bank) = bank.upgrade() {
                        drop(sender.send(act(&bank)));
                    }
                });
                answer.await.map_err(|_| ProviderError::Down("it is gone".into()))
            }
            _ => {
                sleep(self.net.chance.while_up_to(SLOW_MOST)).await;
                Ok(act(self))
            }
        }
    }
}

impl PaymentProvider for Bank {
    fn charge<'a>(
        &'a self,
        key: &'a str,
        amount: Money,
        _: &'a str,
        token: &'a str,
    ) -> BoxFuture<'a, Result<Charge, ProviderError>> {
        let (key, is_good) = (key.to_owned(), token == "good");
        // Whatever it has under the key: a call that comes while another is under way, for one.
        if !self.net.is_calm() && self.net.chance.permille(self.trouble / REFUSED_PART) {
            self.net.tell(|| format!("the bank refuses the call to charge {key}"));
            return Box::pin(async { Err(ProviderError::Refused("it answers 400".into())) });
        }
        Box::pin(self.called(move |bank| {
            let entry = bank.books().charge(&key, amount, is_good).clone();
            bank.net.tell(|| format!("the bank: charge {key} → {entry:?}"));
            charge_of(&key, &entry)
        }))
    }

    fn look_up<'a>(&'a self, key: &'a str, _: Money) -> BoxFuture<'a, Result<Option<Charge>, ProviderError>> {
        let key = key.to_owned();
        Box::pin(self.called(move |bank| bank.books().entry(&key).map(|entry| charge_of(&key, entry))))
    }

    fn close<'a>(&'a self, key: &'a str, taken: Money) -> BoxFuture<'a, Result<Money, ProviderError>> {
        let key = key.to_owned();
        Box::pin(self.called(move |bank| {
            let before = bank.books().entry(&key).cloned();
            bank.net.tell(|| format!("the bank: close {key}, it was {before:?}"));
            // It goes by its own books only: what our log says was taken is nothing to it.
            bank.books().close(&key, Money { amount: 0, ..taken })
        }))
    }
}
