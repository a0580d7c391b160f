//! The two food-delivery platforms: a store cooks, a rider brings it. Their acceptance scenarios by their ids.

use reqwest::StatusCode;
use serde_json::{Value, json};
use twelve_tests::{Client, Platform};

const NOTHING: &str = "{}";

fn meal(flow: &str, item: &str) -> Value {
    let mut body = json!({
        "flow": flow,
        "customer": { "id": "hungry", "name": "배고픈", "phone": "010-1111-2222" },
        "store_id": "kimbap-heaven",
        "lines": [{ "item_id": item, "name": "김밥", "quantity": 2, "unit_price": 4_500, "options": ["참치"] }],
        "currency": "KRW",
        "address": { "line": "마포대로 1", "region": "mapo" },
        "payment": { "method": "card", "token": "tok_ok" },
    });
    if flow == "food" {
        body["delivery_type"] = json!("bicycle");
    }
    body
}

struct Meal<'a> {
    client: &'a Client,
    id: String,
}

impl<'a> Meal<'a> {
    /// Places a meal and waits until the store has it.
    async fn at_the_store(client: &'a Client, flow: &str, item: &str) -> Self {
        let id = client.place(&meal(flow, item)).await;
        client.until(&id, "received", |row| row["store"]["status"] == "received").await;
        Self { client, id }
    }

    async fn cooked(client: &'a Client, flow: &str, item: &str) -> Self {
        let meal = Self::at_the_store(client, flow, item).await;
        for (act, status) in
            [("store/accept", "accepted"), ("store/start", "preparing"), ("store/finish", "prepared")]
        {
            assert_eq!(meal.act(act, NOTHING).await, (StatusCode::OK, status.into()), "{act}");
        }
        client.until(&meal.id, "listed", |row| row["delivery"]["status"] == "listed").await;
        meal
    }

    /// Does something; answers with the status code and the order's status, or the problem's code.
    async fn act(&self, what: &str, body: &str) -> (StatusCode, String) {
        let body: Value = serde_json::from_str(body).expect("a body");
        let answer = self.client.post(&format!("/orders/{}/{what}", self.id), &body).await;
        if answer.status.is_success() {
            self.client.order_after(&self.id, answer.header("log-position")).await;
        }
        let said = answer.body["status"].as_str().unwrap_or_else(|| answer.code());
        (answer.status, said.to_owned())
    }

    async fn row(&self) -> Value {
        self.client.get(&format!("/orders/{}", self.id)).await.body
    }
}

fn refused(code: &str) -> (StatusCode, String) {
    (StatusCode::CONFLICT, code.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a004_1_and_2_and_7_a_kitchen_order_travels_to_the_confirmed_receipt() {
    let platform = Platform::up().await;
    let client = &platform.client;
    let fresh = Meal::at_the_store(client, "kitchen", "2001").await;
    let listed = client.get("/stores/kimbap-heaven/orders?state=received").await.body;
    assert_eq!(listed["items"][0]["order_id"], json!(fresh.id));
    assert_eq!(listed["items"][0]["items"][0]["name"], "김밥");
    let meal = Meal::cooked(client, "kitchen", "2001").await;
    assert_eq!(meal.act("confirm", NOTHING).await, refused("not_delivered"));
    assert_eq!(meal.act("delivery/pickup", r#"{"rider_id":"rider-1"}"#).await.1, "out_for_delivery");
    assert_eq!(meal.row().await["delivery"]["rider_id"], "rider-1");
    assert_eq!(meal.act("delivery/complete", NOTHING).await, refused("not_in_flow"));
    assert_eq!(meal.act("confirm", NOTHING).await, (StatusCode::OK, "completed".into()));
    assert_eq!(
        meal.act("confirm", NOTHING).await,
        (StatusCode::OK, "completed".into()),
        "a repeat is no error"
    );
    assert_eq!(meal.act("cancel", NOTHING).await, refused("already_completed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a004_3_and_4_a_kitchen_order_is_canceled_until_cooking_starts() {
    let platform = Platform::up().await;
    let client = &platform.client;
    let early = Meal::at_the_store(client, "kitchen", "2001").await;
    assert_eq!(early.act("store/accept", NOTHING).await.1, "accepted");
    assert_eq!(early.act("cancel", NOTHING).await, (StatusCode::OK, "canceled".into()));
    let undone = client.event_types(&early.id).await.split_off(5);
    assert_eq!(undone, ["OrderCancelRequested", "PaymentCanceled", "StoreOrderCanceled", "OrderCanceled"]);
    assert_eq!(early.act("store/start", NOTHING).await, refused("store_order_canceled"));
    let late = Meal::at_the_store(client, "kitchen", "2001").await;
    late.act("store/accept", NOTHING).await;
    late.act("store/start", NOTHING).await;
    let events = client.event_types(&late.id).await;
    assert_eq!(late.act("cancel", NOTHING).await, refused("preparation_started"));
    assert_eq!(client.event_types(&late.id).await, events, "a refused cancel changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a004_5_a_store_that_rejects_refunds_the_customer() {
    let platform = Platform::up().await;
    let meal = Meal::at_the_store(&platform.client, "kitchen", "2001").await;
    assert_eq!(
        meal.act("store/reject", r#"{"reason":"재료 소진"}"#).await,
        (StatusCode::OK, "rejected".into())
    );
    let row = platform.client.until(&meal.id, "refunded", |row| row["payment"]["status"] == "canceled").await;
    assert_eq!((&row["status"], &row["payment"]["returned"]["amount"]), (&json!("rejected"), &json!(9_000)));
    assert_eq!(meal.act("store/accept", NOTHING).await, refused("already_rejected"));
    assert_eq!(meal.act("cancel", NOTHING).await, refused("already_rejected"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a004_6_riders_see_a_meal_once_it_is_cooked_and_one_of_them_gets_it() {
    let platform = Platform::up().await;
    let client = &platform.client;
    let raw = Meal::at_the_store(client, "kitchen", "2001").await;
    assert_eq!(raw.act("delivery/pickup", r#"{"rider_id":"rider-1"}"#).await, refused("delivery_not_listed"));
    assert_eq!(client.get("/deliveries/open").await.body["items"], json!([]));
    let meal = Meal::cooked(client, "kitchen", "2001").await;
    let open = client.get("/deliveries/open?region=mapo").await.body;
    assert_eq!(
        (&open["items"][0]["order_id"], &open["items"][0]["address"]["line"]),
        (&json!(meal.id), &json!("마포대로 1"))
    );
    assert_eq!(client.get("/deliveries/open?region=jeju").await.body["items"], json!([]));
    let (one, two) = tokio::join!(
        meal.act("delivery/pickup", r#"{"rider_id":"rider-1"}"#),
        meal.act("delivery/pickup", r#"{"rider_id":"rider-2"}"#)
    );
    let lucky = [&one, &two].into_iter().filter(|(status, _)| status.is_success()).count();
    assert_eq!(lucky, 1, "{one:?} {two:?}");
    assert!(one == refused("already_picked_up") || two == refused("already_picked_up"));
    assert_eq!(client.get("/deliveries/open").await.body["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a004_8_counts_per_food_and_per_rider_are_exact_and_stay_so_after_a_rebuild() {
    let mut platform = Platform::up().await;
    let client = platform.client.clone();
    for item in ["A", "A", "B"] {
        Meal::at_the_store(&client, "kitchen", item).await;
    }
    for _ in 0..2 {
        let meal = Meal::cooked(&client, "food", "A").await;
        assert_eq!(meal.act("delivery/pickup", r#"{"rider_id":"r"}"#).await.1, "out_for_delivery");
    }
    for rebuilt in [false, true] {
        if rebuilt {
            platform.stop().await;
            std::fs::remove_dir_all(platform.data.path().join("views")).expect("removed");
            platform.start().await;
        }
        let top = client.get("/items/order-counts?top=1").await.body;
        assert_eq!(
            top["items"],
            json!([{ "item_id": "A", "name": "김밥", "count": 4 }]),
            "rebuilt: {rebuilt}"
        );
        assert_eq!(client.get("/items/B/order-count").await.body["count"], 1);
        assert_eq!(client.get("/items/never/order-count").await.body["count"], 0);
        let rider = client.get("/riders/r/deliveries").await.body;
        assert_eq!((&rider["count"], rider["items"].as_array().map(Vec::len)), (&json!(2), Some(2)));
        assert_eq!(
            client.get("/riders/delivery-counts?top=3").await.body["items"],
            json!([{ "rider_id": "r", "count": 2 }])
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a003_2_and_3_and_5_and_7_a_food_order_travels_by_its_delivery_type_to_its_review() {
    let platform = Platform::up().await;
    let client = &platform.client;
    let meal = Meal::cooked(client, "food", "2001").await;
    assert_eq!(client.get("/deliveries/open?delivery_type=walk").await.body["items"], json!([]));
    let open = client.get("/deliveries/open?delivery_type=bicycle").await.body;
    assert_eq!(open["items"][0]["order_id"], json!(meal.id));
    let review = r#"{"rating":5,"text":"맛있어요"}"#;
    assert_eq!(meal.act("review", review).await, refused("not_delivered"));
    assert_eq!(meal.act("delivery/pickup", r#"{"rider_id":"rider-1"}"#).await.1, "out_for_delivery");
    assert_eq!(meal.act("cancel", NOTHING).await, refused("already_picked_up"));
    assert_eq!(meal.act("delivery/complete", NOTHING).await, (StatusCode::OK, "delivered".into()));
    assert_eq!(meal.act("review", r#"{"rating":6,"text":""}"#).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(meal.act("review", review).await.0, StatusCode::CREATED);
    assert_eq!(meal.act("review", review).await, refused("already_reviewed"));
    let written = client.get("/reviews?store_id=kimbap-heaven&item_id=2001").await.body;
    assert_eq!(
        (&written["items"][0]["rating"], &written["items"][0]["text"]),
        (&json!(5), &json!("맛있어요"))
    );
    let nobody = client.get("/reviews?store_id=another").await.body;
    assert_eq!((&nobody["items"], &nobody["store_rating"]["count"]), (&json!([]), &json!(0)));
    let second = Meal::cooked(client, "food", "2001").await;
    second.act("delivery/pickup", r#"{"rider_id":"rider-1"}"#).await;
    second.act("delivery/complete", NOTHING).await;
    let written = second.act("review", r#"{"rating":2,"text":"짜요"}"#).await;
    assert_eq!(written.0, StatusCode::CREATED);
    let rated = |body: &Value| {
        body["timeline"].as_array().is_some_and(|all| all.iter().any(|e| e["type"] == "ReviewWritten"))
    };
    client.until(&second.id, "rated", rated).await;
    let rated = client.get("/reviews?store_id=kimbap-heaven&item_id=2001").await.body;
    let average = json!({ "count": 2, "average": 3.5 });
    assert_eq!((&rated["store_rating"], &rated["item_rating"]), (&average, &average));
    let mine = client.get("/customers/hungry/orders").await.body;
    assert_eq!(
        (&mine["items"][0]["status"], &mine["items"][0]["delivery_status"]),
        (&json!("delivered"), &json!("completed"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a003_6_a_food_order_is_undone_store_then_delivery_then_payment() {
    let platform = Platform::up().await;
    let meal = Meal::cooked(&platform.client, "food", "2001").await;
    assert_eq!(meal.act("cancel", NOTHING).await, (StatusCode::OK, "canceled".into()));
    let undone = platform.client.event_types(&meal.id).await.split_off(8);
    let order = [
        "OrderCancelRequested",
        "StoreOrderCanceled",
        "DeliveryCanceled",
        "PaymentCanceled",
        "OrderCanceled",
    ];
    assert_eq!(undone, order);
    assert_eq!(platform.client.get("/deliveries/open").await.body["items"], json!([]));
    assert_eq!(meal.act("delivery/pickup", r#"{"rider_id":"rider-1"}"#).await, refused("delivery_canceled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a003_4_and_10_the_store_cooks_nothing_unknown_and_sees_nothing_unpaid() {
    let platform = Platform::up().await;
    let unknown = uuid::Uuid::new_v4();
    let start = platform.client.post(&format!("/orders/{unknown}/store/start"), &json!({})).await;
    assert_eq!((start.status.as_u16(), start.code()), (404, "order_not_found"));
    let mut unpaid = meal("food", "2001");
    unpaid["payment"]["token"] = json!("tok_declined");
    assert_eq!(platform.client.post("/orders", &unpaid).await.status, 402);
    let paid = Meal::at_the_store(&platform.client, "food", "2001").await;
    let orders = platform.client.get("/stores/kimbap-heaven/orders").await.body;
    let ids: Vec<&Value> =
        orders["items"].as_array().expect("rows").iter().map(|row| &row["order_id"]).collect();
    assert_eq!(ids, [&json!(paid.id)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_flow_needs_and_the_body_lacks_is_told_and_what_it_does_not_know_too() {
    let platform = Platform::up().await;
    let refuse = async |change: &dyn Fn(&mut Value), flow: &str| {
        let mut body = meal(flow, "1");
        change(&mut body);
        let answer = platform.client.post("/orders", &body).await;
        assert_eq!(answer.status, 422, "{answer:?}");
        answer.pointers().join(" ")
    };
    let remove =
        |name: &'static str| move |body: &mut Value| drop(body.as_object_mut().expect("one").remove(name));
    assert_eq!(refuse(&remove("store_id"), "food").await, "/store_id");
    assert_eq!(refuse(&remove("delivery_type"), "food").await, "/delivery_type");
    assert_eq!(refuse(&|body| body["delivery_type"] = json!("rocket"), "food").await, "/delivery_type");
    assert_eq!(refuse(&|body| body["delivery_type"] = json!("walk"), "kitchen").await, "/delivery_type");
    assert_eq!(refuse(&|body| body["address"] = json!({ "line": "x" }), "kitchen").await, "/address/region");
    assert_eq!(refuse(&|body| body["channel"] = json!("phone"), "kitchen").await, "/channel");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stores_live_page_shows_its_orders_as_they_come() {
    let platform = Platform::up().await;
    let mut live = platform.client.live("/stores/kimbap-heaven/orders/live", None).await;
    assert_eq!(live.next().await.expect("a snapshot").data, json!({ "items": [] }));
    let meal = Meal::at_the_store(&platform.client, "kitchen", "2001").await;
    loop {
        let change = live.next().await.expect("a change");
        assert_eq!(change.data["order_id"], json!(meal.id));
        if change.data["type"] == "StoreOrderReceived" {
            break;
        }
    }
}
