//! The command line as a person at a terminal meets it: pipes that close, terminals that close, names for addresses.

use std::{
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use twelve_tests::{Client, LIMIT, Process, Server, binary, free_port, processes::signal, workspace};

fn twelve() -> Command {
    let mut command = Command::new(binary("twelve"));
    command.stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Arguments for a platform that brings its own nats-server, and a client of it.
fn own(data: &str) -> (Vec<String>, Client, String) {
    let [listen, nats] = [free_port(), free_port()].map(|port| format!("localhost:{port}"));
    let tools = workspace().join(".tools").display().to_string();
    let client = Client::new(&format!("http://{listen}"));
    let arguments = ["up", "--listen", &listen, "--data", data, "--nats-listen", &nats, "--tools", &tools];
    (arguments.map(Into::into).into(), client, nats)
}

fn is_listening(address: &str) -> bool {
    std::net::TcpStream::connect(address).is_ok()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < LIMIT, "not so: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_reader_that_stops_early_is_no_failure_and_a_full_disk_is_one() {
    for arguments in [&["openapi"][..], &["asyncapi"], &["streams"], &["flow", "list"], &["up", "--help"]] {
        let mut child =
            twelve().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {}", said(&output));
    }
    let full = std::fs::File::options().write(true).open("/dev/full").expect("a full disk");
    let output = twelve().arg("openapi").stdout(full).output().expect("it runs");
    let text = said(&output);
    assert!(!output.status.success() && text.contains("cannot write to standard output"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_whose_log_lines_nobody_reads_serves_on() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (listen, data) = (format!("127.0.0.1:{}", free_port()), folder.path().display().to_string());
    let mut child = twelve()
        .args(["--log", "debug", "up", "--listen", &listen, "--data", &data, "--nats", server.url()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    drop((child.stdout.take(), child.stderr.take()));
    let client = Client::new(&format!("http://{listen}"));
    client.until_ready().await;
    let id = client.place(&twelve_tests::client::order("gentleman")).await;
    client.until_status(&id, "out_for_delivery").await;
    signal("INT", child.id());
    assert!(child.wait().expect("it ends").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_closes_stops_the_platform_and_its_nats_server_but_not_below_nohup() {
    let folder = tempfile::tempdir().expect("a folder");
    let (arguments, client, nats) = own(&folder.path().display().to_string());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let process = Process::start("twelve", &arguments);
    client.until_ready().await;
    assert!(is_listening(&nats), "{nats}");
    signal("HUP", process.id());
    assert!(process.wait(), "it ends as after Ctrl-C");
    assert!(!is_listening(&nats), "and its server with it");

    let mut command = Command::new("nohup");
    let kept = Process::foreign(command.arg(binary("twelve")).args(&arguments).stderr(Stdio::null()));
    client.until_ready().await;
    signal("HUP", kept.id());
    client.place(&twelve_tests::client::order("gentleman")).await;
    kept.interrupt().await;
    assert!(!is_listening(&nats), "Ctrl-C stops both");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_is_interrupted_stops_the_server_that_it_brought() {
    for name in ["HUP", "INT", "TERM"] {
        let folder = tempfile::tempdir().expect("a folder");
        let (data, nats) = (folder.path().display().to_string(), format!("localhost:{}", free_port()));
        let tools = workspace().join(".tools").display().to_string();
        let place = ["--data", &data, "--nats-listen", &nats, "--tools", &tools];
        let bench = ["bench", "history", "--orders", "100000000"];
        let process = Process::start("twelve", &[&bench[..], &place].concat());
        until("its server listens", || is_listening(&nats)).await;
        signal(name, process.id());
        process.wait();
        assert!(!is_listening(&nats), "{name} leaves the server running");
    }
}

#[test]
fn a_users_mistake_is_told_with_its_causes_and_without_a_stack_trace() {
    let output = twelve()
        .env("RUST_BACKTRACE", "1")
        .args(["flow", "check", "/nonexistent/flow.toml"])
        .output()
        .expect("it runs");
    let text = said(&output);
    assert!(!output.status.success());
    assert_eq!(
        text.lines().filter(|line| !line.starts_with("Bound")).collect::<Vec<_>>(),
        ["error: cannot read /nonexistent/flow.toml", "  caused by: No such file or directory (os error 2)"]
    );
}

#[test]
fn the_first_build_shows_how_far_it_is() {
    let aliases = std::fs::read_to_string(workspace().join(".cargo/config.toml")).expect("the aliases");
    let alias = aliases.lines().find(|line| line.starts_with("twelve = ")).expect("cargo twelve");
    assert!(alias.contains("run") && !alias.contains("quiet") && !alias.contains("-q"), "{alias}");
}
