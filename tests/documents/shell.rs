//! A shell as a newcomer's: a fresh home, the workspace as it is, every port free, and nothing of it stays.
//!
//! It has a network of its own, so a document may say 127.0.0.1:8080; the workspace lies below a layer of its own
//! (overlayfs), so that what is written into it is gone with the test; and all its processes end with it.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
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
/// The shell's first command: a network of its own, and the layer above the workspace. Each part runs only if the one
/// before it did, so nothing is deleted or written where there is no layer; what it prints is 0 only if all did.
const BEGIN: &str = r#"
ip link set lo up \
&& mount -t overlay overlay -o "lowerdir=$W,upperdir=$T/upper,workdir=$T/work" "$W" && cd "$W" \
&& rm -rf .twelve flows && set -o pipefail && FIRST_PATH=$PATH && BEGUN_WITH=$(compgen -e | tr '\n' ' ') \
&& exec 3>&1; echo $?
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

/// Commands of which the last goes on, in a terminal of their own.
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
        // Ctrl-C works in a terminal, also where these tests were started in the background and it was ignored.
        command
            .args(["env", "--default-signal=INT", "bash", "--noprofile", "--norc"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
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

    /// Begins commands of which the last goes on, in a terminal of their own: it has no variable of the other one.
    pub(crate) fn begin(&mut self, commands: &str) -> Job {
        let (script, output) = self.step(&format!("set -e\n{commands}"));
        let begin = format!(
            "set -m; (for name in $(compgen -e); do [[ \" $BEGUN_WITH \" = *\" $name \"* ]] || unset \"$name\"; done; \
             PATH=$FIRST_PATH; exec bash --noprofile --norc '{}') >'{}' 2>&1 </dev/null 3>&- & set +m; echo $! >&3\n",
            show(&script),
            show(&output)
        );
        let pid = self.ask(&begin, STOP_MAX).expect("the shell answers");
        Job { command: commands.to_owned(), pid, output }
    }

    /// Whether it goes on.
    pub(crate) fn is_running(&mut self, job: &Job) -> bool {
        let asked = self.ask(&format!("kill -0 {} 2>/dev/null; echo $? >&3\n", job.pid), STOP_MAX);
        asked.expect("the shell answers") == "0"
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

/// A folder with a `cargo` that starts the `twelve` of this very build for `cargo twelve`, and is cargo for all else:
/// cargo would build the program once more, for minutes, as its dependencies have other features without the tests.
fn cargo() -> PathBuf {
    let alias = std::fs::read_to_string(workspace().join(".cargo/config.toml")).expect("the alias");
    assert!(alias.contains("\ntwelve = \"run --package twelve --\"\n"), "`cargo twelve` is the program");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("documents");
    std::fs::create_dir_all(&folder).expect("a folder");
    let (script, cargo) = (folder.join("cargo"), env!("CARGO"));
    let text =
        format!("#!/bin/sh\n[ \"$1\" = twelve ] || exec '{cargo}' \"$@\"\nshift\nexec twelve \"$@\"\n");
    std::fs::write(&script, text).expect("a script");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("it can be run");
    folder
}

/// Where the shell finds programs: what the documents ask for, and this machine's.
fn path() -> OsString {
    static FOUND: OnceLock<OsString> = OnceLock::new();
    let find = || {
        let mut folders = vec![cargo(), binary("twelve").parent().expect("a folder").to_owned()];
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

#[test]
fn without_its_layer_the_shell_does_not_begin_and_deletes_nothing() {
    let (workspace, parts) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let data = workspace.path().join(".twelve/log");
    std::fs::create_dir_all(&data).expect("a folder");
    let mut command = apart();
    // Neither `upper` nor `work` is there, so there can be no layer.
    command.args(["bash", "--noprofile", "--norc", "-c", BEGIN]).current_dir(workspace.path());
    let begun = command.env("W", workspace.path()).env("T", parts.path()).output().expect("bash runs");
    assert_ne!(String::from_utf8_lossy(&begun.stdout).trim(), "0", "it begins in the real folder");
    assert!(data.is_dir(), "the real folder's data is gone");
}
