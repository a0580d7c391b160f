//! Live streams: a snapshot, then every change once, and no gap after an interruption.

use serde_json::json;
use twelve_tests::{Platform, client::order};

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
