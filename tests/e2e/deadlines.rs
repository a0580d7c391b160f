//! What happens when nobody acts: deadlines of seconds, and what survives while they run.

use serde_json::{Value, json};
use tempfile::TempDir;
use twelve_tests::{
    Client, Platform,
    flows::{changed, folder},
};

/// Shipped flows under their own names, with deadlines of `seconds`.
fn hasty(seconds: u32) -> TempDir {
    let after = |was: &'static str| (was, format!("after_s = {seconds},"));
    let change = |name: &str, was: &[&'static str]| {
        let changes: Vec<(&str, String)> = was.iter().map(|was| after(was)).collect();
        let changes: Vec<(&str, &str)> = changes.iter().map(|(was, is)| (*was, is.as_str())).collect();
        changed(name, &changes)
    };
    folder(&[
        ("appliance", change("appliance", &["after_s = 86400,", "after_s = 172800,"])),
        ("food", change("food", &["after_s = 900,", "after_s = 3600,"])),
        ("kitchen", change("kitchen", &["after_s = 900,", "after_s = 3600,", "after_s = 10800,"])),
    ])
}

async fn up(flows: &TempDir) -> Platform {
    Platform::up_with(&["--flows", &flows.path().display().to_string()]).await
}

fn order(flow: &str) -> Value {
    let mut body = json!({
        "flow": flow,
        "customer": { "id": "c", "name": "고객", "phone": "010-1111-2222" },
        "store_id": "store-1",
        "lines": [{ "item_id": "2001", "name": "비빔밥", "quantity": 1, "unit_price": 9_000 }],
        "currency": "KRW",
        "address": { "line": "Seoul", "region": "mapo" },
    });
    if flow == "food" {
        body["delivery_type"] = json!("bicycle");
    }
    if flow != "appliance" {
        body["payment"] = json!({ "method": "card", "token": "tok_ok" });
    }
    body
}

async fn cooked(client: &Client, flow: &str) -> String {
    let id = client.place(&order(flow)).await;
    client.until(&id, "at the store", |row| row["store"]["status"] == "received").await;
    for act in ["accept", "start", "finish"] {
        let answer = client.post(&format!("/orders/{id}/store/{act}"), &json!({})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    client.until(&id, "listed", |row| row["delivery"]["status"] == "listed").await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_nobody_pays_expires_and_its_saga_says_when() {
    let flows = hasty(1);
    let platform = up(&flows).await;
    let id = platform.client.place(&order("appliance")).await;
    let saga = platform.client.get(&format!("/sagas/{id}")).await.body;
    assert_eq!(saga["waiting_for"], "expire_order", "{saga}");
    assert!(saga["due"].is_string(), "{saga}");
    let row = platform.client.until_status(&id, "expired").await;
    assert_eq!(row["timeline"][1]["data"]["reason"], "payment_overdue");
    let late = platform
        .client
        .post(&format!("/orders/{id}/payment"), &json!({ "method": "card", "token": "tok_ok" }))
        .await;
    assert_eq!((late.status.as_u16(), late.code()), (409, "order_expired"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_store_and_a_rider_who_never_comes_cost_the_customer_nothing() {
    let flows = hasty(1);
    let platform = up(&flows).await;
    let client = &platform.client;
    let silent = client.place(&order("food")).await;
    let row = client.until(&silent, "paid back", |row| row["payment"]["status"] == "canceled").await;
    assert_eq!((&row["status"], &row["payment"]["returned"]["amount"]), (&json!("expired"), &json!(9_000)));
    let cold = cooked(client, "kitchen").await;
    client.until(&cold, "undone", |row| row["delivery"]["status"] == "canceled").await;
    let undone = client.event_types(&cold).await.split_off(8);
    assert_eq!(undone, ["OrderExpired", "PaymentCanceled", "StoreOrderCanceled", "DeliveryCanceled"]);
    assert_eq!(client.get("/deliveries/open").await.body["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_food_order_without_a_rider_is_shown_to_an_operator_until_a_rider_comes() {
    let flows = hasty(1);
    let platform = up(&flows).await;
    let client = &platform.client;
    let id = cooked(client, "food").await;
    client
        .until(&id, "parked", |row| {
            row["timeline"].as_array().is_some_and(|all| all.iter().any(|e| e["type"] == "SagaParked"))
        })
        .await;
    let parked = client.get("/sagas?parked=true").await.body;
    assert_eq!(client.get("/views/parked-sagas").await.body["rows"], 1, "it is in a list of its own");
    assert_eq!(parked["items"][0]["parked"]["code"], "no_rider", "{parked}");
    let picked = client.post(&format!("/orders/{id}/delivery/pickup"), &json!({ "rider_id": "r" })).await;
    client.order_after(&id, picked.header("log-position")).await;
    assert_eq!(client.get("/sagas?parked=true").await.body["items"], json!([]));
    assert_eq!(client.get("/views/parked-sagas").await.body["rows"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_after_one_that_was_acted_on_is_set_and_not_asked_for_again_and_again() {
    let settled = ("when = \"second_step\"", "when = \"second_step\"\nsettle_within_s = 1\n#");
    let flows = folder(&[("appliance", changed("appliance", &[settled]))]);
    let platform = up(&flows).await;
    let client = &platform.client;
    let id = client.place(&order("appliance")).await;
    until_metric(client, "twelve_deadlines_set_total", 1.0).await;
    let down = json!({ "method": "card", "token": "tok_down" });
    assert_eq!(client.post(&format!("/orders/{id}/payment"), &down).await.status, 503);
    // To settle the payment; once that is given up, the order waits for another until the day is over.
    client.until(&id, "given up", |row| row["payment"]["status"] == "declined").await;
    until_metric(client, "twelve_deadlines_set_total", 3.0).await;
    assert!(client.metric("twelve_deadlines_early_total").await.is_none_or(|early| early < 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_passes_although_every_process_was_killed_meanwhile() {
    let flows = hasty(2);
    let mut platform = up(&flows).await;
    let id = cooked(&platform.client, "kitchen").await;
    let picked =
        platform.client.post(&format!("/orders/{id}/delivery/pickup"), &json!({ "rider_id": "r" })).await;
    assert_eq!(picked.status, 200);
    let unpaid = platform.client.place(&order("appliance")).await;
    until_metric(&platform.client, "twelve_deadlines_set_total", 2.0).await;
    platform.kill();
    platform.server.kill();
    platform.server.restart().await;
    // The deadline is to pass while nobody runs, and only the clock can say when it did.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    platform.start().await;
    platform.client.until_status(&id, "completed").await;
    platform.client.until_status(&unpaid, "expired").await;
    let events = platform.client.event_types(&id).await;
    assert_eq!(events.iter().filter(|event| *event == "OrderCompleted").count(), 1, "once");
}

async fn until_metric(client: &Client, name: &str, least: f64) {
    let waiting = async {
        while client.metric(name).await.unwrap_or_default() < least {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(twelve_tests::LIMIT, waiting)
        .await
        .unwrap_or_else(|_| panic!("{name} stays below {least}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn work_queues_that_were_lost_are_made_anew_and_every_order_is_looked_at_again() {
    let flows = hasty(6);
    let mut platform = up(&flows).await;
    let id = platform.client.place(&order("kitchen")).await;
    platform.client.until(&id, "at the store", |row| row["store"]["status"] == "received").await;
    platform.kill();
    let client = async_nats::connect(platform.server.url()).await.expect("connected");
    let jetstream = async_nats::jetstream::new(client);
    for queue in ["DEADLINES", "NOTICES"] {
        let stream = jetstream.get_stream(queue).await.expect("the queue");
        let keeper = format!("{}.keep.keep", queue.to_lowercase());
        stream.get_last_raw_message_by_subject(&keeper).await.expect("it is never empty");
        jetstream.delete_stream(queue).await.expect("gone");
    }
    for partition in 0..twelve_tests::partitions() {
        let stream = jetstream.get_stream(format!("ORDERS-{partition}")).await.expect("the partition");
        stream.delete_consumer("saga").await.expect("gone");
    }
    platform.start().await;
    platform.client.until_status(&id, "expired").await;
    let told = |row: &Value| row["timeline"].to_string().matches("NotificationSent").count() == 2;
    platform.client.until(&id, "told of everything", told).await;
}
