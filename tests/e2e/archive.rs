//! Orders that are over leave the log for the archive, and nobody can tell but by asking the log.

use std::{
    process::{Command, Output},
    time::Duration,
};

use domain::OrderId;
use nats::{
    archive::KNOWN_AFTER,
    topology::{OldOrders, Topology},
};
use serde_json::{Value, json};
use twelve_tests::{
    Client, LIMIT, Node, Platform, Process, Server, binary, client::order, history, partitions,
};

/// From one order of others to the next.
const PACE: Duration = Duration::from_millis(100);

fn archiving<'a>(server: &'a Server, partitions: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let log = ["archive", "--nats", server.url(), "--durability", "fsync", "--partitions", partitions];
    [&log[..], &["--old-orders", "archive"], more].concat()
}

pub(crate) fn archive(server: &Server, partitions: u16, more: &[&str]) -> Output {
    let partitions = partitions.to_string();
    Command::new(binary("twelve")).args(archiving(server, &partitions, more)).output().expect("it runs")
}

pub(crate) fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Events that the log's own streams have.
async fn in_the_log(server: &Server, partitions: u16) -> u64 {
    let client = async_nats::connect(server.url()).await.expect("connected");
    let jetstream = async_nats::jetstream::new(client);
    let mut messages = 0;
    for partition in 0..partitions {
        let stream = jetstream.get_stream(format!("ORDERS-{partition}")).await.expect("the partition");
        messages += stream.cached_info().state.messages;
    }
    messages
}

pub(crate) fn meal() -> Value {
    let mut meal = order("eater");
    meal["flow"] = json!("food");
    meal["store_id"] = json!("store-1");
    meal["delivery_type"] = json!("bicycle");
    meal
}

/// A meal that was brought and not reviewed, and whose customer was told everything.
pub(crate) async fn eaten(client: &Client) -> String {
    let placed = client.post_with_key("/orders", "the-meal", &meal()).await;
    assert_eq!(placed.status, 201, "{placed:?}");
    let id = placed.order_id();
    let steps = ["store/accept", "store/start", "store/finish", "delivery/pickup", "delivery/complete"];
    for (step, waits_for) in steps.iter().zip(["placed", "", "", "listed", ""]) {
        let is_ready = |row: &Value| match waits_for {
            "placed" => row["store"]["status"] == "received",
            "listed" => row["delivery"]["status"] == "listed",
            _ => true,
        };
        client.until(&id, step, is_ready).await;
        let body = if *step == "delivery/pickup" { json!({ "rider_id": "rider-1" }) } else { json!({}) };
        let done = client.post(&format!("/orders/{id}/{step}"), &body).await;
        assert_eq!(done.status, 200, "{step} {done:?}");
    }
    let told = |row: &Value| {
        let timeline = row["timeline"].as_array().cloned().unwrap_or_default();
        timeline.iter().filter(|event| event["type"] == "NotificationSent").count() == 6
    };
    client.until(&id, "told of everything", told).await;
    id
}

/// Archives what is over. The newest event of a partition stays in the log, so others order meanwhile.
pub(crate) async fn archive_while_others_order(platform: &Platform) {
    let (count, arguments) = (partitions().to_string(), ["--older-than", "0"]);
    let mut command = tokio::process::Command::new(binary("twelve"));
    let archived = command.args(archiving(&platform.server, &count, &arguments)).output();
    let others = async {
        let mut paces = tokio::time::interval(PACE);
        loop {
            paces.tick().await;
            platform.client.place(&order("others")).await;
        }
    };
    let archived =
        tokio::select! { archived = archived => archived, () = others => unreachable!("they go on") };
    let archived = said(&archived.expect("it runs"));
    assert!(archived.contains("2 orders left the log"), "{archived}");
}

/// What readers see, but for the order's own last event.
async fn look(client: &Client, ids: &[&str], as_of: &str) -> Vec<Value> {
    let lists = ["/orders?limit=50", "/customers/eater/orders", "/items/order-counts", "/coupons?limit=50"];
    let orders = ids.iter().map(|id| format!("/orders/{id}"));
    let mut seen = Vec::new();
    for path in lists.map(str::to_owned).into_iter().chain(orders) {
        let and = if path.contains('?') { "&" } else { "?" };
        let answer = client.get(&format!("{path}{and}as_of={as_of}")).await;
        assert_eq!(answer.status, 200, "{path} {answer:?}");
        seen.push(answer.body);
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_order_is_read_and_answered_as_before_and_takes_no_commands() {
    let mut platform = Platform::up_with(&["--old-orders", "archive"]).await;
    let client = platform.client.clone();
    let eaten = eaten(&client).await;
    let canceled = client.place(&order("gentleman")).await;
    client.until_status(&canceled, "out_for_delivery").await;
    client.post(&format!("/orders/{canceled}/cancel"), &json!({})).await;
    client.until_status(&canceled, "canceled").await;
    let going_on = client.place(&order("gentleman")).await;
    client.until_status(&going_on, "out_for_delivery").await;
    let topology =
        Topology { partitions: partitions(), old_orders: OldOrders::Archive, ..Topology::default() };
    let log = history::log_like(&platform.server, topology).await;
    let as_of = client.get("/orders").await.header("view-position").to_owned();
    let before = look(&client, &[&eaten, &canceled, &going_on], &as_of).await;
    let events = client.get(&format!("/orders/{eaten}/events")).await.body;
    assert!(
        said(&archive(&platform.server, partitions(), &["--dry-run", "--older-than", "0"]))
            .contains("2 orders with")
    );
    let young = said(&archive(&platform.server, partitions(), &["--dry-run"]));
    assert!(young.contains("0 orders with 0 events are over; 0 are not, 3 are younger"), "{young}");
    assert!(said(&archive(&platform.server, partitions(), &[])).contains("0 orders with 0 events are over"));

    archive_while_others_order(&platform).await;
    let is_in_log = async |id: &str| {
        let id: OrderId = id.parse().expect("an id");
        log.whole(id).await.expect("the log answers").is_some()
    };
    assert!(!is_in_log(&eaten).await && !is_in_log(&canceled).await && is_in_log(&going_on).await);

    assert_eq!(look(&client, &[&eaten, &canceled, &going_on], &as_of).await, before);
    let now = client.get(&format!("/orders/{eaten}/events")).await.body;
    let (then, now) = (events["items"].as_array().expect("events"), now["items"].as_array().expect("events"));
    assert_eq!(now[..then.len()], then[..]);
    assert_eq!(now[then.len()]["type"], "OrderArchived");
    for restarted in [false, true] {
        if restarted {
            platform.kill();
            platform.start().await;
        }
        let again = client.post_with_key("/orders", "the-meal", &meal()).await;
        assert_eq!((again.status.as_u16(), again.order_id()), (201, eaten.clone()), "{again:?}");
        assert_eq!(again.header("idempotency-replayed"), "true");
        let mut other = meal();
        other["lines"][0]["quantity"] = json!(2);
        assert_eq!(
            client.post_with_key("/orders", "the-meal", &other).await.code(),
            "idempotency_key_reused"
        );
        let review =
            client.post(&format!("/orders/{eaten}/review"), &json!({ "rating": 5, "text": "good" })).await;
        assert_eq!((review.status.as_u16(), review.code()), (409, "order_archived"), "{review:?}");
        let repeat = client.post(&format!("/orders/{canceled}/cancel"), &json!({})).await;
        assert_eq!(repeat.status, 200, "it is canceled already: {repeat:?}");
    }
    let verified = said(&archive(&platform.server, partitions(), &["--verify"]));
    assert!(verified.contains("2 whole orders"), "{verified}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_orders_in_the_log_keeps_no_order_from_the_archive() {
    let node = Node::archiving(2).await;
    history::append(&node.log, 0..20).await;
    let jetstream =
        async_nats::jetstream::new(async_nats::connect(node.server.url()).await.expect("connected"));
    for partition in 0..2 {
        let stored = jetstream.publish(format!("orders.{partition}.nobody"), "?".into()).await;
        stored.expect("sent").await.expect("stored");
    }
    history::append(&node.log, 20..40).await;
    let found = said(&archive(&node.server, 2, &["--dry-run"]));
    assert!(found.contains("40 orders with"), "{found}");
}

/// The rows of all orders, newest first.
async fn rows(client: &Client) -> Vec<Value> {
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/orders?limit=200{cursor}")).await;
        assert_eq!(page.status, 200, "{page:?}");
        rows.extend(page.body["items"].as_array().expect("items").clone());
        match page.body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return rows,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archiving_that_is_killed_anywhere_loses_nothing_and_is_gone_on_with() {
    let mut node = Node::archiving(2).await;
    let events = history::append(&node.log, 0..300).await;
    node.start().await;
    let before = rows(&node.client).await;
    let kill = async |till: Duration| {
        let process = Process::start("twelve", &archiving(&node.server, "2", &[]));
        tokio::time::sleep(till).await;
        process.kill();
    };
    for moment in [60, 150, 300, 500] {
        kill(Duration::from_millis(moment)).await;
    }
    // And once while they leave.
    let process = Process::start("twelve", &archiving(&node.server, "2", &[]));
    let leaving = async {
        while in_the_log(&node.server, 2).await >= events {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(KNOWN_AFTER + LIMIT, leaving).await.expect("they leave");
    process.kill();
    let left = in_the_log(&node.server, 2).await;
    said(&archive(&node.server, 2, &[]));
    let stayed = in_the_log(&node.server, 2).await;
    assert!(stayed <= left && stayed < events / 3, "{events} {left} {stayed}: most orders are over");
    let verified = said(&archive(&node.server, 2, &["--verify"]));
    assert_eq!(verified.matches("events are in the log or in the archive").count(), 2, "{verified}");

    assert_eq!(node.verify().await["differences"], 0);
    assert_eq!(rows(&node.client).await.len(), before.len());
    node.kill();
    std::fs::remove_dir_all(node.views()).expect("removed");
    node.start().await;
    let anew = rows(&node.client).await;
    let told = |row: &Value| (row["order_id"].clone(), row["status"].clone(), row["total"].clone());
    assert_eq!(anew.iter().map(told).collect::<Vec<_>>(), before.iter().map(told).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_made_to_keep_all_orders_keeps_them() {
    let server = Server::start().await;
    history::log(&server, 1).await;
    let refused = Command::new(binary("twelve"))
        .args(["archive", "--nats", server.url(), "--partitions", "1"])
        .output()
        .expect("it runs");
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--old-orders archive"), "{refused:?}");
}
