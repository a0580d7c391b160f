//! A share for each caller of what all callers need: how many of one kind a caller may hold at a time, and how many
//! all callers together may.
//!
//! A handler takes a share with [`Caller::share`](crate::Caller::share) and holds it for as long as it uses what is
//! shared. One that cannot be given is refused at once: nothing waits for a share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::problem::{Code, Problem};

/// Seconds after which a call may be tried again that got no share.
const RETRY_AFTER_S: u64 = 1;

/// What callers share. The names are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Calls whose body is there, until they are answered.
    Calls,
    /// Calls that wait for a position or for an outcome.
    Waits,
    /// Live streams.
    Live,
    /// Queries of a moment that has passed.
    AsOf,
    /// Pages of lists, and of an order's events, that are being built or wait to be.
    Pages,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Calls, Self::Waits, Self::Live, Self::AsOf, Self::Pages];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Waits => "waits",
            Self::Live => "live",
            Self::AsOf => "as_of",
            Self::Pages => "pages",
        }
    }

    /// Whether callers who are told apart by nothing have one caller's share together. What plain calls, pages and
    /// live streams take, they may take whole: that is what a shop on one machine is.
    const fn is_bounded_for_all(self) -> bool {
        match self {
            Self::Calls | Self::Live | Self::Pages => false,
            Self::Waits | Self::AsOf => true,
        }
    }

    const fn plural(self) -> &'static str {
        match self {
            Self::Calls => "calls in progress",
            Self::Waits => "calls that wait",
            Self::Live => "live streams",
            Self::AsOf => "queries of the past",
            Self::Pages => "pages that are built or wait to be",
        }
    }
}

/// How many of a kind there may be at a time.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Of one caller.
    pub each: usize,
    /// Of all callers together.
    pub all: usize,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    /// Only callers who hold something are in it.
    each: HashMap<Arc<str>, usize>,
}

/// The shares of one kind; clones share the count.
#[derive(Clone, Debug)]
pub struct Shares {
    kind: Kind,
    bounds: Bounds,
    held: Arc<Mutex<Held>>,
}

/// The shares of every kind, on the routes of one router.
#[derive(Debug)]
pub(crate) struct AllShares([Shares; Kind::ALL.len()]);

impl AllShares {
    pub(crate) fn new(bounds: impl Fn(Kind) -> Bounds) -> Self {
        Self(Kind::ALL.map(|kind| Shares::new(kind, bounds(kind))))
    }
}

/// What one caller takes shares by.
#[derive(Clone, Debug)]
pub(crate) struct CallerShares {
    pub(crate) all: Arc<AllShares>,
    pub(crate) who: Arc<str>,
    /// Whether `who` is one caller, and not all who are told apart by nothing.
    pub(crate) is_told_apart: bool,
}

impl CallerShares {
    pub(crate) fn take(&self, kind: Kind) -> Result<Share, Problem> {
        self.all.0[kind as usize].take(&self.who, self.is_told_apart)
    }
}

/// A share that is held until it is dropped.
#[must_use = "a share is held for as long as what it was taken for is used"]
pub struct Share(Option<(Shares, Arc<str>)>);

impl Share {
    /// The share of a caller who is not counted.
    pub(crate) const fn uncounted() -> Self {
        Self(None)
    }
}

impl Shares {
    pub fn new(kind: Kind, bounds: Bounds) -> Self {
        Self { kind, bounds, held: Arc::default() }
    }

    /// One more for this caller: 429 `too_many_at_once` where the caller holds as many as one may, 503 `overloaded`
    /// where all callers together do.
    ///
    /// `is_told_apart`: whether that name is one caller's, and not that of all who are told apart by nothing. Those
    /// share what all callers may have, but for what waits and what is dear.
    pub fn take(&self, caller: &Arc<str>, is_told_apart: bool) -> Result<Share, Problem> {
        let each =
            if is_told_apart || self.kind.is_bounded_for_all() { self.bounds.each } else { usize::MAX };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = held.each.get(caller).copied().unwrap_or_default();
        if mine >= each {
            drop(held);
            return Err(self.refused("each"));
        }
        if held.all >= self.bounds.all {
            drop(held);
            return Err(self.refused("all"));
        }
        held.all += 1;
        held.each.insert(Arc::clone(caller), mine + 1);
        Ok(Share(Some((self.clone(), Arc::clone(caller)))))
    }

    fn refused(&self, whose: &'static str) -> Problem {
        metrics::counter!("twelve_shares_refused_total", "kind" => self.kind.as_str(), "bound" => whose)
            .increment(1);
        let (kind, each) = (self.kind.plural(), self.bounds.each);
        if whose == "each" {
            let detail =
                format!("one caller may have {each} {kind} at a time; nothing was done, try again later");
            return Problem::too_many_at_once(detail, RETRY_AFTER_S);
        }
        let detail = format!("there are too many {kind}; nothing was done, try again");
        Problem::unavailable(Code::Overloaded, detail, RETRY_AFTER_S)
    }

    fn give_back(&self, caller: &Arc<str>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.all = held.all.saturating_sub(1);
        let left = held.each.get(caller).map_or(0, |mine| mine.saturating_sub(1));
        if left == 0 {
            held.each.remove(caller);
        } else {
            held.each.insert(Arc::clone(caller), left);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some((shares, caller)) = self.0.take() {
            shares.give_back(&caller);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_takes_no_more_than_a_share_and_gives_it_back() {
        let shares = Shares::new(Kind::Waits, Bounds { each: 2, all: 3 });
        let [greedy, modest, third]: [Arc<str>; 3] = ["greedy", "modest", "third"].map(Arc::from);
        let first = shares.take(&greedy, true).unwrap();
        let _second = shares.take(&greedy, true).unwrap();
        assert_eq!(shares.take(&greedy, true).err().map(|problem| problem.code()), Some("too_many_at_once"));
        let other = shares.take(&modest, true).unwrap();
        assert_eq!(shares.take(&third, true).err().map(|problem| problem.code()), Some("overloaded"));
        drop(first);
        let _again = shares.take(&third, true).unwrap();
        assert_eq!(shares.held.lock().unwrap().each.len(), 3);
        drop(other);
        assert_eq!(shares.held.lock().unwrap().each.len(), 2, "who holds nothing is forgotten");
    }
}
