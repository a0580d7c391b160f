//! The clothes rental: no payment, a cancel that asks the delivery, a return. Its acceptance scenarios by their ids.

use serde_json::{Value, json};
use twelve_tests::{Client, Process, Server, client::Answer, free_port};

fn rental(customer: &str) -> Value {
    json!({
        "flow": "rental",
        "customer": { "id": customer, "name": "빌리는 사람", "email": "rent@example.org" },
        "lines": [{ "item_id": "1001", "name": "한복", "quantity": 5, "unit_price": 0 }],
        "currency": "KRW",
        "address": { "line": "Seoul" },
    })
}

/// The rental with its delivery team and its customer centre apart.
struct Shop {
    server: Server,
    folder: tempfile::TempDir,
    orders: Client,
    queries: Client,
    delivery: Option<Process>,
    others: Vec<Process>,
}

fn start(program: &str, server: &Server, more: &[&str]) -> (Process, Client) {
    let listen = format!("127.0.0.1:{}", free_port());
    let mut arguments = vec!["--nats", server.url(), "--listen", &listen];
    arguments.extend(more);
    (Process::start(program, &arguments), Client::new(&format!("http://{listen}")))
}

impl Shop {
    async fn open() -> Self {
        let server = Server::start().await;
        let folder = tempfile::tempdir().expect("a folder");
        let settings = ["--roles", "ordering,saga", "--breakers", "rental", "--retry-pause-max-ms", "300"];
        let breaker = ["--breaker-calls", "5", "--breaker-open-ms", "200"];
        let (ordering, orders) = start("command-svc", &server, &[&settings[..], &breaker].concat());
        let (node, queries) = start("query-api", &server, &["--views", &folder.path().display().to_string()]);
        orders.until_ready().await;
        queries.until_ready().await;
        Self { server, folder, orders, queries, delivery: None, others: vec![ordering, node] }
    }

    async fn start_delivery(&mut self, more: &[&str]) -> Client {
        let (process, client) =
            start("command-svc", &self.server, &[&["--roles", "delivery"], more].concat());
        client.until_ready().await;
        self.delivery = Some(process);
        client
    }

    async fn rent(&self) -> String {
        let placed = self.orders.post("/orders", &rental("renter")).await;
        assert_eq!((placed.status.as_u16(), &placed.body["status"]), (201, &json!("placed")), "{placed:?}");
        self.queries.order_after(&placed.order_id(), placed.header("log-position")).await;
        placed.order_id()
    }

    async fn accepted(&self) -> String {
        let id = self.rent().await;
        self.queries.until(&id, "accepted by delivery", |row| row["delivery"]["status"] == "requested").await;
        id
    }

    async fn cancel(&self, id: &str) -> Answer {
        self.orders.post(&format!("/orders/{id}/cancel"), &json!({})).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a002_1_and_6_and_7_a_rental_is_shipped_is_not_canceled_then_and_is_given_back() {
    let mut shop = Shop::open().await;
    let delivery = shop.start_delivery(&[]).await;
    let id = shop.accepted().await;
    let act = async |client: &Client, what: &str| {
        let answer = client.post(&format!("/orders/{id}/{what}"), &json!({})).await;
        let said = answer.body["status"].as_str().unwrap_or_else(|| answer.code()).to_owned();
        if answer.status.is_success() {
            shop.queries.order_after(&id, answer.header("log-position")).await;
        }
        said
    };
    assert_eq!(act(&shop.orders, "return").await, "not_delivered");
    assert_eq!(act(&delivery, "delivery/start").await, "out_for_delivery");
    let refused = shop.cancel(&id).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (409, "already_shipped"));
    assert_eq!(act(&delivery, "delivery/complete").await, "delivered");
    assert_eq!(shop.cancel(&id).await.code(), "already_delivered");
    assert_eq!(act(&shop.orders, "return").await, "return_requested");
    assert_eq!(act(&delivery, "return/pickup").await, "return_in_transit");
    act(&delivery, "return/complete").await;
    shop.queries.until_status(&id, "returned").await;
    let row = shop.queries.get(&format!("/deliveries?order_id={id}")).await.body;
    assert_eq!(row["items"][0]["status"], "returned");
}

#[tokio::test(flavor = "multi_thread")]
async fn a002_3_a_cancel_without_the_deliverys_answer_fails_changes_nothing_and_succeeds_later() {
    let mut shop = Shop::open().await;
    shop.start_delivery(&[]).await;
    let id = shop.accepted().await;
    let events = shop.queries.event_types(&id).await;
    drop(shop.delivery.take());
    let failed = shop.cancel(&id).await;
    assert_eq!((failed.status.as_u16(), failed.code()), (503, "delivery_unavailable"));
    assert!(!failed.header("retry-after").is_empty());
    assert_eq!(shop.queries.event_types(&id).await, events, "no event");
    shop.start_delivery(&[]).await;
    let canceled = shop.cancel(&id).await;
    assert_eq!((canceled.status.as_u16(), &canceled.body["status"]), (200, &json!("canceled")));
    assert_eq!(
        shop.queries.event_types(&id).await.split_off(events.len()),
        ["DeliveryCanceled", "OrderCanceled"]
    );
    assert_eq!(shop.cancel(&id).await.status, 200, "a repeat is no error");
}

#[tokio::test(flavor = "multi_thread")]
async fn a002_4_and_5_rentals_are_taken_while_delivery_and_customer_centre_are_down() {
    let mut shop = Shop::open().await;
    drop(shop.others.pop());
    let mut ids = Vec::new();
    for _ in 0..4 {
        let placed = shop.orders.post("/orders", &rental("renter")).await;
        assert_eq!(placed.status, 201);
        ids.push(placed.order_id());
    }
    shop.start_delivery(&[]).await;
    let (node, queries) =
        start("query-api", &shop.server, &["--views", &shop.folder.path().display().to_string()]);
    queries.until_ready().await;
    for id in &ids {
        queries.until(id, "accepted by delivery", |row| row["delivery"]["status"] == "requested").await;
    }
    let rows = queries.get("/customers/renter/orders").await.body;
    assert_eq!(rows["items"].as_array().map(Vec::len), Some(4));
    drop(node);
}

#[tokio::test(flavor = "multi_thread")]
async fn a002_8_a_slow_delivery_fails_cancels_fast_and_a_lost_consent_is_made_up_for() {
    let mut shop = Shop::open().await;
    shop.start_delivery(&[]).await;
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(shop.accepted().await);
    }
    drop(shop.delivery.take());
    shop.start_delivery(&["--answer-delay-ms", "720"]).await;
    let mut fast = 0;
    for id in &ids {
        let started = std::time::Instant::now();
        let answer = shop.cancel(id).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (503, "delivery_unavailable"));
        fast += usize::from(started.elapsed() < std::time::Duration::from_millis(300));
    }
    assert!(fast > 0, "the breaker opened");
    drop(shop.delivery.take());
    shop.start_delivery(&[]).await;
    for id in &ids {
        let canceling = async {
            while shop.cancel(id).await.status != 200 {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(twelve_tests::LIMIT, canceling).await.expect("it recovers by itself");
        shop.queries.until_status(id, "canceled").await;
        let undone = shop.queries.event_types(id).await.split_off(2);
        assert_eq!(undone, ["DeliveryCanceled", "OrderCanceled"], "each once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rental_that_brings_a_payment_is_told_so() {
    let shop = Shop::open().await;
    let mut body = rental("renter");
    body["payment"] = json!({ "method": "card", "token": "tok_ok" });
    let refused = shop.orders.post("/orders", &body).await;
    assert_eq!((refused.status.as_u16(), refused.pointers()), (422, vec!["/payment"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_once_found_no_order_cancels_the_one_that_was_placed_elsewhere_since() {
    let mut shop = Shop::open().await;
    shop.start_delivery(&[]).await;
    let (_replica, replica) = start("command-svc", &shop.server, &["--roles", "ordering"]);
    replica.until_ready().await;
    let id = domain::OrderId::from_key("anonymous", "elsewhere");
    let path = format!("/orders/{id}/cancel");
    let early = replica.post(&path, &json!({})).await;
    assert_eq!((early.status.as_u16(), early.code()), (404, "order_not_found"));
    let placed = shop.orders.post_with_key("/orders", "elsewhere", &rental("renter")).await;
    assert_eq!((placed.status.as_u16(), placed.order_id()), (201, id.to_string()));
    let canceled = replica.post(&path, &json!({})).await;
    assert_eq!(
        (canceled.status.as_u16(), &canceled.body["status"]),
        (200, &json!("canceled")),
        "{canceled:?}"
    );
}

/// The seed's numbers: answers after 500 to 720 ms, and 610 ms of patience. About half of the calls are in time.
#[tokio::test(flavor = "multi_thread")]
async fn a002_8_and_x_3_with_answers_around_the_time_limit_the_breaker_opens_and_closes_and_nothing_is_half_done()
 {
    let mut shop = Shop::open().await;
    shop.start_delivery(&[]).await;
    let mut ids = Vec::new();
    for _ in 0..24 {
        ids.push(shop.accepted().await);
    }
    drop(shop.delivery.take());
    shop.start_delivery(&["--answer-delay-ms", "500-720"]).await;
    let orders = shop.orders.clone();
    let attempt =
        async |id: &String| orders.post(&format!("/orders/{id}/cancel"), &json!({})).await.status.as_u16();
    // Two customers at a time, again and again, until both kinds of answers came and the breaker opened.
    let opened = r#"twelve_breaker_transitions_total{call="delivery",to="open"}"#;
    let mut answers = Vec::new();
    let loading = async {
        for pair in ids.chunks(2).cycle() {
            answers.extend(futures::future::join_all(pair.iter().map(attempt)).await);
            if answers.contains(&200) && answers.contains(&503) && shop.orders.metric(opened).await.is_some()
            {
                return;
            }
        }
    };
    tokio::time::timeout(twelve_tests::LIMIT, loading)
        .await
        .expect("successes, failures, and an open breaker");
    assert_eq!(
        shop.orders.post("/orders", &rental("other")).await.status,
        201,
        "other requests are answered"
    );
    drop(shop.delivery.take());
    shop.start_delivery(&[]).await;
    let recovering = async {
        for id in &ids {
            while attempt(id).await != 200 {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    };
    tokio::time::timeout(twelve_tests::LIMIT, recovering).await.expect("all requests succeed again");
    let state = shop.orders.metric(r#"twelve_breaker_state{call="delivery"}"#).await;
    assert_eq!(state, Some(0.0), "the breaker is closed");
    for id in &ids {
        shop.queries.until_status(id, "canceled").await;
        assert_eq!(shop.queries.event_types(id).await.split_off(2), ["DeliveryCanceled", "OrderCanceled"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a002_2_the_delivery_cancels_by_itself_and_the_order_is_canceled_with_it() {
    let mut shop = Shop::open().await;
    let delivery = shop.start_delivery(&[]).await;
    let id = shop.accepted().await;
    let canceled = delivery.post(&format!("/orders/{id}/delivery/cancel"), &json!({})).await;
    assert_eq!(canceled.status, 200, "{canceled:?}");
    let row = shop.queries.until_status(&id, "canceled").await;
    assert_eq!(row["delivery"]["status"], "canceled");
    let nobody =
        delivery.post(&format!("/orders/{}/delivery/cancel", uuid::Uuid::new_v4()), &json!({})).await;
    assert!([404, 409].contains(&nobody.status.as_u16()), "{nobody:?}");
}
