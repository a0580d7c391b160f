//! Hostile peers for a minute, while honest callers place orders and read: how many honest calls are refused, how slow
//! the slowest are next to a quiet platform, and how much memory is taken.
//!
//! `cargo test --package twelve-tests --test hostile -- --seconds 60`. The end-to-end tests have the short form, one
//! kind of peer at a time and without times (`tests/e2e/hostile.rs`).

mod honest;
mod peers;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use tokio::{task::JoinSet, time::sleep};
use twelve_tests::{
    Platform,
    issuer::{Issuer, Key},
};

use self::{honest::Calls, peers::Peer};

/// How much slower than on a quiet platform the hundredth call may be.
const SLOWER_MAX: f64 = 2.0;
/// A platform this fast is fast enough, whatever twice its quiet time is.
const SLOW_MIN: Duration = Duration::from_millis(50);

/// Sends hostile peers for a while, and judges what honest callers notice
#[derive(Parser)]
struct Settings {
    /// How long the hostile peers stay
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Bytes of memory that they may take, in MiB: the figure that README states
    #[arg(long, default_value_t = 512)]
    memory_mb: u64,
    /// Only these peers
    #[arg(long, value_delimiter = ',')]
    peers: Vec<Peer>,
}

fn main() -> ExitCode {
    let settings = Settings::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let faults = runtime.block_on(run(&settings));
    for fault in &faults {
        println!("FAULT: {fault}");
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(settings: &Settings) -> Vec<String> {
    let key = Key::ed25519("key");
    let issuer = Issuer::start(&[&key]).await;
    let platform = Platform::up_with(&["--auth-jwks", issuer.url()]).await;
    let pid = platform.process.as_ref().expect("it runs").id();
    for number in 0..200 {
        let client = platform.client.bearing(&key.token("greedy", "customer"));
        honest::place(&client, "greedy", number).await;
    }
    let quiet =
        honest::call(&platform.client, &key, Duration::from_secs((settings.seconds / 3).max(5))).await;
    println!("quiet:   {quiet}");
    let before = memory(pid);
    issuer.hang();
    let (until, all) = (Instant::now() + Duration::from_secs(settings.seconds), Peer::all());
    let chosen = if settings.peers.is_empty() { &all } else { &settings.peers };
    let mut peers = JoinSet::new();
    for peer in chosen {
        peers.spawn(peer.clone().stay(platform.client.clone(), key.clone(), until));
    }
    let watching = async {
        let mut most = before;
        while Instant::now() < until {
            most = most.max(memory(pid));
            sleep(Duration::from_millis(100)).await;
        }
        most
    };
    let calling = honest::call(&platform.client, &key, Duration::from_secs(settings.seconds));
    let (most, beset) = tokio::join!(watching, calling);
    println!("beset:   {beset}");
    while peers.join_next().await.is_some() {}
    let taken = most.saturating_sub(before) / 1024 / 1024;
    println!("memory:  {} MiB, and {taken} MiB more at the most", before / 1024 / 1024);
    let metrics = platform.client.get("/metrics").await;
    let text = metrics.body.as_str().unwrap_or_default();
    let told = ["twelve_connections", "twelve_bodies", "twelve_unread", "twelve_shares", "twelve_refused"];
    for line in text.lines().filter(|line| told.iter().any(|name| line.starts_with(name))) {
        println!("         {line}");
    }
    judge(&quiet, &beset, taken, settings.memory_mb)
}

fn judge(quiet: &Calls, beset: &Calls, taken_mb: u64, memory_mb: u64) -> Vec<String> {
    let mut faults = Vec::new();
    if !beset.refused.is_empty() {
        faults.push(format!(
            "{} honest calls were refused: {:?}",
            beset.refused.len(),
            beset.refused.first()
        ));
    }
    let limit = quiet.p99().mul_f64(SLOWER_MAX).max(SLOW_MIN);
    if beset.p99() > limit {
        faults.push(format!("p99 was {:?}, and may be {limit:?}", beset.p99()));
    }
    if taken_mb > memory_mb {
        faults.push(format!("{taken_mb} MiB of memory were taken, and may be {memory_mb}"));
    }
    faults
}

/// Bytes of memory that a process has.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes * 1024
}
