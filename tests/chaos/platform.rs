//! Everything that runs: one nats-server or three, two command services, a view node, a payment provider.

use std::{
    collections::BTreeMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use domain::Flow;
use nats::{Connection, Durability, EventLog, server, topology::Topology};
use reqwest::Method;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use twelve_tests::{
    Client, LIMIT, Process, binary, flows, free_port, payments::PaymentProvider, processes::signal, tools,
    workspace,
};

use crate::hosts::Hosts;

const CLIENT_PORT: u16 = 14_222;
const ROUTE_PORT: u16 = 16_222;
/// As `deploy/compose/nats.conf` has it.
const PATIENCE: &str = "ping_interval: \"1s\", ping_max: 3";
/// How often a supervisor looks whether a process runs.
const SUPERVISED_EVERY: Duration = Duration::from_millis(20);
/// How many command services there are; the view node comes after them.
pub(crate) const COMMANDS: usize = 2;

/// One of our processes.
pub(crate) struct Service {
    program: &'static str,
    arguments: Vec<String>,
    pub(crate) client: Client,
    running: Option<Process>,
}

/// All that runs.
pub(crate) struct Platform {
    program: PathBuf,
    /// They end before their hosts do.
    nodes: Vec<Option<Process>>,
    pub(crate) hosts: Hosts,
    ports: Vec<(u16, u16)>,
    pub(crate) services: Vec<Service>,
    pub(crate) operator: Client,
    pub(crate) provider: PaymentProvider,
    /// What sets the clocks of our processes, where there is something.
    faketime: Option<PathBuf>,
    folder: TempDir,
    /// The flows that orders follow, by name.
    pub(crate) flows: BTreeMap<&'static str, Flow>,
}

/// The shipped flows whose deadlines take hours, with deadlines that pass while somebody watches.
fn quick_flows() -> [(&'static str, String); 3] {
    let settle = ("settle_within_s = 30", "settle_within_s = 8");
    let store = ("after_s = 900", "after_s = 12");
    let rider = ("after_s = 3600", "after_s = 12");
    [
        (
            "quick-market",
            flows::changed("marketplace", &[("name = \"marketplace\"", "name = \"quick-market\""), settle]),
        ),
        (
            "quick-food",
            flows::changed("food", &[("name = \"food\"", "name = \"quick-food\""), settle, store, rider]),
        ),
        (
            "quick-kitchen",
            flows::changed(
                "kitchen",
                &[
                    ("name = \"kitchen\"", "name = \"quick-kitchen\""),
                    settle,
                    store,
                    rider,
                    ("after_s = 10800", "after_s = 12"),
                ],
            ),
        ),
    ]
}

impl Platform {
    pub(crate) async fn start(servers: usize) -> Self {
        let program = server::find_or_install(&workspace().join(".tools")).await.expect("a nats-server");
        let hosts = Hosts::new(servers);
        let ports = (0..servers).map(|_| {
            if hosts.has_network() { (CLIENT_PORT, ROUTE_PORT) } else { (free_port(), free_port()) }
        });
        let ports: Vec<(u16, u16)> = ports.collect();
        let provider = PaymentProvider::start().await;
        let folder = tempfile::tempdir().expect("a folder");
        let (nodes, operator) = ((0..servers).map(|_| None).collect(), free_port());
        let operator_url = format!("http://127.0.0.1:{operator}");
        let faketime = tools::faketime();
        let mut platform = Self {
            program,
            hosts,
            nodes,
            ports,
            services: Vec::new(),
            operator: Client::new(&operator_url),
            provider,
            faketime,
            folder,
            flows: BTreeMap::new(),
        };
        platform.nodes().for_each(|node| platform.start_node(node));
        platform.until_nodes_keep_streams().await;
        for (name, text) in quick_flows() {
            fs::create_dir_all(platform.flow_folder()).expect("a folder");
            fs::write(platform.flow_folder().join(format!("{name}.toml")), &text).expect("written");
            platform.flows.insert(name, Flow::parse(&text).expect("a flow").0);
        }
        platform.declare(operator);
        for service in 0..platform.services.len() {
            platform.set_clock(service, "+0");
            platform.start_service(service).await;
        }
        platform
    }

    /// The nats-servers, by their numbers.
    pub(crate) fn nodes(&self) -> Range<usize> {
        0..self.nodes.len()
    }

    /// Where it keeps what is not on a host's disk.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Whether what the servers and processes said stays there.
    pub(crate) fn keep_folder(&mut self, is_kept: bool) {
        self.folder.disable_cleanup(is_kept);
    }

    fn flow_folder(&self) -> PathBuf {
        self.folder().join("flows")
    }

    fn declare(&mut self, operator: u16) {
        let (url, flows) = (self.url(), self.flow_folder().display().to_string());
        let replicas = self.hosts.all.len().to_string();
        let durability = if self.hosts.all.len() > 1 { "replicated" } else { "fsync" };
        let common = ["--nats", &url, "--replicas", &replicas, "--durability", durability, "--flows", &flows];
        let mut add = |program: &'static str, more: &[&str]| {
            let listen = format!("127.0.0.1:{}", free_port());
            let arguments = [&common[..], &["--listen", &listen], more].concat();
            let arguments = arguments.iter().map(ToString::to_string).collect();
            let client = Client::new(&format!("http://{listen}"));
            self.services.push(Service { program, arguments, client, running: None });
        };
        let payment = self.provider.url();
        for _ in 0..COMMANDS {
            let more = ["--payment-url", payment, "--retry-pause-max-ms", "500", "--store-goal-ms", "1000"];
            add("command-svc", &more);
        }
        let views = self.folder.path().join("views").display().to_string();
        let listen = format!("127.0.0.1:{operator}");
        add("query-api", &["--views", &views, "--operator-listen", &listen, "--snapshot-every-s", "0"]);
    }

    /// All nats-servers, as one setting.
    fn url(&self) -> String {
        let urls = self.hosts.all.iter().zip(&self.ports);
        urls.map(|(host, (port, _))| format!("nats://{}:{port}", host.address)).collect::<Vec<_>>().join(",")
    }

    /// The log, as an onlooker who trusts nobody reads it.
    pub(crate) async fn log(&self) -> EventLog {
        let connection = Connection::open(&self.url(), "judge").await.expect("the servers answer");
        let topology = Topology { replicas: self.hosts.all.len(), ..Topology::default() };
        // With replicas it is replicated.
        EventLog::look(connection, topology, Durability::Fsync)
    }

    pub(crate) fn start_node(&mut self, node: usize) {
        let (host, (port, route)) = (&self.hosts.all[node], self.ports[node]);
        let routes = self.hosts.all.iter().zip(&self.ports);
        let routes: Vec<String> =
            routes.map(|(host, (_, route))| format!("\"nats://{}:{route}\"", host.address)).collect();
        let (address, disk) = (&host.address, host.folder.display());
        // The servers' promise is held to: what is acknowledged was synced.
        let cluster = if routes.len() > 1 {
            let routes = routes.join(", ");
            format!(
                "cluster {{ name: chaos, {PATIENCE}, listen: \"{address}:{route}\", routes: [{routes}] }}\n"
            )
        } else {
            String::new()
        };
        let configuration = format!(
            "server_name: n{node}\nlisten: \"{address}:{port}\"\n{cluster}\
             jetstream {{ store_dir: \"{disk}/js\", sync_interval: always, max_file_store: 100GB }}\n",
        );
        let file = self.folder.path().join(format!("n{node}.conf"));
        fs::write(&file, configuration).expect("written");
        let log = append_to(&self.folder.path().join(format!("n{node}.log")));
        let mut command = host.command(&self.program);
        command.arg("-c").arg(&file).stderr(log);
        self.nodes[node] = Some(Process::foreign(&mut command));
    }

    pub(crate) fn kill_node(&mut self, node: usize) {
        drop(self.nodes[node].take());
    }

    /// Sends a signal to a nats-server.
    pub(crate) fn signal_node(&self, node: usize, name: &str) {
        signal(name, self.nodes[node].as_ref().expect("it runs").id());
    }

    /// Waits until a nats-server that was told to leave has left.
    pub(crate) async fn wait_for_node(&mut self, node: usize) {
        if let Some(process) = self.nodes[node].take() {
            let waiting = tokio::task::spawn_blocking(|| process.wait());
            drop(timeout(LIMIT, waiting).await.expect("it leaves"));
        }
    }

    async fn until_nodes_keep_streams(&self) {
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
        panic!("no cluster; see {}", self.folder.path().display());
    }

    /// Whether clocks can be set wrong.
    pub(crate) const fn has_clocks(&self) -> bool {
        self.faketime.is_some()
    }

    /// Sets a process's clock so far ahead (`+3s`) or back, where that can be done.
    pub(crate) fn set_clock(&self, service: usize, ahead: &str) {
        fs::write(self.clock(service), format!("{ahead}\n")).expect("written");
    }

    fn clock(&self, service: usize) -> PathBuf {
        self.folder.path().join(format!("clock{service}"))
    }

    /// Starts a process, again if it ends for want of a server, as a supervisor would; answers with how long it took
    /// until it was ready.
    pub(crate) async fn start_service(&mut self, service: usize) -> Duration {
        let began = Instant::now();
        self.spawn(service);
        loop {
            let it = &mut self.services[service];
            let ready = it.client.try_send(it.client.request(Method::GET, "/readyz")).await;
            if ready.is_some_and(|ready| ready.status == 200) {
                return began.elapsed();
            }
            assert!(began.elapsed() < LIMIT, "service {service} does not become ready");
            if !it.running.as_mut().is_some_and(Process::is_running) {
                self.spawn(service);
            }
            sleep(SUPERVISED_EVERY).await;
        }
    }

    fn spawn(&mut self, service: usize) {
        let clock = self.clock(service);
        let log = append_to(&self.folder.path().join(format!("service{service}.log")));
        let it = &mut self.services[service];
        let mut command = Command::new(binary(it.program));
        command.args(&it.arguments).stderr(log);
        if let Some(faketime) = &self.faketime {
            // Only the clock on the wall: timeouts go on as they are.
            command.env("LD_PRELOAD", faketime).env("FAKETIME_TIMESTAMP_FILE", clock);
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_CACHE_DURATION", "1");
        }
        it.running = Some(Process::foreign(&mut command));
    }

    pub(crate) fn kill_service(&mut self, service: usize) {
        drop(self.services[service].running.take());
    }

    pub(crate) fn signal_service(&self, service: usize, name: &str) {
        signal(name, self.services[service].running.as_ref().expect("it runs").id());
    }
}

fn append_to(path: &Path) -> fs::File {
    fs::File::options().create(true).append(true).open(path).expect("a file")
}
