//! Readers of live streams who come back: from memory, from rows, or with a snapshot; and to a node that is behind.

use std::collections::BTreeSet;

use domain::{OrderId, Position};
use serde_json::json;
use twelve_tests::{LIMIT, Node, history};

/// Kitchen orders of one store.
fn of_store(numbers: std::ops::Range<u64>) -> impl Iterator<Item = u64> {
    numbers.map(|number| 202 + 200 * number)
}

const LIVE: &str = "/stores/store-2/orders/live";

async fn resumed(node: &Node, from: &str) -> Option<f64> {
    let name = format!("twelve_live_resumed_total{{from=\"{from}\"}}");
    node.client.metric(&name).await
}

/// Waits until the node is where the log ends.
async fn until_caught_up(node: &Node) {
    for partition in 0..twelve_tests::partitions() {
        let sequence = node.log.partition_info(partition).await.expect("described").last_sequence;
        let end = Position { partition, sequence };
        let there = node.client.get(&format!("/orders?limit=1&after={end}&wait=10000")).await;
        assert_eq!(there.status, 200, "{end}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_a_large_store_resumes_from_memory_and_begins_anew_where_too_much_would_be_read() {
    let mut node = Node::new(twelve_tests::partitions(), &["--snapshot-every-s", "0"]).await;
    // More than are looked at.
    history::append(&node.log, of_store(0..1_400)).await;
    node.start().await;
    let mut live = node.client.live(LIVE, None).await;
    let seen = live.next().await.expect("a snapshot").id;
    drop(live);
    history::append(&node.log, of_store(1_400..1_401)).await;
    until_caught_up(&node).await;
    let new = OrderId::from_key("history", &(202 + 200 * 1_400).to_string());
    let mut live = node.client.live(LIVE, Some(&seen)).await;
    let told = live.next().await.expect("what was missed");
    assert_eq!((told.name.as_str(), &told.data["order_id"]), ("change", &json!(new)), "{told:?}");
    assert_eq!((resumed(&node, "memory").await, resumed(&node, "rows").await), (Some(1.0), None));
    drop(live);

    // What was told long ago is not remembered.
    let long_ago: Vec<String> =
        (0..twelve_tests::partitions()).map(|partition| format!("{partition}:1")).collect();
    let long_ago = long_ago.join(",");
    let mut live = node.client.live(LIVE, Some(&long_ago)).await;
    assert_eq!(live.next().await.expect("the list").name, "snapshot");
    assert_eq!((resumed(&node, "snapshot").await, resumed(&node, "rows").await), (Some(1.0), None));
    drop(live);
    let order = node.client.get(&format!("/orders/{new}")).await.body;
    let customer = order["customer"]["id"].as_str().expect("a customer").to_owned();
    let mut mine = node.client.live(&format!("/customers/{customer}/orders/live"), Some(&long_ago)).await;
    assert_eq!(mine.next().await.expect("what was missed").name, "change");
    assert_eq!(resumed(&node, "rows").await, Some(1.0), "few orders are looked at");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_resumes_on_a_node_that_is_behind_is_told_nothing_twice() {
    let mut ahead = Node::new(twelve_tests::partitions(), &["--snapshot-every-s", "0"]).await;
    history::append(&ahead.log, of_store(0..3)).await;
    ahead.start().await;
    let mut behind = ahead.sibling(&["--snapshot-every-s", "0"]);
    behind.start().await;
    let mut live = ahead.client.live(LIVE, None).await;
    live.next().await.expect("a snapshot");
    behind.freeze();
    history::append(&ahead.log, of_store(3..60)).await;
    until_caught_up(&ahead).await;
    let last = OrderId::from_key("history", &(202 + 200 * 59).to_string());
    let ends = ahead.client.get(&format!("/orders/{last}")).await.body["position"].clone();
    let mut seen = BTreeSet::new();
    let mut id = String::new();
    while !seen.contains(ends.as_str().expect("a position")) {
        let event = tokio::time::timeout(LIMIT, live.next()).await.expect("in time").expect("more");
        if event.name == "dropped" {
            live = ahead.client.live(LIVE, Some(&id)).await;
            continue;
        }
        assert!(seen.insert(event.data["position"].as_str().expect("a position").to_owned()), "{event:?}");
        id = event.id;
    }
    // The call waits at the frozen node, and is answered before the node has read all that it missed.
    let resuming = behind.client.live(LIVE, Some(&id));
    let thawing = async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        behind.thaw();
    };
    let (mut resumed, ()) = tokio::join!(resuming, thawing);
    until_caught_up(&behind).await;
    history::append(&ahead.log, of_store(60..61)).await;
    let new = OrderId::from_key("history", &(202 + 200 * 60).to_string());
    loop {
        let event = tokio::time::timeout(LIMIT, resumed.next()).await.expect("in time").expect("more");
        if event.name == "dropped" {
            // So much was folded at once that it is told to come again.
            resumed = behind.client.live(LIVE, Some(&id)).await;
            continue;
        }
        id.clone_from(&event.id);
        let position = event.data["position"].as_str().unwrap_or_default();
        assert!(!seen.contains(position), "{position} is told twice: {event:?}");
        if event.data["order_id"] == json!(new) {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_order_is_found_at_once_however_many_newer_orders_there_are() {
    let mut node = Node::new(twelve_tests::partitions(), &["--snapshot-every-s", "0"]).await;
    let parked = history::append_parked(&node.log, 0).await;
    // More than one page looks at.
    history::append(&node.log, 1..2_100).await;
    node.start().await;
    let found = node.client.get("/sagas?parked=true").await;
    let ids: Vec<&str> = found.body["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|saga| saga["order_id"].as_str())
        .collect();
    assert_eq!(ids, [parked.to_string()], "{found:?}");
    assert!(found.body["next_cursor"].is_null(), "and there is no other");
}
