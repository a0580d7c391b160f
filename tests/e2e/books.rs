//! The ledger beside the payment provider's own books, when answers are lost and money goes back that the log never
//! called paid.

use std::time::Duration;

use futures::future::join_all;
use ledger::{Ledger, book};
use serde_json::{Value, json};
use tempfile::TempDir;
use twelve_tests::{
    LIMIT, Platform, binary,
    client::order,
    flows::{changed, folder},
    history, partitions,
    payments::{Entry, PaymentProvider},
};

/// Shipped flows in which a payment without an answer is settled after a second.
fn quick() -> TempDir {
    folder(&[
        ("marketplace", changed("marketplace", &[("settle_within_s = 30", "settle_within_s = 1")])),
        (
            "appliance",
            changed(
                "appliance",
                &[(r#"when = "second_step""#, "when = \"second_step\"\nsettle_within_s = 1\n#")],
            ),
        ),
    ])
}

fn fridge() -> Value {
    let mut body = order("buyer");
    body["flow"] = json!("appliance");
    body["store_id"] = json!("electro-land");
    body.as_object_mut().expect("a body").remove("payment");
    body
}

async fn twelve(arguments: &[&str]) -> (bool, String) {
    let mut command = tokio::process::Command::new(binary("twelve"));
    let run = tokio::time::timeout(LIMIT, command.args(arguments).kill_on_drop(true).output()).await;
    let output = run.expect("in time").expect("it runs");
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, waiting).await.is_ok(), "{what}");
}

/// A platform with such a provider and a ledger, and where that is.
async fn up(provider: &PaymentProvider, flows: &TempDir, ledger: &str) -> Platform {
    let flows = flows.path().display().to_string();
    let arguments = ["--payment-url", provider.url(), "--provider-timeout-ms", "300", "--flows", &flows];
    Platform::up_with(&[&arguments[..], &["--breaker-calls", "10000", "--ledger", ledger]].concat()).await
}

/// Waits until the ledger has been told of all that the log has.
async fn until_booked(ledger: &Ledger, log: &nats::EventLog) {
    until("the ledger is up with the log", async || {
        let infos = ledger::follow::partitions(log).await.expect("the log");
        let all: Vec<u64> = infos.iter().map(|info| info.last_sequence).collect();
        ledger.checkpoints(&infos).await.expect("checkpoints") == all
    })
    .await;
}

async fn execute(url: String, statement: String) {
    sqlx::any::install_default_drivers();
    let pool = sqlx::any::AnyPoolOptions::new().max_connections(1).connect(&url).await.expect("the database");
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&pool).await.expect("done");
}

async fn held(ledger: &Ledger) -> i64 {
    let balances = ledger.balances().await.expect("balances");
    balances.iter().filter(|balance| balance.account == book::PROVIDER).map(|balance| balance.amount).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_holds_what_the_provider_holds_whatever_became_of_the_answers() {
    let (provider, flows, data) =
        (PaymentProvider::start().await, quick(), tempfile::tempdir().expect("a folder"));
    let url = format!("sqlite:{}", data.path().join("ledger.db").display());
    let platform = up(&provider, &flows, &url).await;
    let client = &platform.client;

    // Paid and canceled at once: the cancel may come before the provider's answer, or after it.
    let at_once = join_all((0..12).map(async |number: u64| {
        let id = client.place(&fridge()).await;
        let path = format!("/orders/{id}/payment");
        let means = json!({ "method": "card", "token": format!("tok_late:{}", 20 + 10 * (number % 4)) });
        let pays = client.post(&path, &means);
        let cancels = async {
            tokio::time::sleep(Duration::from_millis(10 * (number % 5))).await;
            client.post(&format!("/orders/{id}/cancel"), &json!({})).await
        };
        tokio::join!(pays, cancels);
        id
    }))
    .await;
    // Taken, and the answer lost, late or of no use; and nobody calls again.
    let lost = join_all(["tok_lost", "tok_error", "tok_garbage", "tok_late:900"].map(async |token| {
        let mut body = order("buyer");
        body["payment"]["token"] = json!(token);
        let placed = client.post_with_key("/orders", token, &body).await;
        assert_eq!((placed.status.as_u16(), placed.code()), (503, "payment_unavailable"), "{token}");
        domain::OrderId::from_key("anonymous", token).to_string()
    }))
    .await;
    let paid = client.place(&order("buyer")).await;
    for id in &at_once {
        client.until_status(id, "canceled").await;
    }
    for id in &lost {
        until("closed", async || matches!(provider.entry(id, 1), Some(Entry::Closed(_)))).await;
    }
    assert_eq!(provider.held(), [format!("{paid}.1")], "all but one is back");
    assert!(
        at_once.iter().any(|id| provider.entry(id, 1) == Some(Entry::Closed(9_000_000))),
        "some of it had been taken"
    );

    let log = history::log(&platform.server, partitions()).await;
    let expired = async |id: &String| client.event_types(id).await.ends_with(&["PaymentCanceled".into()]);
    for id in &lost {
        until("canceled in the log", async || expired(id).await).await;
    }
    let books = Ledger::open(&url).await.expect("the ledger");
    until_booked(&books, &log).await;
    assert_eq!(held(&books).await, provider.balance(), "the ledger holds what the provider holds");
    let verify = ["ledger", "verify", "--ledger", &url, "--nats", platform.server.url()];
    let asking = ["--ask-provider", "--payment-url", provider.url()];
    let (fine, said) = twelve(&[&verify[..], &asking[..]].concat()).await;
    assert!(fine && said.contains("; 0 differ"), "{said}");
    assert!(said.contains("; 0 have no outcome yet"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_booking_that_the_old_rule_made_is_found_and_so_is_what_the_provider_knows_better() {
    let (provider, flows, data) =
        (PaymentProvider::start().await, quick(), tempfile::tempdir().expect("a folder"));
    let url = format!("sqlite:{}", data.path().join("ledger.db").display());
    let platform = up(&provider, &flows, &url).await;
    let client = &platform.client;
    let kept = client.place(&order("buyer")).await;
    let back = client.place(&order("buyer")).await;
    client.post(&format!("/orders/{back}/cancel"), &json!({})).await;
    client.until_status(&back, "canceled").await;
    let mut body = order("buyer");
    body["payment"]["token"] = json!("tok_error");
    client.post_with_key("/orders", "unseen", &body).await;
    let unseen = domain::OrderId::from_key("anonymous", "unseen").to_string();
    until("canceled in the log", async || {
        client.event_types(&unseen).await.ends_with(&["PaymentCanceled".into()])
    })
    .await;
    let log = history::log(&platform.server, partitions()).await;
    let books = Ledger::open(&url).await.expect("the ledger");
    until_booked(&books, &log).await;
    let verify = ["ledger", "verify", "--ledger", &url, "--nats", platform.server.url()];
    let (fine, said) = twelve(&verify).await;
    assert!(fine && said.contains("3 bookings; 0 differ"), "{said}");

    // The return of a charge that the log never called paid, as each return was booked once.
    let events = client.get(&format!("/orders/{unseen}/events")).await;
    let canceled = events.body["items"].as_array().and_then(|items| items.last()).expect("an event").clone();
    let position = canceled["position"].as_str().expect("a position").to_owned();
    let (part, sequence) = position.split_once(':').expect("a partition and a sequence");
    let (event_id, time) =
        (canceled["event_id"].as_str().expect("an id"), canceled["time"].as_str().expect("a time"));
    let sql = |statement: String| execute(url.clone(), statement);
    sql(format!(
        "INSERT INTO ledger_bookings VALUES ({part}, {sequence}, '{event_id}', '{unseen}', 'PaymentCanceled', NULL, '{time}')"
    ))
    .await;
    for (account, amount) in [("orders", 9_000_000), ("provider", -9_000_000)] {
        sql(format!("INSERT INTO ledger_entries VALUES ({part}, {sequence}, '{account}', 'KRW', {amount})"))
            .await;
    }
    let (fine, said) = twelve(&verify).await;
    assert!(!fine && said.contains(&format!("order {unseen}: more is booked as given back")), "{said}");
    sql(format!("DELETE FROM ledger_entries WHERE part = {part} AND sequence = {sequence}")).await;
    sql(format!("DELETE FROM ledger_bookings WHERE part = {part} AND sequence = {sequence}")).await;

    // Booked twice as it should be, balanced, and too little.
    let of = |id: &str, kind: &str| {
        format!("(SELECT sequence FROM ledger_bookings WHERE order_id = '{id}' AND kind = '{kind}')")
    };
    let returned = of(&back, "PaymentCanceled");
    sql(format!("UPDATE ledger_entries SET amount = amount / 2 WHERE sequence IN {returned}")).await;
    let (fine, said) = twelve(&verify).await;
    assert!(!fine && said.contains(&format!("order {back}: the ledger holds 4500000 KRW")), "{said}");
    sql(format!("UPDATE ledger_entries SET amount = amount * 2 WHERE sequence IN {returned}")).await;
    let (fine, said) = twelve(&verify).await;
    assert!(fine, "{said}");

    // The provider gave back what the log calls paid: only asking it can tell.
    provider.close_behind_our_back(&format!("{kept}.1"));
    assert!(twelve(&verify).await.0, "the log and the ledger agree");
    let (fine, said) =
        twelve(&[&verify[..], &["--ask-provider", "--payment-url", provider.url()]].concat()).await;
    assert!(!fine && said.contains(&format!("{kept}.1: the provider holds nothing")), "{said}");
}
