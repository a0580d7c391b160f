//! The nats-servers that keep the log, each on a host of its own.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use nats::server;
use tokio::time::{Instant, sleep, timeout};
use twelve_tests::{LIMIT, Process, free_port, processes, workspace};

use crate::hosts::Hosts;

const CLIENT_PORT: u16 = 14_222;
const ROUTE_PORT: u16 = 16_222;
/// As `deploy/compose/nats.conf` has it.
const PATIENCE: &str = "ping_interval: \"1s\", ping_max: 3";

/// One nats-server, or a cluster of them.
pub(crate) struct Servers {
    program: PathBuf,
    /// They end before their hosts do.
    nodes: Vec<Option<Process>>,
    pub(crate) hosts: Hosts,
    ports: Vec<(u16, u16)>,
    /// When they bring to the disk what they wrote: `always`, before they acknowledge it.
    sync_interval: &'static str,
    /// Where their configurations and what they say are.
    folder: PathBuf,
}

impl Servers {
    /// Starts so many, and waits until they keep streams.
    pub(crate) async fn start(count: usize, sync_interval: &'static str, folder: &Path) -> Self {
        let program = server::find_or_install(&workspace().join(".tools")).await.expect("a nats-server");
        let hosts = Hosts::new(count);
        let ports = (0..count).map(|_| {
            if hosts.has_network() { (CLIENT_PORT, ROUTE_PORT) } else { (free_port(), free_port()) }
        });
        let ports = ports.collect();
        let nodes = (0..count).map(|_| None).collect();
        let mut servers = Self { program, nodes, hosts, ports, sync_interval, folder: folder.to_owned() };
        servers.all().for_each(|node| servers.start_again(node));
        servers.until_ready().await;
        servers
    }

    pub(crate) const fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Their numbers.
    pub(crate) fn all(&self) -> Range<usize> {
        0..self.nodes.len()
    }

    /// All nats-servers, as one setting.
    pub(crate) fn url(&self) -> String {
        let urls = self.hosts.all.iter().zip(&self.ports);
        urls.map(|(host, (port, _))| format!("nats://{}:{port}", host.address)).collect::<Vec<_>>().join(",")
    }

    /// Starts one that does not run.
    pub(crate) fn start_again(&mut self, node: usize) {
        let (host, (port, route)) = (&self.hosts.all[node], self.ports[node]);
        let routes = self.hosts.all.iter().zip(&self.ports);
        let routes: Vec<String> =
            routes.map(|(host, (_, route))| format!("\"nats://{}:{route}\"", host.address)).collect();
        let (address, disk) = (&host.address, host.folder.display());
        let cluster = if routes.len() > 1 {
            let routes = routes.join(", ");
            format!(
                "cluster {{ name: chaos, {PATIENCE}, listen: \"{address}:{route}\", routes: [{routes}] }}\n"
            )
        } else {
            String::new()
        };
        let sync = self.sync_interval;
        let configuration = format!(
            "server_name: n{node}\nlisten: \"{address}:{port}\"\n{cluster}\
             jetstream {{ store_dir: \"{disk}/js\", sync_interval: {sync}, max_file_store: 100GB }}\n",
        );
        let file = self.folder.join(format!("n{node}.conf"));
        fs::write(&file, configuration).expect("written");
        let log = append_to(&self.folder.join(format!("n{node}.log")));
        let mut command = host.command(&self.program);
        command.arg("-c").arg(&file).stderr(log);
        self.nodes[node] = Some(Process::foreign(&mut command));
    }

    /// Ends one as `kill -9` does.
    pub(crate) fn kill(&mut self, node: usize) {
        drop(self.nodes[node].take());
    }

    /// Sends a signal to a nats-server.
    pub(crate) fn signal(&self, node: usize, name: &str) {
        processes::signal(name, self.nodes[node].as_ref().expect("it runs").id());
    }

    /// Waits until a nats-server that was told to leave has left.
    pub(crate) async fn wait_for(&mut self, node: usize) {
        if let Some(process) = self.nodes[node].take() {
            let waiting = tokio::task::spawn_blocking(|| process.wait());
            drop(timeout(LIMIT, waiting).await.expect("it leaves"));
        }
    }

    /// At one moment the hosts of these stop, and what was not on their disks is gone; then they are started again.
    pub(crate) fn cut_power(&mut self, nodes: &[usize]) {
        for node in nodes {
            self.signal(*node, "STOP");
        }
        for node in nodes {
            self.hosts.all[*node].remember_disk();
        }
        for node in nodes {
            self.kill(*node);
            self.hosts.all[*node].lose_power();
        }
        for node in nodes {
            self.start_again(*node);
        }
    }

    /// Waits until they keep streams.
    pub(crate) async fn until_ready(&self) {
        let until = Instant::now() + LIMIT;
        let servers: Vec<String> = self.url().split(',').map(ToOwned::to_owned).collect();
        while Instant::now() < until {
            if let Ok(client) = async_nats::connect(servers.clone()).await
                && async_nats::jetstream::new(client).query_account().await.is_ok()
            {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
        panic!("no cluster; see {}", self.folder.display());
    }
}

/// A file that what is said is written to the end of.
pub(crate) fn append_to(path: &Path) -> fs::File {
    fs::File::options().create(true).append(true).open(path).expect("a file")
}
