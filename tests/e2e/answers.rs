//! Real answers of every call, over the whole life of every flow, against the contract: none has a field that it does
//! not name, lacks one that it promises, or has a header, a code or a number that it does not know.

use std::{collections::BTreeSet, sync::Mutex};

use reqwest::Method;
use serde_json::{Value, json};
use twelve_tests::{
    Client, Platform,
    client::{Answer, order},
    contract::Contract,
};

/// A caller who holds every answer against the contract.
struct Strict<'a> {
    client: &'a Client,
    contract: Contract,
    /// Calls that were answered, and not with a problem.
    answered: Mutex<BTreeSet<(String, String)>>,
}

impl Strict<'_> {
    fn note(&self, method: &str, path: &str, answer: &Answer) {
        self.contract.hold(method, path, answer);
        if answer.status.as_u16() < 400 {
            self.answered.lock().expect("unbroken").insert((method.to_owned(), path.to_owned()));
        }
    }

    /// A query: the path as the contract has it, what stands for its name, and the query string.
    async fn get(&self, path: &str, named: &str, query: &str) -> Answer {
        self.get_with(path, named, query, &[]).await
    }

    async fn get_with(&self, path: &str, named: &str, query: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.client.request(Method::GET, &format!("{}{query}", filled(path, named)));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.client.send(request).await;
        self.note("get", path, &answer);
        answer
    }

    async fn post(&self, path: &str, named: &str, body: &Value) -> Answer {
        self.post_with(path, named, body, &[]).await
    }

    async fn post_with(&self, path: &str, named: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.client.request(Method::POST, &filled(path, named));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        // What was said of the body before stands.
        let answer = self.client.send(request.json(body)).await;
        self.note("post", path, &answer);
        answer
    }

    async fn place(&self, body: &Value) -> String {
        let placed = self.post("/orders", "", body).await;
        assert_eq!(placed.status, 201, "{placed:?}");
        self.client.order_after(&placed.order_id(), placed.header("log-position")).await;
        placed.order_id()
    }

    /// Does something to an order that must be done.
    async fn act(&self, id: &str, what: &str, body: Value) {
        let answer = self.post(&format!("/orders/{{order_id}}/{what}"), id, &body).await;
        assert!(answer.status.is_success(), "{what}: {answer:?}");
        self.client.order_after(id, answer.header("log-position")).await;
        self.get("/orders/{order_id}", id, "").await;
    }

    /// Every query, as things are now.
    async fn look_around(&self, ids: &[String]) {
        for path in [
            "/orders",
            "/coupons",
            "/payments",
            "/deliveries",
            "/deliveries/open",
            "/riders/delivery-counts",
            "/items/order-counts",
            "/reviews",
            "/notifications",
            "/sagas",
            "/views",
            "/flows",
            "/breakers",
        ] {
            self.get(path, "", "").await;
        }
        for query in ["?store_id=shop", "?item_id=2001", "?store_id=shop&item_id=nothing"] {
            self.get("/reviews", "", query).await;
        }
        for named in ["2001", "nothing"] {
            self.get("/items/{item_id}/order-count", named, "").await;
        }
        self.get("/customers/{customer_id}/orders", "caller", "?limit=2").await;
        self.get("/stores/{store_id}/orders", "shop", "").await;
        self.get("/riders/{rider_id}/deliveries", "rider-1", "").await;
        self.get("/riders/{rider_id}/deliveries", "nobody", "").await;
        self.get("/views/{name}", "orders", "").await;
        self.get("/flows/{name}", "food", "").await;
        for id in ids {
            self.get("/orders/{order_id}", id, "").await;
            self.get("/orders/{order_id}/events", id, "").await;
            let batch = [("accept", "application/cloudevents-batch+json")];
            self.get_with("/orders/{order_id}/events", id, "", &batch).await;
            self.get("/sagas/{order_id}", id, "").await;
            self.get("/coupons", "", &format!("?order_id={id}")).await;
        }
    }
}

fn filled(path: &str, named: &str) -> String {
    let Some((before, rest)) = path.split_once('{') else { return path.to_owned() };
    let (_, after) = rest.split_once('}').expect("it is closed");
    format!("{before}{named}{after}")
}

fn of_flow(flow: &str, customer: &Value) -> Value {
    let mut body = order("caller");
    body["flow"] = json!(flow);
    body["customer"] = json!({ "id": "caller", "name": "홍길동" });
    for (name, value) in customer.as_object().into_iter().flatten() {
        body["customer"][name] = value.clone();
    }
    if ["food", "kitchen", "appliance"].contains(&flow) {
        body["store_id"] = json!("shop");
    }
    if flow == "food" {
        body["delivery_type"] = json!("bicycle");
    }
    if ["appliance", "rental"].contains(&flow) {
        body.as_object_mut().expect("an object").remove("payment");
    }
    body
}

/// A meal, cooked and listed.
async fn cooked(strict: &Strict<'_>, flow: &str, customer: &Value) -> String {
    let id = strict.place(&of_flow(flow, customer)).await;
    strict.client.until(&id, "received", |row| row["store"]["status"] == "received").await;
    for what in ["store/accept", "store/start", "store/finish"] {
        strict.act(&id, what, json!({})).await;
    }
    strict.client.until(&id, "listed", |row| row["delivery"]["status"] == "listed").await;
    id
}

/// One order of each flow to its end, and one that comes to nothing where there is such a way.
async fn lives(strict: &Strict<'_>) -> Vec<String> {
    let client = strict.client;
    let market = strict.place(&of_flow("marketplace", &json!({}))).await;
    client.until_status(&market, "out_for_delivery").await;
    let meal = cooked(strict, "food", &json!({ "phone": "010-1111-2222" })).await;
    strict.get("/deliveries/open", "", "?delivery_type=bicycle").await;
    strict.act(&meal, "delivery/pickup", json!({ "rider_id": "rider-1" })).await;
    strict.act(&meal, "delivery/complete", json!({})).await;
    strict.act(&meal, "review", json!({ "rating": 4, "text": "warm" })).await;
    // Nobody can be told of this one.
    let dinner = cooked(strict, "kitchen", &json!({ "language": "en" })).await;
    strict.act(&dinner, "delivery/pickup", json!({ "rider_id": "rider-1" })).await;
    strict.act(&dinner, "confirm", json!({})).await;
    let refused = strict.place(&of_flow("kitchen", &json!({}))).await;
    client.until(&refused, "received", |row| row["store"]["status"] == "received").await;
    strict.act(&refused, "store/reject", json!({ "reason": "sold out" })).await;
    client.until(&refused, "refunded", |row| row["payment"]["status"] == "canceled").await;
    let fridge = strict.place(&of_flow("appliance", &json!({ "phone": "010-1111-2222" }))).await;
    strict.act(&fridge, "payment", json!({ "method": "card", "token": "tok_ok" })).await;
    client.until(&fridge, "received", |row| row["store"]["status"] == "received").await;
    strict.act(&fridge, "cancel", json!({ "reason": "changed my mind" })).await;
    client.until_status(&fridge, "canceled").await;
    let dress = strict.place(&of_flow("rental", &json!({ "email": "rent@example.org" }))).await;
    client.until(&dress, "accepted", |row| row["delivery"]["status"] == "requested").await;
    strict.act(&dress, "delivery/start", json!({})).await;
    strict.act(&dress, "delivery/complete", json!({})).await;
    strict.act(&dress, "return", json!({})).await;
    strict.act(&dress, "return/pickup", json!({})).await;
    strict.act(&dress, "return/complete", json!({})).await;
    client.until_status(&dress, "returned").await;
    let kept = strict.place(&of_flow("rental", &json!({}))).await;
    client.until(&kept, "accepted", |row| row["delivery"]["status"] == "requested").await;
    strict.act(&kept, "delivery/cancel", json!({})).await;
    vec![market, meal, dinner, refused, fridge, dress, kept]
}

/// Refusals of each kind that a caller can bring about.
async fn refusals(strict: &Strict<'_>, id: &str) {
    let mut declined = of_flow("marketplace", &json!({}));
    declined["payment"]["token"] = json!("tok_declined");
    assert_eq!(strict.post("/orders", "", &declined).await.status, 402);
    declined["payment"]["token"] = json!("tok_down");
    assert_eq!(strict.post("/orders", "", &declined).await.status, 503);
    assert_eq!(strict.post("/orders", "", &json!({ "flow": 5 })).await.status, 422);
    assert_eq!(
        strict.post_with("/orders", "", &json!({}), &[("content-type", "text/plain")]).await.status,
        415
    );
    assert_eq!(strict.post("/orders", "", &json!({ "flow": "x".repeat(70_000) })).await.status, 413);
    let confirm = "/orders/{order_id}/confirm";
    assert_eq!(strict.post(confirm, id, &json!({})).await.status, 409);
    assert_eq!(strict.post(confirm, "no-id", &json!({})).await.status, 404);
    assert_eq!(strict.post_with(confirm, id, &json!({}), &[("if-match", "\"0:0\"")]).await.status, 412);
    assert_eq!(strict.post_with(confirm, id, &json!({}), &[("idempotency-key", "a key")]).await.status, 400);
    assert_eq!(strict.post("/sagas/{order_id}/resume", id, &json!({})).await.status, 409);
    assert_eq!(strict.post("/breakers/{call}", "none", &json!({ "hold": null })).await.status, 404);
    let far = strict.get("/orders/{order_id}", id, "?after=0:999999&wait=1").await;
    assert_eq!((far.status.as_u16(), far.code()), (400, "position_unknown"), "beyond the log");
    assert_eq!(strict.get("/orders", "", "?limit=0").await.status, 400);
    assert_eq!(strict.get("/flows/{name}", "none", "").await.status, 404);
    assert_eq!(strict.get("/views/{name}", "none", "").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_every_call_is_as_the_contract_has_it() {
    let overdue = [
        ("name = \"food\"", "name = \"hasty\""),
        ("rider = { after_s = 3600, then = \"park\" }", "rider = { after_s = 1, then = \"park\" }"),
    ];
    let folder = twelve_tests::flows::folder(&[("hasty", twelve_tests::flows::changed("food", &overdue))]);
    let flows = folder.path().display().to_string();
    let platform = Platform::up_with(&["--flows", &flows]).await;
    let strict = Strict {
        client: &platform.client,
        contract: Contract::committed("openapi.json"),
        answered: Mutex::default(),
    };
    strict.look_around(&[]).await;
    let mut ids = lives(&strict).await;
    let mut parked = of_flow("food", &json!({}));
    parked["flow"] = json!("hasty");
    let parked = strict.place(&parked).await;
    let client = strict.client;
    client.until(&parked, "received", |row| row["store"]["status"] == "received").await;
    for what in ["store/accept", "store/start", "store/finish"] {
        strict.act(&parked, what, json!({})).await;
    }
    client
        .until(&parked, "parked", |row| {
            row["timeline"].as_array().into_iter().flatten().any(|entry| entry["type"] == "SagaParked")
        })
        .await;
    assert_eq!(strict.get("/sagas", "", "?parked=true").await.body["items"][0]["order_id"], json!(parked));
    assert_eq!(strict.post("/sagas/{order_id}/resume", &parked, &json!({})).await.status, 200);
    ids.push(parked);
    // A repeat, a call that is held, and what the caller has already.
    let key = [("idempotency-key", "twice")];
    for _ in 0..2 {
        strict.post_with("/orders", "", &order("caller"), &key).await;
    }
    for hold in [json!("open"), json!("closed"), Value::Null] {
        let held = strict.post("/breakers/{call}", "delivery", &json!({ "hold": hold })).await;
        assert_eq!(held.body["held"], hold);
    }
    let first = strict.get("/orders/{order_id}", &ids[0], "").await;
    let known = [("if-none-match", first.header("etag"))];
    assert_eq!(strict.get_with("/orders/{order_id}", &ids[0], "", &known).await.status, 304);
    strict.look_around(&ids).await;
    refusals(&strict, &ids[0]).await;
    streams(&strict, &ids[0]).await;
    let position = first.body["position"].as_str().expect("a position");
    for path in ["/orders", "/coupons", "/views", "/sagas", "/items/order-counts"] {
        strict.get(path, "", &format!("?as_of={position}")).await;
    }
    strict.get("/orders/{order_id}", &ids[0], &format!("?as_of={position}")).await;
    let answered = strict.answered.into_inner().expect("unbroken");
    let missing: Vec<_> = strict
        .contract
        .calls()
        .into_iter()
        .filter(|call| !answered.contains(call) && !call.1.ends_with("/live"))
        .collect();
    assert!(missing.is_empty(), "never answered here: {missing:?}");
}

/// What each live stream begins with, and a change.
async fn streams(strict: &Strict<'_>, id: &str) {
    for (path, named) in [
        ("/orders/{order_id}/live", id),
        ("/customers/{customer_id}/orders/live", "caller"),
        ("/stores/{store_id}/orders/live", "shop"),
    ] {
        let mut live = strict.client.live(&filled(path, named), None).await;
        let snapshot = live.next().await.expect("a snapshot");
        assert_eq!(snapshot.name, "snapshot");
        strict.contract.hold_event(path, &snapshot);
        if path.starts_with("/customers") {
            strict.place(&of_flow("marketplace", &json!({}))).await;
            strict.contract.hold_event(path, &live.next().await.expect("a change"));
        }
    }
}
