//! The front door: the real nginx with the configuration that is shipped.

use std::{fs, process::Command};

use tempfile::TempDir;

use crate::{Client, LIMIT, Process, free_port, processes::signal, tools::nginx, workspace};

/// A front door that runs until the test ends.
pub struct Gateway {
    pub client: Client,
    folder: TempDir,
    process: Option<Process>,
}

impl Gateway {
    /// A door before these command services and view nodes, whose answers the pages of `origins` may read.
    pub async fn start(commands: &[&Client], queries: &[&Client], origins: &[&str]) -> Option<Self> {
        Self::open(commands, queries, origins, "off").await
    }

    /// A door whose servers can be changed while it is open.
    pub async fn start_changeable(commands: &[&Client], queries: &[&Client]) -> Option<Self> {
        Self::open(commands, queries, &[], "on").await
    }

    /// Sends calls to these from now on; those under way are finished where they are.
    pub fn change(&self, commands: &[&Client], queries: &[&Client]) {
        let text = upstream("commands", commands) + &upstream("queries", queries);
        fs::write(self.folder.path().join("upstreams.conf"), text).expect("written");
        signal("HUP", self.process.as_ref().expect("it runs").id());
    }

    async fn open(commands: &[&Client], queries: &[&Client], origins: &[&str], master: &str) -> Option<Self> {
        let program = nginx()?;
        let folder = tempfile::tempdir().expect("a folder");
        let shipped = workspace().join("deploy/gateway");
        let put = |name: &str, text: String| fs::write(folder.path().join(name), text).expect("written");
        put("nginx.conf", fs::read_to_string(shipped.join("nginx.conf")).expect("it is shipped"));
        let temporary = fs::read_to_string(shipped.join("listen.conf")).expect("it is shipped");
        put("listen.conf", temporary.replace("/tmp/", &format!("{}/", folder.path().display())));
        let port = free_port();
        put("server.conf", format!("listen 127.0.0.1:{port};\n"));
        put("upstreams.conf", upstream("commands", commands) + &upstream("queries", queries));
        let lines: Vec<String> =
            origins.iter().map(|origin| format!("\"{origin}\" \"{origin}\";\n")).collect();
        put("origins.conf", lines.concat());
        let mut command = Command::new(program);
        command.arg("-p").arg(folder.path()).arg("-c").arg(folder.path().join("nginx.conf"));
        command.args(["-e", "stderr", "-g", &format!("daemon off; master_process {master}; pid nginx.pid;")]);
        command.stderr(fs::File::create(folder.path().join("said")).expect("a file"));
        let process = Process::foreign(&mut command);
        let client = Client::new(&format!("http://127.0.0.1:{port}"));
        let gateway = Self { client, folder, process: Some(process) };
        let up = async {
            while gateway
                .client
                .try_send(gateway.client.request(reqwest::Method::GET, "/healthz"))
                .await
                .is_none()
            {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, up).await.unwrap_or_else(|_| panic!("no nginx: {}", gateway.said()));
        Some(gateway)
    }

    /// What nginx said.
    pub fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("said")).unwrap_or_default()
    }
}

impl Drop for Gateway {
    /// Its workers end with it.
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            signal("TERM", process.id());
            process.wait();
        }
    }
}

fn upstream(name: &str, servers: &[&Client]) -> String {
    let address = |client: &&Client| client.url().trim_start_matches("http://").to_owned();
    let lines: Vec<String> = servers
        .iter()
        .map(|client| format!("  server {} max_fails=1 fail_timeout=1s;\n", address(client)))
        .collect();
    let servers = lines.concat();
    format!("upstream {name} {{\n{servers}  keepalive 64;\n}}\n")
}
