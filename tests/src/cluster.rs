//! Three nats-servers that are one: a log of three replicas, and servers that die and come back.

use std::{fs, process::Command, time::Duration};

use nats::server;
use tempfile::TempDir;

use crate::{LIMIT, Process, free_port, processes::signal, workspace};

/// As `deploy/compose/nats.conf` has it.
const PATIENCE: &str = "ping_interval: \"1s\", ping_max: 3";
/// How many servers there are.
const SERVERS: usize = 3;

struct Member {
    folder: TempDir,
    port: u16,
    running: Option<Process>,
}

/// A cluster; it is killed when the test ends.
pub struct Cluster {
    program: std::path::PathBuf,
    members: Vec<Member>,
}

impl Cluster {
    /// Starts the servers, and waits until they have a leader.
    pub async fn start() -> Self {
        let program = server::find_or_install(&workspace().join(".tools")).await.expect("a nats-server");
        let ports: Vec<(u16, u16)> = (0..SERVERS).map(|_| (free_port(), free_port())).collect();
        let routes: Vec<String> =
            ports.iter().map(|(_, route)| format!("\"nats://127.0.0.1:{route}\"")).collect();
        let mut members = Vec::new();
        for (number, (port, route)) in ports.iter().enumerate() {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let configuration = format!(
                "server_name: n{number}\nlisten: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}/js\" }}\n\
                 cluster {{ name: test, {PATIENCE}, listen: \"127.0.0.1:{route}\", routes: [{}] }}\n",
                folder.path().display(),
                routes.join(", ")
            );
            fs::write(folder.path().join("nats-server.conf"), configuration).expect("written");
            members.push(Member { folder, port: *port, running: None });
        }
        let mut cluster = Self { program, members };
        (0..SERVERS).for_each(|number| cluster.restart(number));
        cluster.until_it_keeps_streams().await;
        cluster
    }

    fn servers(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("nats://127.0.0.1:{}", member.port)).collect()
    }

    /// All servers, as one setting.
    pub fn url(&self) -> String {
        self.servers().join(",")
    }

    /// Kills a server as a crash would.
    pub fn kill(&mut self, number: usize) {
        drop(self.members[number].running.take());
    }

    /// Starts a server again, on its data.
    pub fn restart(&mut self, number: usize) {
        let member = &mut self.members[number];
        let log = fs::File::options().create(true).append(true).open(member.folder.path().join("log"));
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(member.folder.path().join("nats-server.conf")).stderr(log.expect("a file"));
        member.running = Some(Process::foreign(&mut command));
    }

    /// Freezes a server, or lets it go on.
    pub fn freeze(&self, number: usize, is_frozen: bool) {
        let running = self.members[number].running.as_ref().expect("it runs");
        signal(if is_frozen { "STOP" } else { "CONT" }, running.id());
    }

    /// The server that leads a stream.
    pub async fn leader_of(&self, stream: &str) -> Option<usize> {
        let client = async_nats::connect(self.servers()).await.ok()?;
        let mut stream = async_nats::jetstream::new(client).get_stream(stream).await.ok()?;
        let leader = stream.info().await.ok()?.cluster.as_ref()?.leader.clone()?;
        leader.strip_prefix('n')?.parse().ok()
    }

    async fn until_it_keeps_streams(&self) {
        let keeps = async {
            loop {
                if let Ok(client) = async_nats::connect(self.servers()).await
                    && async_nats::jetstream::new(client).query_account().await.is_ok()
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = tokio::time::timeout(LIMIT, keeps).await;
        waited.unwrap_or_else(|_| {
            panic!("no cluster: {:?}", self.members.iter().map(said).collect::<Vec<_>>())
        });
    }
}

fn said(member: &Member) -> String {
    fs::read_to_string(member.folder.path().join("log")).unwrap_or_default()
}
