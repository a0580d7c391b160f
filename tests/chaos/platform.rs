//! Everything that runs: one nats-server or three, two command services, a view node, a payment provider.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use domain::Flow;
use nats::{Connection, Durability, EventLog, topology::Topology};
use reqwest::Method;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use twelve_tests::{
    Client, LIMIT, Process, flows, free_port, payments::PaymentProvider, processes::signal, program, tools,
};

use crate::servers::{Servers, append_to};

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
    pub(crate) servers: Servers,
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
        let provider = PaymentProvider::start().await;
        let folder = tempfile::tempdir().expect("a folder");
        let servers = Servers::start(servers, "always", folder.path()).await;
        let operator = free_port();
        let operator_url = format!("http://127.0.0.1:{operator}");
        let faketime = tools::faketime();
        let mut platform = Self {
            servers,
            services: Vec::new(),
            operator: Client::new(&operator_url),
            provider,
            faketime,
            folder,
            flows: BTreeMap::new(),
        };
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
        let (url, flows) = (self.servers.url(), self.flow_folder().display().to_string());
        let replicas = self.servers.count().to_string();
        let durability = if self.servers.count() > 1 { "replicated" } else { "fsync" };
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

    /// The log, as an onlooker who trusts nobody reads it.
    pub(crate) async fn log(&self) -> EventLog {
        let connection = Connection::open(&self.servers.url(), "judge").await.expect("the servers answer");
        let topology = Topology { replicas: self.servers.count(), ..Topology::default() };
        // With replicas it is replicated.
        EventLog::look(connection, topology, Durability::Fsync)
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
        let mut command = program(it.program);
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
