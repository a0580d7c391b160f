//! `twelve views`: rebuild and compare, offline or beside a running `twelve up`.

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use projector::{Store, rebuild, store};
use service::process;

use crate::local::{LocalSettings, Opened};

#[derive(Args, Clone, Debug)]
pub(crate) struct Settings {
    #[command(flatten)]
    local: LocalSettings,
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand, Clone, Debug)]
enum Work {
    /// Build the next generation from the whole log and make it current; a running `twelve up` serves it from its next start
    Rebuild,
    /// Compare two generations entry by entry (neither may be in use)
    Compare {
        /// The older generation's number, as `rebuild` printed it
        old: u32,
        /// The newer generation's number
        new: u32,
    },
}

pub(crate) async fn run(settings: Settings) -> anyhow::Result<()> {
    let directory = settings.local.views();
    match settings.work {
        Work::Rebuild => {
            let stop = process::stop_on_signal()?;
            let Opened { log, server, .. } = settings.local.open("twelve-views").await?;
            let bar = ProgressBar::new(0);
            bar.set_style(ProgressStyle::with_template(
                "{wide_bar} {pos}/{len} events, {per_sec}, {eta} left",
            )?);
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
        }
        Work::Compare { old, new } => {
            let old_store = Store::open_generation(&directory, old)?;
            let new_store = Store::open_generation(&directory, new)?;
            let differences = rebuild::compare(&old_store, &new_store)?;
            println!("generations {old} and {new}: {differences} entries differ");
            anyhow::ensure!(differences == 0, "the generations are not equal");
        }
    }
    Ok(())
}
