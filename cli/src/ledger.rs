//! `twelve ledger`: the payments of the log, booked twice in SQL; kept up, summed, and proven against the log.

use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use ledger::{Ledger, LedgerError, follow, reconcile};
use nats::EventLog;
use service::process;
use tokio_util::sync::CancellationToken;

use crate::local::LocalSettings;

/// Before a database that is away is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

#[derive(Args, Clone, Debug)]
#[command(after_help = "For example:\n  \
    twelve up --ledger sqlite:ledger.db                    keeps it while it runs\n  \
    twelve ledger follow --nats nats://HOST:4222 --ledger postgres://USER@HOST/DATABASE\n  \
    twelve ledger verify --ledger sqlite:ledger.db\n\
    Tables: ledger_bookings, ledger_entries (debits positive, credits negative), ledger_checkpoints.")]
pub(crate) struct Settings {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand, Clone, Debug)]
enum Work {
    /// Book what the log has and what comes, until Ctrl-C; one process is enough
    Follow(Place),
    /// Prove that every booking is what the log says, that each is balanced, and that the sums agree
    Verify(Place),
    /// Print the sum of each account
    Balances {
        #[command(flatten)]
        ledger: LedgerSettings,
    },
}

#[derive(Args, Clone, Debug)]
struct Place {
    #[command(flatten)]
    ledger: LedgerSettings,
    #[command(flatten)]
    local: Box<LocalSettings>,
}

#[derive(Args, Clone, Debug)]
struct LedgerSettings {
    /// The ledger's database: `sqlite:FILE` or `postgres://USER:PASSWORD@HOST/DATABASE`
    #[arg(long, env = "TWELVE_LEDGER", value_name = "URL", hide_env_values = true)]
    ledger: String,
}

/// Opens the ledger at this URL.
async fn open(url: &str) -> anyhow::Result<Ledger> {
    // The URL may hold a password.
    let kind = url.split(':').next().unwrap_or_default();
    Ledger::open(url).await.with_context(|| format!("the ledger ({kind}) cannot be opened"))
}

/// Keeps the ledger at this URL up with the log, until `stop`; a database that is away is tried again and again.
pub(crate) async fn keep(url: String, log: EventLog, stop: CancellationToken) -> anyhow::Result<()> {
    while !stop.is_cancelled() {
        let kept = match Ledger::open(&url).await {
            Ok(ledger) => {
                let kept = follow::follow(&log, &ledger, &stop).await;
                ledger.close().await;
                kept
            }
            Err(error) => Err(error),
        };
        match kept {
            Ok(()) => return Ok(()),
            // Two that keep one ledger may each have been first in another partition: neither gives up.
            Err(error @ (LedgerError::Sql(_) | LedgerError::Overtaken { .. })) => {
                tracing::warn!(error = %nats::causes(&error), "the ledger waits a moment and goes on from where it is");
                tokio::select! { () = stop.cancelled() => {}, () = tokio::time::sleep(RETRY_PAUSE) => {} }
            }
            Err(error) => return Err(error).context("the ledger stands still"),
        }
    }
    Ok(())
}

pub(crate) async fn run(settings: Settings) -> anyhow::Result<()> {
    match settings.work {
        Work::Follow(place) => {
            let stop = process::stop_on_signal()?;
            let url = place.ledger.ledger.clone();
            place.local.on_log("twelve-ledger", async |log| keep(url, log, stop).await).await
        }
        Work::Verify(place) => {
            let url = place.ledger.ledger.clone();
            place.local.on_log("twelve-ledger", async |log| verify(&url, &log).await).await
        }
        Work::Balances { ledger } => balances(&open(&ledger.ledger).await?).await,
    }
}

async fn verify(url: &str, log: &EventLog) -> anyhow::Result<()> {
    let ledger = open(url).await?;
    let infos = follow::partitions(log).await?;
    let events: u64 = ledger.checkpoints(&infos).await?.iter().sum();
    let bar = ProgressBar::new(events);
    bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} events, {per_sec}, {eta} left")?);
    let report = reconcile::reconcile(log, &ledger, |seen| bar.set_position(seen)).await;
    bar.finish_and_clear();
    let report = report?;
    let reached: Vec<String> = report.reached.iter().map(ToString::to_string).collect();
    println!(
        "{} events up to {} are {} bookings; {} differ",
        report.events,
        reached.join(", "),
        report.bookings,
        report.differences
    );
    balances(&ledger).await?;
    for difference in &report.first {
        println!("  {difference}");
    }
    anyhow::ensure!(report.differences == 0, "the ledger is not what the log says");
    Ok(())
}

async fn balances(ledger: &Ledger) -> anyhow::Result<()> {
    for balance in ledger.balances().await? {
        println!("  {:<10} {:>20} {}", balance.account, balance.amount, balance.currency);
    }
    Ok(())
}
