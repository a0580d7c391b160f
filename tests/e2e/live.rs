//! Live streams: a snapshot, then every change once, and no gap after an interruption.

use std::collections::BTreeSet;

use futures::StreamExt;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use twelve_tests::{LIMIT, Node, Platform, client::order, history};

#[tokio::test(flavor = "multi_thread")]
async fn an_orders_live_stream_brings_a_snapshot_and_then_each_change() {
    let platform = Platform::up().await;
    let id = platform.client.place(&order("gentleman")).await;
    platform.client.until_status(&id, "out_for_delivery").await;
    let mut live = platform.client.live(&format!("/orders/{id}/live"), None).await;
    let snapshot = live.next().await.expect("a snapshot");
    assert_eq!((snapshot.name.as_str(), &snapshot.data["status"]), ("snapshot", &json!("out_for_delivery")));
    assert_eq!(json!(snapshot.id), snapshot.data["position"]);
    platform.client.post(&format!("/orders/{id}/cancel"), &json!({})).await;
    let mut types = Vec::new();
    while types.last().is_none_or(|name| name != "OrderCanceled") {
        let change = live.next().await.expect("a change");
        assert_eq!((change.name.as_str(), json!(change.id)), ("change", change.data["position"].clone()));
        types.push(change.data["type"].as_str().expect("a type").to_owned());
    }
    let order =
        ["OrderCancelRequested", "CouponCanceled", "DeliveryCanceled", "PaymentCanceled", "OrderCanceled"];
    assert_eq!(types, order);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_was_cut_off_resumes_by_its_last_event_without_gap_or_repeat() {
    let mut platform = Platform::up().await;
    let id = platform.client.place(&order("gentleman")).await;
    platform.client.until_status(&id, "out_for_delivery").await;
    let events = platform.client.get(&format!("/orders/{id}/events")).await;
    let third = events.body["items"][2]["position"].as_str().expect("a position").to_owned();
    platform.stop().await;
    platform.start().await;
    let mut live = platform.client.live(&format!("/orders/{id}/live"), Some(&third)).await;
    for expected in ["DeliveryRequested", "CouponIssued", "DeliveryStarted"] {
        assert_eq!(live.next().await.expect("a change").data["type"], expected);
    }
    platform.client.post(&format!("/orders/{id}/delivery/complete"), &json!({})).await;
    assert_eq!(live.next().await.expect("a change").data["type"], "DeliveryCompleted");
    let wrong = platform.client.request(reqwest::Method::GET, &format!("/orders/{id}/live"));
    assert_eq!(platform.client.send(wrong.header("Last-Event-ID", "yesterday")).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customers_live_page_shows_all_of_their_orders_and_nobody_elses() {
    let platform = Platform::up().await;
    let mut live = platform.client.live("/customers/gentleman/orders/live", None).await;
    assert_eq!(live.next().await.expect("a snapshot").data, json!({ "items": [] }));
    platform.client.place(&order("somebody else")).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(platform.client.place(&order("gentleman")).await);
    }
    let mut last = String::new();
    let mut started = 0;
    while started < ids.len() {
        let change = live.next().await.expect("a change");
        let id = change.data["order_id"].as_str().expect("an order").to_owned();
        assert!(ids.contains(&id));
        started += usize::from(change.data["type"] == "DeliveryStarted");
        last = change.id;
    }
    drop(live);
    let done = platform.client.post(&format!("/orders/{}/delivery/complete", ids[2]), &json!({})).await;
    platform.client.order_after(&ids[2], done.header("log-position")).await;
    let mut resumed = platform.client.live("/customers/gentleman/orders/live", Some(&last)).await;
    let missed = resumed.next().await.expect("what was missed");
    assert_eq!(
        (&missed.data["type"], &missed.data["order_id"]),
        (&json!("DeliveryCompleted"), &json!(ids[2]))
    );
}

/// Followers of one node; fewer where a process may not open so many files.
const FOLLOWERS: u32 = 5_000;
/// Files that are open besides.
const OTHER_FILES: u32 = 300;
/// Bytes of the node's memory that one quiet follower may cost, in a build that is not optimised.
const BYTES_A_FOLLOWER: u64 = 160 * 1024;

/// How many files a process may open here.
fn open_files_max() -> u32 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok()).unwrap_or(FOLLOWERS)
}

/// A stream that is read up to its snapshot, and then no further.
async fn quiet(address: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    while !read.windows(8).any(|window| window == b"snapshot") {
        let bytes = stream.read(&mut buffer).await.expect("an answer");
        assert!(bytes > 0, "{}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&buffer[..bytes]);
    }
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_follow_one_node_which_stays_small_and_tells_who_is_too_slow() {
    let mut node = Node::new(twelve_tests::partitions(), &["--snapshot-every-s", "0"]).await;
    history::append(&node.log, 0..2).await;
    node.start().await;
    let (before, address) = (node.memory(), node.client.url().trim_start_matches("http://").to_owned());
    let count = FOLLOWERS.min(open_files_max().saturating_sub(OTHER_FILES));
    let opened = futures::stream::iter(0..count).map(|number| {
        let (address, path) = (&address, format!("/customers/quiet-{number}/orders/live"));
        async move { quiet(address, &path).await }
    });
    let followers: Vec<TcpStream> = opened.buffer_unordered(100).collect().await;
    let grown = node.memory().saturating_sub(before);
    assert!(grown / u64::from(count) < BYTES_A_FOLLOWER, "{grown} bytes more");
    assert_eq!(node.client.metric("twelve_live_followers").await, Some(f64::from(count)));

    // Kitchen orders, all of one store.
    let orders = (0..400).map(|number| 202 + 200 * number);
    let mut slow = node.client.live("/stores/store-2/orders/live", None).await;
    let snapshot = slow.next().await.expect("a snapshot");
    assert_eq!(snapshot.name, "snapshot");
    history::append(&node.log, orders).await;
    let mut ends = Vec::new();
    for partition in 0..twelve_tests::partitions() {
        let last = node.log.partition_info(partition).await.expect("described").last_sequence;
        ends.push(format!("{partition}:{last}"));
        assert_eq!(
            node.client.get(&format!("/orders?limit=1&after={}", ends[usize::from(partition)])).await.status,
            200
        );
    }
    let (mut seen, mut last, mut drops) = (BTreeSet::new(), snapshot.id, 0);
    let expected = told(&node).await;
    while seen.len() < expected.len() {
        let next = tokio::time::timeout(LIMIT, slow.next()).await;
        let missing = || expected.difference(&seen).take(20).collect::<Vec<_>>();
        let event = next.unwrap_or_else(|_| panic!("never told: {:?}", missing())).expect("more");
        if event.name == "dropped" {
            assert_eq!(event.data["reason"], "too slow");
            slow = node.client.live("/stores/store-2/orders/live", Some(&last)).await;
            drops += 1;
            continue;
        }
        let position = event.data["position"].as_str().expect("a position").to_owned();
        assert!(seen.insert(position), "said twice: {event:?}");
        last = event.id;
    }
    assert_eq!(seen, expected);
    assert!(drops > 0, "it was slow");
    drop(followers);
}

/// The positions of everything that followers of the store are to hear.
async fn told(node: &Node) -> BTreeSet<String> {
    let (mut told, mut path) = (BTreeSet::new(), "/orders?limit=200".to_owned());
    loop {
        let page = node.client.get(&path).await.body;
        for order in
            page["items"].as_array().expect("rows").iter().filter(|order| order["store_id"] == "store-2")
        {
            let timeline = order["timeline"].as_array().expect("a timeline").iter();
            // Before that it is none of the store's.
            let visible = timeline.skip_while(|entry| entry["type"] != "StoreOrderReceived");
            told.extend(visible.map(|entry| entry["position"].as_str().expect("a position").to_owned()));
        }
        let Some(next) = page["next_cursor"].as_str() else { return told };
        path = format!("/orders?limit=200&cursor={next}");
    }
}
