//! Placing an order.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use twelve_tests::{Platform, client::order};

#[tokio::test(flavor = "multi_thread")]
async fn a_placed_order_is_paid_gets_its_coupon_and_then_leaves() {
    let platform = Platform::up().await;
    let placed = platform.client.post("/orders", &order("gentleman")).await;
    assert_eq!(placed.status, 201);
    assert_eq!((&placed.body["status"], &placed.body["flow"]), (&json!("paid"), &json!("marketplace")));
    assert_eq!(placed.header("location"), format!("/orders/{}", placed.order_id()));
    assert_eq!(placed.header("log-position"), placed.body["position"]);
    assert_eq!(placed.header("durability"), "fsync");
    platform.client.order_after(&placed.order_id(), placed.header("log-position")).await;
    let row = platform.client.until_status(&placed.order_id(), "out_for_delivery").await;
    assert_eq!(row["customer"]["name"], "홍길동");
    assert_eq!(row["total"], json!({ "amount": 9_000_000, "currency": "KRW" }));
    let types = platform.client.event_types(&placed.order_id()).await;
    let story = [
        "PaymentRequested",
        "PaymentApproved",
        "OrderPlaced",
        "DeliveryRequested",
        "CouponIssued",
        "DeliveryStarted",
    ];
    assert_eq!(types, story);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivered_order_is_at_its_end() {
    let platform = Platform::up().await;
    let id = platform.client.place(&order("gentleman")).await;
    platform.client.until_status(&id, "out_for_delivery").await;
    let delivered = platform.client.post(&format!("/orders/{id}/delivery/complete"), &json!({})).await;
    assert_eq!((delivered.status.as_u16(), &delivered.body["status"]), (200, &json!("delivered")));
    let row = platform.client.order_after(&id, delivered.header("log-position")).await;
    assert_eq!((&row["status"], &row["delivery"]["status"]), (&json!("delivered"), &json!("completed")));
    let again = platform.client.post(&format!("/orders/{id}/delivery/complete"), &json!({})).await;
    assert_eq!(
        (again.status.as_u16(), &again.body["status"]),
        (200, &json!("delivered")),
        "a repeat is no error"
    );
    assert_eq!(platform.client.event_types(&id).await.len(), 7, "and records nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_payment_leaves_no_order() {
    let platform = Platform::up().await;
    let mut body = order("gentleman");
    body["payment"]["token"] = json!("tok_declined");
    let declined = platform.client.post_with_key("/orders", "declined-1", &body).await;
    assert_eq!((declined.status.as_u16(), declined.code()), (402, "payment_declined"));
    assert_eq!(declined.header("content-type"), "application/problem+json");
    let again = platform.client.post_with_key("/orders", "declined-1", &body).await;
    assert_eq!(
        (again.status.as_u16(), again.code()),
        (402, "payment_declined"),
        "the repeat gets the first answer"
    );
    let id = domain::OrderId::from_key("anonymous", "declined-1");
    assert_eq!(
        platform
            .client
            .get(&format!("/orders/{id}?after={}&wait=5000", position_of(&platform, id).await))
            .await
            .status,
        404
    );
    let mine = platform.client.get("/customers/gentleman/orders").await;
    assert_eq!(mine.body["items"], json!([]));
    let cancel = platform.client.post(&format!("/orders/{id}/cancel"), &json!({})).await;
    assert_eq!((cancel.status.as_u16(), cancel.code()), (404, "order_not_found"));
}

async fn position_of(platform: &Platform, id: domain::OrderId) -> String {
    let events = platform.client.get(&format!("/orders/{id}/events")).await;
    let items = events.body["items"].as_array().expect("events");
    items.last().expect("one at least")["position"].as_str().expect("a position").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_or_slow_leaves_no_order_and_the_repeat_is_safe() {
    let platform = Platform::up_with(&["--provider-timeout-ms", "300"]).await;
    for (token, key) in [("tok_down", "down"), ("tok_slow:5000", "slow")] {
        let mut body = order("gentleman");
        body["payment"]["token"] = json!(token);
        let failed = platform.client.post_with_key("/orders", key, &body).await;
        assert_eq!((failed.status.as_u16(), failed.code()), (503, "payment_unavailable"), "{token}");
        assert!(failed.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0));
        let id = domain::OrderId::from_key("anonymous", key);
        assert_eq!(platform.client.get(&format!("/orders/{id}")).await.status, 404, "{token}");
        assert_eq!(platform.client.event_types(&id.to_string()).await, ["PaymentRequested"], "{token}");
    }
    let mut body = order("gentleman");
    body["payment"]["token"] = json!("tok_slow:50");
    assert_eq!(platform.client.post("/orders", &body).await.status, 201, "slow, but in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_repeats_at_once_make_exactly_one_order_and_all_get_its_answer() {
    let platform = Platform::up().await;
    let body = order("gentleman");
    let repeats = (0..20).map(|_| platform.client.post_with_key("/orders", "\"once\"", &body));
    let answers = futures::future::join_all(repeats).await;
    let ids: BTreeSet<String> = answers.iter().map(twelve_tests::client::Answer::order_id).collect();
    assert_eq!(ids.len(), 1, "one order");
    assert!(answers.iter().all(|answer| answer.status == 201 && answer.body == answers[0].body));
    let first = answers.iter().filter(|answer| answer.header("idempotency-replayed").is_empty()).count();
    assert_eq!(first, 1, "all but one know that they repeat");
    let id = ids.first().expect("the order");
    platform.client.until_status(id, "out_for_delivery").await;
    let types = platform.client.event_types(id).await;
    assert_eq!(types.len(), 6, "{types:?}");
    let mine = platform.client.get("/customers/gentleman/orders").await;
    assert_eq!(mine.body["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_gets_the_first_answer_after_a_restart_too_and_another_body_is_refused() {
    let mut platform = Platform::up().await;
    let first = platform.client.post_with_key("/orders", "k-1", &order("gentleman")).await;
    platform.client.order_after(&first.order_id(), first.header("log-position")).await;
    platform.client.until_status(&first.order_id(), "out_for_delivery").await;
    platform.stop().await;
    platform.start().await;
    let again = platform.client.post_with_key("/orders", "k-1", &order("gentleman")).await;
    assert_eq!((again.status.as_u16(), &again.body), (201, &first.body));
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.header("log-position"), first.header("log-position"));
    let other = platform.client.post_with_key("/orders", "k-1", &order("somebody else")).await;
    assert_eq!((other.status.as_u16(), other.code()), (422, "idempotency_key_reused"));
    assert_eq!(platform.client.get("/orders").await.body["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_faults_of_a_body_are_told_at_once() {
    let platform = Platform::up().await;
    let body: Value = json!({
        "flow": "marketplace",
        "channel": "carrier pigeon",
        "customer": { "id": "", "name": "x", "shoe_size": 43 },
        "lines": [
            { "item_id": "1", "name": "n", "quantity": 0, "unit_price": 1 },
            { "item_id": "2", "name": "n", "quantity": 1, "unit_price": 1_000_000_000_000_000_i64 },
        ],
        "currency": "won",
        "address": { "line": 7 },
        "delivery_type": "walk",
        "colour": "red",
        "payment": {},
    });
    let refused = platform.client.post("/orders", &body).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "invalid"));
    let expected = [
        "/address/line",
        "/channel",
        "/colour",
        "/currency",
        "/customer/id",
        "/customer/shoe_size",
        "/delivery_type",
        "/lines/0/quantity",
        "/lines/1/unit_price",
        "/payment/method",
        "/payment/token",
    ];
    assert_eq!(refused.pointers(), expected);
    let empty = platform.client.post("/orders", &json!({})).await;
    let expected = ["/address", "/currency", "/customer", "/flow", "/lines", "/payment"];
    assert_eq!((empty.status.as_u16(), empty.pointers()), (422, expected.to_vec()));
    let unknown = platform.client.post("/orders", &json!({ "flow": "bazaar" })).await;
    assert!(unknown.pointers().contains(&"/flow") && unknown.body.to_string().contains("marketplace"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_body_with_its_members_in_another_order_is_a_repeat() {
    let platform = Platform::up().await;
    let body = order("gentleman");
    let first = platform.client.post_with_key("/orders", "once", &body).await;
    let fields = body.as_object().cloned().expect("an object");
    let turned: serde_json::Map<String, Value> = fields.into_iter().rev().collect();
    let text = format!("{:#}", Value::Object(turned));
    let again = platform.client.request(reqwest::Method::POST, "/orders").header("Idempotency-Key", "once");
    let again = again.header("Content-Type", "application/json").body(text);
    let again = platform.client.send(again).await;
    assert_eq!((again.status.as_u16(), &again.body), (201, &first.body), "{again:?}");
    assert_eq!(again.header("idempotency-replayed"), "true");
    let mut other = body;
    other["channel"] = json!("phone");
    let reused = platform.client.post_with_key("/orders", "once", &other).await;
    assert_eq!((reused.status.as_u16(), reused.code()), (422, "idempotency_key_reused"));
}
