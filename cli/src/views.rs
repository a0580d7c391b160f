//! `twelve views`: rebuild and compare, offline or beside a running `twelve up`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use projector::{Store, rebuild, store};
use service::process;

use crate::local::{LocalSettings, Opened};

#[derive(Args, Clone, Debug)]
pub(crate) struct Settings {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand, Clone, Debug)]
enum Work {
    /// Build the next generation from the whole log and make it current.
    ///
    /// A running `twelve up` serves it from its next start.
    Rebuild(Box<LocalSettings>),
    /// Compare two generations entry by entry (neither may be in use)
    Compare {
        /// Where all data is kept
        #[arg(long, env = "TWELVE_DATA", value_name = "DIR", default_value = ".twelve")]
        data: PathBuf,
        /// The older generation's number, as `rebuild` printed it
        old: u32,
        /// The newer generation's number
        new: u32,
    },
}

pub(crate) async fn run(settings: Settings) -> anyhow::Result<()> {
    match settings.work {
        Work::Rebuild(local) => rebuild(&local).await,
        Work::Compare { data, old, new } => compare(&data.join("views"), old, new),
    }
}

async fn rebuild(local: &LocalSettings) -> anyhow::Result<()> {
    let stop = process::stop_on_signal()?;
    let directory = local.views();
    let Opened { log, server, .. } = local.open("twelve-views").await?;
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} events, {per_sec}, {eta} left")?);
    let shown = bar.clone();
    let rebuilt = rebuild::rebuild(&log, &directory, stop, move |progress| {
        shown.set_length(progress.events_total);
        shown.set_position(progress.events);
    })
    .await;
    bar.finish_and_clear();
    log.connection().close().await;
    if let Some(server) = server {
        server.leave_as_found().await;
    }
    let report = rebuilt?;
    store::make_current(&directory, report.generation)?;
    println!(
        "generation {} is built and current: {} events in {:.2} s, {} bytes",
        report.generation, report.events, report.seconds, report.bytes
    );
    Ok(())
}

fn compare(directory: &Path, old: u32, new: u32) -> anyhow::Result<()> {
    let old_store = Store::open_generation(directory, old)?;
    let new_store = Store::open_generation(directory, new)?;
    let differences = rebuild::compare(&old_store, &new_store)?;
    println!("generations {old} and {new}: {differences} entries differ");
    anyhow::ensure!(differences == 0, "the generations are not equal");
    Ok(())
}
