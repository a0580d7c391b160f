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

/// Starts `twelve` as a terminal does, also where the tests themselves run below `nohup`.
fn in_a_terminal(arguments: &[&str]) -> Process {
    let mut command = Command::new("env");
    command.arg("--default-signal=HUP").arg(binary("twelve")).args(arguments);
    Process::foreign(command.stderr(Stdio::null()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_closes_stops_the_platform_and_its_nats_server_but_not_below_nohup() {
    let folder = tempfile::tempdir().expect("a folder");
    let (arguments, client, nats) = own(&folder.path().display().to_string());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let process = in_a_terminal(&arguments);
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
        let process = in_a_terminal(&[&bench[..], &place].concat());
        until("its server listens", || is_listening(&nats)).await;
        signal(name, process.id());
        process.wait();
        until("its server is gone", || !is_listening(&nats)).await;
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

#[test]
fn help_shows_settings_under_headings_and_none_of_them_is_lost() {
    let help = |arguments: &[&str]| said(&twelve().args(arguments).arg("--help").output().expect("it runs"));
    let text = help(&["up"]);
    let begins = |line: &&str| line.trim_start().starts_with("--") || line.trim_start().starts_with("-h");
    let mut longest = 0;
    for part in text.split("\n\n").collect::<Vec<_>>().join("\n").split(":\n").skip(2) {
        longest = longest.max(part.lines().filter(begins).count());
    }
    assert!(longest <= 16, "a heading has {longest} settings:\n{text}");
    for heading in [
        "Data and nats-server:",
        "The log:",
        "Flows:",
        "Who may call:",
        "Limits of callers:",
        "Messages to customers:",
    ] {
        assert!(text.contains(&format!("\n{heading}\n")), "{heading}\n{text}");
    }
    // What follows a group of settings does not fall under its heading.
    for (heading, setting) in [
        ("Options:", "--ledger"),
        ("Who may call:", "--auth-jwks"),
        ("Commands and payment:", "--answer-delay-ms"),
        ("Commands and payment:", "--payment-url"),
    ] {
        let under = text.split(&format!("\n{heading}\n")).nth(1).expect(heading);
        let next = under.find("\n\n\n").unwrap_or(under.len());
        let end = under[..next].lines().position(|line| line.ends_with(':') && !line.starts_with(' '));
        let own: Vec<&str> = under.lines().take(end.unwrap_or(usize::MAX)).collect();
        assert!(own.join("\n").contains(setting), "{setting} is not under {heading}");
    }
}

#[test]
fn a_shell_completes_commands_and_settings() {
    let script = |shell: &str| {
        let output = twelve().args(["completions", shell]).output().expect("it runs");
        assert!(output.status.success(), "{shell}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for shell in ["zsh", "fish"] {
        let text = script(shell);
        assert!(text.contains("orders") && text.contains("durability"), "{shell}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("twelve");
    std::fs::write(&file, script("bash")).expect("written");
    let complete = |words: &[&str]| {
        let last = words.len() - 1;
        let line = format!(
            "source {}; COMP_WORDS=({}); COMP_CWORD={last}; _twelve twelve '{}' '{}'; echo \"${{COMPREPLY[@]}}\"",
            file.display(),
            words.join(" "),
            words[last],
            words[last - 1],
        );
        said(&Command::new("bash").args(["-c", &line]).output().expect("bash runs"))
    };
    assert_eq!(complete(&["twelve", "dem"]).trim(), "demo");
    assert_eq!(complete(&["twelve", "orders", "fo"]).trim(), "follow");
    assert!(complete(&["twelve", "up", "--led"]).contains("--ledger"));
    assert!(complete(&["twelve", "up", "--durability", "f"]).contains("fsync"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_platform_makes_is_for_its_own_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let (arguments, client, _) = own(&data.display().to_string());
    let ledger = format!("sqlite:{}", data.join("ledger.db").display());
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    arguments.extend(["--ledger", &ledger]);
    std::fs::create_dir(&data).expect("a folder that all may read");
    let process = Process::start("twelve", &arguments);
    client.until_ready().await;
    let id = client.place(&twelve_tests::client::order("gentleman")).await;
    client.until_status(&id, "out_for_delivery").await;
    until("the ledger is there", || data.join("ledger.db").exists()).await;
    process.interrupt().await;
    let files = twelve_tests::node::files(&data);
    for part in ["ledger.db", "nats-server.log", "views", "jetstream"] {
        assert!(files.iter().any(|file| file.display().to_string().contains(part)), "{part}: {files:?}");
    }
    for file in files {
        let mode = std::fs::metadata(&file).expect("a file").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has {mode:o}", file.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_looks_at_what_runs_on_a_folder_and_the_greeting_names_its_monitor() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let doctor = |data: &str| twelve().args(["doctor", "--data", data]).output().expect("it runs");
    let absent = doctor(&data);
    assert!(!absent.status.success() && said(&absent).contains("twelve up --data"), "{}", said(&absent));
    assert!(!folder.path().join("data").exists(), "looking makes nothing");
    let (arguments, client, _) = own(&data);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let _process = Process::start_into("twelve", &arguments, folder.path());
    client.until_ready().await;
    let found = doctor(&data);
    let text = said(&found);
    assert!(found.status.success(), "{text}");
    assert!(text.contains("the server syncs before it acknowledges"), "{text}");
    let greeting = std::fs::read_to_string(folder.path().join("stdout")).expect("a greeting");
    let monitor =
        greeting.lines().find_map(|line| line.trim().strip_prefix("monitor ")).expect("its monitor");
    let url = monitor.split_whitespace().next().expect("a URL");
    let seen = Client::new(url).get("/varz").await;
    assert!(seen.status == 200 && seen.body["jetstream"].is_object(), "{url}: {seen:?}");
    let metrics = client.get("/metrics").await.body.as_str().unwrap_or_default().to_owned();
    let measured = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE twelve_"));
    for name in measured.filter_map(|line| line.split_whitespace().next()) {
        assert!(metrics.contains(&format!("# HELP twelve_{name} ")), "twelve_{name} has no help text");
    }
}
