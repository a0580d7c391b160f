//! A mail server that is not ours: aiosmtpd, a process that puts what it receives into a Maildir.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Instant,
};

use tempfile::TempDir;

use crate::{LIMIT, free_port, tools};

/// A mail server; it is killed when the test ends.
pub struct MailServer {
    library: PathBuf,
    folder: TempDir,
    port: u16,
    running: Option<Child>,
}

impl MailServer {
    /// `None`, said aloud, if it cannot be installed here.
    pub async fn start() -> Option<Self> {
        let library = tools::aiosmtpd()?;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut server = Self { library, folder, port: free_port(), running: None };
        server.restart().await;
        Some(server)
    }

    pub fn url(&self) -> String {
        format!("smtp://127.0.0.1:{}", self.port)
    }

    /// Starts it (again) on the same port and box.
    pub async fn restart(&mut self) {
        let mut command = Command::new("python3");
        command.args(["-m", "aiosmtpd", "-n", "-l", &format!("127.0.0.1:{}", self.port)]);
        command.args(["-c", "aiosmtpd.handlers.Mailbox"]).arg(self.folder.path().join("box"));
        command.env("PYTHONPATH", &self.library).stdout(Stdio::null()).stderr(Stdio::null());
        self.running = Some(command.spawn().expect("python3 runs"));
        let started = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(started.elapsed() < LIMIT, "the mail server does not listen");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.running.take() {
            process.kill().expect("it can be killed");
            process.wait().expect("it ended");
        }
    }

    /// The mails received so far, as texts.
    pub fn mails(&self) -> Vec<String> {
        let folder = self.folder.path().join("box/new");
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| std::fs::read_to_string(entry.path()).expect("a mail")).collect()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.kill();
    }
}
