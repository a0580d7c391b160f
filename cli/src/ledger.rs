//! `twelve ledger`: the payments of the log, booked twice in SQL; kept up, summed, and proven against the log.

mod keeper;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use ledger::{Ledger, follow, reconcile, shown};
use nats::EventLog;
use service::process;

use crate::local::LocalSettings;

pub(crate) use keeper::Keeper;

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
#[command(next_help_heading = "The ledger")]
struct LedgerSettings {
    /// The ledger's database: `sqlite:FILE` or `postgres://USER:PASSWORD@HOST/DATABASE`
    #[arg(long, env = "TWELVE_LEDGER", value_name = "URL", hide_env_values = true)]
    ledger: String,
}

/// Opens the ledger at this URL to read it.
async fn read(url: &str) -> anyhow::Result<Ledger> {
    // The URL may hold a password.
    Ledger::read(url).await.with_context(|| format!("the ledger at {} cannot be read", shown(url)))
}

pub(crate) async fn run(settings: Settings) -> anyhow::Result<()> {
    match settings.work {
        Work::Follow(place) => {
            let stop = process::stop_on_signal()?;
            let url = place.ledger.ledger.clone();
            place
                .local
                .on_log("twelve-ledger", async |log| {
                    let keeper = Keeper::open(url, log).await?;
                    keeper.run(stop).await.context("the ledger does not follow the log any more")
                })
                .await
        }
        Work::Verify(place) => {
            let url = place.ledger.ledger.clone();
            place.local.on_existing_log("twelve-ledger", async |log| verify(&url, &log).await).await
        }
        Work::Balances { ledger } => balances(&read(&ledger.ledger).await?).await,
    }
}

async fn verify(url: &str, log: &EventLog) -> anyhow::Result<()> {
    let ledger = read(url).await?;
    let infos = follow::partitions(log).await?;
    let events: u64 = ledger.reached(&infos).await?.iter().sum();
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
