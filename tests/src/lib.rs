//! What tests stand on: a nats-server and processes of ours, all real, and a client that waits for facts, not for time.

pub mod browser;
pub mod charts;
pub mod client;
pub mod cluster;
pub mod collector;
pub mod contract;
pub mod disk;
pub mod flows;
pub mod gateway;
pub mod history;
pub mod issuer;
pub mod link;
pub mod log;
pub mod mail;
pub mod manifests;
pub mod node;
pub mod payments;
pub mod peers;
pub mod postgres;
pub mod processes;
pub mod secured;
pub mod server;
pub mod services;
pub mod tools;
pub mod webhook;

pub use client::Client;
pub use disk::SmallDisk;
pub use gateway::Gateway;
pub use link::Link;
pub use node::Node;
pub use processes::{Process, binary, program};
pub use secured::Secured;
pub use server::Server;
pub use services::Services;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// The longest that any single fact may take to come about.
pub const LIMIT: Duration = Duration::from_secs(40);

/// How many partitions the logs of the tests have: `TWELVE_PARTITIONS`, which the processes read as well.
pub fn partitions() -> u16 {
    let told = std::env::var("TWELVE_PARTITIONS").ok();
    told.map_or(nats::topology::PARTITIONS_DEFAULT, |told| told.parse().expect("a number of partitions"))
}

/// Ports that tests give to their processes lie below those that the system gives to outgoing connections.
const PORTS: std::ops::Range<u16> = 16_000..32_000;

/// A free port of this machine, handed out once: between asking for it and listening on it there is time for another.
pub fn free_port() -> u16 {
    static HANDED_OUT: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(PORTS.end - PORTS.start);
    for _ in 0..count {
        let number = std::process::id().wrapping_add(HANDED_OUT.fetch_add(1, Ordering::AcqRel)) % count;
        let port = PORTS.start + u16::try_from(number).expect("within the range");
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// The folder that holds the workspace.
pub fn workspace() -> std::path::PathBuf {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the tests lie in the workspace").to_owned()
}

/// A platform in one process, on a server of its own.
pub struct Platform {
    pub server: Server,
    pub process: Option<Process>,
    pub data: tempfile::TempDir,
    program: Option<std::path::PathBuf>,
    arguments: Vec<String>,
    pub client: Client,
}

impl Platform {
    pub async fn up() -> Self {
        Self::up_with(&[]).await
    }

    /// Starts `twelve up` with more arguments.
    pub async fn up_with(more: &[&str]) -> Self {
        Self::up_on(Server::start().await, more).await
    }

    /// Starts `twelve up` on a server that may have a log already, with a data folder of its own.
    pub async fn up_on(server: Server, more: &[&str]) -> Self {
        Self::up_of(None, server, more).await
    }

    /// Starts `twelve up` as users run it, optimised, with more arguments.
    pub async fn up_optimised(more: &[&str]) -> Self {
        Self::up_of(Some(processes::optimised("twelve")), Server::start().await, more).await
    }

    async fn up_of(program: Option<std::path::PathBuf>, server: Server, more: &[&str]) -> Self {
        let data = tempfile::tempdir().expect("a temporary folder");
        let listen = format!("127.0.0.1:{}", free_port());
        let client = Client::new(&format!("http://{listen}"));
        let mut arguments: Vec<String> =
            ["up", "--listen", &listen, "--nats", server.url()].map(Into::into).into();
        arguments.extend(["--durability", "fsync", "--data"].map(Into::into));
        arguments.push(data.path().display().to_string());
        arguments.extend(more.iter().map(ToString::to_string));
        let mut platform = Self { server, process: None, data, program, arguments, client };
        platform.start().await;
        platform
    }

    /// Starts the process (again), on the same data and with the same arguments.
    pub async fn start(&mut self) {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        self.process = Some(match &self.program {
            Some(program) => Process::start_at(program, &arguments),
            None => Process::start("twelve", &arguments),
        });
        self.client.until_ready().await;
    }

    /// Kills the process as a crash would.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Stops the process as Ctrl-C would.
    pub async fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.interrupt().await;
        }
    }
}
