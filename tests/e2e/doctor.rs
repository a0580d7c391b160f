//! `twelve doctor` on deployments that are well, and on such that are not.

use std::process::{Command, Output};

use async_nats::jetstream::stream::Compression;
use domain::{Flows, history as lives};
use nats::accounts::User;
use twelve_tests::{
    LIMIT, Node, Platform, Process, Secured, Server, binary,
    client::{LOOK_PAUSE, order},
    free_port, history,
};

fn doctor(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(binary("twelve")).arg("doctor").args(arguments).output();
    let Output { status, stdout, stderr } = output.expect("it runs");
    (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_is_well_is_found_so_and_what_could_be_better_is_named() {
    let platform = Platform::up().await;
    platform.client.place(&order("gentleman")).await;
    let (fine, said) =
        doctor(&["--nats", platform.server.url(), "--durability", "fsync", "--url", platform.client.url()]);
    assert!(fine, "{said}");
    for wanted in
        ["ok    nats-server", "ok    stream ORDERS-0", "ok    clock of http", "0 events behind the log"]
    {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    assert!(said.contains("look  permissions") && said.contains("twelve nats-accounts"), "{said}");
    assert!(said.contains("look  durability") && said.contains("--nats-monitor"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_work_queue_that_is_missing_or_paused_is_found_so() {
    let server = Server::start().await;
    let log = history::log(&server, 1).await;
    log.ensure_queues().await.expect("made");
    let client = async_nats::connect(server.url()).await.expect("connected");
    let at = ["--nats", server.url(), "--partitions", "1"];
    let work = |said: &str| -> Vec<String> {
        said.lines().filter(|line| line.contains("work ")).map(str::to_owned).collect()
    };
    let (_, said) = doctor(&at);
    assert!(work(&said).iter().all(|line| line.starts_with("ok ")) && work(&said).len() == 3, "{said}");

    let pause = r#"{"pause_until":"2100-01-01T00:00:00Z"}"#;
    client.request("$JS.API.CONSUMER.PAUSE.ORDERS-0.saga", pause.into()).await.expect("paused by hand");
    let jetstream = async_nats::jetstream::new(client);
    let due = jetstream.get_stream("DEADLINES").await.expect("the deadlines");
    due.delete_consumer("due-0").await.expect("deleted by hand");
    let (fine, said) = doctor(&at);
    assert!(!fine && said.contains("BAD   work ORDERS-0/saga") && said.contains("it is paused"), "{said}");
    assert!(said.contains("BAD   work DEADLINES/due-0") && said.contains("twelve nats setup"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_a_promise_is_found_and_what_to_do_is_said() {
    let server = Server::start().await;
    let (fine, said) = doctor(&["--nats", server.url()]);
    assert!(
        !fine && said.contains("BAD   stream ORDERS-0") && said.contains("run: twelve nats setup"),
        "{said}"
    );

    let folder = tempfile::tempdir().expect("a folder");
    let [port, monitor] = [free_port(), free_port()];
    let configuration = format!(
        "listen: \"127.0.0.1:{port}\"\nhttp: \"127.0.0.1:{monitor}\"\njetstream {{ store_dir: \"{}\" }}\n",
        folder.path().display()
    );
    let path = folder.path().join("nats-server.conf");
    std::fs::write(&path, configuration).expect("written");
    let tools = twelve_tests::workspace().join(".tools");
    let program = nats::server::find_or_install(&tools).await.expect("a nats-server");
    let mut command = Command::new(program);
    let _careless = Process::foreign(command.arg("-c").arg(&path).stderr(std::process::Stdio::null()));
    let (nats, monitor) = (format!("nats://127.0.0.1:{port}"), format!("http://127.0.0.1:{monitor}"));
    let looking = async {
        loop {
            let (fine, said) =
                doctor(&["--nats", &nats, "--nats-monitor", &monitor, "--durability", "fsync"]);
            if said.contains("durability") {
                return (fine, said);
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let (fine, said) = tokio::time::timeout(LIMIT, looking).await.expect("the server is up");
    assert!(!fine && said.contains("BAD   durability") && said.contains("sync_interval: always"), "{said}");
    assert!(said.contains("ok    clock of nats-server"), "{said}");
    let _log = history::log(&server, twelve_tests::partitions()).await;
    let client = async_nats::connect(server.url()).await.expect("connected");
    let jetstream = async_nats::jetstream::new(client);
    let mut stream = jetstream.get_stream(nats::subject::stream(0)).await.expect("a partition");
    let mut compressed = stream.info().await.expect("described").config.clone();
    compressed.compression = Some(Compression::S2);
    jetstream.update_stream(compressed).await.expect("changed by hand");
    let (_, said) = doctor(&["--nats", server.url()]);
    assert!(said.contains("compression of ORDERS-0") && said.contains("--compression none"), "{said}");
    let (fine, said) = doctor(&["--nats", &nats, "--url", "http://127.0.0.1:1"]);
    assert!(!fine && said.contains("it does not answer"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn permissions_that_hold_are_found_and_streams_that_others_changed_too() {
    let secured = Secured::start().await;
    let listen = format!("127.0.0.1:{}", free_port());
    let mut arguments = secured.arguments(User::Command);
    arguments.extend(["--listen".to_owned(), listen.clone()]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let _commands = Process::start("command-svc", &arguments);
    twelve_tests::Client::new(&format!("http://{listen}")).until_ready().await;
    let operator = secured.arguments(User::Operator);
    let operator: Vec<&str> = operator.iter().map(String::as_str).collect();
    let (fine, said) = doctor(&operator);
    assert!(fine && said.contains("ok    permissions"), "{said}");
    let wrong = [operator.as_slice(), &["--partitions", "3", "--json"]].concat();
    let (fine, said) = doctor(&wrong);
    assert!(!fine && said.contains("--partitions"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_whose_deadline_passed_and_that_nothing_looks_at_any_more_are_counted_and_named() {
    let mut node = Node::new(1, &[]).await;
    let flows = Flows::shipped().expect("they read");
    let appliance = flows.iter().find(|declared| declared.flow.name == "appliance").expect("a flow");
    let day_ago = nats::now().checked_sub(jiff::SignedDuration::from_hours(72)).expect("a moment");
    // Orders that wait for their payment, each with as much of its life as that; nobody runs their sagas.
    let waiting = (0..3).map(|number| lives::life(appliance, number, day_ago).drain(..1).collect::<Vec<_>>());
    let waiting: Vec<_> = waiting.collect();
    nats::bench::load(&node.log, waiting.into_iter(), 3, |_| {}).await.expect("appended");
    history::append(&node.log, 10..20).await;
    node.start().await;
    let counted = async {
        while node.client.metric("twelve_orders_overdue").await != Some(3.0) {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    tokio::time::timeout(LIMIT, counted).await.expect("they are counted");
    let arguments = ["--nats", node.server.url(), "--partitions", "1", "--url", node.client.url()];
    let (fine, said) = doctor(&arguments);
    assert!(
        !fine && said.contains("BAD   deadlines of http") && said.contains("3 orders are overdue"),
        "{said}"
    );
    assert!(said.contains("TwelveOrdersOverdue"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_whose_log_has_one_partition_is_looked_at_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().display().to_string();
    let (listen, nats) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let tools = twelve_tests::workspace().join(".tools").display().to_string();
    let up = ["up", "--listen", &listen, "--nats-listen", &nats, "--tools", &tools, "--data", &data];
    let process = Process::start("twelve", &[&up[..], &["--partitions", "1"]].concat());
    twelve_tests::Client::new(&format!("http://{listen}")).until_ready().await;
    let (fine, said) = doctor(&["--data", &data]);
    assert!(fine && said.contains("ok    stream ORDERS-0") && !said.contains("ORDERS-1"), "{said}");
    process.interrupt().await;
}
