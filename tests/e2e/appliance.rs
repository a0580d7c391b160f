//! The appliance store: ordered now, paid in a second step, packed, sent. Its acceptance scenarios by their ids.

use serde_json::{Value, json};
use twelve_tests::{Client, Platform, Services, client::Answer};

fn fridge(customer: &str) -> Value {
    json!({
        "flow": "appliance",
        "customer": { "id": customer, "name": "냉장고", "phone": "010-2222-3333" },
        "store_id": "electro-land",
        "lines": [{ "item_id": "fridge", "name": "냉장고", "quantity": 1, "unit_price": 1_500_000 }],
        "currency": "KRW",
        "address": { "line": "Busan" },
    })
}

async fn pay(client: &Client, id: &str, token: &str) -> Answer {
    client.post(&format!("/orders/{id}/payment"), &json!({ "method": "card", "token": token })).await
}

async fn act(client: &Client, id: &str, what: &str) -> String {
    let answer = client.post(&format!("/orders/{id}/{what}"), &json!({})).await;
    answer.body["status"].as_str().unwrap_or_else(|| answer.code()).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a001_1_and_5_an_appliance_waits_for_its_payment_is_packed_and_leaves_by_itself() {
    let platform = Platform::up().await;
    let client = &platform.client;
    let placed = client.post("/orders", &fridge("buyer")).await;
    assert_eq!((placed.status.as_u16(), &placed.body["status"]), (201, &json!("awaiting_payment")));
    let id = placed.order_id();
    let row = client.order_after(&id, placed.header("log-position")).await;
    assert_eq!((&row["status"], &row["store"]["status"]), (&json!("awaiting_payment"), &json!("none")));
    assert_eq!(
        act(client, &id, "store/accept").await,
        "store_order_not_received",
        "no store sees an unpaid order"
    );
    let declined = pay(client, &id, "tok_declined").await;
    assert_eq!((declined.status.as_u16(), declined.code()), (402, "payment_declined"));
    let paid = pay(client, &id, "tok_ok").await;
    assert_eq!((paid.status.as_u16(), &paid.body["status"]), (200, &json!("paid")), "another card may do");
    assert_eq!(pay(client, &id, "tok_ok").await.status, 200, "paying what is paid charges nothing");
    client.order_after(&id, paid.header("log-position")).await;
    client.until(&id, "at the store", |row| row["store"]["status"] == "received").await;
    for (what, status) in
        [("store/accept", "accepted"), ("store/start", "preparing"), ("store/finish", "prepared")]
    {
        assert_eq!(act(client, &id, what).await, status);
    }
    client.until_status(&id, "out_for_delivery").await;
    assert_eq!(act(client, &id, "delivery/complete").await, "delivered");
    let approvals = client.event_types(&id).await.iter().filter(|name| *name == "PaymentApproved").count();
    assert_eq!(approvals, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a001_2_a_cancel_undoes_the_store_order_then_delivery_and_payment_and_an_unpaid_one_just_ends() {
    let platform = Platform::up().await;
    let client = &platform.client;
    let unpaid = client.place(&fridge("buyer")).await;
    assert_eq!(act(client, &unpaid, "cancel").await, "canceled");
    assert_eq!(client.event_types(&unpaid).await, ["OrderPlaced", "OrderCancelRequested", "OrderCanceled"]);
    let refused = pay(client, &unpaid, "tok_ok").await;
    assert_eq!((refused.status.as_u16(), refused.code()), (409, "already_canceled"));
    let sent = client.place(&fridge("buyer")).await;
    pay(client, &sent, "tok_ok").await;
    client.until(&sent, "at the store", |row| row["store"]["status"] == "received").await;
    for what in ["store/accept", "store/start", "store/finish"] {
        act(client, &sent, what).await;
    }
    client.until_status(&sent, "out_for_delivery").await;
    let before = client.event_types(&sent).await.len();
    assert_eq!(act(client, &sent, "cancel").await, "canceled");
    let undone = client.event_types(&sent).await.split_off(before);
    let order = [
        "OrderCancelRequested",
        "StoreOrderCanceled",
        "DeliveryCanceled",
        "PaymentCanceled",
        "OrderCanceled",
    ];
    assert_eq!(undone, order);
}

#[tokio::test(flavor = "multi_thread")]
async fn a001_4_a_provider_that_is_down_leaves_the_order_waiting_and_it_can_be_paid_later() {
    let platform = Platform::up().await;
    let client = &platform.client;
    let id = client.place(&fridge("buyer")).await;
    let failed = pay(client, &id, "tok_down").await;
    assert_eq!((failed.status.as_u16(), failed.code()), (503, "payment_unavailable"));
    assert_eq!(client.get(&format!("/orders/{id}")).await.body["status"], "awaiting_payment");
    assert_eq!(pay(client, &id, "tok_ok").await.body["status"], "paid");
    let mut early = fridge("buyer");
    early["payment"] = json!({ "method": "card", "token": "tok_ok" });
    assert_eq!(client.post("/orders", &early).await.pointers(), ["/payment"]);
    let unknown = uuid::Uuid::new_v4().to_string();
    assert_eq!(pay(client, &unknown, "tok_ok").await.code(), "order_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a001_6_the_store_takes_what_was_ordered_and_paid_while_it_was_down() {
    let mut services = Services::new(&[]).await;
    let orders = services.start("ordering,payment,delivery,saga", &[]).await;
    let queries = services.start_views(&[]).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let placed = orders.post("/orders", &fridge("buyer")).await;
        assert_eq!(pay(&orders, &placed.order_id(), "tok_ok").await.status, 200);
        ids.push(placed.order_id());
    }
    services.start("store", &[]).await;
    for id in &ids {
        queries.until(id, "at the store", |row| row["store"]["status"] == "received").await;
    }
    let rows = queries.get("/stores/electro-land/orders?state=received").await.body;
    assert_eq!(rows["items"].as_array().map(Vec::len), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a001_7_canceling_one_of_two_orders_in_flight_touches_only_its_own_delivery_and_payment() {
    let platform = Platform::up().await;
    let client = &platform.client;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let id = client.place(&fridge("buyer")).await;
        pay(client, &id, "tok_ok").await;
        client.until(&id, "at the store", |row| row["store"]["status"] == "received").await;
        for what in ["store/accept", "store/start", "store/finish"] {
            act(client, &id, what).await;
        }
        client.until_status(&id, "out_for_delivery").await;
        ids.push(id);
    }
    assert_eq!(act(client, &ids[0], "cancel").await, "canceled");
    client.until_status(&ids[0], "canceled").await;
    let row = client.get(&format!("/orders/{}", ids[1])).await.body;
    let stands = (&row["delivery"]["status"], &row["payment"]["status"], &row["status"]);
    assert_eq!(stands, (&json!("started"), &json!("approved"), &json!("out_for_delivery")));
}
