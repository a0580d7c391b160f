//! A shell as a newcomer's: a fresh home, the workspace as it is, every port free, and nothing of it stays.
//!
//! It has a network of its own, so a document may say 127.0.0.1:8080; the workspace lies below a layer of its own
//! (overlayfs), so that what is written into it is gone with the test; and all its processes end with it.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        OnceLock,
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use tempfile::TempDir;
use twelve_tests::{binary, tools, workspace};

/// The longest that a program may take to end after Ctrl-C.
const STOP_MAX: Duration = Duration::from_secs(40);
/// What the shell is told first: a network of its own, the layer above the workspace, and where to go on.
const BEGIN: &str = r#"
ip link set lo up && mount -t overlay overlay -o "lowerdir=$W,upperdir=$T/upper,workdir=$T/work" "$W" && cd "$W"
rm -rf .twelve flows; set -o pipefail; exec 3>&1; echo $?
"#;
/// Settings of whoever runs the tests, which a newcomer has not.
const NOT_OURS: [&str; 8] = [
    "TWELVE_",
    "NATS_",
    "CARGO_PKG_",
    "CARGO_MANIFEST_",
    "CARGO_BIN_",
    "CARGO_CRATE_",
    "LD_LIBRARY_PATH",
    "PG",
];

pub(crate) struct Shell {
    process: Child,
    stdin: ChildStdin,
    answers: Receiver<String>,
    folder: TempDir,
    count: usize,
}

/// How a command ended, and what it printed.
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) output: String,
}

/// A command that goes on in a terminal of its own.
pub(crate) struct Job {
    command: String,
    pid: String,
    output: PathBuf,
}

impl Job {
    pub(crate) fn command(&self) -> &str {
        &self.command
    }

    /// What it printed up to now.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.output).unwrap_or_default()).into_owned()
    }
}

impl Shell {
    /// `None`, said aloud, where a process may not have a network and a layer of its own.
    pub(crate) fn start() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["home", "upper", "work", "steps"] {
            std::fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        // An error is an error, and no picture of how far a transfer is.
        let curl = "fail-with-body\nsilent\nshow-error\n";
        std::fs::write(folder.path().join("home/.curlrc"), curl).expect("a file");
        let mut command = apart();
        command.args(["bash", "--noprofile", "--norc"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_not_ours(name)) {
            command.env_remove(name);
        }
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        for (name, folder) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            command.env(name, std::env::var_os(name).unwrap_or_else(|| home.join(folder).into()));
        }
        command
            .env("HOME", folder.path().join("home"))
            .env("LC_ALL", "C.UTF-8")
            .env("CARGO_NET_OFFLINE", "true");
        command.env("PATH", path()).env("W", workspace()).env("T", folder.path());
        let mut process = command.spawn().expect("unshare and bash are here");
        let (heard, answers) = channel();
        let stdout = process.stdout.take().expect("a pipe");
        // It ends when the shell has.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if heard.send(line).is_err() {
                    return;
                }
            }
        });
        let stdin = process.stdin.take().expect("a pipe");
        let mut shell = Self { process, stdin, answers, folder, count: 0 };
        let begun = shell.ask(BEGIN, STOP_MAX);
        if begun.as_deref() != Some("0") {
            eprintln!("SKIPPED: no document is run, because a shell may not have a network of its own here");
            return None;
        }
        Some(shell)
    }

    /// Runs a command until it ends.
    pub(crate) fn run(&mut self, command: &str, at_most: Duration) -> Ran {
        let (script, output) = self.step(command);
        let ask = format!(". '{}' >'{}' 2>&1 </dev/null 3>&-; echo $? >&3\n", show(&script), show(&output));
        let status = self.ask(&ask, at_most).and_then(|status| status.parse().ok());
        let output = String::from_utf8_lossy(&std::fs::read(output).unwrap_or_default()).into_owned();
        Ran {
            status: status.unwrap_or_else(|| panic!("$ {command}\ndoes not end; it printed:\n{output}")),
            output,
        }
    }

    /// Begins a command that goes on.
    pub(crate) fn begin(&mut self, command: &str) -> Job {
        let (script, output) = self.step(command);
        let begin = format!(
            "set -m; . '{}' >'{}' 2>&1 </dev/null 3>&- & set +m; echo $! >&3\n",
            show(&script),
            show(&output)
        );
        let pid = self.ask(&begin, STOP_MAX).expect("the shell answers");
        Job { command: command.to_owned(), pid, output }
    }

    /// Ctrl-C, until it has ended.
    pub(crate) fn end(&mut self, job: &Job) {
        let pid = &job.pid;
        // Again after ten seconds, as a person does.
        let script = format!(
            "n=0; while kill -0 -- -{pid} 2>/dev/null; do \
             [ $((n % 200)) = 0 ] && kill -INT -- -{pid} 2>/dev/null; n=$((n + 1)); sleep 0.05; done; \
             wait {pid}; echo $? >&3\n"
        );
        let ended = self.ask(&script, STOP_MAX);
        assert!(ended.is_some(), "`{}` does not stop; it printed:\n{}", job.command, job.output());
    }

    fn step(&mut self, command: &str) -> (PathBuf, PathBuf) {
        self.count += 1;
        let script = self.folder.path().join(format!("steps/{}.sh", self.count));
        std::fs::write(&script, format!("{command}\n")).expect("written");
        let output = script.with_extension("out");
        (script, output)
    }

    fn ask(&mut self, script: &str, at_most: Duration) -> Option<String> {
        self.stdin.write_all(script.as_bytes()).ok()?;
        self.answers.recv_timeout(at_most).ok()
    }
}

impl Drop for Shell {
    /// All that it started ends with it.
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A process in namespaces of its own; who is not root is root in there.
fn apart() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    let id = Command::new("id").arg("-u").output();
    if id.is_ok_and(|id| id.stdout != b"0\n") {
        command.arg("--map-root-user");
    }
    command
}

fn is_not_ours(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    name == "CARGO" || NOT_OURS.iter().any(|prefix| name.starts_with(prefix))
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

/// Where the shell finds programs: what the documents ask for, and this machine's.
fn path() -> OsString {
    static FOUND: OnceLock<OsString> = OnceLock::new();
    let find = || {
        let ours = binary("twelve").parent().expect("a folder").to_owned();
        // Its features alone differ from those of the whole workspace; then `cargo twelve` has nothing left to build.
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "twelve"]).current_dir(workspace());
        assert!(build.status().expect("cargo runs").success(), "twelve builds");
        let mut folders = vec![ours];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let server = runtime.block_on(nats::server::find_or_install(&workspace().join(".tools")));
        let found =
            [server.ok(), tools::nats_cli(), tools::grpcurl(), tools::jq(), tools::sqlite(), tools::nginx()];
        folders.extend(found.into_iter().flatten().filter_map(|tool| Some(tool.parent()?.to_owned())));
        folders.retain(|folder| folder.is_absolute());
        folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        std::env::join_paths(folders).expect("no colon")
    };
    FOUND.get_or_init(find).clone()
}
