//! `twelve projector`: offline work on the views: build a generation from the log, compare two.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use projector::{Store, compare, generations, rebuild};
use service::{
    process,
    settings::{LogSettings, ServerSettings},
};

/// Its name on the nats-server and in traces.
pub(crate) const NAME: &str = "twelve-projector";

#[derive(Args, Clone, Debug)]
pub(crate) struct Settings {
    /// Where the views are
    #[arg(long, env = "TWELVE_VIEWS", value_name = "DIR", default_value = ".twelve/views")]
    views: PathBuf,
    #[command(flatten)]
    server: ServerSettings,
    #[command(flatten)]
    log: LogSettings,
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand, Clone, Debug)]
enum Work {
    /// Build the next generation from the whole log, beside the serving one, and make it current
    Rebuild,
    /// Compare two generations row by row
    Compare { old: u32, new: u32 },
}

/// Does it, and prints what came of it.
pub(crate) async fn run(settings: Settings) -> anyhow::Result<()> {
    let stop = process::stop_on_signal()?;
    match settings.work {
        Work::Rebuild => {
            let (url, durability) = (&settings.server.nats, settings.server.durability);
            let log = settings.log.existing().open(url, NAME, durability).await?;
            let report = rebuild::rebuild(&log, &settings.views, None, stop, |progress| {
                tracing::info!(events = progress.events, of = progress.events_total, "rebuilding");
            })
            .await?;
            generations::supersede(&settings.views, report.generation)?;
            println!("generation {}: {} events in {:.1} s", report.generation, report.events, report.seconds);
            log.connection().close().await;
        }
        Work::Compare { old, new } => {
            let there = generations::all(&settings.views);
            anyhow::ensure!(
                there.contains(&old) && there.contains(&new),
                "there are no two such generations in {}; there are: {there:?}",
                settings.views.display()
            );
            let old = Store::open_generation(&settings.views, old)?;
            let new = Store::open_generation(&settings.views, new)?;
            let differences = compare::compare(&old, &new)?.differences;
            println!("{differences} entries differ");
            anyhow::ensure!(differences == 0, "the generations are not equal");
        }
    }
    Ok(())
}
