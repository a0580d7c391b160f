//! What came of it, as a table.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use crate::{faults::Fault, people::People};

/// What came of a run.
pub(crate) struct Report {
    seed: u64,
    began: Instant,
    /// Of each fault, the longest time in which no order was taken, and until one was when it was over.
    faults: BTreeMap<Fault, Vec<(Duration, Duration)>>,
    pub(crate) orders: usize,
    pub(crate) events: usize,
    pub(crate) calls: usize,
    /// How long it took until every order had come to rest.
    pub(crate) rest: Duration,
    pub(crate) violations: Vec<String>,
}

impl Report {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            began: Instant::now(),
            faults: BTreeMap::new(),
            orders: 0,
            events: 0,
            calls: 0,
            rest: Duration::ZERO,
            violations: Vec::new(),
        }
    }

    /// How many faults there were.
    pub(crate) fn faults(&self) -> usize {
        self.faults.values().map(Vec::len).sum()
    }

    /// A fault that began then, and whose end was followed by an order that was taken `back` later.
    pub(crate) fn note(&mut self, fault: Fault, began: Instant, back: Duration, people: &People) -> Duration {
        let gap = people.longest_gap(began);
        self.faults.entry(fault).or_default().push((gap, back));
        gap
    }
}

fn median(mut of: Vec<Duration>) -> f64 {
    of.sort_unstable();
    of.get(of.len() / 2).map_or(0.0, Duration::as_secs_f64)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, orders, events, calls, .. } = self;
        let took = self.began.elapsed().as_secs();
        writeln!(
            f,
            "seed {seed}, {took} s: {} faults, {calls} calls, {orders} orders, {events} events",
            self.faults()
        )?;
        writeln!(f, "every order at rest {:.1} s after the last call\n", self.rest.as_secs_f64())?;
        writeln!(
            f,
            "| fault | times | no order taken for, median | at most | taken again after its end, at most |"
        )?;
        writeln!(f, "|---|---|---|---|---|")?;
        for (fault, times) in &self.faults {
            let gaps: Vec<Duration> = times.iter().map(|(gap, _)| *gap).collect();
            let most = gaps.iter().max().copied().unwrap_or_default().as_secs_f64();
            let back = times.iter().map(|(_, back)| *back).max().unwrap_or_default().as_secs_f64();
            let (words, count, median) = (fault.words(), times.len(), median(gaps));
            writeln!(f, "| {words} | {count} | {median:.2} s | {most:.2} s | {back:.2} s |")?;
        }
        writeln!(f, "\nviolations: {}", self.violations.len())?;
        self.violations.iter().try_for_each(|violation| writeln!(f, "- {violation}"))
    }
}
