//! Which log a command works on: a server that runs already, or our own on the data directory.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use nats::{
    Durability, EventLog,
    server::{LocalOptions, LocalServer},
};
use service::{
    process,
    settings::{self, LogSettings},
};

/// How long work that was interrupted may take to end in its own way.
const END_MAX: Duration = Duration::from_secs(2);

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Data and nats-server")]
pub(crate) struct LocalSettings {
    /// Where all data is kept
    #[arg(long, env = "TWELVE_DATA", value_name = "DIR", default_value = ".twelve")]
    pub(crate) data: PathBuf,
    /// Use this nats-server (2.15 or newer) instead of a local one
    #[arg(long, env = "TWELVE_NATS", hide_env_values = true, value_name = "URL")]
    pub(crate) nats: Option<String>,
    /// What an acknowledgement of the server at --nats is worth: `fsync` if it runs with `sync_interval: always`
    #[arg(long, env = "TWELVE_DURABILITY", value_enum, default_value_t = Durability::Memory)]
    pub(crate) durability: Durability,
    /// Where the local nats-server listens; a free port is taken if this one is not
    #[arg(long, env = "TWELVE_NATS_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:4222",
          value_parser = settings::address)]
    pub(crate) nats_listen: SocketAddr,
    /// Where a nats-server is installed if there is none on PATH
    #[arg(long, env = "TWELVE_TOOLS", value_name = "DIR", default_value = ".tools")]
    pub(crate) tools: PathBuf,
    #[command(flatten)]
    pub(crate) log: LogSettings,
}

/// An open log, and the server that came with it.
pub(crate) struct Opened {
    pub(crate) log: EventLog,
    pub(crate) url: String,
    pub(crate) server: Option<LocalServer>,
}

impl LocalSettings {
    /// Works on the log as `name`; then, or when it is to stop, the connection is closed, and the server is left as it
    /// was found.
    pub(crate) async fn on_log<T>(
        &self,
        name: &str,
        work: impl AsyncFnOnce(EventLog) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let stop = process::stop_on_signal()?;
        let Opened { log, server, .. } = tokio::select! {
            opened = self.open(name) => opened?,
            () = stop.cancelled() => anyhow::bail!("interrupted"),
        };
        let connection = log.connection().clone();
        let worked = tokio::select! {
            worked = work(log) => worked,
            () = async { stop.cancelled().await; tokio::time::sleep(END_MAX).await } => {
                Err(anyhow::anyhow!("interrupted"))
            }
        };
        connection.close().await;
        if let Some(server) = server {
            server.leave_as_found().await;
        }
        worked
    }

    /// As [`Self::on_log`], for what is about a log that is there: one that is not is an error, and none is made.
    pub(crate) async fn on_existing_log<T>(
        &self,
        name: &str,
        work: impl AsyncFnOnce(EventLog) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let streams = self.data.join("nats").join("jetstream");
        anyhow::ensure!(
            self.nats.is_some() || streams.is_dir(),
            "there is no log in {}; is --data the folder that `twelve up` was given?",
            self.data.display()
        );
        let mut existing = self.clone();
        existing.log = self.log.existing();
        existing.on_log(name, work).await
    }

    pub(crate) fn views(&self) -> PathBuf {
        self.data.join("views")
    }

    /// Opens the log as `name`, starting a local server if none was named.
    pub(crate) async fn open(&self, name: &str) -> anyhow::Result<Opened> {
        if let Some(url) = &self.nats {
            let log = self.log.open(url, name, self.durability).await?;
            return Ok(Opened { log, url: url.clone(), server: None });
        }
        let options = LocalOptions {
            directory: self.data.join("nats"),
            tools: self.tools.clone(),
            listen: self.nats_listen,
        };
        let server = LocalServer::start(&options).await?;
        let url = server.url().to_owned();
        match self.log.open(&url, name, Durability::Fsync).await {
            Ok(log) => Ok(Opened { log, url, server: Some(server) }),
            Err(error) => {
                server.leave_as_found().await;
                Err(error)
            }
        }
    }
}
