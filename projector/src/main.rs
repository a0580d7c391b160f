//! `projector`: offline work on the views: build a generation from the log, compare two, list what is there.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use projector::{Store, compare, generations, rebuild};
use service::{
    process::{self, ProcessSettings},
    settings::{self, LogSettings, ServerSettings},
};

/// Builds views from the log without serving them. A view node (`query-api`) builds the ones it serves itself.
#[derive(Parser, Debug)]
#[command(version, about)]
struct Settings {
    /// Where the views are
    #[arg(long, env = "TWELVE_VIEWS", value_name = "DIR", default_value = ".twelve/views")]
    views: PathBuf,
    #[command(flatten)]
    server: ServerSettings,
    #[command(flatten)]
    log: LogSettings,
    #[command(flatten)]
    process: ProcessSettings,
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand, Debug)]
enum Work {
    /// Build the next generation from the whole log, beside the serving one, and make it current
    Rebuild,
    /// Compare two generations row by row
    Compare { old: u32, new: u32 },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings: Settings = settings::parse()?;
    let _telemetry = settings.process.telemetry.start("twelve-projector")?;
    let stop = process::stop_on_signal()?;
    match settings.work {
        Work::Rebuild => {
            let (url, durability) = (&settings.server.nats, settings.server.durability);
            let log = settings.log.open(url, "twelve-projector", durability).await?;
            let report = rebuild::rebuild(&log, &settings.views, None, stop, |progress| {
                tracing::info!(events = progress.events, of = progress.events_total, "rebuilding");
            })
            .await?;
            generations::make_current(&settings.views, report.generation)?;
            println!("generation {}: {} events in {:.1} s", report.generation, report.events, report.seconds);
            log.connection().close().await;
        }
        Work::Compare { old, new } => {
            let old = Store::open_generation(&settings.views, old)?;
            let new = Store::open_generation(&settings.views, new)?;
            let differences = compare::compare(&old, &new)?.differences;
            println!("{differences} entries differ");
            anyhow::ensure!(differences == 0, "the generations are not equal");
        }
    }
    Ok(())
}
