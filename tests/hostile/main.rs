//! Hostile peers for a minute, while honest callers place orders and read: how many honest calls are refused, how slow
//! the slowest are next to a quiet platform, and how much memory is taken.
//!
//! `cargo test --package twelve-tests --test hostile -- --seconds 60`. The platform is optimised, as users run it. The
//! peers run in a process of their own, of the lowest priority: on a network they would have machines of their own, and
//! what they take of this one is none of the platform's doing. The end-to-end tests have each kind of peer alone and
//! without times (`tests/e2e/hostile.rs`).

mod honest;
mod peers;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use tokio::{
    process::{Child, Command},
    task::JoinSet,
    time::sleep,
};
use twelve_tests::{
    Platform,
    issuer::{Issuer, Key, claims},
};

use self::{
    honest::Calls,
    peers::{Peer, Target},
};

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
    /// Nothing but the peers, at the platform of this URL; their tokens are in the environment
    #[arg(long)]
    at: Option<String>,
}

/// Where the process of the peers finds their tokens.
const CUSTOMER: &str = "TWELVE_HOSTILE_CUSTOMER";
const OPERATOR: &str = "TWELVE_HOSTILE_OPERATOR";

fn main() -> ExitCode {
    let settings = Settings::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    if let Some(url) = &settings.at {
        runtime.block_on(attack(&settings, url));
        return ExitCode::SUCCESS;
    }
    let faults = runtime.block_on(run(&settings));
    for fault in &faults {
        println!("FAULT: {fault}");
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// All chosen peers, each again and again until the time is over.
async fn attack(settings: &Settings, url: &str) {
    let until = Instant::now() + Duration::from_secs(settings.seconds);
    let token = |name| std::env::var(name).expect("a token");
    let target = Target::new(url, &token(CUSTOMER), &token(OPERATOR));
    let all = Peer::all();
    let chosen = if settings.peers.is_empty() { &all } else { &settings.peers };
    let mut peers = JoinSet::new();
    for peer in chosen {
        peers.spawn(peer.clone().stay(target.clone(), until));
    }
    while peers.join_next().await.is_some() {}
}

/// The process of the peers.
fn attackers(settings: &Settings, platform: &Platform, key: &Key) -> Child {
    // One token for the whole time, as long as that is.
    let token = |role: &str| {
        let mut claims = claims("greedy", role);
        claims["exp"] = (claims["exp"].as_u64().expect("a time") + settings.seconds).into();
        key.sign(&claims)
    };
    let mut command = Command::new("nice");
    command.args(["-n", "19"]).arg(std::env::current_exe().expect("its own path"));
    command.args(["--at", platform.client.url(), "--seconds", &settings.seconds.to_string()]);
    for peer in &settings.peers {
        command.arg("--peers").arg(peer.name());
    }
    command.env(CUSTOMER, token("customer")).env(OPERATOR, token("operator"));
    command.kill_on_drop(true).spawn().expect("it starts")
}

async fn run(settings: &Settings) -> Vec<String> {
    let key = Key::ed25519("key");
    let issuer = Issuer::start(&[&key]).await;
    let platform = Platform::up_optimised(&["--auth-jwks", issuer.url()]).await;
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
    let until = Instant::now() + Duration::from_secs(settings.seconds);
    let mut attackers = attackers(settings, &platform, &key);
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
    assert!(attackers.wait().await.expect("it ended").success(), "the peers stayed to the end");
    let taken = most.saturating_sub(before) / 1024 / 1024;
    println!("memory:  {} MiB, and {taken} MiB more at the most", before / 1024 / 1024);
    let metrics = platform.client.get("/metrics").await;
    let text = metrics.body.as_str().unwrap_or_default();
    let told = ["connections", "answers", "bodies", "unread", "shares", "refused"];
    let is_told = |line: &&str| told.iter().any(|name| line.starts_with(&format!("twelve_{name}")));
    for line in text.lines().filter(is_told) {
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
