//! A payment provider behind HTTP that is slow, away, or whose answers are lost: nobody pays twice, nothing is lost.

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use twelve_tests::{
    Client, Platform, Services,
    client::order,
    flows::{changed, folder},
    payments::{Entry, PaymentProvider},
};

/// Shipped flows in which a payment without an answer is settled after a second, and one that defers.
fn quick() -> TempDir {
    let settled = ("settle_within_s = 30", "settle_within_s = 1");
    let later = (r#"when = "second_step""#, "when = \"second_step\"\nsettle_within_s = 1\n#");
    let deadline = "\n[deadlines]\npayment = { after_s = 600, then = \"expire\" }\n";
    let deferring = [
        (r#"name = "marketplace""#, r#"name = "deferring""#),
        settled,
        ("[payment]", "[payment]\nprovider_down = \"defer\""),
    ];
    folder(&[
        ("marketplace", changed("marketplace", &[settled])),
        ("appliance", changed("appliance", &[later])),
        ("deferring", changed("marketplace", &deferring) + deadline),
    ])
}

async fn up(provider: &PaymentProvider, flows: &TempDir) -> Platform {
    let flows = flows.path().display().to_string();
    let arguments = ["--payment-url", provider.url(), "--provider-timeout-ms", "300", "--flows", &flows];
    Platform::up_with(&[&arguments[..], &["--breaker-calls", "1000"]].concat()).await
}

fn paid_by(flow: &str, token: &str) -> Value {
    let mut body = order("buyer");
    body["flow"] = json!(flow);
    body["payment"]["token"] = json!(token);
    body
}

fn fridge() -> Value {
    let mut body = order("buyer");
    body["flow"] = json!("appliance");
    body["store_id"] = json!("electro-land");
    body.as_object_mut().expect("a body").remove("payment");
    body
}

async fn pay(client: &Client, id: &str, token: &str) -> (u16, String) {
    let paid =
        client.post(&format!("/orders/{id}/payment"), &json!({ "method": "card", "token": token })).await;
    (paid.status.as_u16(), paid.body["status"].as_str().unwrap_or_else(|| paid.code()).to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_charged_under_its_own_key_and_its_cancel_gives_the_money_back() {
    let (provider, flows) = (PaymentProvider::start().await, quick());
    let platform = up(&provider, &flows).await;
    let id = platform.client.place(&paid_by("marketplace", "tok_ok")).await;
    assert_eq!(provider.entry(&id, 1), Some(Entry::Charged(9_000_000)));
    platform.client.post(&format!("/orders/{id}/cancel"), &json!({})).await;
    let row = platform.client.until_status(&id, "canceled").await;
    assert_eq!(row["payment"]["returned"]["amount"], 9_000_000);
    assert_eq!(provider.entry(&id, 1), Some(Entry::Closed(9_000_000)));
    let declined = platform.client.post("/orders", &paid_by("marketplace", "tok_poor")).await;
    assert_eq!((declined.status.as_u16(), declined.code()), (402, "payment_declined"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_charges_once_when_the_caller_repeats_the_call() {
    let (provider, flows) = (PaymentProvider::start().await, quick());
    let platform = up(&provider, &flows).await;
    let body = paid_by("marketplace", "tok_lost");
    let lost = platform.client.post_with_key("/orders", "k", &body).await;
    assert_eq!((lost.status.as_u16(), lost.code()), (503, "payment_unavailable"));
    let repeated = platform.client.post_with_key("/orders", "k", &body).await;
    assert_eq!(repeated.status, 201, "{repeated:?}");
    assert_eq!((provider.charges_max(), provider.held().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_call_closes_no_key_under_which_another_call_is_paid() {
    let provider = PaymentProvider::start().await;
    let platform = Platform::up_with(&["--payment-url", provider.url()]).await;
    let client = &platform.client;
    let body = paid_by("marketplace", "tok_busy:700");
    // The refused call closes the key before the charged one is answered, and hears of it after.
    provider.answer_closes_after(Duration::from_millis(1_500));
    let refused = async {
        until(|| provider.arrived() == 1).await;
        client.post_with_key("/orders", "k", &body).await
    };
    let (charged, refused) = tokio::join!(client.post_with_key("/orders", "k", &body), refused);
    assert_eq!((refused.status.as_u16(), refused.code()), (402, "payment_declined"), "{refused:?}");
    assert_ne!(charged.status, 201, "its money went back: {charged:?}");
    let id = domain::OrderId::from_key("anonymous", "k").to_string();
    assert_eq!(provider.entry(&id, 1), Some(Entry::Closed(9_000_000)));
    assert_eq!(client.get(&format!("/orders/{id}")).await.status, 404, "there is no order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_of_another_amount_or_currency_is_not_taken_for_the_one_that_was_asked_for() {
    let (provider, flows) = (PaymentProvider::start().await, quick());
    let platform = up(&provider, &flows).await;
    let client = &platform.client;
    for said in [json!({ "amount": 9_000_001 }), json!({ "amount": 5 }), json!({ "currency": "USD" })] {
        let id = client.place(&fridge()).await;
        assert_eq!(pay(client, &id, "tok_lost").await.0, 503);
        provider.say_charged(Some(said.clone()));
        let parked = |row: &Value| row["timeline"].to_string().contains("amount_mismatch");
        let row = client.until(&id, "parked", parked).await;
        assert_eq!(row["status"], "awaiting_payment", "{said}");
        provider.say_charged(None);
        assert_eq!(client.post(&format!("/sagas/{id}/resume"), &json!({})).await.status, 200);
        client.until(&id, "at the store", |row| row["store"]["status"] == "received").await;
    }
    // A card that is charged with another amount is given back, and declined; so is one of which 200 says that
    // nothing was charged, as no such answer is promised.
    let closed = json!({ "status": "closed" });
    let refused = json!({ "status": "declined", "reason": "none" });
    for said in [json!({ "currency": "USD" }), closed, refused] {
        provider.say_charged(Some(said.clone()));
        let declined = client.post("/orders", &paid_by("marketplace", "tok_ok")).await;
        assert_eq!(
            (declined.status.as_u16(), declined.code()),
            (402, "payment_declined"),
            "{said}: {declined:?}"
        );
        until(|| provider.held().len() == 3).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_costs_nothing_when_nobody_repeats_the_call() {
    let (provider, flows) = (PaymentProvider::start().await, quick());
    let platform = up(&provider, &flows).await;
    let lost = platform.client.post_with_key("/orders", "k", &paid_by("marketplace", "tok_lost")).await;
    assert_eq!(lost.status, 503);
    let id = domain::OrderId::from_key("anonymous", "k").to_string();
    until(|| provider.entry(&id, 1) == Some(Entry::Closed(9_000_000))).await;
    assert_eq!(platform.client.get(&format!("/orders/{id}")).await.status, 404, "there is no order");
    let again = platform.client.post_with_key("/orders", "k", &paid_by("marketplace", "tok_lost")).await;
    assert_eq!((again.status.as_u16(), again.code()), (409, "order_expired"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_step_payment_whose_answer_was_lost_is_found_and_the_order_goes_on() {
    let (provider, flows) = (PaymentProvider::start().await, quick());
    let platform = up(&provider, &flows).await;
    let id = platform.client.place(&fridge()).await;
    assert_eq!(pay(&platform.client, &id, "tok_lost").await.0, 503);
    let row = platform.client.until(&id, "at the store", |row| row["store"]["status"] == "received").await;
    assert_eq!(row["payment"]["reference"], format!("pay-{id}.1"));
    assert_eq!((provider.charges_max(), provider.held().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_that_lands_after_it_was_given_up_takes_nothing_and_the_next_one_is_taken() {
    let (provider, flows) = (PaymentProvider::start().await, quick());
    let platform = up(&provider, &flows).await;
    let id = platform.client.place(&fridge()).await;
    assert_eq!(pay(&platform.client, &id, "tok_late:4000").await.0, 503);
    let closed = |row: &Value| row["payment"]["status"] == "declined";
    platform.client.until(&id, "closed", closed).await;
    assert_eq!(pay(&platform.client, &id, "tok_ok").await, (200, "paid".into()));
    assert_eq!(provider.entry(&id, 2), Some(Entry::Charged(9_000_000)));
    until(|| provider.arrived() == 2).await;
    assert_eq!(provider.entry(&id, 1), Some(Entry::Closed(0)), "the late charge found its key closed");
    assert_eq!(provider.held(), [format!("{id}.2")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_card_after_a_declined_one_has_a_key_of_its_own() {
    let (provider, flows) = (PaymentProvider::start().await, quick());
    let platform = up(&provider, &flows).await;
    let id = platform.client.place(&fridge()).await;
    assert_eq!(pay(&platform.client, &id, "tok_poor").await, (402, "payment_declined".into()));
    assert_eq!(pay(&platform.client, &id, "tok_ok").await, (200, "paid".into()));
    let entries = (provider.entry(&id, 1), provider.entry(&id, 2));
    assert_eq!(entries, (Some(Entry::Declined), Some(Entry::Charged(9_000_000))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a001_3_with_payment_away_and_no_fallback_there_is_no_order() {
    let mut services = Services::new(&[]).await;
    let orders = services.start("ordering", &[]).await;
    let queries = services.start_views(&[]).await;
    let refused = orders.post("/orders", &paid_by("marketplace", "tok_ok")).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (503, "payment_unavailable"));
    assert!(!refused.header("retry-after").is_empty());
    assert_eq!(queries.get("/orders").await.body["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a001_4_with_payment_away_and_a_fallback_the_order_waits_and_can_be_paid_once_it_is_back() {
    let (provider, flows) = (PaymentProvider::start().await, quick());
    let flows = flows.path().display().to_string();
    let common = ["--flows", &flows, "--payment-url", provider.url(), "--provider-timeout-ms", "300"];
    let mut services = Services::new(&common).await;
    let orders = services.start("ordering", &[]).await;
    services.start("saga,delivery,marketing", &[]).await;
    let queries = services.start_views(&["--flows", &flows]).await;
    let placed = orders.post("/orders", &paid_by("deferring", "tok_ok")).await;
    assert_eq!(
        (placed.status.as_u16(), &placed.body["status"]),
        (201, &json!("awaiting_payment")),
        "{placed:?}"
    );
    let id = placed.order_id();
    assert_eq!(queries.order_after(&id, placed.header("log-position")).await["delivery"]["status"], "none");
    assert_eq!(pay(&orders, &id, "tok_ok").await, (503, "payment_unavailable".into()));
    services.start("payment", &[]).await;
    assert_eq!(pay(&orders, &id, "tok_ok").await, (200, "paid".into()));
    queries.until_status(&id, "out_for_delivery").await;
    provider.set_down(true);
    let placed = orders.post("/orders", &paid_by("deferring", "tok_ok")).await;
    assert_eq!((placed.status.as_u16(), &placed.body["status"]), (201, &json!("awaiting_payment")));
    provider.set_down(false);
    let second = placed.order_id();
    queries.order_after(&second, placed.header("log-position")).await;
    let settled = |row: &Value| row["payment"]["status"] == "declined";
    queries.until(&second, "offered again", settled).await;
    assert_eq!(pay(&orders, &second, "tok_ok").await, (200, "paid".into()));
    assert_eq!(provider.held().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a004_9_a_payment_slower_than_its_timeout_fails_fast_once_the_breaker_is_open_and_no_order_exists() {
    let provider = PaymentProvider::start().await;
    let breaker = ["--breaker-calls", "4", "--breaker-open-ms", "500"];
    let timeouts = ["--payment-url", provider.url(), "--provider-timeout-ms", "200"];
    let platform = Platform::up_with(&[&breaker[..], &timeouts].concat()).await;
    let client = &platform.client;
    for _ in 0..4 {
        assert_eq!(client.post("/orders", &paid_by("marketplace", "tok_late:2000")).await.status, 503);
    }
    let state = r#"twelve_breaker_state{call="payment"}"#;
    assert_eq!(client.metric(state).await, Some(2.0), "open");
    let calls = provider.calls();
    for _ in 0..20 {
        assert_eq!(client.post("/orders", &paid_by("marketplace", "tok_ok")).await.status, 503);
    }
    assert!(provider.calls() < calls + 20, "the open breaker spares the provider");
    let recovering = async {
        while client.metric(state).await != Some(0.0) {
            client.post("/orders", &paid_by("marketplace", "tok_ok")).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(twelve_tests::LIMIT, recovering).await.expect("it closes by itself");
    client.place(&paid_by("marketplace", "tok_ok")).await;
}

async fn until(mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(twelve_tests::LIMIT, waiting).await.expect("within the limit");
}
