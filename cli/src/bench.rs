//! `twelve bench`: what this machine does, as ratios to what it could at best.

mod appends;
mod figures;
mod history;
mod orders;
mod scenario;

use clap::{Args, Subcommand};

#[derive(Args, Clone, Debug)]
pub(crate) struct Settings {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand, Clone, Debug)]
enum Work {
    /// People at a steady rate who place orders, live their lives, read, race or cancel; next to raw JetStream
    Orders(orders::Settings),
    /// Fill an empty log with whole lives of orders of all flows
    History(Box<history::Settings>),
    /// Append the first events of orders, next to plain guarded publishes on the same server
    Appends(Box<appends::Settings>),
    /// Append events at a steady rate to a log whose views are followed, and measure how far the views are behind
    Lag(Box<history::LagSettings>),
    /// Read the log bare, then rebuild all views from it, and compare the two
    Rebuild(Box<history::RebuildSettings>),
}

pub(crate) async fn run(settings: Settings) -> anyhow::Result<()> {
    match settings.work {
        Work::Orders(settings) => orders::run(settings).await,
        Work::History(settings) => history::load(*settings).await,
        Work::Appends(settings) => appends::run(*settings).await,
        Work::Lag(settings) => history::lag(*settings).await,
        Work::Rebuild(settings) => history::rebuild(*settings).await,
    }
}
