//! The platform as separate services, each a process of its own that can be stopped and started again.

use std::{collections::BTreeMap, path::Path};

use tempfile::TempDir;

use crate::{Client, Process, Server, free_port};

/// Services on a server of their own.
pub struct Services {
    pub server: Server,
    views: TempDir,
    running: BTreeMap<String, (Process, Client)>,
    common: Vec<String>,
}

impl Services {
    /// A server, and no service yet; `common` is given to each command service.
    pub async fn new(common: &[&str]) -> Self {
        let server = Server::start().await;
        let views = tempfile::tempdir().expect("a temporary folder");
        let common = common.iter().map(ToString::to_string).collect();
        Self { server, views, running: BTreeMap::new(), common }
    }

    /// Starts a command service with these roles.
    pub async fn start(&mut self, roles: &str, more: &[&str]) -> Client {
        let mut arguments = vec!["--durability", "fsync", "--roles", roles];
        arguments.extend(["--retry-pause-max-ms", "300", "--call-timeout-ms", "700"]);
        let common = self.common.clone();
        arguments.extend(common.iter().map(String::as_str));
        arguments.extend(more);
        self.run("command-svc", roles, &arguments).await
    }

    /// Starts a view node.
    pub async fn start_views(&mut self, more: &[&str]) -> Client {
        let folder = self.views.path().to_owned();
        self.start_views_in(&folder, more).await
    }

    /// Starts a view node on a folder of its own.
    pub async fn start_views_in(&mut self, folder: &Path, more: &[&str]) -> Client {
        let folder = folder.display().to_string();
        self.run("query-api", "views", &[&["--views", &folder], more].concat()).await
    }

    async fn run(&mut self, program: &str, name: &str, arguments: &[&str]) -> Client {
        let listen = format!("127.0.0.1:{}", free_port());
        let whole = [&["--nats", self.server.url(), "--listen", &listen], arguments].concat();
        let (process, client) = (Process::start(program, &whole), Client::new(&format!("http://{listen}")));
        client.until_ready().await;
        self.running.insert(name.to_owned(), (process, client.clone()));
        client
    }

    /// Kills a service as a crash would.
    pub fn stop(&mut self, name: &str) {
        let (process, _) = self.running.remove(name).unwrap_or_else(|| panic!("{name} does not run"));
        process.kill();
    }

    /// A running service.
    pub fn client(&self, name: &str) -> &Client {
        &self.running[name].1
    }
}
