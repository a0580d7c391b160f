//! Canceling an order, in every state it can be in.

use serde_json::json;
use twelve_tests::{Platform, client::order};

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_undoes_coupon_then_delivery_then_payment_and_then_the_order() {
    let platform = Platform::up().await;
    let id = platform.client.place(&order("gentleman")).await;
    platform.client.until_status(&id, "out_for_delivery").await;
    let canceled = platform.client.post(&format!("/orders/{id}/cancel"), &json!({ "reason": "변심" })).await;
    assert_eq!((canceled.status.as_u16(), &canceled.body["status"]), (200, &json!("canceled")));
    let undone: Vec<String> = platform.client.event_types(&id).await.split_off(6);
    let order =
        ["OrderCancelRequested", "CouponCanceled", "DeliveryCanceled", "PaymentCanceled", "OrderCanceled"];
    assert_eq!(undone, order);
    let row = platform.client.order_after(&id, canceled.header("log-position")).await;
    assert_eq!(row["status"], "canceled");
    assert_eq!(row["payment"]["returned"], json!({ "amount": 9_000_000, "currency": "KRW" }));
    assert_eq!(row["coupon"]["status"], "canceled");
    assert_eq!(row["delivery"]["status"], "canceled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivered_order_is_not_canceled_and_the_refusal_leaves_nothing() {
    let platform = Platform::up().await;
    let id = platform.client.place(&order("gentleman")).await;
    platform.client.until_status(&id, "out_for_delivery").await;
    platform.client.post(&format!("/orders/{id}/delivery/complete"), &json!({})).await;
    let refused = platform.client.post(&format!("/orders/{id}/cancel"), &json!({})).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (409, "already_delivered"));
    assert_eq!(platform.client.event_types(&id).await.last().map(String::as_str), Some("DeliveryCompleted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canceled_order_stays_so_and_is_not_delivered() {
    let platform = Platform::up().await;
    let id = platform.client.place(&order("gentleman")).await;
    let path = format!("/orders/{id}/cancel");
    let first = platform.client.post_with_key(&path, "cancel-1", &json!({})).await;
    assert_eq!((first.status.as_u16(), &first.body["status"]), (200, &json!("canceled")));
    let events = platform.client.event_types(&id).await;
    let replayed = platform.client.post_with_key(&path, "cancel-1", &json!({})).await;
    assert_eq!((replayed.status.as_u16(), &replayed.body), (200, &first.body));
    assert_eq!(replayed.header("idempotency-replayed"), "true");
    let again = platform.client.post(&path, &json!({})).await;
    assert_eq!(
        (again.status.as_u16(), &again.body["status"]),
        (200, &json!("canceled")),
        "a repeat is no error"
    );
    let delivered = platform.client.post(&format!("/orders/{id}/delivery/complete"), &json!({})).await;
    assert_eq!(delivered.status, 409, "{delivered:?}");
    assert_eq!(platform.client.event_types(&id).await, events, "and none of it is recorded");
    let reused = platform.client.post_with_key(&path, "cancel-1", &json!({ "reason": "other" })).await;
    assert_eq!((reused.status.as_u16(), reused.code()), (422, "idempotency_key_reused"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_does_not_wait_is_told_that_the_cancel_is_under_way() {
    let platform = Platform::up().await;
    let id = platform.client.place(&order("gentleman")).await;
    platform.client.until_status(&id, "out_for_delivery").await;
    let request = platform.client.request(reqwest::Method::POST, &format!("/orders/{id}/cancel"));
    let accepted = platform.client.send(request.header("Prefer", "wait=0")).await;
    assert_eq!((accepted.status.as_u16(), &accepted.body["status"]), (202, &json!("cancel_requested")));
    assert_eq!(accepted.header("location"), format!("/orders/{id}"));
    platform.client.until_status(&id, "canceled").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_and_delivered_at_once_have_exactly_one_winner() {
    let platform = Platform::up().await;
    for _ in 0..12 {
        let id = platform.client.place(&order("gentleman")).await;
        platform.client.until_status(&id, "out_for_delivery").await;
        let (cancel, complete) = (format!("/orders/{id}/cancel"), format!("/orders/{id}/delivery/complete"));
        let nothing = json!({});
        let (canceled, delivered) =
            tokio::join!(platform.client.post(&cancel, &nothing), platform.client.post(&complete, &nothing));
        let outcome = (canceled.status.as_u16(), delivered.status.as_u16());
        assert!(outcome == (200, 409) || outcome == (409, 200), "{canceled:?} {delivered:?}");
        let types = platform.client.event_types(&id).await;
        let delivered = types.iter().any(|name| name == "DeliveryCompleted");
        let returned = types.iter().any(|name| name == "PaymentCanceled");
        assert!(delivered != returned, "{types:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_names_no_order_is_404_and_a_stale_etag_is_412() {
    let platform = Platform::up().await;
    for id in [uuid::Uuid::new_v4().to_string(), "banana".into(), "%00".into()] {
        for path in ["", "/events", "/live"] {
            let missing = platform.client.get(&format!("/orders/{id}{path}")).await;
            assert_eq!((missing.status.as_u16(), missing.code()), (404, "order_not_found"), "{id}{path}");
        }
        for path in ["/cancel", "/delivery/start", "/delivery/complete"] {
            let missing = platform.client.post(&format!("/orders/{id}{path}"), &json!({})).await;
            assert_eq!((missing.status.as_u16(), missing.code()), (404, "order_not_found"), "{id}{path}");
        }
    }
    let id = platform.client.place(&order("gentleman")).await;
    platform.client.until_status(&id, "out_for_delivery").await;
    let etag = platform.client.get(&format!("/orders/{id}")).await.header("etag").to_owned();
    let complete = |etag: String| {
        let request =
            platform.client.request(reqwest::Method::POST, &format!("/orders/{id}/delivery/complete"));
        platform.client.send(request.header("If-Match", etag))
    };
    assert_eq!(complete("\"0:1\"".into()).await.status, 412);
    let completed = complete(etag.clone()).await;
    assert_eq!(completed.status, 200);
    let path = format!("/orders/{id}?after={}", completed.header("log-position"));
    let unchanged = platform.client.request(reqwest::Method::GET, &path);
    assert_eq!(
        platform.client.send(unchanged.header("If-None-Match", etag)).await.status,
        200,
        "it changed since"
    );
    let etag = platform.client.get(&format!("/orders/{id}")).await.header("etag").to_owned();
    let unchanged = platform.client.request(reqwest::Method::GET, &format!("/orders/{id}"));
    assert_eq!(platform.client.send(unchanged.header("If-None-Match", etag)).await.status, 304);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_of_a_cancel_gets_the_first_answer_also_when_all_is_done_by_then() {
    let platform = Platform::up().await;
    let client = &platform.client;
    let id = client.place(&order("gentleman")).await;
    client.until_status(&id, "out_for_delivery").await;
    let cancel = async || {
        let request = client.request(reqwest::Method::POST, &format!("/orders/{id}/cancel")).json(&json!({}));
        client.send(request.header("Prefer", "wait=0").header("Idempotency-Key", "cancel-1")).await
    };
    let first = cancel().await;
    assert_eq!((first.status.as_u16(), &first.body["status"]), (202, &json!("cancel_requested")));
    client.until_status(&id, "canceled").await;
    let again = cancel().await;
    assert_eq!((again.status, &again.body), (first.status, &first.body), "as it was answered first");
    assert_eq!(again.header("idempotency-replayed"), "true");
}
