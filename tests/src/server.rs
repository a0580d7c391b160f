//! A nats-server of a test's own, on a port that survives its restarts.

use nats::server::{LocalOptions, LocalServer};

use crate::{free_port, processes::signal, workspace};

/// A nats-server; it is killed when the test ends.
pub struct Server {
    options: LocalOptions,
    running: Option<LocalServer>,
    url: String,
    _directory: tempfile::TempDir,
}

impl Server {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let options = LocalOptions {
            directory: directory.path().to_owned(),
            tools: workspace().join(".tools"),
            listen: ([127, 0, 0, 1], port).into(),
        };
        let mut server =
            Self { options, running: None, url: format!("nats://127.0.0.1:{port}"), _directory: directory };
        server.restart().await;
        server
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where its data is.
    pub fn directory(&self) -> &std::path::Path {
        &self.options.directory
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) {
        if let Some(server) = self.running.take() {
            signal("KILL", server.pid());
        }
    }

    /// Starts it again on the same port and data.
    pub async fn restart(&mut self) {
        let server = LocalServer::start(&self.options).await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(server.url(), self.url, "the port was taken meanwhile");
        self.running = Some(server);
    }

    /// Freezes it: calls are not refused, they just get no answer.
    pub fn freeze(&self) {
        signal("STOP", self.running.as_ref().expect("it runs").pid());
    }

    pub fn thaw(&self) {
        signal("CONT", self.running.as_ref().expect("it runs").pid());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
