//! `twelve nats setup`: the streams, buckets and work queues of a log, made or verified.

use clap::{Args, Subcommand};
use nats::{
    Connection, EventLog,
    topology::{Streams, Topology},
};
use service::{
    StartupSettings,
    settings::{LogSettings, ServerSettings},
};
use tokio_util::sync::CancellationToken;

#[derive(Args, Clone, Debug)]
pub(crate) struct Settings {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand, Clone, Debug)]
enum Work {
    /// Make the streams, buckets and work queues that are missing, and check those that are there
    Setup(Box<Setup>),
}

#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Once for each nats-server or cluster, before the services start, and again after an upgrade or to \
    give the partitions more room; it may be repeated. Where processes have keys, only this one may make or change \
    anything:\n  \
    twelve nats setup --nats nats://HOST:4222 --nats-nkey nats-keys/setup.nk --replicas 3"
)]
struct Setup {
    #[command(flatten)]
    server: ServerSettings,
    #[command(flatten)]
    startup: StartupSettings,
    #[command(flatten)]
    log: LogSettings,
}

pub(crate) async fn run(settings: Settings) -> anyhow::Result<()> {
    match settings.work {
        Work::Setup(setup) => make(&setup).await,
    }
}

async fn make(Setup { server, startup, log }: &Setup) -> anyhow::Result<()> {
    let streams = log.streams.unwrap_or(Streams::Make);
    let topology = Topology { streams, ..log.topology() };
    // A signal ends it as it does any command.
    let stop = CancellationToken::new();
    let made = startup.patiently(&stop, async || {
        let connection = Connection::open_as(&server.nats, "twelve-nats-setup", &log.identity).await?;
        let opened = EventLog::open(connection.clone(), topology, server.durability).await?;
        opened.ensure_queues().await?;
        let kept = opened.keep_queues().await;
        kept.map_err(|error| anyhow::anyhow!("cannot fill the work queues: {error}"))?;
        connection.close().await;
        Ok(())
    });
    made.await?;
    for stream in topology.streams() {
        println!("stream {}", stream.name);
    }
    println!("all streams, buckets and work queues of {} partitions are as declared", topology.partitions);
    Ok(())
}
