//! A payment provider that keeps its promises (`docs/payment-provider.md`), is slow, and whose answers get lost.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use command_svc::provider::{PaymentProvider, ProviderDown};
use domain::{Money, OrderId, payment::Charge};
use futures::future::BoxFuture;
use tokio::time::sleep;

use crate::net::Net;

/// Longer than a process waits.
const SLOW_MOST: Duration = Duration::from_secs(8);

/// What a key came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Charged(Money),
    Declined,
    /// So much was taken, and went back.
    Closed(i64),
}

/// The bank's books.
pub struct Bank {
    net: Arc<Net>,
    /// Calls of a thousand that go wrong.
    trouble: u64,
    books: Mutex<BTreeMap<String, Entry>>,
    this: std::sync::Weak<Self>,
}

impl Bank {
    pub fn new(net: &Arc<Net>, trouble: u64) -> Arc<Self> {
        let net = Arc::clone(net);
        Arc::new_cyclic(|this| Self { net, trouble, books: Mutex::default(), this: this.clone() })
    }

    fn books(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the bank holds of an order's money, by its keys.
    pub fn held(&self, order_id: OrderId) -> i64 {
        let begins = format!("{order_id}.");
        let books = self.books();
        let entries = books.range(begins.clone()..).take_while(|(key, _)| key.starts_with(&begins));
        entries.map(|(_, entry)| if let Entry::Charged(money) = entry { money.amount } else { 0 }).sum()
    }

    /// A call arrives, perhaps late, perhaps never; and its answer comes, or not.
    async fn called<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, ProviderDown> {
        let goes_wrong = !self.net.is_calm() && self.net.chance.permille(self.trouble);
        if !goes_wrong {
            return Ok(act(self));
        }
        match self.net.chance.below(4) {
            0 => {
                self.net.tell(|| "the bank refuses to answer".to_owned());
                Err(ProviderDown("it answers 503".into()))
            }
            1 => {
                act(self);
                self.net.tell(|| "the bank acts, and its answer is lost".to_owned());
                sleep(SLOW_MOST).await;
                Err(ProviderDown("the answer is lost".into()))
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
                answer.await.map_err(|_| ProviderDown("it is gone".into()))
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
    ) -> BoxFuture<'a, Result<Charge, ProviderDown>> {
        let (key, is_good) = (key.to_owned(), token == "good");
        Box::pin(self.called(move |bank| {
            let mut books = bank.books();
            let first = if is_good { Entry::Charged(amount) } else { Entry::Declined };
            let entry = *books.entry(key.clone()).or_insert(first);
            bank.net.tell(|| format!("the bank: charge {key} → {entry:?}"));
            charge(entry)
        }))
    }

    fn look_up<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Charge>, ProviderDown>> {
        let key = key.to_owned();
        Box::pin(self.called(move |bank| bank.books().get(&key).copied().map(charge)))
    }

    fn close<'a>(&'a self, key: &'a str, taken: Money) -> BoxFuture<'a, Result<Money, ProviderDown>> {
        let key = key.to_owned();
        Box::pin(self.called(move |bank| {
            let mut books = bank.books();
            let before = books.get(&key).copied();
            let back = match before {
                Some(Entry::Charged(Money { amount, .. }) | Entry::Closed(amount)) => amount,
                Some(Entry::Declined) | None => 0,
            };
            bank.net.tell(|| format!("the bank: close {key}, it was {before:?}"));
            books.insert(key, Entry::Closed(back));
            Money { amount: back, currency: taken.currency }
        }))
    }
}

fn charge(entry: Entry) -> Charge {
    match entry {
        Entry::Charged(_) => Charge::Approved { reference: "simulated".into() },
        Entry::Declined | Entry::Closed(_) => Charge::Declined { reason: "no".into() },
    }
}
