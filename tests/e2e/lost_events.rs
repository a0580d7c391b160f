//! A log that keeps everything and lacks events all the same: it is named, and nothing waits for what will not come.

use std::process::Command;

use async_nats::jetstream::{self, stream::Config};
use domain::{OrderId, Position};
use nats::{Connection, Durability, EventLog, topology::Topology};
use serde_json::json;
use twelve_tests::{
    LIMIT, Node, Platform, Server, binary,
    client::{LOOK_PAUSE, order},
    history,
};

const PARTITIONS: u16 = 3;
/// Events at each place that lacks some.
const LOST: u64 = 3;

/// A log that somebody edited and put back: the first partition lacks its first events, the second some in its middle,
/// the third its last ones. With how many events there were in each.
async fn edited(server: &Server) -> (EventLog, Vec<u64>) {
    let jetstream = jetstream::new(async_nats::connect(server.url()).await.expect("connected"));
    let topology = Topology { partitions: PARTITIONS, ..Topology::default() };
    for partition in 0..PARTITIONS {
        let open = Config { deny_delete: false, deny_purge: false, ..topology.partition(partition) };
        jetstream.create_stream(open).await.expect("made by hand");
    }
    let connection = Connection::open(server.url(), "test-edited").await.expect("connected");
    let log = EventLog::look(connection, topology, Durability::Memory);
    history::append(&log, 0..30).await;
    let mut lasts = Vec::new();
    for partition in 0..PARTITIONS {
        let last = log.partition_info(partition).await.expect("described").last_sequence;
        let from = [1, last / 2, last + 1 - LOST][usize::from(partition)];
        let stream = jetstream.get_stream(nats::subject::stream(partition)).await.expect("a partition");
        for sequence in from..from + LOST {
            assert!(stream.delete_message(sequence).await.expect("deleted by hand"));
        }
        jetstream.update_stream(topology.partition(partition)).await.expect("put back");
        assert_eq!(log.partition_info(partition).await.expect("described").last_sequence, last);
        lasts.push(last);
    }
    (log, lasts)
}

fn twelve(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(binary("twelve")).args(arguments).output().expect("it runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), said)
}

/// Waits until the views say that they are where the log ends.
async fn until_caught_up(node: &Node) {
    let looking = async {
        while node.client.get("/views/orders").await.body["caught_up"] != true {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    // The process may not listen yet.
    let started = async {
        while node.client.try_send(node.client.request(reqwest::Method::GET, "/healthz")).await.is_none() {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        looking.await;
    };
    tokio::time::timeout(LIMIT, started).await.unwrap_or_else(|_| panic!("it never ends: {}", node.said()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_events_is_named_everywhere_and_every_reader_of_it_comes_to_its_end() {
    let server = Server::start().await;
    let url = server.url().to_owned();
    let (log, lasts) = edited(&server).await;
    let mut node = Node::on(server, log, &["--snapshot-every-s", "0"]);
    node.spawn();
    until_caught_up(&node).await;
    let ready = node.client.get("/readyz").await;
    let said = ready.body["checks"][0]["detail"].as_str().unwrap_or_default().to_owned();
    assert_eq!(ready.status, 503, "{ready:?}");
    for partition in 0..PARTITIONS {
        assert!(said.contains(&format!("partition {partition} lacks {LOST} of its")), "{said}");
    }
    assert!(said.contains("its first is 4") && said.contains("--missing-events accept"), "{said}");
    assert!(node.said().contains("the log lost events"), "the start names it: {}", node.said());

    let verified = node.verify().await;
    assert_eq!(verified["differences"], 0, "{verified}");
    node.operator.post("/admin/views/rebuild", &json!({ "swap": true })).await;
    let built = node.job(|job| ["serving", "failed"].contains(&job["state"].as_str().unwrap_or(""))).await;
    assert_eq!((&built["state"], &built["events_missing"]), (&json!("serving"), &json!(9)), "{built}");
    for (partition, last) in (0_u16..).zip(&lasts) {
        let end = Position { partition, sequence: *last };
        assert_eq!(node.client.get(&format!("/orders?limit=1&after={end}")).await.status, 200, "{end}");
    }
    let now = node.client.get("/orders?limit=100").await.body;
    let then = node.client.get(&format!("/orders?limit=100&as_of={}", nats::now())).await;
    assert_eq!((then.status.as_u16(), &then.body), (200, &now), "a moment is folded to its end");
    node.kill();

    let partitions = PARTITIONS.to_string();
    let (fine, said) = twelve(&["doctor", "--nats", &url, "--partitions", &partitions]);
    assert!(!fine && said.contains("BAD   history of ORDERS-2") && said.contains("lacks 3 of its"), "{said}");
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().display().to_string();
    let (fine, said) =
        twelve(&["views", "rebuild", "--data", &data, "--nats", &url, "--partitions", &partitions]);
    assert!(fine && said.contains("lacks 9 events"), "{said}");
    let ledger = format!("sqlite:{}", folder.path().join("ledger.db").display());
    keeps_up(&node.log, &ledger).await;
}

/// A ledger comes to the end of the log, and is proven up to there.
async fn keeps_up(log: &EventLog, url: &str) {
    let book = ledger::Ledger::open(url).await.expect("a ledger");
    let infos = ledger::follow::partitions(log).await.expect("described");
    let stop = tokio_util::sync::CancellationToken::new();
    let (reading, keeping, ending) = (log.clone(), book.clone(), stop.clone());
    let follower =
        tokio::spawn(async move { ledger::follow::follow(&reading, &keeping, &ending, &|| {}).await });
    let ends: Vec<u64> = infos.iter().map(|info| info.last_sequence).collect();
    let looking = async {
        while book.checkpoints(&infos).await.expect("checkpoints") != ends {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    tokio::time::timeout(LIMIT, looking).await.expect("the ledger comes to the end");
    stop.cancel();
    follower.await.expect("joined").expect("it ended because it was told to");
    let proven =
        tokio::time::timeout(LIMIT, ledger::reconcile::reconcile(log, &book, |_| {}, |_, _| {})).await;
    let report = proven.expect("the proof comes to the end").expect("it reads");
    assert_eq!((report.differences, report.reached.len()), (0, usize::from(PARTITIONS)), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_loses_events_while_services_run_is_named_within_a_minute() {
    let platform = Platform::up().await;
    let placed = platform.client.post("/orders", &order("gentleman")).await;
    let (partition, _) = placed.header("log-position").split_once(':').expect("a position");
    let partition: u16 = partition.parse().expect("a number");
    platform.client.until_status(&placed.order_id(), "out_for_delivery").await;
    let jetstream = jetstream::new(async_nats::connect(platform.server.url()).await.expect("connected"));
    let stream = jetstream.get_stream(nats::subject::stream(partition)).await.expect("a partition");
    let (config, events) = (stream.cached_info().config.clone(), stream.cached_info().state.messages);
    assert!(events > 1 && platform.client.get("/readyz").await.status == 200);
    // As somebody does who puts back a backup from before the first order.
    jetstream.delete_stream(&config.name).await.expect("deleted by hand");
    jetstream.create_stream(config).await.expect("made by hand");
    let named = async {
        loop {
            let ready = platform.client.get("/readyz").await;
            let checks = ready.body["checks"].as_array().cloned().unwrap_or_default();
            let history = checks.into_iter().find(|check| check["name"] == "history").expect("a check");
            if history["ok"] == false {
                return (ready.status, history["detail"].to_string());
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    let (status, said) = tokio::time::timeout(LIMIT, named).await.expect("readiness says so");
    assert!(status == 503 && said.contains(&format!("partition {partition} lacks")), "{said}");
    let gauge = format!("twelve_log_events_lost{{partition=\"{partition}\"}}");
    let lost = platform.client.metric(&gauge).await.expect("a gauge");
    assert!(lost >= 1.0, "{lost}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_can_be_accepted_and_then_the_node_is_ready() {
    let server = Server::start().await;
    let (log, _) = edited(&server).await;
    let mut node = Node::on(server, log, &["--snapshot-every-s", "0", "--missing-events", "accept"]);
    node.start().await;
    assert!(node.said().contains("the log lost events"), "it is told all the same: {}", node.said());
    history::append(&node.log, 40..45).await;
    let end = node.log.partition_info(2).await.expect("described").last_sequence;
    assert_eq!(node.client.get(&format!("/orders?limit=1&after=2:{end}")).await.status, 200);
    let order_id = OrderId::from_key("history", "44");
    assert_eq!(
        node.client.get(&format!("/orders/{order_id}")).await.status,
        200,
        "what comes later is folded"
    );
}
