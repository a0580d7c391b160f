//! Processes of ours, started from the binaries of this very workspace.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use crate::{LIMIT, workspace};

/// The services that `twelve` is when it is started as one of them.
const SERVICES: [&str; 3] = ["command-svc", "query-api", "projector"];

/// One of our programs: `twelve` itself, or one of its services as a process of its own.
pub fn program(name: &str) -> Command {
    let mut command = Command::new(binary("twelve"));
    if SERVICES.contains(&name) {
        command.arg(name);
    } else {
        assert_eq!(name, "twelve", "a program of ours");
    }
    command
}

/// The profile that is fast to run and not slow to build.
const OPTIMISED: &str = "simulation";

/// The path of one of our binaries, built if need be.
pub fn binary(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let tests = std::env::current_exe().expect("the test's own path");
        let folder = tests.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps").to_owned();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--workspace", "--bins", "--examples"]).current_dir(workspace());
        // As the test itself was built; cargo's own profile `dev` has another folder's name.
        let profile = folder.file_name().and_then(|name| name.to_str()).filter(|name| *name != "debug");
        build.args(["--profile", profile.unwrap_or("dev")]);
        assert!(build.status().expect("cargo runs").success(), "the binaries do not build");
        folder
    });
    folder.join(name)
}

/// The path of one of our binaries as users run it: optimised, whatever the test is; built if need be.
pub fn optimised(name: &str) -> PathBuf {
    let tests = std::env::current_exe().expect("the test's own path");
    let target = tests.ancestors().nth(3).expect("target/<profile>/deps/test");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--locked", "--profile", OPTIMISED, "--bin", name, "--package", name]);
    assert!(build.current_dir(workspace()).status().expect("cargo runs").success(), "{name} does not build");
    target.join(OPTIMISED).join(name)
}

/// The longest that a process may take which is to end without being asked to.
const END_MAX: Duration = Duration::from_mins(5);
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// A running process; it is killed when the test ends.
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts one of our programs.
    pub fn start(name: &str, arguments: &[&str]) -> Self {
        let mut command = program(name);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        if std::env::var_os("TWELVE_TEST_LOG").is_none() {
            command.stderr(Stdio::null());
        }
        Self::spawn(name, &mut command)
    }

    /// Starts one of our programs with settings in its environment.
    pub fn start_with(name: &str, arguments: &[&str], environment: &[(String, String)]) -> Self {
        let mut command = program(name);
        command.args(arguments).envs(environment.iter().cloned()).stdin(Stdio::null());
        Self::spawn(name, command.stdout(Stdio::null()).stderr(Stdio::null()))
    }

    /// Starts one of our programs, what it says going to the files `stdout` and `stderr` in `folder`.
    pub fn start_into(name: &str, arguments: &[&str], folder: &Path) -> Self {
        let file = |name: &str| std::fs::File::create(folder.join(name)).expect("a file");
        let mut command = program(name);
        command.args(arguments).stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        Self::spawn(name, &mut command)
    }

    /// Starts one of our binaries at this path.
    pub fn start_at(path: &Path, arguments: &[&str]) -> Self {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let mut command = Command::new(path);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self::spawn(name, &mut command)
    }

    /// Starts a program that is not ours.
    pub fn foreign(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        Self::spawn(&name, command.stdin(Stdio::null()).stdout(Stdio::null()))
    }

    fn spawn(name: &str, command: &mut Command) -> Self {
        let child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { child, name: name.to_owned() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a process that can be asked").is_none()
    }

    /// Ends it at once, as a crash would.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ended");
    }

    /// Waits until it ended, [`END_MAX`] at most, and says whether with success.
    pub fn wait(mut self) -> bool {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a process that can be asked") {
                return status.success();
            }
            assert!(started.elapsed() < END_MAX, "{} does not end", self.name);
            std::thread::sleep(LOOK_PAUSE);
        }
    }

    /// Sends Ctrl-C, waits until it ended, and says how long that took. It must end with success.
    pub async fn interrupt(self) -> Duration {
        self.end("INT").await
    }

    /// As [`Self::interrupt`], as a cluster does it.
    pub async fn terminate(self) -> Duration {
        self.end("TERM").await
    }

    async fn end(mut self, how: &str) -> Duration {
        let started = Instant::now();
        signal(how, self.child.id());
        loop {
            if let Some(status) = self.child.try_wait().expect("a process that can be asked") {
                assert!(status.success(), "{} ended with {status}", self.name);
                return started.elapsed();
            }
            assert!(started.elapsed() < LIMIT, "{} does not stop", self.name);
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Sends a signal to a process that this test started.
pub fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(sent.expect("kill runs").success(), "cannot send {name} to {pid}");
}
