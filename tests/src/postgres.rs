//! A PostgreSQL server of a test's own.

use std::{path::PathBuf, process::Command, time::Duration};

use crate::{LIMIT, Process, free_port, processes::signal, tools::postgres};

/// It refuses to run as root; this is who it runs as there.
const NOBODY: &str = "65534";

/// A server; it is killed when the test ends.
pub struct Postgres {
    port: u16,
    process: Option<Process>,
    programs: PathBuf,
    folder: tempfile::TempDir,
}

impl Postgres {
    /// `None`, said aloud, where there is none to be had.
    pub async fn start() -> Option<Self> {
        let programs = postgres()?;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let server = Self { port: free_port(), process: None, programs, folder };
        let data = server.folder.path().join("data");
        std::fs::create_dir(&data).expect("a folder");
        if is_root() {
            let owned = Command::new("chown").arg("-R").arg(NOBODY).arg(server.folder.path()).status();
            assert!(owned.is_ok_and(|status| status.success()), "it is given its folder");
        }
        let mut made = server.program("initdb");
        made.args(["--auth", "trust", "--username", "twelve", "--no-sync", "--pgdata"]).arg(&data);
        let made = made.output().expect("it runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut server = server;
        server.restart().await;
        Some(server)
    }

    pub fn url(&self) -> String {
        format!("postgres://twelve@127.0.0.1:{}/postgres", self.port)
    }

    /// Kills it as a crash would: each of its processes ends with the first.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            // Its helpers notice an immediate stop; a plain kill would leave them for a while.
            signal("QUIT", process.id());
            process.wait();
        }
    }

    /// Starts it on its data.
    pub async fn restart(&mut self) {
        let port = self.port.to_string();
        let mut command = self.program("postgres");
        command
            .args(["-p", &port, "-h", "127.0.0.1", "-k", ""])
            .arg("-D")
            .arg(self.folder.path().join("data"));
        self.process = Some(Process::foreign(&mut command));
        let answers = async {
            while ledger::Ledger::open(&self.url()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(LIMIT, answers).await.expect("a database in time");
    }

    fn program(&self, name: &str) -> Command {
        let path = self.programs.join(name);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.current_dir(self.folder.path()).env("LC_ALL", "C.UTF-8");
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout.starts_with(b"0\n"))
}
