//! A view node on a log of its own, without any command service: what is in the log, a test has put there.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use nats::topology::{OldOrders, Topology};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Client, LIMIT, Process, Server, client::LOOK_PAUSE, free_port, history, processes::signal};

/// A view node that can be killed and started again.
pub struct Node {
    pub server: Arc<Server>,
    pub log: nats::EventLog,
    pub client: Client,
    pub operator: Client,
    folder: TempDir,
    arguments: Vec<String>,
    process: Option<Process>,
}

impl Node {
    /// A server with a log of so many partitions, and no node yet.
    pub async fn new(partitions: u16, more: &[&str]) -> Self {
        Self::like(Topology { partitions, ..Topology::default() }, more).await
    }

    /// As [`Self::new`], for a log whose old orders may be archived.
    pub async fn archiving(partitions: u16) -> Self {
        let topology = Topology { partitions, old_orders: OldOrders::Archive, ..Topology::default() };
        Self::like(topology, &["--old-orders", "archive"]).await
    }

    async fn like(topology: Topology, more: &[&str]) -> Self {
        let server = Server::start().await;
        let log = history::log_like(&server, topology).await;
        Self::on(server, log, more)
    }

    /// On a server and a log that are there, and no node yet.
    pub fn on(server: Server, log: nats::EventLog, more: &[&str]) -> Self {
        Self::of(Arc::new(server), log, more)
    }

    fn of(server: Arc<Server>, log: nats::EventLog, more: &[&str]) -> Self {
        let partitions = log.partitions();
        let [client, operator] = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
        let partitions = partitions.to_string();
        let mut arguments = vec!["--nats", server.url(), "--partitions", &partitions, "--listen", &client];
        arguments.extend(["--operator-listen", &operator]);
        arguments.extend(more);
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [client, operator] = [client, operator].map(|address| Client::new(&format!("http://{address}")));
        Self { server, log, client, operator, folder, arguments, process: None }
    }

    /// Another node on the same server and log, not started yet.
    #[must_use]
    pub fn sibling(&self, more: &[&str]) -> Self {
        Self::of(Arc::clone(&self.server), self.log.clone(), more)
    }

    /// Reaches its server by this address.
    #[must_use]
    pub fn through(mut self, url: &str) -> Self {
        for argument in self.arguments.iter_mut().filter(|argument| *argument == self.server.url()) {
            url.clone_into(argument);
        }
        self
    }

    pub fn views(&self) -> PathBuf {
        self.folder.path().join("views")
    }

    /// Starts the process; whether it is ready, nobody has asked.
    pub fn spawn(&mut self) {
        let views = self.views().display().to_string();
        let mut arguments = vec!["--views", &views];
        arguments.extend(self.arguments.iter().map(String::as_str));
        self.process = Some(Process::start_into("query-api", &arguments, self.folder.path()));
    }

    pub async fn start(&mut self) {
        self.spawn();
        self.client.until_ready_or(|| self.said()).await;
    }

    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Freezes the process: what is sent to it waits.
    pub fn freeze(&self) {
        signal("STOP", self.process.as_ref().expect("it runs").id());
    }

    pub fn thaw(&self) {
        signal("CONT", self.process.as_ref().expect("it runs").id());
    }

    /// Bytes of memory that the process has.
    pub fn memory(&self) -> u64 {
        let pid = self.process.as_ref().expect("it runs").id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kilobytes * 1024
    }

    /// The files that the process has open.
    pub fn open_files(&self) -> Vec<String> {
        let pid = self.process.as_ref().expect("it runs").id();
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten();
        let target = |entry: std::fs::DirEntry| std::fs::read_link(entry.path()).ok();
        entries.filter_map(target).map(|target| target.display().to_string()).collect()
    }

    /// What the process said since it was started.
    pub fn said(&self) -> String {
        let read = |name| std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        read("stdout") + &read("stderr")
    }

    /// The newest job, once it holds.
    pub async fn job(&self, holds: impl Fn(&Value) -> bool) -> Value {
        let started = std::time::Instant::now();
        loop {
            let job = self.operator.get("/admin/views/rebuild").await.body;
            if holds(&job) {
                return job;
            }
            assert!(started.elapsed() < LIMIT, "no such job, but {job} {}", self.said());
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// Holds the views against the log; answers with what differs.
    pub async fn verify(&self) -> Value {
        let asking = async {
            while self.operator.post("/admin/views/verify", &json!({})).await.status != 202 {
                // One that a crash interrupted goes first.
                if self.operator.get("/admin/views/rebuild").await.body["state"] == "ready" {
                    self.operator.post("/admin/views/rebuild/cancel", &json!({})).await;
                }
                tokio::time::sleep(LOOK_PAUSE).await;
            }
        };
        if tokio::time::timeout(LIMIT, asking).await.is_err() {
            let job = self.operator.get("/admin/views/rebuild").await.body;
            panic!("no verification begins beside {job:#} {}", self.said());
        }
        let job =
            self.job(|job| ["verified", "failed"].contains(&job["state"].as_str().unwrap_or_default())).await;
        assert_eq!(job["state"], "verified", "{job}");
        job["comparison"].clone()
    }
}

/// Every file below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let below = |entry: std::fs::DirEntry| match entry.path() {
        path if path.is_dir() => files(&path),
        path => vec![path],
    };
    entries.flat_map(below).collect()
}
