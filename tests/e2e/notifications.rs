//! Customers are told: by mail through a real mail server, by signed webhooks, once a change, and at nobody's expense.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use twelve_tests::{
    Client, LIMIT, Platform, Services,
    issuer::{Issuer, Key, claims},
    mail::MailServer,
    webhook::Webhook,
};

const SECRET: &str = "whsec_dHdlbHZlLXR3ZWx2ZS10d2VsdmU=";

fn rental(email: Option<&str>) -> Value {
    json!({
        "flow": "rental",
        "customer": { "id": "renter", "name": "홍길동", "email": email },
        "lines": [{ "item_id": "1001", "name": "한복", "quantity": 5, "unit_price": 0 }],
        "currency": "KRW",
        "address": { "line": "Seoul" },
    })
}

fn kitchen(language: Option<&str>) -> Value {
    json!({
        "flow": "kitchen",
        "customer": { "id": "eater", "name": "홍길동", "phone": "010-1234-5678", "language": language },
        "store_id": "store-1",
        "lines": [{ "item_id": "2001", "name": "비빔밥", "quantity": 1, "unit_price": 9_000 }],
        "currency": "KRW",
        "address": { "line": "Seoul", "region": "mapo" },
        "payment": { "method": "card", "token": "tok_ok" },
    })
}

async fn act(client: &Client, id: &str, what: &str) {
    let answer = client.post(&format!("/orders/{id}/{what}"), &json!({})).await;
    assert_eq!(answer.status, 200, "{what}: {answer:?}");
}

async fn told(client: &Client, id: &str) -> Vec<Value> {
    let rows = client.get(&format!("/notifications?order_id={id}")).await;
    let mut rows = rows.body["items"].as_array().cloned().unwrap_or_default();
    rows.reverse();
    rows
}

/// Waits until so many changes were dealt with.
async fn until_told(client: &Client, id: &str, count: usize) -> Vec<Value> {
    let is_told = |event: &Value| event["context"] == "notification";
    let enough = |row: &Value| {
        row["timeline"]
            .as_array()
            .is_some_and(|all| all.iter().filter(|event| is_told(event)).count() >= count)
    };
    client.until(id, "told", enough).await;
    told(client, id).await
}

fn statuses(rows: &[Value]) -> Vec<&str> {
    let mut all: Vec<&str> = rows.iter().filter_map(|row| row["order_status"].as_str()).collect();
    all.sort_unstable();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a002_13_each_change_of_a_rental_is_exactly_one_mail() {
    let Some(mut server) = MailServer::start().await else { return };
    let mail = ["--mail-server", &server.url(), "--mail-from", "12번가 <shop@example.org>"];
    let mut platform = Platform::up_with(&[&mail[..], &["--notify-pause-max-ms", "500"]].concat()).await;
    let id = platform.client.place(&rental(Some("renter@example.org"))).await;
    platform.client.until(&id, "accepted", |row| row["delivery"]["status"] == "requested").await;
    until_told(&platform.client, &id, 1).await;
    server.kill();
    act(&platform.client, &id, "delivery/start").await;
    until_retried(&platform.client).await;
    platform.kill();
    server.restart().await;
    platform.start().await;
    act(&platform.client, &id, "delivery/complete").await;
    let rows = until_told(&platform.client, &id, 3).await;
    assert_eq!(statuses(&rows), ["delivered", "out_for_delivery", "placed"]);
    assert!(rows.iter().all(|row| row["status"] == "sent" && row["medium"] == "mail"), "{rows:#?}");
    let mails = server.mails();
    assert_eq!(mails.len(), 3, "one each, whatever was killed meanwhile: {mails:#?}");
    for row in &rows {
        let reference = row["reference"].as_str().expect("a name");
        assert_eq!(mails.iter().filter(|mail| mail.contains(reference)).count(), 1, "{reference}");
    }
    assert!(
        mails.iter().all(|mail| mail.contains("To: renter@example.org") && mail.contains("shop@example.org"))
    );
    assert!(mails.iter().all(|mail| mail.contains("MIME-Version: 1.0")), "its body is encoded: {mails:#?}");
    assert!(rows[0]["text"].as_str().is_some_and(|text| text.contains("홍길동님")), "{rows:#?}");
}

/// Waits until a message was tried in vain.
async fn until_retried(client: &Client) {
    let waiting = async {
        while client.metric("twelve_notification_retries_total").await.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.expect("a try in vain");
}

#[tokio::test(flavor = "multi_thread")]
async fn a003_8_and_a004_12_each_change_of_a_meal_is_one_signed_kakao_message() {
    let kakao = Webhook::start().await;
    let platform = Platform::up_with(&["--kakao-url", kakao.url(), "--webhook-secret", SECRET]).await;
    let client = &platform.client;
    let id = client.place(&kitchen(Some("en"))).await;
    client.until(&id, "at the store", |row| row["store"]["status"] == "received").await;
    for what in ["store/accept", "store/start", "store/finish"] {
        act(client, &id, what).await;
    }
    let messages = kakao.until(4).await;
    let mut kinds: Vec<&str> = messages.iter().filter_map(|message| message.body["type"].as_str()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["order.accepted", "order.paid", "order.prepared", "order.preparing"]);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(&SECRET[6..]).expect("base64"));
    for message in &messages {
        let (id, time) = (message.header("webhook-id"), message.header("webhook-timestamp"));
        let tag =
            STANDARD.decode(message.header("webhook-signature").trim_start_matches("v1,")).expect("base64");
        hmac::verify(&key, format!("{id}.{time}.{}", message.text).as_bytes(), &tag).expect("it is signed");
        assert_eq!(message.body["data"]["to"], "010-1234-5678");
        let text = message.body["data"]["text"].as_str().expect("a text");
        assert!(text.starts_with("홍길동, "), "in English, as the customer wants it: {text}");
    }
    let rows = until_told(client, &id, 4).await;
    assert_eq!(statuses(&rows), ["accepted", "paid", "prepared", "preparing"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_is_not_told_again_when_every_event_is_handed_out_anew() {
    let kakao = Webhook::start().await;
    let mut platform = Platform::up_with(&["--kakao-url", kakao.url()]).await;
    let id = platform.client.place(&kitchen(None)).await;
    until_told(&platform.client, &id, 1).await;
    platform.kill();
    let nats = async_nats::connect(platform.server.url()).await.expect("connected");
    let jetstream = async_nats::jetstream::new(nats);
    for partition in 0..twelve_tests::partitions() {
        let stream = jetstream.get_stream(format!("ORDERS-{partition}")).await.expect("a partition");
        stream.delete_consumer("saga").await.expect("forgotten");
    }
    platform.start().await;
    // Told after all the old events were handed out again.
    platform.client.until(&id, "at the store", |row| row["store"]["status"] == "received").await;
    act(&platform.client, &id, "store/accept").await;
    let rows = until_told(&platform.client, &id, 2).await;
    assert_eq!(statuses(&rows), ["accepted", "paid"]);
    assert_eq!(kakao.received().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_delivered_in_time_is_given_up_visibly() {
    let kakao = Webhook::start().await;
    kakao.answer(503, Duration::ZERO);
    let settings = ["--kakao-url", kakao.url(), "--notify-within-s", "1", "--notify-pause-max-ms", "200"];
    let platform = Platform::up_with(&settings).await;
    let id = platform.client.place(&kitchen(None)).await;
    let rows = until_told(&platform.client, &id, 1).await;
    assert_eq!((&rows[0]["status"], &rows[0]["to"]), (&json!("failed"), &json!("010-1234-5678")));
    assert!(rows[0]["tries"].as_u64().is_some_and(|tries| tries > 1), "{rows:#?}");
    kakao.answer(422, Duration::ZERO);
    let refused = platform.client.place(&kitchen(None)).await;
    let rows = until_told(&platform.client, &refused, 1).await;
    assert!(rows[0]["reason"].as_str().is_some_and(|why| why.contains("422")), "refused for good: {rows:#?}");
    let unknown = platform.client.place(&rental(None)).await;
    let rows = until_told(&platform.client, &unknown, 1).await;
    assert!(
        rows[0]["reason"].as_str().is_some_and(|why| why.contains("nothing to be reached by")),
        "{rows:#?}"
    );
    let failed = platform.client.get("/notifications?failed=true").await.body;
    assert_eq!(failed["items"].as_array().map(Vec::len), Some(3));
    // Their order goes on, and the record that they cannot be told is not repeated.
    let canceled = platform.client.post(&format!("/orders/{unknown}/cancel"), &json!({})).await;
    assert_eq!(canceled.status, 200, "{canceled:?}");
    let told = platform.client.place(&rental(Some("a@example.org"))).await;
    until_told(&platform.client, &told, 1).await;
    assert_eq!(until_told(&platform.client, &unknown, 1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_a_transport_counts_as_recorded_and_not_as_sent() {
    let platform = Platform::up().await;
    let id = platform.client.place(&kitchen(None)).await;
    let rows = until_told(&platform.client, &id, 1).await;
    assert_eq!(rows[0]["status"], "recorded", "{rows:#?}");
    let count = async |outcome: &str| {
        let line = format!(r#"twelve_notifications_total{{medium="kakao",outcome="{outcome}"}}"#);
        platform.client.metric(&line).await
    };
    assert_eq!((count("recorded").await, count("sent").await), (Some(1.0), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_or_slow_notification_service_slows_no_order() {
    let kakao = Webhook::start().await;
    kakao.answer(204, Duration::from_secs(30));
    let platform = Platform::up_with(&["--kakao-url", kakao.url()]).await;
    let client = &platform.client;
    for _ in 0..20 {
        let id = client.place(&kitchen(None)).await;
        client.until(&id, "at the store", |row| row["store"]["status"] == "received").await;
        for what in ["store/accept", "store/start", "store/finish"] {
            act(client, &id, what).await;
        }
        client.until(&id, "listed", |row| row["delivery"]["status"] == "listed").await;
    }
    assert_eq!(kakao.received().len(), 0, "no order waited for its messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn notification_may_be_deployed_apart_and_later_and_tells_what_it_missed() {
    let sms = Webhook::start().await;
    let mut services = Services::new(&[]).await;
    let client = services.start("ordering,payment,store,delivery,marketing,saga", &[]).await;
    let queries = services.start_views(&[]).await;
    let mut body = kitchen(None);
    body["flow"] = json!("appliance");
    body.as_object_mut().expect("a body").remove("payment");
    let placed = client.post("/orders", &body).await;
    let id = placed.order_id();
    queries.order_after(&id, placed.header("log-position")).await;
    client.post(&format!("/orders/{id}/cancel"), &json!({})).await;
    queries.until_status(&id, "canceled").await;
    services.start("notification", &["--sms-url", sms.url()]).await;
    let rows = until_told(&queries, &id, 1).await;
    assert_eq!(
        (statuses(&rows), &rows[0]["medium"]),
        (vec!["canceled"], &json!("sms")),
        "an SMS of the cancel only"
    );
    assert_eq!(sms.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shop_writes_to_no_one_but_the_customer_whom_the_issuer_knows() {
    let key = Key::ed25519("key");
    let (issuer, kakao) = (Issuer::start(&[&key]).await, Webhook::start().await);
    let settings = ["--auth-jwks", issuer.url(), "--kakao-url", kakao.url()];
    let platform = Platform::up_with(&settings).await;
    let bearing = |phone: &str, is_verified: Value| {
        let mut claims = claims("eater", "customer");
        claims["phone_number"] = json!(phone);
        claims["phone_number_verified"] = is_verified;
        platform.client.bearing(&key.sign(&claims))
    };
    let mut victim = kitchen(None);
    victim["customer"]["email"] = json!("victim@example.org");
    let refused = bearing("010-9999-9999", json!(true)).post("/orders", &victim).await;
    assert_eq!(
        (refused.status.as_u16(), refused.pointers()),
        (422, vec!["/customer/email", "/customer/phone"])
    );
    let refused = bearing("010-1234-5678", json!(false)).post("/orders", &kitchen(None)).await;
    assert_eq!((refused.status.as_u16(), refused.pointers()), (422, vec!["/customer/phone"]), "not verified");
    // The same number, and none: it is the token's.
    let mut without = kitchen(None);
    without["customer"].as_object_mut().expect("a customer").remove("phone");
    let own = bearing("01012345678", json!("true"));
    for body in [&kitchen(None), &without] {
        own.place(body).await;
    }
    let to: Vec<Value> =
        kakao.until(2).await.iter().map(|message| message.body["data"]["to"].clone()).collect();
    assert!(to.contains(&json!("010-1234-5678")) && to.contains(&json!("01012345678")), "{to:?}");
    assert_eq!(kakao.received().len(), 2, "of four calls, two were orders");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_holds_no_link_of_its_customers_making_and_one_recipient_gets_so_many_an_hour() {
    let kakao = Webhook::start().await;
    let limits =
        ["--notify-recipient-hour-max", "2", "--notify-within-s", "1", "--notify-pause-max-ms", "200"];
    let platform = Platform::up_with(&[&["--kakao-url", kakao.url()], &limits[..]].concat()).await;
    let client = &platform.client;
    let mut body = kitchen(None);
    body["customer"]["name"] = json!(format!("당첨 https://evil.example/win?id=1 {}", "가".repeat(400)));
    let mut ids = Vec::new();
    for phone in ["010-1234-5678", "01012345678", "010 1234 5678", "010-8765-4321"] {
        body["customer"]["phone"] = json!(phone);
        let id = client.place(&body).await;
        until_told(client, &id, 1).await;
        ids.push(id);
    }
    let messages = kakao.received();
    for message in &messages {
        let text = message.body["data"]["text"].as_str().expect("a text");
        assert!(text.starts_with("당첨 https evil example win") && text.contains('님'), "{text}");
        assert!(!["://", ".example", "?"].iter().any(|part| text.contains(part)), "{text}");
        assert!(text.chars().count() < 120, "{text}");
    }
    assert_eq!(messages.len(), 3, "two to the one, however it is written, and one to the other");
    let given_up = &told(client, &ids[2]).await[0];
    assert_eq!(given_up["status"], "failed", "{given_up}");
    assert!(
        given_up["reason"].as_str().is_some_and(|why| why.contains("within the last hour")),
        "{given_up}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_says_when_to_come_back_is_not_called_before() {
    let webhook = Webhook::start().await;
    let platform = Platform::up_with(&["--kakao-url", webhook.url()]).await;
    webhook.be_busy_once(5);
    let began = std::time::Instant::now();
    platform.client.place(&kitchen(None)).await;
    webhook.until(1).await;
    assert!(began.elapsed() >= Duration::from_secs(5), "after {:?}", began.elapsed());
}
