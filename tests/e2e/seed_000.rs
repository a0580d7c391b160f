//! The acceptance scenarios of the web and phone shop (12번가), by their ids.

use futures::future::join_all;
use serde_json::{Value, json};
use twelve_tests::{Client, LIMIT, Process, Server, client::order, free_port};

/// The platform as separate services, each context a process of its own.
struct Shop {
    server: Server,
    views: tempfile::TempDir,
    ordering: Client,
    delivery: Client,
    queries: Client,
    marketing: Option<Process>,
    _others: Vec<Process>,
}

fn service(server: &Server, role: &str, more: &[&str]) -> (Process, Client) {
    let listen = format!("127.0.0.1:{}", free_port());
    let mut arguments =
        vec!["--nats", server.url(), "--durability", "fsync", "--listen", &listen, "--roles", role];
    arguments.extend(["--retry-pause-max-ms", "500", "--call-timeout-ms", "700"]);
    arguments.extend(more);
    (Process::start("command-svc", &arguments), Client::new(&format!("http://{listen}")))
}

impl Shop {
    async fn open() -> Self {
        let server = Server::start().await;
        let views = tempfile::tempdir().expect("a temporary folder");
        let (order, ordering) = service(&server, "ordering", &[]);
        let (deliver, delivery) = service(&server, "delivery", &[]);
        let (pay, payment) = service(&server, "payment", &[]);
        let (saga, sagas) = service(&server, "saga", &[]);
        let listen = format!("127.0.0.1:{}", free_port());
        let folder = views.path().display().to_string();
        let query =
            Process::start("query-api", &["--nats", server.url(), "--listen", &listen, "--views", &folder]);
        let queries = Client::new(&format!("http://{listen}"));
        for client in [&ordering, &delivery, &payment, &sagas, &queries] {
            client.until_ready().await;
        }
        let others = vec![order, deliver, pay, saga, query];
        let mut shop = Self { server, views, ordering, delivery, queries, marketing: None, _others: others };
        shop.start_marketing(&[]).await;
        shop
    }

    async fn start_marketing(&mut self, more: &[&str]) {
        let (process, client) = service(&self.server, "marketing", more);
        client.until_ready().await;
        self.marketing = Some(process);
    }

    fn stop_marketing(&mut self) {
        if let Some(process) = self.marketing.take() {
            process.kill();
        }
    }

    async fn place(&self, channel: &str) -> String {
        let mut body = order("gentleman");
        body["channel"] = json!(channel);
        let placed = self.ordering.post("/orders", &body).await;
        assert_eq!(placed.status, 201, "{placed:?}");
        self.queries.order_after(&placed.order_id(), placed.header("log-position")).await;
        placed.order_id()
    }

    async fn one(&self, view: &str, id: &str) -> Value {
        let rows = self.queries.get(&format!("/{view}?order_id={id}")).await;
        rows.body["items"][0].clone()
    }

    async fn travels(&self, channel: &str) -> String {
        let id = self.place(channel).await;
        let row = self.queries.until_status(&id, "out_for_delivery").await;
        assert_eq!(row["channel"], channel);
        let coupon = self.one("coupons", &id).await;
        assert_eq!(
            (&coupon["coupon_id"], &coupon["kind"], &coupon["used"]),
            (&json!("COUPON1"), &json!("DISCOUNT"), &json!(false))
        );
        assert_eq!(self.one("deliveries", &id).await["status"], "started");
        assert_eq!(row["coupon"]["status"], "issued");
        id
    }

    async fn is_undone_in_order(&self, id: &str) {
        let canceled = self.ordering.post(&format!("/orders/{id}/cancel"), &json!({})).await;
        assert!([200, 202].contains(&canceled.status.as_u16()), "{canceled:?}");
        self.queries.until_status(id, "canceled").await;
        let undone = self.queries.event_types(id).await.split_off(6);
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
async fn a000_1_and_3_a_phone_order_end_to_end_and_its_cancel() {
    let shop = Shop::open().await;
    let id = shop.travels("phone").await;
    shop.is_undone_in_order(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a000_2_and_4_a_web_order_end_to_end_and_its_cancel() {
    let shop = Shop::open().await;
    let id = shop.travels("web").await;
    shop.is_undone_in_order(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a000_5_no_coupon_no_delivery_and_with_marketing_back_all_completes_by_itself() {
    let mut shop = Shop::open().await;
    shop.stop_marketing();
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(shop.place("web").await);
    }
    // The saga has asked in vain for each of them once it waits for its coupon.
    for id in &ids {
        shop.queries
            .until(id, "waiting for its coupon", |row| row["delivery"]["status"] == "requested")
            .await;
        let refused = shop.delivery.post(&format!("/orders/{id}/delivery/start"), &json!({})).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (409, "coupon_required"), "not by hand either");
        let saga = shop.queries.get(&format!("/sagas/{id}")).await;
        assert_eq!(saga.body["waiting_for"], "issue_coupon");
        assert_eq!(shop.one("deliveries", id).await["started_at"], Value::Null);
    }
    shop.start_marketing(&[]).await;
    for id in &ids {
        shop.queries.until_status(id, "out_for_delivery").await;
        assert_eq!(shop.queries.event_types(id).await.len(), 6, "nothing twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a000_6_no_coupon_cancel_no_delivery_cancel() {
    let mut shop = Shop::open().await;
    let id = shop.travels("phone").await;
    shop.stop_marketing();
    let path = format!("/orders/{id}/cancel");
    let request = shop.ordering.request(reqwest::Method::POST, &path).header("Prefer", "wait=1");
    let pending = shop.ordering.send(request).await;
    assert_eq!((pending.status.as_u16(), &pending.body["status"]), (202, &json!("cancel_requested")));
    let row = shop.queries.order_after(&id, pending.header("log-position")).await;
    assert_eq!((&row["status"], &row["coupon"]["status"]), (&json!("cancel_requested"), &json!("issued")));
    assert_eq!(shop.one("deliveries", &id).await["canceled_at"], Value::Null);
    assert_eq!(shop.queries.event_types(&id).await.len(), 7);
    shop.start_marketing(&[]).await;
    shop.queries.until_status(&id, "canceled").await;
    shop.is_undone_in_order(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a000_7_both_channels_are_in_one_view_and_a000_8_behind_one_port() {
    let platform = twelve_tests::Platform::up().await;
    for channel in ["web", "phone"] {
        let mut body = order("gentleman");
        body["channel"] = json!(channel);
        platform.client.place(&body).await;
    }
    let rows = platform.client.get("/customers/gentleman/orders").await;
    let channels: Vec<&str> = rows.body["items"]
        .as_array()
        .expect("rows")
        .iter()
        .filter_map(|row| row["channel"].as_str())
        .collect();
    assert_eq!(channels, ["phone", "web"], "newest first, two distinct rows");
    for path in ["/orders", "/coupons", "/payments", "/deliveries", "/sagas", "/views", "/flows", "/healthz"]
    {
        assert_eq!(platform.client.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a000_9_slow_marketing_opens_the_breaker_orders_go_on_and_it_closes_again() {
    let server = Server::start().await;
    let (late, slow) = service(&server, "marketing", &["--answer-delay-ms", "620"]);
    let more = ["--breakers", "marketplace", "--breaker-calls", "5", "--breaker-open-ms", "200"];
    let listen = format!("127.0.0.1:{}", free_port());
    let mut arguments =
        vec!["--nats", server.url(), "--listen", &listen, "--roles", "ordering,payment,delivery,saga"];
    arguments.extend(more);
    arguments.extend(["--retry-pause-max-ms", "300"]);
    let _shop = Process::start("command-svc", &arguments);
    let client = Client::new(&format!("http://{listen}"));
    client.until_ready().await;
    slow.until_ready().await;
    let body = order("gentleman");
    let placed = join_all((0..10).map(|_| client.post("/orders", &body))).await;
    assert!(placed.iter().all(|placed| placed.status == 201), "orders are taken all the same");
    until_metric(&client, r#"twelve_breaker_transitions_total{call="marketing",to="open"}"#, |count| {
        count >= 1.0
    })
    .await;
    until_metric(&client, r#"twelve_breaker_rejected_total{call="marketing"}"#, |count| count >= 1.0).await;
    assert_eq!(client.post("/orders", &body).await.status, 201, "the service lives");
    drop(late);
    let (_marketing, fast) = service(&server, "marketing", &[]);
    fast.until_ready().await;
    until_metric(&client, r#"twelve_breaker_state{call="marketing"}"#, |state| state == 0.0).await;
}

async fn until_metric(client: &Client, line: &str, holds: impl Fn(f64) -> bool) {
    let looking = async {
        while !client.metric(line).await.is_some_and(&holds) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, looking).await.unwrap_or_else(|_| panic!("{line} does not come about"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a000_10_replicas_of_every_service_make_one_delivery_and_one_coupon_an_order() {
    let shop = Shop::open().await;
    let mut replicas = Vec::new();
    let mut clients = vec![shop.ordering.clone()];
    for role in ["ordering", "delivery", "delivery", "marketing", "payment", "saga"] {
        let (process, client) = service(&shop.server, role, &[]);
        client.until_ready().await;
        replicas.push(process);
        if role == "ordering" {
            clients.push(client);
        }
    }
    let body = order("gentleman");
    let placed = join_all((0..40).map(|number| clients[number % 2].post("/orders", &body))).await;
    for answer in &placed {
        assert_eq!(answer.status, 201, "{answer:?}");
        shop.queries.order_after(&answer.order_id(), answer.header("log-position")).await;
        shop.queries.until_status(&answer.order_id(), "out_for_delivery").await;
        let types = shop.queries.event_types(&answer.order_id()).await;
        assert_eq!(types.len(), 6, "{types:?}");
    }
    for view in ["coupons", "deliveries"] {
        let rows = shop.queries.get(&format!("/{view}?limit=200")).await;
        assert_eq!(rows.body["items"].as_array().map(Vec::len), Some(40), "{view}");
    }
    assert!(shop.views.path().exists());
}
