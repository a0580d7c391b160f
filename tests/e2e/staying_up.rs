//! A platform stays up, or says why it is not, when what is under it is away, full, paused or ahead of its time.

use std::{path::Path, process::Command, time::Duration};

use serde_json::json;
use twelve_tests::{
    Client, LIMIT, Platform, Process, Server, SmallDisk, binary,
    client::{LOOK_PAUSE, order},
    free_port,
    processes::signal,
    workspace,
};

/// Waits until readiness is refused with these words in the reason.
async fn until_refused(client: &Client, words: &str) {
    let refused = async {
        loop {
            let ready = client.get("/readyz").await;
            if ready.status == 503 && ready.body.to_string().contains(words) {
                return;
            }
        }
    };
    tokio::time::timeout(LIMIT, refused).await.unwrap_or_else(|_| panic!("readiness does not say {words:?}"));
}

async fn until_metric(client: &Client, name: &str, least: f64) {
    let reached = async { while client.metric(name).await.is_none_or(|value| value < least) {} };
    tokio::time::timeout(LIMIT, reached).await.unwrap_or_else(|_| panic!("{name} does not reach {least}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_work_queue_is_named_by_readiness_until_it_goes_on() {
    let platform = Platform::up().await;
    let client = async_nats::connect(platform.server.url()).await.expect("connected");
    let pause = async |until: &str| {
        let body = json!({ "pause_until": until }).to_string();
        client.request("$JS.API.CONSUMER.PAUSE.ORDERS-0.saga", body.into()).await.expect("an answer");
    };
    pause("2099-01-01T00:00:00Z").await;
    until_refused(&platform.client, "work queue ORDERS-0/saga is paused").await;
    let gauge = "twelve_work_queue_unavailable{list=\"saga\",partition=\"0\"}";
    assert_eq!(platform.client.metric(gauge).await, Some(1.0));
    pause("0001-01-01T00:00:00Z").await;
    platform.client.until_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_comes_due_early_by_our_clock_is_waited_for_and_not_set_again() {
    let platform = Platform::up().await;
    let mut unpaid = order("gentleman");
    unpaid["flow"] = json!("appliance");
    unpaid["store_id"] = json!("main-street");
    unpaid.as_object_mut().expect("a body").remove("payment");
    let placed = platform.client.post("/orders", &unpaid).await;
    assert_eq!(placed.status, 201, "{placed:?}");
    until_metric(&platform.client, "twelve_deadlines_set_total", 1.0).await;
    let (partition, _) = placed.header("log-position").split_once(':').expect("a position");
    let subject = format!("due.{partition}.{}", placed.order_id());
    let id = placed.order_id();
    let saga = platform.client.get(&format!("/sagas/{id}")).await.body;
    let due = saga["due"].as_str().expect("a deadline").to_owned();
    let client = async_nats::connect(platform.server.url()).await.expect("connected");
    let come_due = async |due: &str| {
        let headers: async_nats::HeaderMap =
            [("Due".parse().expect("a name"), due.parse().expect("a value"))].into_iter().collect();
        client.request_with_headers(subject.clone(), headers, "".into()).await.expect("stored");
    };
    // As a nats-server does whose clock is ahead of ours.
    come_due(&due).await;
    until_metric(&platform.client, "twelve_deadlines_early_total", 1.0).await;
    assert_eq!(platform.client.metric("twelve_deadlines_set_total").await, Some(1.0));
    let row = platform.client.get(&format!("/orders/{}", placed.order_id())).await;
    assert_eq!(row.body["status"], "awaiting_payment", "{row:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_end_when_they_are_told_to_although_nats_server_is_away() {
    let mut server = Server::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let views = folder.path().join("views").display().to_string();
    let data = folder.path().join("data").display().to_string();
    let mut started = Vec::new();
    for (program, up, more) in [
        ("command-svc", &[][..], &[][..]),
        ("query-api", &[], &["--views", &views]),
        ("twelve", &["up"], &["--data", &data]),
    ] {
        let listen = format!("127.0.0.1:{}", free_port());
        let said = folder.path().join(program);
        std::fs::create_dir(&said).expect("a folder");
        let told = ["--log", "info,command_svc=debug", "--nats", server.url(), "--listen", &listen];
        let process = Process::start_into(program, &[up, &told[..], more].concat(), &said);
        let client = Client::new(&format!("http://{listen}"));
        client.until_ready().await;
        started.push((program, process, client, said.join("stderr")));
    }
    server.kill();
    for (program, process, client, said) in started {
        until_refused(&client, "not connected").await;
        // It asked the server something that will not be answered, and asks again.
        let asked = async {
            while !std::fs::read_to_string(&said).expect("its log").contains("its room is not known") {
                tokio::time::sleep(LOOK_PAUSE).await;
            }
        };
        if program != "query-api" {
            tokio::time::timeout(LIMIT, asked).await.expect("it asks");
        }
        let took = process.terminate().await;
        assert!(took < Duration::from_secs(12), "{program} took {took:?}");
    }
}

/// A platform with a nats-server of its own, in this folder.
fn own(folder: &Path, listen: &str, nats_listen: &str) -> Process {
    let (data, tools) = (folder.display().to_string(), workspace().join(".tools").display().to_string());
    let arguments =
        ["up", "--data", &data, "--tools", &tools, "--listen", listen, "--nats-listen", nats_listen];
    let small = ["--partitions", "1", "--partition-bytes-max", "8388608"];
    Process::start("twelve", &[&arguments[..], &small].concat())
}

/// The process id of the nats-server on this folder.
fn nats_pid(folder: &Path) -> u32 {
    let ports = std::fs::read_dir(folder.join("nats/ports")).expect("its ports");
    let names = ports.flatten().filter_map(|file| file.file_name().into_string().ok());
    let pids = names
        .filter_map(|name| name.strip_prefix("nats-server_")?.strip_suffix(".ports")?.parse::<u32>().ok());
    pids.max().expect("a process id")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_server_that_was_found_running_is_started_again_when_it_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (listen, nats) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let client = Client::new(&format!("http://{listen}"));
    let first = own(folder.path(), &listen, &nats);
    client.until_ready().await;
    first.kill();
    let second = own(folder.path(), &listen, &nats);
    client.until_ready().await;
    signal("KILL", nats_pid(folder.path()));
    until_refused(&client, "not connected").await;
    client.until_ready().await;
    assert_eq!(client.post("/orders", &order("gentleman")).await.status, 201);
    second.interrupt().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_was_full_takes_orders_again_once_it_has_room_and_readiness_says_so_meanwhile() {
    let folder = tempfile::tempdir().expect("a folder");
    let nats = folder.path().join("nats");
    std::fs::create_dir_all(&nats).expect("made");
    let Some(_disk) = SmallDisk::mount(&nats, 128) else { return };
    let (listen, address) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let client = Client::new(&format!("http://{listen}"));
    let platform = own(folder.path(), &listen, &address);
    client.until_ready().await;
    assert_eq!(client.post("/orders", &order("gentleman")).await.status, 201);
    let fill = nats.join("fill");
    // Until there is no room at all.
    let filled =
        Command::new("dd").args(["if=/dev/zero", "bs=4k"]).arg(format!("of={}", fill.display())).output();
    assert!(!filled.expect("dd runs").status.success(), "the disk is full");
    let body = order("gentleman");
    let refused = async {
        while client.post("/orders", &order("gentleman")).await.status == 201 {}
        loop {
            // Callers try again.
            let (ready, _) = tokio::join!(client.get("/readyz"), client.post("/orders", &body));
            if ready.status == 503 {
                return ready;
            }
        }
    };
    let ready = tokio::time::timeout(LIMIT * 2, refused).await.expect("it is noticed");
    assert!(ready.body.to_string().contains("acknowledges no event"), "{ready:?}");
    std::fs::remove_file(&fill).expect("removed");
    client.until_ready().await;
    assert_eq!(client.post("/orders", &order("gentleman")).await.status, 201);
    platform.interrupt().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_keeps_all_orders_is_not_archived_and_nothing_is_written_before_that_is_said() {
    let platform = Platform::up().await;
    let id = platform.client.place(&order("gentleman")).await;
    platform.client.until_status(&id, "out_for_delivery").await;
    let canceled = platform.client.post(&format!("/orders/{id}/cancel"), &json!({})).await;
    assert_eq!(canceled.status, 200, "{canceled:?}");
    platform.client.until_status(&id, "canceled").await;
    let before = platform.client.event_types(&id).await;
    let archives = ["--old-orders", "archive", "--nats", platform.server.url()];
    let listen = ["--listen", "127.0.0.1:0", "--data"];
    let data = tempfile::tempdir().expect("a folder");
    for arguments in [&["archive", "--older-than", "0"][..], &["up"]] {
        let mut command = Command::new(binary("twelve"));
        command.args(arguments).args(archives);
        if arguments[0] == "up" {
            command.args(listen).arg(data.path());
        }
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains("made to keep all orders"),
            "{arguments:?}: {said}"
        );
    }
    assert_eq!(platform.client.event_types(&id).await, before, "nothing was written");
}

/// How many nats-servers run on this folder.
fn nats_servers_on(folder: &Path) -> usize {
    let config = folder.join("nats/nats-server.conf").display().to_string();
    let processes = std::fs::read_dir("/proc").expect("processes").flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(&config)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_server_that_hangs_is_waited_for_and_no_second_one_is_started_on_its_data() {
    let folder = tempfile::tempdir().expect("a folder");
    let (listen, nats) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let client = Client::new(&format!("http://{listen}"));
    let first = own(folder.path(), &listen, &nats);
    client.until_ready().await;
    let placed = client.post("/orders", &order("gentleman")).await;
    first.kill();
    let pid = nats_pid(folder.path());
    signal("STOP", pid);
    let second = own(folder.path(), &listen, &nats);
    let ready = tokio::time::timeout(Duration::from_secs(5), client.until_ready()).await;
    let servers = nats_servers_on(folder.path());
    signal("CONT", pid);
    assert!(ready.is_err(), "nothing is ready on a log that does not answer");
    assert_eq!(servers, 1);
    client.until_ready().await;
    assert_eq!(nats_pid(folder.path()), pid);
    assert_eq!(client.get(&format!("/orders/{}", placed.order_id())).await.status, 200);
    second.interrupt().await;
    signal("QUIT", pid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_has_one_nats_server_by_whichever_path_it_is_reached() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    std::fs::create_dir(&data).expect("made");
    std::os::unix::fs::symlink(&data, folder.path().join("link")).expect("linked");
    let (listen, nats) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let client = Client::new(&format!("http://{listen}"));
    let platform = own(&data, &listen, &nats);
    client.until_ready().await;
    let config = || std::fs::read_to_string(data.join("nats/nats-server.conf")).expect("its configuration");
    let before = config();
    for path in ["link", "data/../data"] {
        let path = folder.path().join(path);
        let _ended = Command::new(binary("twelve"))
            .args(["archive", "--older-than", "90", "--dry-run", "--data"])
            .arg(&path)
            .output()
            .expect("it runs");
        assert_eq!(config(), before, "{} is the same folder", path.display());
        let doctor = Command::new(binary("twelve")).args(["doctor", "--data"]).arg(&path).output();
        let said = String::from_utf8(doctor.expect("it runs").stdout).expect("a text");
        assert!(said.contains("nats-server"), "{said}");
    }
    assert_eq!(nats_servers_on(&data), 1);
    platform.interrupt().await;
}
