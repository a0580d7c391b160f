//! Rebuilds of one view alone, and of the views of a moment, by the operator's port.

use std::{collections::BTreeSet, time::Duration};

use projector::{
    List, Store,
    as_of::{self, UNTIL},
    compare, generations, packing, rebuild,
    rows::Rows,
    view::{food_counts::FoodCounts, orders::Orders},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use twelve_tests::{Node, history, partitions};

/// Writes another text into a stored row, as a bug of an older program might have.
fn falsify(node: &Node, rows: Rows, key: &[u8], (from, to): (&str, &str)) {
    let store = Store::open(&node.views()).expect("the store");
    let row = store.row(rows, key).expect("readable").expect("a row");
    let false_row = packing::falsify(&row, from.as_bytes(), to.as_bytes()).expect("a row");
    assert_ne!(row.as_ref(), false_row, "{from} is in there");
    store.overwrite(rows, key, false_row).expect("written");
}

/// Builds a generation without a node, and answers with its number.
async fn build(node: &Node, only: Option<Rows>) -> u32 {
    let built = rebuild::rebuild(&node.log, &node.views(), only, CancellationToken::new(), |_| {}).await;
    built.expect("built").generation
}

fn first(job: &Value) -> (&Value, &Value) {
    (&job["comparison"]["differences"], &job["comparison"]["first"][0]["view"])
}

#[tokio::test(flavor = "multi_thread")]
async fn one_view_alone_is_built_anew_and_all_others_are_taken_over_as_they_are() {
    let mut node = Node::new(partitions(), &["--snapshot-every-s", "0"]).await;
    history::append(&node.log, 0..60).await;
    node.start().await;
    let food = node.client.get("/items/order-counts?top=1").await.body["items"][0].clone();
    let order = node.client.get("/orders?limit=1").await.body["items"][0].clone();
    node.kill();
    // All of it is on disk.
    let generation = build(&node, None).await;
    generations::make_current(&node.views(), generation).expect("made");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let name = text(&food["name"]);
    let other = "x".repeat(name.len());
    falsify(&node, FoodCounts::ROWS, text(&food["item_id"]).as_bytes(), (&name, &other));
    let id = uuid::Uuid::parse_str(&text(&order["order_id"])).expect("an id").into_bytes();
    let line = text(&order["address"]["line"]);
    falsify(&node, Orders::ROWS, &id, (&line, &"y".repeat(line.len())));
    node.start().await;

    let asked = json!({ "view": "food-counts" });
    assert_eq!(node.operator.post("/admin/views/rebuild", &asked).await.status, 202);
    let ready = node.job(|job| job["state"] == "ready").await;
    assert_eq!(first(&ready), (&json!(1), &json!("food-counts")), "the order's row is as it was: {ready}");
    history::append(&node.log, 60..80).await;
    let swap = json!({ "although_it_differs": true });
    assert_eq!(node.operator.post("/admin/views/swap", &swap).await.status, 200);
    history::append(&node.log, 80..90).await;
    node.client.until_ready().await;
    let (differences, first_found) = {
        let found = node.verify().await;
        (found["differences"].clone(), found["first"][0]["view"].clone())
    };
    assert_eq!((differences, first_found), (json!(1), json!("orders")), "counts are right again");

    // A list of the orders' rows names all of these. A crash in the middle is gone on from.
    let asked = json!({ "view": "mypage", "events_per_second_max": 400 });
    assert_eq!(node.operator.post("/admin/views/rebuild", &asked).await.status, 202);
    node.job(|job| job["events"].as_u64() > Some(20)).await;
    node.kill();
    node.start().await;
    let ready = node.job(|job| job["state"] == "ready").await;
    assert_eq!(first(&ready), (&json!(1), &json!("orders")), "{ready}");
    assert_eq!(node.operator.post("/admin/views/swap", &swap).await.status, 200);
    assert_eq!(node.verify().await["differences"], 0);

    node.kill();
    let alone = build(&node, Some(FoodCounts::ROWS)).await;
    let all = build(&node, None).await;
    let open = |generation| Store::open_generation(&node.views(), generation).expect("opened");
    assert_eq!(
        compare::compare(&open(alone), &open(all)).expect("both read").differences,
        0,
        "without a node"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_views_of_a_moment_are_built_by_a_node_beside_what_it_serves() {
    let mut node = Node::new(partitions(), &[]).await;
    history::append(&node.log, 0..40).await;
    node.start().await;
    let position = node.client.get("/orders").await.header("view-position").to_owned();
    history::append(&node.log, 40..60).await;
    let begun = node.operator.post("/admin/views/rebuild", &json!({ "until": position })).await;
    assert_eq!((begun.status.as_u16(), &begun.body["generation"]), (202, &Value::Null), "{begun:?}");
    let built = node.job(|job| ["built", "failed"].contains(&job["state"].as_str().unwrap_or("none"))).await;
    assert_eq!((&built["state"], &built["events"]), (&json!("built"), &built["events_total"]), "{built}");
    assert_eq!(node.client.get("/orders").await.header("view-generation"), "1", "nothing is swapped");

    let folder = tempfile::tempdir().expect("a folder");
    let moment = position.parse().expect("a moment");
    let alone = as_of::build(&node.log, folder.path(), &moment, |_, _| Duration::ZERO).await.expect("built");
    let there = Store::open(&node.views().join(UNTIL)).expect("the node has let it go");
    let found = compare::compare(&alone, &there).expect("both read");
    assert!(found.differences == 0 && found.entries > 40, "{found:?}");

    let slowly = json!({ "until": position, "events_per_second_max": 20 });
    assert_eq!(node.operator.post("/admin/views/rebuild", &slowly).await.status, 202);
    assert_eq!(node.operator.post("/admin/views/rebuild/cancel", &json!({})).await.status, 202);
    node.job(|job| job["state"] == "canceled").await;
    for wrong in [
        json!({ "view": "banana" }),
        json!({ "until": "banana" }),
        json!({ "until": position, "view": "orders" }),
        json!({ "until": position, "swap": true }),
    ] {
        let refused = node.operator.post("/admin/views/rebuild", &wrong).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (400, "malformed"), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_what_customers_were_told_have_each_message_once_and_never_more_than_asked_for() {
    let mut node = Node::new(partitions(), &[]).await;
    history::append(&node.log, 0..60).await;
    node.start().await;
    let whole = node.client.get("/notifications?limit=200").await.body["items"].clone();
    let whole = whole.as_array().expect("rows");
    assert!(whole.len() > 50, "{}", whole.len());
    for limit in [1, 3, 50] {
        let (mut paged, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = node.client.get(&format!("/notifications?limit={limit}{cursor}")).await.body;
            let items = page["items"].as_array().expect("rows");
            assert!(items.len() <= limit, "{}", items.len());
            paged.extend(items.clone());
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(&paged[..whole.len().min(paged.len())], &whole[..whole.len().min(paged.len())], "{limit}");
        let distinct: BTreeSet<String> = paged.iter().map(|row| row["about"].to_string()).collect();
        assert!(distinct.len() == paged.len() && paged.len() >= whole.len(), "{limit}: {}", paged.len());
    }
    let id = whole[0]["order_id"].as_str().expect("an id");
    let of_one = node.client.get(&format!("/notifications?limit=200&order_id={id}")).await.body;
    let wanted: Vec<&Value> = whole.iter().filter(|row| row["order_id"] == id).collect();
    assert_eq!(of_one["items"].as_array().map(|rows| rows.iter().collect::<Vec<_>>()), Some(wanted));
    assert_eq!(node.client.get("/notifications?cursor=AA").await.code(), "malformed");
}
