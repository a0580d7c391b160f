//! Rebuilding beside the living: the next generation is built, compared and swapped in while orders come and go.

use std::process::Output;

use projector::{List, packing, view::orders::Orders};
use serde_json::{Value, json};
use twelve_tests::{Client, LIMIT, Platform, client::order};

/// `twelve views …` on the data of a running platform.
async fn views(platform: &Platform, arguments: &[&str]) -> (bool, String) {
    let mut whole = vec!["views"];
    whole.extend(&arguments[..1]);
    let data = platform.data.path().display().to_string();
    whole.extend(["--data", &data]);
    whole.extend(&arguments[1..]);
    let run = tokio::process::Command::new(twelve_tests::binary("twelve")).args(whole).output();
    let Output { status, stdout, stderr } =
        tokio::time::timeout(LIMIT, run).await.expect("in time").expect("it runs");
    (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

fn operator(platform: &Platform) -> Client {
    let url =
        std::fs::read_to_string(platform.data.path().join("views/operator")).expect("the operator's address");
    Client::new(&url)
}

async fn orders(client: &Client, count: usize) -> Vec<String> {
    let body = order("gentleman");
    let placed = futures::future::join_all((0..count).map(|_| client.post("/orders", &body))).await;
    for answer in &placed {
        client.order_after(&answer.order_id(), answer.header("log-position")).await;
        client.until_status(&answer.order_id(), "out_for_delivery").await;
    }
    placed.iter().map(twelve_tests::client::Answer::order_id).collect()
}

fn generation(answer: &twelve_tests::client::Answer) -> u32 {
    answer.header("view-generation").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_built_beside_the_serving_one_agrees_takes_over_and_can_be_left_again() {
    let platform = Platform::up().await;
    let client = &platform.client;
    orders(client, 10).await;
    let (fine, said) = views(&platform, &["rebuild"]).await;
    assert!(fine && said.contains("ready, 60 events") && said.contains(" 0 differ"), "{said}");
    let before = client.get("/orders?limit=200").await;
    assert_eq!(generation(&before), 1, "nothing is swapped unasked");
    let more = orders(client, 3).await;
    let (fine, said) = views(&platform, &["swap"]).await;
    assert!(fine && said.contains("generation 2: serving"), "{said}");
    let after = client.get("/orders?limit=200").await;
    assert_eq!((generation(&after), after.body["items"].as_array().map(Vec::len)), (2, Some(13)));
    assert_eq!(client.get(&format!("/orders/{}", more[0])).await.status, 200);
    orders(client, 2).await;
    let (fine, said) = views(&platform, &["rollback"]).await;
    assert!(fine && said.contains("generation 1: serving"), "{said}");
    let back = client.get("/orders?limit=200").await;
    assert_eq!(
        (generation(&back), back.body["items"].as_array().map(Vec::len)),
        (1, Some(15)),
        "and up to now"
    );
    orders(client, 1).await;
    let (fine, said) = views(&platform, &["verify"]).await;
    assert!(fine && said.contains("verified") && said.contains(" 0 differ"), "{said}");
    let (fine, said) = views(&platform, &["rebuild", "--swap"]).await;
    assert!(fine && said.contains("serving"), "and again: {said}");
    assert_eq!(client.get("/orders?limit=200").await.body["items"].as_array().map(Vec::len), Some(16));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_generation_is_built_and_swapped_in_no_live_event_is_missed_or_said_twice() {
    let platform = Platform::up().await;
    let client = platform.client.clone();
    orders(&client, 20).await;
    let placing = tokio::spawn(async move {
        for _ in 0..60 {
            let placed = client.post("/orders", &order("gentleman")).await;
            assert_eq!(placed.status, 201);
        }
        client
    });
    let mut live = platform.client.live("/customers/gentleman/orders/live", None).await;
    let (fine, said) = views(&platform, &["rebuild", "--swap"]).await;
    assert!(fine && said.contains("serving"), "{said}");
    let client = placing.await.expect("placed");
    let last = client.place(&order("gentleman")).await;
    let mut seen = std::collections::BTreeMap::<String, Vec<String>>::new();
    let mut began = std::collections::BTreeSet::new();
    while let Some(event) = live.next().await {
        let (id, kind) = (event.data["order_id"].as_str().unwrap_or_default(), event.data["type"].as_str());
        let Some(kind) = kind else { continue };
        if kind == "OrderPlaced" {
            began.insert(id.to_owned());
        }
        let kinds = seen.entry(id.to_owned()).or_default();
        assert!(!kinds.contains(&kind.to_owned()), "{kind} of {id} is said twice");
        kinds.push(kind.to_owned());
        if id == last && kind == "DeliveryStarted" {
            break;
        }
    }
    assert!(began.len() > 1, "orders came while it was rebuilt");
    for id in began.iter().filter(|id| **id != last) {
        client.until_status(id, "out_for_delivery").await;
    }
    let row = client.get("/views/orders").await;
    assert_eq!((generation(&row), &row.body["rows"]), (2, &json!(81)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_differs_is_not_swapped_in_unless_told_and_the_differences_are_shown() {
    let mut platform = Platform::up().await;
    let id = orders(&platform.client, 3).await.remove(0);
    platform.stop().await;
    falsify(&platform, &id);
    platform.start().await;
    assert_eq!(platform.client.get("/items/order-counts").await.status, 200);
    let (equal, said) = views(&platform, &["verify"]).await;
    assert!(
        !equal && said.contains("1 differ") && said.contains("\"coupons\"") && said.contains("FALSE"),
        "{said}"
    );
    let (equal, said) = views(&platform, &["rebuild", "--swap"]).await;
    assert!(!equal && said.contains("ready") && said.contains("although-it-differs"), "{said}");
    let refused = operator(&platform).post("/admin/views/swap", &json!({})).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (409, "generations_differ"));
    let (_, said) = views(&platform, &["swap", "--although-it-differs"]).await;
    assert!(said.contains("serving"), "{said}");
    let coupon = platform.client.get(&format!("/coupons?order_id={id}")).await.body;
    assert_eq!(coupon["items"][0]["coupon_id"], "COUPON1");
}

/// Writes something else into a stored row, as a bug of an older program might have.
fn falsify(platform: &Platform, order_id: &str) {
    let store = projector::Store::open_generation(&platform.data.path().join("views"), 1).expect("the store");
    let key = uuid::Uuid::parse_str(order_id).expect("an id").into_bytes();
    let row = store.row(Orders::ROWS, &key).expect("readable").expect("a row");
    let row = packing::falsify(&row, b"COUPON1", b"FALSE-1").expect("a row");
    store.overwrite(Orders::ROWS, &key, row).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_can_be_slowed_watched_and_canceled_and_goes_on_after_a_crash() {
    let mut platform = Platform::up().await;
    orders(&platform.client, 30).await;
    let asked = json!({ "events_per_second_max": 20 });
    let begun = operator(&platform).post("/admin/views/rebuild", &asked).await;
    assert_eq!((begun.status.as_u16(), &begun.body["state"]), (202, &json!("building")), "{begun:?}");
    let busy = operator(&platform).post("/admin/views/rebuild", &asked).await;
    assert_eq!((busy.status.as_u16(), busy.code()), (409, "rebuild_under_way"));
    let mut live = operator(&platform).live("/admin/views/rebuild/live", None).await;
    let told = live.next().await.expect("progress").data;
    assert_eq!((&told["events_total"], &told["events_per_second_max"]), (&json!(180), &json!(20)), "{told}");
    drop(live);
    platform.kill();
    platform.start().await;
    let resumed = |status: &Value| status["state"] == "ready" && status["generation"] == 2;
    until(&platform, resumed).await;
    operator(&platform).post("/admin/views/rebuild/cancel", &json!({})).await;
    until(&platform, |status| status["state"] == "canceled").await;
    let gone = platform.data.path().join("views/generation-000002");
    let waiting = async {
        while gone.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.expect("what is not wanted is removed");
    assert_eq!(generation(&platform.client.get("/orders").await), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_takes_over_by_itself_never_says_that_it_waits_to_be_swapped_in() {
    let platform = Platform::up().await;
    orders(&platform.client, 3).await;
    let asked = json!({ "swap": true, "events_per_second_max": 40 });
    operator(&platform).post("/admin/views/rebuild", &asked).await;
    let mut live = operator(&platform).live("/admin/views/rebuild/live", None).await;
    let mut states = Vec::new();
    while states.last() != Some(&json!("serving")) {
        let told = live.next().await.expect("until it serves").data;
        states.push(told["state"].clone());
    }
    assert!(states[0] == "building" && !states.contains(&json!("ready")), "{states:?}");
}

async fn until(platform: &Platform, holds: impl Fn(&Value) -> bool) {
    let waiting = async {
        loop {
            let status = operator(platform).get("/admin/views/rebuild").await.body;
            if holds(&status) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.expect("within the limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn views_that_are_defined_otherwise_now_serve_as_they_stand_and_are_built_anew_by_themselves() {
    let mut platform = Platform::up().await;
    let ids = orders(&platform.client, 5).await;
    platform.stop().await;
    let store = projector::Store::open_generation(&platform.data.path().join("views"), 1).expect("the store");
    store.redefine("an older definition").expect("written");
    drop(store);
    platform.start().await;
    let rebuilt = async {
        while generation(&platform.client.get("/orders").await) != 2 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, rebuilt).await.expect("the new generation serves by itself");
    assert_eq!(platform.client.get(&format!("/orders/{}", ids[4])).await.body["status"], "out_for_delivery");
    let new = orders(&platform.client, 1).await;
    assert_eq!(platform.client.get(&format!("/orders/{}", new[0])).await.status, 200, "and goes on");
    let (fine, said) = views(&platform, &["rollback"]).await;
    assert!(!fine && said.contains("the node refused") || said.contains("could not be opened"), "{said}");
}
