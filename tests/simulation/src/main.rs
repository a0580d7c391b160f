//! `simulate`: lives many seeds on all cores, and tells the story of the first that must not be.

use std::{
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use clap::Parser;
use simulation::{Flaw, Report, run};

/// Lives the whole platform from seeds: messages get lost, processes are killed, clocks differ
#[derive(Parser)]
struct Settings {
    /// How many seeds
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Only this one, and its whole story
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let settings = Settings::parse();
    if let Some(seed) = settings.seed {
        return tell(&run(seed, Flaw::None, true));
    }
    let began = Instant::now();
    let next = AtomicU64::new(settings.from);
    let end = settings.from.saturating_add(settings.seeds);
    let events = AtomicU64::new(0);
    let calls = AtomicU64::new(0);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return None;
            }
            let report = run(seed, Flaw::None, false);
            events.fetch_add(report.events as u64, Ordering::Relaxed);
            calls.fetch_add(report.calls as u64, Ordering::Relaxed);
            if report.violation.is_some() {
                next.store(end, Ordering::Relaxed);
                return Some(report);
            }
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let broken = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().filter_map(|worker| worker.join().ok().flatten()).min_by_key(|report| report.seed)
    });
    let took = began.elapsed();
    if let Some(broken) = broken {
        return tell(&run(broken.seed, Flaw::None, true));
    }
    let (events, calls) = (events.into_inner(), calls.into_inner());
    println!(
        "{} seeds, {calls} calls, {events} events, {took:.1?}: nothing that must not be",
        settings.seeds
    );
    ExitCode::SUCCESS
}

fn tell(report: &Report) -> ExitCode {
    for line in &report.story {
        println!("{line}");
    }
    let Report { seed, orders, events, calls, .. } = report;
    println!("seed {seed}: {orders} orders, {calls} calls, {events} events");
    match &report.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("VIOLATION: {violation}");
            println!("again: cargo run --package simulation --bin simulation -- --seed {seed}");
            ExitCode::FAILURE
        }
    }
}
