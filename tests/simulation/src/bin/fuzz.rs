//! `fuzz`: gives every reader of what comes from outside mangled input, drawn from a seed.

use std::{path::Path, process::ExitCode, thread, time::Instant};

use clap::Parser;
use simulation::{
    chance::Chance,
    fuzz::{Corpus, Tally},
};

/// Mangled bodies, stored events, flow files, positions: each is answered, and none makes a reader panic
#[derive(Parser)]
struct Settings {
    /// How many inputs
    #[arg(long, default_value_t = 100_000)]
    inputs: u64,
    /// They are drawn from this
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let settings = Settings::parse();
    let began = Instant::now();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let corpus = match Corpus::read(&workspace) {
        Ok(corpus) => corpus,
        Err(error) => {
            eprintln!("there is nothing to mangle: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from) as u64;
    let work = |core: u64| {
        let mut tally = Tally::new();
        for number in (core..settings.inputs).step_by(usize::try_from(cores).unwrap_or(1)) {
            let seed = settings.seed.wrapping_mul(1_000_000_007).wrapping_add(number);
            corpus.feed(&Chance::new(seed), &mut tally);
        }
        tally
    };
    let tallies: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|core| scope.spawn(move || work(core))).collect();
        workers.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let mut all = Tally::new();
    for tally in tallies {
        // What panicked has said why already.
        let Ok(tally) = tally else { return ExitCode::FAILURE };
        for (reader, (refused, taken)) in tally {
            let sum = all.entry(reader).or_default();
            *sum = (sum.0 + refused, sum.1 + taken);
        }
    }
    for (reader, (refused, taken)) in all {
        println!("{reader}: {refused} refused, {taken} taken");
    }
    println!("{} inputs in {:.1?}, no panic", settings.inputs, began.elapsed());
    ExitCode::SUCCESS
}
