//! Restart is the recovery: a crash at any moment leaves every order where it should be, and nothing twice.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;
use twelve_tests::{Client, Platform, client::order};

/// Crashes of one test run. Each hits another moment of the orders that are under way.
const CRASHES: u64 = 12;
const ORDERS_A_CRASH: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_moment_leaves_each_order_where_it_should_be_and_nothing_twice() {
    let mut platform = Platform::up().await;
    let mut answered = BTreeMap::new();
    for crash in 0..CRASHES {
        let keys: Vec<String> = (0..ORDERS_A_CRASH).map(|order| format!("crash-{crash}-{order}")).collect();
        let client = platform.client.clone();
        let placing = keys.iter().map(|key| place(&client, key));
        let placing = futures::future::join_all(placing);
        tokio::pin!(placing);
        // A different moment each time, from before the first event to after the last.
        let moment = Duration::from_micros(crash * 2_500);
        tokio::select! { _ = &mut placing => {}, () = tokio::time::sleep(moment) => {} }
        platform.kill();
        for (key, answer) in keys.iter().zip(placing.await) {
            answered.insert(key.clone(), answer);
        }
        platform.start().await;
    }
    for (key, before) in &answered {
        let after = place(&platform.client, key).await.expect("an answer, the platform runs");
        assert!(before.as_ref().is_none_or(|before| *before == after), "{key} got another order");
        let row = platform.client.until_status(&after, "out_for_delivery").await;
        let mut types: Vec<String> = platform.client.event_types(&after).await;
        types.sort();
        let all = types.len();
        types.dedup();
        assert_eq!((types.len(), all), (6, 6), "{key}: {row:#}");
    }
}

async fn place(client: &Client, key: &str) -> Option<String> {
    let request = client.request(reqwest::Method::POST, "/orders").header("Idempotency-Key", key);
    let answer = client.try_send(request.json(&order("gentleman"))).await?;
    if answer.status != 201 {
        eprintln!("{answer:?}");
        return None;
    }
    let seen = client.request(
        reqwest::Method::GET,
        &format!("/orders/{}?after={}&wait=10000", answer.order_id(), answer.header("log-position")),
    );
    client.try_send(seen).await;
    Some(answer.order_id())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_a_crash_interrupts_is_finished_after_the_restart() {
    let mut platform = Platform::up().await;
    for crash in 0..6_u64 {
        let id = platform.client.place(&order("gentleman")).await;
        platform.client.until_status(&id, "out_for_delivery").await;
        let path = format!("/orders/{id}/cancel");
        let request = platform.client.request(reqwest::Method::POST, &path).header("Prefer", "wait=0");
        let accepted = platform.client.send(request.json(&json!({}))).await;
        assert_eq!(accepted.status, 202, "{accepted:?}");
        tokio::time::sleep(Duration::from_micros(crash * 1_500)).await;
        platform.kill();
        platform.start().await;
        platform.client.until_status(&id, "canceled").await;
        let undone = platform.client.event_types(&id).await.split_off(6);
        let order = [
            "OrderCancelRequested",
            "CouponCanceled",
            "DeliveryCanceled",
            "PaymentCanceled",
            "OrderCanceled",
        ];
        assert_eq!(undone, order);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_stops_cleanly_with_a_live_stream_open_and_the_data_is_found_again() {
    let mut platform = Platform::up().await;
    let id = platform.client.place(&order("gentleman")).await;
    let before = platform.client.until_status(&id, "out_for_delivery").await;
    let mut live = platform.client.live(&format!("/orders/{id}/live"), None).await;
    assert_eq!(live.next().await.map(|event| event.name).as_deref(), Some("snapshot"));
    let process = platform.process.take().expect("it runs");
    let took = process.interrupt().await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(live.next().await.is_none(), "the stream is ended, not cut off in the middle of an event");
    platform.start().await;
    assert_eq!(platform.client.get(&format!("/orders/{id}")).await.body, before);
}
