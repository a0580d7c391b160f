//! Breaks the real thing: one nats-server or three, each a host of its own, with a disk of its own; processes of ours;
//! people who order. Things are killed, frozen, cut off, filled up and set wrong, one after the other, while everything
//! that was asked and answered is written down. At the end that is held against the log.
//!
//! `cargo test --package twelve-tests --test chaos -- --seconds 120`, of one server with `--servers 1 --cuts 6`;
//! `RELIABILITY.md` tells what came of it.

mod cuts;
mod faults;
mod hosts;
mod judge;
mod people;
mod platform;
mod report;
mod servers;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use simulation::chance::Chance;
use tokio::time::sleep;

use self::{faults::Fault, people::People, platform::Platform, report::Report};

/// How long people act undisturbed before the first fault, and between two.
const REST: Duration = Duration::from_secs(2);

/// Breaks the real thing for a while, and judges what is left
#[derive(Parser)]
struct Settings {
    /// How long
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// What is broken, and what people do, is drawn from this
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many nats-servers keep the log: three, or one that syncs before it answers
    #[arg(long, default_value_t = 3, value_parser = servers_of)]
    servers: usize,
    /// How often the power of a single server is cut while groups are written, before all else
    #[arg(long, default_value_t = 0)]
    cuts: u64,
    /// Only these faults
    #[arg(long, value_delimiter = ',')]
    faults: Vec<Fault>,
    /// Where the report goes, as Markdown
    #[arg(long)]
    report: Option<std::path::PathBuf>,
}

fn servers_of(text: &str) -> Result<usize, &'static str> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("there are three servers, or one"),
    }
}

fn main() -> ExitCode {
    let settings = Settings::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let report = runtime.block_on(run(&settings));
    let text = report.to_string();
    println!("{text}");
    if let Some(path) = &settings.report {
        std::fs::write(path, text).expect("the report is written");
    }
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(settings: &Settings) -> Report {
    let chance = Chance::new(settings.seed);
    let cuts = cut_power(settings.cuts, &chance).await;
    let mut platform = Platform::start(settings.servers).await;
    // Unless all is well, it is wanted.
    platform.keep_folder(true);
    eprintln!("all runs; what they say is in {}", platform.folder().display());
    let people = People::start(&platform, &chance);
    let mut report = Report::new(settings.seed);
    report.violations.extend(cuts);
    let possible: Vec<Fault> = faults::possible(&platform, &settings.faults);
    let until = Instant::now() + Duration::from_secs(settings.seconds);
    sleep(REST).await;
    let mut next = possible.iter().cycle();
    while Instant::now() < until {
        // Each once, then in any order.
        let fault = if report.faults() < possible.len() { next.next() } else { chance.one(&possible) };
        let Some(fault) = fault.copied() else { break };
        let began = Instant::now();
        let what = fault.happen(&mut platform, &chance).await;
        let back = people.until_served().await;
        let gap = report.note(fault, began, back, &people);
        eprintln!("{what}: no order taken for {gap:.1?}, and {back:.1?} after its end");
        sleep(REST).await;
    }
    let lives = people.end().await;
    judge::judge(&platform, &lives, &mut report).await;
    platform.keep_folder(!report.violations.is_empty());
    report
}

/// Cuts the power of a single server, and of one that does not sync; answers with what must not be.
async fn cut_power(cuts: u64, chance: &Chance) -> Vec<String> {
    if cuts == 0 {
        return Vec::new();
    }
    let Some(synced) = cuts::run(cuts, chance, "always").await else { return Vec::new() };
    println!("{synced}");
    let mut violations = synced.violations;
    if let Some(unsynced) = cuts::run(1, chance, "\"2m\"").await {
        println!("without syncs: {unsynced}");
        if unsynced.violations.is_empty() {
            violations.push("a server that does not sync lost nothing: a loss would not be seen".into());
        }
    }
    violations
}
