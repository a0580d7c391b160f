//! Chance from a seed: the same seed draws the same numbers for ever.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use uuid::Uuid;

/// Draws numbers; clones draw from the same row.
#[derive(Clone, Debug)]
pub struct Chance(Arc<AtomicU64>);

impl Chance {
    pub fn new(seed: u64) -> Self {
        let chance = Self(Arc::new(AtomicU64::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d))));
        chance.next();
        chance
    }

    /// `SplitMix64` (Steele, Lea, Flood 2014).
    fn next(&self) -> u64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is above 0.
    pub fn below(&self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Whether something happens that happens so often in a thousand times.
    pub fn permille(&self, often: u64) -> bool {
        self.below(1_000) < often
    }

    /// One of several.
    pub fn one<'a, T>(&self, of: &'a [T]) -> Option<&'a T> {
        let count = u64::try_from(of.len()).ok().filter(|count| *count > 0)?;
        of.get(usize::try_from(self.below(count)).ok()?)
    }

    /// A time up to `most`: most often short, now and then long.
    pub fn while_up_to(&self, most: Duration) -> Duration {
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        let shrunk = (micros >> (2 * self.below(4))).max(1);
        Duration::from_micros(self.below(shrunk))
    }

    pub fn uuid(&self) -> Uuid {
        Uuid::from_u64_pair(self.next(), self.next())
    }
}
