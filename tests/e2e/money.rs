//! What a payment provider may do wrong, what callers may do with it, and what must hold all the same.

use std::time::Duration;

use domain::{Event, OrderId};
use ledger::{Ledger, LedgerError, book};
use nats::topology::Topology;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use twelve_tests::{
    LIMIT, Platform, binary,
    client::{Answer, order},
    flows::{changed, folder},
    history,
    log::{event, requested},
    node::Node,
    partitions,
    payments::{Entry, Fault, PaymentProvider},
    postgres::Postgres,
};

fn paid_by(token: &str) -> Value {
    let mut body = order("buyer");
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

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, waiting).await.is_ok(), "{what}");
}

async fn up(provider: &PaymentProvider, more: &[&str]) -> Platform {
    let arguments = ["--payment-url", provider.url(), "--retry-pause-max-ms", "200"];
    Platform::up_with(&[&arguments[..], more].concat()).await
}

async fn pay(platform: &Platform, id: &str, token: &str) -> (u16, String) {
    let path = format!("/orders/{id}/payment");
    let paid = platform.client.post(&path, &json!({ "method": "card", "token": token })).await;
    (paid.status.as_u16(), paid.body["status"].as_str().unwrap_or_else(|| paid.code()).to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_the_provider_refuses_is_declined_and_stops_nobody_elses_payment() {
    let provider = PaymentProvider::start().await;
    let platform = up(&provider, &["--breaker-calls", "4", "--breaker-open-ms", "600000"]).await;
    let client = &platform.client;
    for status in [400, 403, 404, 422, 400, 451] {
        let refused = client.post("/orders", &paid_by(&format!("tok_status:{status}"))).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (402, "payment_declined"), "{refused:?}");
    }
    let state = r#"twelve_breaker_state{call="payment"}"#;
    assert_eq!(client.metric(state).await, Some(0.0), "closed");
    client.place(&paid_by("tok_ok")).await;
    assert_eq!(provider.held().len(), 1, "and all that was refused is closed");
    for status in [408, 425, 500, 503] {
        let down = client.post("/orders", &paid_by(&format!("tok_status:{status}"))).await;
        assert_eq!((down.status.as_u16(), down.code()), (503, "payment_unavailable"), "{down:?}");
    }
    assert_eq!(client.metric(state).await, Some(2.0), "these say something of the provider");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_says_when_to_come_back_is_not_called_before() {
    let provider = PaymentProvider::start().await;
    let platform = up(&provider, &["--breaker-calls", "10000"]).await;
    provider.set_fault(Some(Fault { status: 429, retry_after: Some(4) }));
    assert_eq!(platform.client.post("/orders", &paid_by("tok_ok")).await.status, 503);
    let (calls, began) = (provider.calls(), tokio::time::Instant::now());
    provider.set_fault(None);
    for _ in 0..3 {
        assert_eq!(platform.client.post("/orders", &paid_by("tok_ok")).await.status, 503);
    }
    if began.elapsed() < Duration::from_secs(3) {
        assert_eq!(provider.calls(), calls, "it is left alone");
    }
    until("called again", async || platform.client.post("/orders", &paid_by("tok_ok")).await.status == 201)
        .await;
    assert!(began.elapsed() > Duration::from_secs(3), "not before");
}

#[tokio::test(flavor = "multi_thread")]
async fn money_that_comes_back_is_all_that_was_taken_or_none_of_it_is_booked() {
    let provider = PaymentProvider::start().await;
    let platform = up(&provider, &["--breaker-calls", "10000"]).await;
    let client = &platform.client;
    for told in [-5, 9_000_001, 1_000_000_000_000_000] {
        let id = client.place(&paid_by("tok_ok")).await;
        provider.say_returned(Some(told));
        let calls = provider.calls();
        client.post(&format!("/orders/{id}/cancel"), &json!({})).await;
        until("parked", async || client.event_types(&id).await.ends_with(&["SagaParked".into()])).await;
        assert_eq!(provider.calls(), calls + 3, "it is asked so often, and then an operator");
        let events = client.get(&format!("/orders/{id}/events")).await.body.to_string();
        assert!(events.contains("amount_mismatch") && !events.contains("PaymentCanceled"), "{events}");
        provider.say_returned(None);
        assert_eq!(client.post(&format!("/sagas/{id}/resume"), &json!({})).await.status, 200);
        let row = client.until_status(&id, "canceled").await;
        assert_eq!(row["payment"]["returned"]["amount"], 9_000_000);
    }
    let id = client.place(&paid_by("tok_ok")).await;
    provider.say_returned(Some(5));
    client.post(&format!("/orders/{id}/cancel"), &json!({})).await;
    until("parked", async || client.event_types(&id).await.ends_with(&["SagaParked".into()])).await;
    let events = client.get(&format!("/orders/{id}/events")).await;
    assert!(events.body.to_string().contains("refund_incomplete"), "{events:?}");
    provider.say_returned(None);
    assert_eq!(client.post(&format!("/sagas/{id}/resume"), &json!({})).await.status, 200);
    let row = client.until_status(&id, "canceled").await;
    assert_eq!(row["payment"]["returned"]["amount"], 9_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_providers_text_is_stored_without_control_characters() {
    let provider = PaymentProvider::start().await;
    provider.call_charges(&format!("pay\0\u{1b}[31m{}", "x".repeat(1_000)));
    let platform = up(&provider, &[]).await;
    let placed = platform.client.post("/orders", &paid_by("tok_ok")).await;
    let row = platform.client.order_after(&placed.order_id(), placed.header("log-position")).await;
    let reference = row["payment"]["reference"].as_str().expect("a reference");
    assert!(reference.starts_with("pay\u{fffd}\u{fffd}[31m"), "{reference}");
    assert_eq!(reference.chars().count(), 500);
}

/// An approval from before providers' texts were checked, in a ledger at this URL.
async fn is_booked_in_spite_of_a_nul(url: &str) {
    let node = Node::new(partitions(), &[]).await;
    let id = OrderId::from_key("test", "nul");
    let position = node.log.append(id, 0, &requested(id, "pay")).await.expect("appended").into_stored();
    let approved = json!({ "amount": { "amount": 9_000, "currency": "KRW" }, "reference": "pay\u{0}1" });
    let approved = Event::deserialize_data("PaymentApproved", approved).expect("reads").expect("known");
    let at = position.recorded.position.sequence;
    node.log.append(id, at, &event(id, "approve", approved)).await.expect("appended");
    let (ledger, stop) = (Ledger::open(url).await.expect("the ledger"), CancellationToken::new());
    let keeping = {
        let (log, ledger, stop) = (node.log.clone(), ledger.clone(), stop.clone());
        tokio::spawn(async move { ledger::follow::follow(&log, &ledger, &stop, &|| {}).await })
    };
    until("booked", async || {
        let balances = ledger.balances().await.expect("balances");
        balances.iter().any(|balance| balance.account == book::PROVIDER && balance.amount == 9_000)
    })
    .await;
    stop.cancel();
    let kept: Result<(), LedgerError> = keeping.await.expect("no panic");
    kept.expect("it goes on");
    let report = ledger::reconcile::reconcile(&node.log, &ledger, |_| {}, |_, _| {}).await.expect("compared");
    assert_eq!((report.differences, report.behind), (0, 0), "{:?}", report.first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_with_a_nul_stops_no_ledger() {
    let folder = tempfile::tempdir().expect("a folder");
    is_booked_in_spite_of_a_nul(&format!("sqlite:{}", folder.path().join("ledger.db").display())).await;
    let Some(postgres) = Postgres::start().await else { return };
    is_booked_in_spite_of_a_nul(&postgres.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_to_pay_come_to_an_end_and_the_order_can_be_canceled() {
    let once_more = ("when = \"second_step\"", "when = \"second_step\"\nattempts_max = 2\n#");
    let flows = folder(&[("appliance", changed("appliance", &[once_more]))]);
    let platform = Platform::up_with(&["--flows", &flows.path().display().to_string()]).await;
    let id = platform.client.place(&fridge()).await;
    for _ in 0..2 {
        assert_eq!(pay(&platform, &id, "tok_declined").await, (402, "payment_declined".into()));
    }
    let events = platform.client.event_types(&id).await;
    assert_eq!(pay(&platform, &id, "tok_ok").await, (409, "payment_attempts_exhausted".into()));
    assert_eq!(platform.client.event_types(&id).await, events, "it left nothing");
    platform.client.post(&format!("/orders/{id}/cancel"), &json!({})).await;
    platform.client.until_status(&id, "canceled").await;
}

/// Appends so many pairs of events that change nothing, as an operator's script might.
async fn lengthen(platform: &Platform, id: &str, pairs: u64) {
    let client = async_nats::connect(platform.server.url()).await.expect("a server");
    let order_id: OrderId = id.parse().expect("an id");
    let subject = nats::subject::order(order_id.partition(partitions()), order_id);
    let parked = json!({ "step": "s", "code": "c", "detail": "d" }).to_string();
    // All of a batch are stored, or none, with one sync.
    for batch in 0..pairs.div_ceil(400) {
        let count = 2 * (pairs - 400 * batch).min(400);
        for number in 1..=count {
            let (kind, body) =
                if number % 2 == 1 { ("SagaParked", parked.as_str()) } else { ("SagaResumed", "{}") };
            let mut headers = async_nats::HeaderMap::new();
            for (name, value) in [
                ("Event-Type", kind.to_owned()),
                ("Context", "saga".to_owned()),
                ("Event-Id", uuid::Uuid::new_v4().to_string()),
                ("Command-Id", uuid::Uuid::new_v4().to_string()),
                ("Schema-Version", "1".to_owned()),
                ("Time", nats::now().to_string()),
                ("Nats-Batch-Id", format!("{id}-{batch}")),
                ("Nats-Batch-Sequence", number.to_string()),
            ] {
                headers.insert(name, value);
            }
            if number < count {
                client
                    .publish_with_headers(subject.clone(), headers, body.to_owned().into())
                    .await
                    .expect("sent");
                continue;
            }
            headers.insert("Nats-Batch-Commit", "1");
            let stored = client.request_with_headers(subject.clone(), headers, body.to_owned().into()).await;
            let stored = String::from_utf8_lossy(&stored.expect("an answer").payload).into_owned();
            assert!(!stored.contains("error"), "{stored}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_has_too_many_events_can_be_canceled_and_nothing_else() {
    let platform = Platform::up().await;
    let id = platform.client.place(&fridge()).await;
    lengthen(&platform, &id, 500).await;
    assert_eq!(pay(&platform, &id, "tok_ok").await, (409, "order_too_long".into()));
    platform.client.post(&format!("/orders/{id}/cancel"), &json!({})).await;
    platform.client.until_status(&id, "canceled").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_cannot_be_read_any_more_is_parked_once_and_says_so() {
    let platform = Platform::up().await;
    let id = platform.client.place(&fridge()).await;
    lengthen(&platform, &id, 5_600).await;
    let log = history::log(&platform.server, partitions()).await;
    let order_id: OrderId = id.parse().expect("an id");
    let newest = async || log.newest_event(order_id).await.expect("read").expect("an event").recorded;
    until("parked", async || newest().await.event.type_name() == "SagaParked").await;
    let parked = newest().await;
    assert_eq!(pay(&platform, &id, "tok_ok").await, (409, "order_too_long".into()));
    // Its saga looks at whatever comes, and the views take their time with a row of so many events.
    let other = platform.client.post("/orders", &order("buyer")).await.order_id().parse().expect("an id");
    until("another order goes its way", async || {
        let story = log.load(other, 0).await.expect("read");
        story.iter().any(|stored| stored.recorded.event.type_name() == "DeliveryStarted")
    })
    .await;
    assert_eq!(newest().await.position, parked.position, "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_holds_only_for_the_order_that_its_caller_saw() {
    let provider = PaymentProvider::start().await;
    let platform = up(&provider, &[]).await;
    let client = &platform.client;
    let id = client.place(&fridge()).await;
    let etag = client.get(&format!("/orders/{id}")).await.header("etag").to_owned();
    assert_eq!(pay(&platform, &id, "tok_poor").await.0, 402);
    let path = format!("/orders/{id}/payment");
    let means = json!({ "method": "card", "token": "tok_ok" });
    let stale = client.post_with(&path, &means, &[("If-Match", &etag)]).await;
    assert_eq!((stale.status.as_u16(), stale.code()), (412, "stale"), "{stale:?}");
    assert_eq!((provider.arrived(), provider.held().len()), (1, 0), "the provider heard nothing of it");
    let declined = |row: &Value| row["payment"]["status"] == "declined";
    client.until(&id, "declined", declined).await;
    let etag = client.get(&format!("/orders/{id}")).await.header("etag").to_owned();
    let paid = client.post_with(&path, &means, &[("If-Match", &etag)]).await;
    assert_eq!(paid.status, 200, "{paid:?}");
    assert_eq!(provider.entry(&id, 2), Some(Entry::Charged(9_000_000)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_worth_nothing_asks_no_card_and_goes_its_way() {
    let provider = PaymentProvider::start().await;
    let platform = up(&provider, &[]).await;
    for (mut body, goes) in [(paid_by("tok_poor"), "out_for_delivery"), (fridge(), "placed")] {
        body["lines"][0]["unit_price"] = json!(0);
        let id = platform.client.place(&body).await;
        platform.client.until_status(&id, goes).await;
        platform.client.post(&format!("/orders/{id}/cancel"), &json!({})).await;
        platform.client.until_status(&id, "canceled").await;
        assert!(!platform.client.event_types(&id).await.iter().any(|name| name.starts_with("Payment")));
    }
    assert_eq!(provider.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_money_that_people_pay_with_is_taken() {
    let platform = Platform::up().await;
    for code in ["ZZZ", &"X".repeat(3), "XTS", "XAU", "DEM"] {
        let mut body = order("buyer");
        body["currency"] = json!(code);
        let refused = platform.client.post("/orders", &body).await;
        assert_eq!((refused.status.as_u16(), refused.pointers()), (422, vec!["/currency"]), "{code}");
    }
    let mut body = order("buyer");
    body["currency"] = json!("XPF");
    platform.client.place(&body).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sent_no_key_is_not_told_that_the_same_key_is_safe() {
    let platform = Platform::up().await;
    let detail = |answer: &Answer| answer.body["detail"].as_str().unwrap_or_default().to_owned();
    let without = platform.client.post("/orders", &paid_by("tok_down")).await;
    assert_eq!(without.code(), "payment_unavailable");
    assert!(!detail(&without).contains("same Idempotency-Key"), "{without:?}");
    let with = platform.client.post_with_key("/orders", "k", &paid_by("tok_down")).await;
    assert!(detail(&with).contains("the same call with the same Idempotency-Key is safe"), "{with:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_payments_leave_room_for_all_other_commands() {
    // However slow the disk is: it is not what is looked at.
    let limits = [
        "--calls-in-progress-each-max",
        "1000",
        "--provider-timeout-ms",
        "20000",
        "--store-goal-ms",
        "60000",
    ];
    let platform = Platform::up_with(&limits).await;
    let client = &platform.client;
    let mut body = order("eater");
    body["flow"] = json!("kitchen");
    body["store_id"] = json!("kimbap-heaven");
    let id = client.place(&body).await;
    client.until(&id, "at the store", |row| row["store"]["status"] == "received").await;
    // More than are admitted at a time; in waves, as what counts is how many are with the log at once.
    let slow = paid_by("tok_slow:18000");
    let mut paying = tokio::task::JoinSet::new();
    for wave in 1..=6_u32 {
        for _ in 0..50 {
            let (client, slow) = (client.clone(), slow.clone());
            paying.spawn(async move { client.post("/orders", &slow).await });
        }
        let least = f64::from(50 * wave) - 0.5;
        until("under way", async || client.metric("twelve_calls_out ").await.is_some_and(|out| out > least))
            .await;
    }
    let accepted = client.post(&format!("/orders/{id}/store/accept"), &json!({})).await;
    assert_eq!(accepted.status, 200, "{accepted:?}");
    let quick = client.post("/orders", &order("gentleman")).await;
    assert_eq!(quick.status, 201, "{quick:?}");
    let paid = paying.join_all().await;
    let refused: Vec<&str> = paid.iter().filter(|paid| paid.status != 201).map(Answer::code).collect();
    assert_eq!(refused, Vec::<&str>::new());
    until("none is out", async || client.metric("twelve_calls_out ").await == Some(0.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_nearly_full_charges_no_card_and_lets_what_was_begun_be_undone() {
    let provider = PaymentProvider::start().await;
    let platform = up(&provider, &["--partitions", "1", "--partition-bytes-max", "2097152"]).await;
    let client = &platform.client;
    let placed = client.post_with_key("/orders", "begun", &paid_by("tok_ok")).await;
    let begun = placed.order_id();
    let unpaid = client.place(&fridge()).await;
    let (paid, means) = (client.place(&fridge()).await, json!({ "method": "card", "token": "tok_ok" }));
    let payment = format!("/orders/{paid}/payment");
    assert_eq!(client.post_with_key(&payment, "paid", &means).await.status, 200);
    // Opened like any other, it would be enlarged.
    let topology = Topology { partitions: 1, partition_bytes_max: 2_097_152, ..Topology::default() };
    let log = history::log_like(&platform.server, topology).await;
    // Two megabytes less five per cent.
    let (other, mut at) = (OrderId::from_key("test", "large"), 0);
    for number in 0..20 {
        let mut request = requested(other, &format!("pay {number}"));
        if let Event::Payment(domain::event::PaymentEvent::PaymentRequested(request)) = &mut request.event {
            request.method = "x".repeat(100_000);
        }
        at =
            log.append(other, at, &request).await.expect("appended").into_stored().recorded.position.sequence;
    }
    until("nearly full", async || {
        client
            .get("/readyz")
            .await
            .body
            .to_string()
            .contains("new orders and payments are refused: partitions [0]")
    })
    .await;
    let arrived = provider.arrived();
    let refused = client.post("/orders", &paid_by("tok_ok")).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (503, "log_nearly_full"), "{refused:?}");
    assert_eq!(pay(&platform, &unpaid, "tok_ok").await, (503, "log_nearly_full".into()));
    // What was acknowledged is not new, and its repeat gets the first answer.
    let again = client.post_with_key("/orders", "begun", &paid_by("tok_ok")).await;
    assert_eq!((again.status.as_u16(), again.order_id()), (201, begun.clone()), "{again:?}");
    let again = client.post_with_key(&payment, "paid", &means).await;
    assert_eq!((again.status.as_u16(), &again.body["status"]), (200, &json!("paid")), "{again:?}");
    assert_eq!(provider.arrived(), arrived, "no card was asked");
    for id in [&begun, &unpaid, &paid] {
        client.post(&format!("/orders/{id}/cancel"), &json!({})).await;
        client.until_status(id, "canceled").await;
    }
    assert_eq!(provider.held(), Vec::<String>::new());
    let bytes = client.metric(r#"twelve_partition_bytes{partition="0"}"#).await;
    assert!(bytes.is_some_and(|bytes| bytes > 1_990_000.0), "{bytes:?}");
    let doctor =
        ["doctor", "--nats", platform.server.url(), "--partitions", "1", "--partition-bytes-max", "2097152"];
    let said = tokio::process::Command::new(binary("twelve")).args(doctor).output().await.expect("it runs");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("BAD   room of ORDERS-0") && said.contains("new orders"), "{said}");
}
