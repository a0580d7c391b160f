//! `twelve ledger`: the payments of the log, booked twice in SQL; kept up, summed, and proven against the log.

mod keeper;
mod provider;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use ledger::{Ledger, follow, reconcile, shown};
use nats::EventLog;
use service::process;

use self::provider::ProviderSettings;
use crate::local::LocalSettings;

pub(crate) use keeper::Keeper;

#[derive(Args, Clone, Debug)]
#[command(after_help = "For example:\n  \
    twelve up --ledger sqlite:ledger.db                    keeps it while it runs\n  \
    twelve ledger follow --nats nats://HOST:4222 --ledger postgres://USER@HOST/DATABASE\n  \
    twelve ledger verify --ledger sqlite:ledger.db\n  \
    twelve ledger verify --ledger sqlite:ledger.db --ask-provider --payment-url https://HOST\n\
    Tables: ledger_bookings, ledger_entries (debits positive, credits negative), ledger_checkpoints.")]
pub(crate) struct Settings {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand, Clone, Debug)]
enum Work {
    /// Book what the log has and what comes, until Ctrl-C; one process is enough
    Follow(Place),
    /// Prove that every booking is part of a fact of the log, and that of each order what is held is what was kept
    Verify {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        provider: ProviderSettings,
    },
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
                .on_existing_log("twelve-ledger", async |log| {
                    let keeper = Keeper::open(url, log).await?;
                    keeper.run(stop).await.context("the ledger does not follow the log any more")
                })
                .await
        }
        Work::Verify { place, provider } => {
            let url = place.ledger.ledger.clone();
            place
                .local
                .on_existing_log("twelve-ledger", async |log| verify(&url, &log, &provider).await)
                .await
        }
        Work::Balances { ledger } => balances(&read(&ledger.ledger).await?).await,
    }
}

async fn verify(url: &str, log: &EventLog, provider: &ProviderSettings) -> anyhow::Result<()> {
    let ledger = read(url).await?;
    let infos = follow::partitions(log).await?;
    let events: u64 = ledger.reached(&infos).await?.iter().sum();
    let bar = ProgressBar::new(events);
    bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} events, {per_sec}, {eta} left")?);
    let mut orders = Vec::new();
    let each = |order_id, money| {
        if provider.ask_provider {
            orders.push((order_id, money));
        }
    };
    let report = reconcile::reconcile(log, &ledger, |seen| bar.set_position(seen), each).await;
    bar.finish_and_clear();
    let mut report = report?;
    if provider.ask_provider {
        let count = orders.len();
        let asked = provider::ask(provider, log, orders, &mut report).await?;
        println!(
            "the provider was asked about {} payments of {count} orders; {} have no outcome yet",
            asked.payments, asked.open
        );
    }
    let reached: Vec<String> = report.reached.iter().map(ToString::to_string).collect();
    println!(
        "{} events up to {} are {} bookings; {} differ",
        report.events,
        reached.join(", "),
        report.bookings,
        report.differences
    );
    if report.behind > 0 {
        println!("  the log has {} events that the ledger has not been told of yet", report.behind);
    }
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
