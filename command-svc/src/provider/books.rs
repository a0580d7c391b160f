//! What a payment provider writes down: one entry a key, and the money that it holds because of it.
//!
//! It keeps the two promises of `docs/payment-provider.md` and no other: a charge under a key that has an entry answers
//! as before, and a closed key takes nothing any more. The sandbox, the provider of the tests and the simulator's bank
//! all keep these books, and so what the log says was paid can be held against them.

use std::collections::{BTreeMap, VecDeque};

use domain::{
    Money, OrderId,
    payment::{Charge, provider_key},
};

/// What a key came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Charged(Money),
    Declined,
    /// With what was given back; 0 if nothing had been taken.
    Closed(Money),
}

impl Entry {
    /// The money that the provider holds under the key, in minor units.
    pub const fn held(&self) -> i64 {
        match self {
            Self::Charged(money) => money.amount,
            Self::Declined | Self::Closed(_) => 0,
        }
    }
}

/// A provider's books.
#[derive(Clone, Debug, Default)]
pub struct Books {
    entries: BTreeMap<String, Entry>,
    /// The keys, oldest first.
    order: VecDeque<String>,
    /// Keys that are remembered; `None`: all.
    keys_max: Option<usize>,
}

impl Books {
    /// Books that forget the oldest key when they have more than so many.
    pub fn of_at_most(keys_max: usize) -> Self {
        Self { keys_max: Some(keys_max), ..Self::default() }
    }

    /// A charge arrives. `pays`: whether the card has cover, if the key is new.
    pub fn charge(&mut self, key: &str, amount: Money, pays: bool) -> &Entry {
        if !self.entries.contains_key(key) {
            self.write(key, if pays { Entry::Charged(amount) } else { Entry::Declined });
        }
        &self.entries[key]
    }

    /// What became of a key; `None`: nothing was ever charged, declined or closed under it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Closes a key and gives back what was taken under it; closed again, it says the same. `unknown` is what is given
    /// back under a key that has no entry.
    pub fn close(&mut self, key: &str, unknown: Money) -> Money {
        let returned = match self.entries.get(key) {
            Some(Entry::Charged(money) | Entry::Closed(money)) => *money,
            Some(Entry::Declined) => Money { amount: 0, ..unknown },
            None => unknown,
        };
        self.write(key, Entry::Closed(returned));
        returned
    }

    /// The attempts to pay an order under which money is held, each with how much.
    pub fn held_of(&self, order_id: OrderId) -> BTreeMap<String, i64> {
        let begins = provider_key(order_id, 0);
        let begins = begins.trim_end_matches('0').to_owned();
        let of = self.entries.range(begins.clone()..).take_while(|(key, _)| key.starts_with(&begins));
        of.filter(|(_, entry)| entry.held() != 0).map(|(key, entry)| (key.clone(), entry.held())).collect()
    }

    /// All keys under which money is held.
    pub fn held(&self) -> impl Iterator<Item = (&str, i64)> {
        let entries = self.entries.iter().map(|(key, entry)| (key.as_str(), entry.held()));
        entries.filter(|(_, held)| *held != 0)
    }

    fn write(&mut self, key: &str, entry: Entry) {
        if self.entries.insert(key.to_owned(), entry).is_some() {
            return;
        }
        let Some(most) = self.keys_max else { return };
        self.order.push_back(key.to_owned());
        if self.order.len() > most
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }
}

/// What a provider answers about an entry.
pub fn charge_of(key: &str, entry: &Entry) -> Charge {
    match entry {
        Entry::Charged(_) => Charge::Approved { reference: format!("sandbox-{key}") },
        Entry::Declined => Charge::Declined { reason: "the card was declined".into() },
        Entry::Closed(_) => Charge::Declined { reason: "the attempt to pay was closed".into() },
    }
}

#[cfg(test)]
mod tests {
    use domain::Currency;

    use super::*;

    fn won(amount: i64) -> Money {
        Money { amount, currency: Currency::WON }
    }

    #[test]
    fn a_key_is_charged_once_and_takes_nothing_once_it_is_closed() {
        let mut books = Books::default();
        books.charge("a", won(9), true);
        assert_eq!(books.charge("a", won(9), true), &Entry::Charged(won(9)));
        assert_eq!(books.held().collect::<Vec<_>>(), [("a", 9)]);
        assert_eq!(
            (books.close("a", won(0)), books.close("a", won(0))),
            (won(9), won(9)),
            "said twice, moved once"
        );
        assert_eq!(books.close("late", won(0)), won(0));
        assert_eq!(books.charge("late", won(9), true), &Entry::Closed(won(0)));
        assert_eq!(books.held().count(), 0);
    }

    #[test]
    fn what_an_order_holds_is_found_among_its_attempts_and_no_other_orders() {
        let (one, other) = (OrderId::from_key("t", "1"), OrderId::from_key("t", "2"));
        let mut books = Books::default();
        books.charge(&provider_key(one, 1), won(5), false);
        books.charge(&provider_key(one, 12), won(5), true);
        books.charge(&provider_key(other, 1), won(7), true);
        assert_eq!(books.held_of(one), [(provider_key(one, 12), 5)].into());
    }

    #[test]
    fn the_oldest_key_is_forgotten_where_room_ends() {
        let mut books = Books::of_at_most(2);
        for key in ["a", "b", "a", "c"] {
            books.charge(key, won(1), true);
        }
        assert_eq!((books.entry("a"), books.held().count()), (None, 2));
    }
}
