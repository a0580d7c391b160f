//! The payments in SQL: booked twice, once each, with the checkpoint; and proven against the log.

use std::process::Output;

use ledger::{
    Ledger, book,
    store::{Balance, Step},
};
use serde_json::json;
use sqlx::{AnyPool, any::AnyPoolOptions};
use tokio_util::sync::CancellationToken;
use twelve_tests::{Client, LIMIT, Platform, client::order, history, node::Node, postgres::Postgres};

/// Seven orders that are paid, two that are declined, one that is canceled and paid back.
async fn some_orders(client: &Client) {
    let mut body = order("gentleman");
    for number in 0..9 {
        body["payment"]["token"] = json!(if number < 7 { "tok_ok" } else { "tok_declined" });
        client.post("/orders", &body).await;
    }
    body["payment"]["token"] = json!("tok_ok");
    body["flow"] = json!("kitchen");
    body["store_id"] = json!("kimbap-heaven");
    let id = client.place(&body).await;
    client.until(&id, "at the store", |row| row["store"]["status"] == "received").await;
    assert!(client.post(&format!("/orders/{id}/cancel"), &json!({})).await.status.is_success());
    client.until_status(&id, "canceled").await;
}

async fn twelve_ledger(platform: &Platform, arguments: &[&str]) -> (bool, String) {
    let mut command = tokio::process::Command::new(twelve_tests::binary("twelve"));
    command.arg("ledger").args(arguments).args(["--nats", platform.server.url()]).kill_on_drop(true);
    let run = tokio::time::timeout(LIMIT, command.output()).await;
    let Output { status, stdout, stderr } = run.expect("in time").expect("it runs");
    (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

async fn sql(url: &str) -> AnyPool {
    sqlx::any::install_default_drivers();
    AnyPoolOptions::new().max_connections(1).connect(url).await.expect("the database")
}

/// Waits until this much is held by the provider.
async fn until_held(ledger: &Ledger, amount: i64) -> Vec<Balance> {
    let looking = async {
        loop {
            let balances = ledger.balances().await.expect("balances");
            if balances.iter().any(|balance| balance.account == book::PROVIDER && balance.amount == amount) {
                return balances;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    if let Ok(balances) = tokio::time::timeout(LIMIT, looking).await {
        return balances;
    }
    panic!("{amount} is not held; there is {:?}", ledger.balances().await)
}

/// What is true of a ledger of a platform that keeps it at this URL.
async fn is_kept_and_proven(url: &str) {
    let platform = Platform::up_with(&["--ledger", url]).await;
    some_orders(&platform.client).await;
    let ledger = Ledger::open(url).await.expect("the ledger");
    let balances = until_held(&ledger, 7 * 9_000_000).await;
    assert_eq!(balances.iter().map(|balance| balance.amount).sum::<i64>(), 0, "booked twice: {balances:?}");
    let (fine, said) = twelve_ledger(&platform, &["verify", "--ledger", url]).await;
    assert!(fine && said.contains("9 bookings; 0 differ") && said.contains("63000000 KRW"), "{said}");

    let books = sql(url).await;
    for (wrong, right, found) in [
        (
            "UPDATE ledger_entries SET amount = amount + 1 WHERE account = 'provider' AND amount > 0",
            "UPDATE ledger_entries SET amount = amount - 1 WHERE account = 'provider' AND amount > 0",
            "booked unbalanced",
        ),
        (
            "UPDATE ledger_bookings SET reference = 'another' WHERE kind = 'PaymentCanceled'",
            "UPDATE ledger_bookings SET reference = NULL WHERE kind = 'PaymentCanceled'",
            "1 differ",
        ),
        (
            "INSERT INTO ledger_bookings VALUES (0, 999999999, 'e', '01a1fed3-ca76-71fc-a016-c73fc2a40a39', 'k', NULL, 't')",
            "DELETE FROM ledger_bookings WHERE event_id = 'e'",
            "has no event",
        ),
    ] {
        sqlx::query(wrong).execute(&books).await.expect("spoilt");
        let (fine, said) = twelve_ledger(&platform, &["verify", "--ledger", url]).await;
        assert!(!fine && said.contains(found), "{wrong}: {said}");
        sqlx::query(right).execute(&books).await.expect("as it was");
    }
    let (fine, said) = twelve_ledger(&platform, &["verify", "--ledger", url]).await;
    assert!(fine, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_are_kept_in_sqlite_booked_twice_and_what_is_spoilt_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    is_kept_and_proven(&format!("sqlite:{}", folder.path().join("ledger.db").display())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_are_kept_in_postgresql_booked_twice_and_what_is_spoilt_is_found() {
    let Some(postgres) = Postgres::start().await else { return };
    is_kept_and_proven(&postgres.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_go_on_while_the_ledgers_database_is_away_and_it_catches_up() {
    let Some(mut postgres) = Postgres::start().await else { return };
    let platform = Platform::up_with(&["--ledger", &postgres.url()]).await;
    platform.client.place(&order("gentleman")).await;
    until_held(&Ledger::open(&postgres.url()).await.expect("the ledger"), 9_000_000).await;
    postgres.kill();
    platform.client.place(&order("gentleman")).await;
    postgres.restart().await;
    until_held(&Ledger::open(&postgres.url()).await.expect("the ledger"), 18_000_000).await;
    let (fine, said) = twelve_ledger(&platform, &["verify", "--ledger", &postgres.url()]).await;
    assert!(fine && said.contains("2 bookings; 0 differ"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_keep_one_ledger_book_nothing_twice_and_one_is_told() {
    let node = Node::new(twelve_tests::partitions(), &[]).await;
    history::append(&node.log, 0..300).await;
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", folder.path().join("ledger.db").display());
    let stop = CancellationToken::new();
    let mut keeping = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let ledger = Ledger::open(&url).await.expect("the ledger");
        let (log, stop) = (node.log.clone(), stop.clone());
        keeping.spawn(async move {
            let mut told = Vec::new();
            // As `twelve ledger follow` does.
            while let Err(error) = ledger::follow::follow(&log, &ledger, &stop, &|| {}).await {
                told.push(error.to_string());
            }
            told
        });
    }
    let ledger = Ledger::open(&url).await.expect("the ledger");
    let infos = ledger::follow::partitions(&node.log).await.expect("the log");
    let all: Vec<u64> = infos.iter().map(|info| info.last_sequence).collect();
    let caught_up = async {
        while ledger.checkpoints(&infos).await.expect("checkpoints") != all {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, caught_up).await.expect("together they come to the end");
    stop.cancel();
    while let Some(ended) = keeping.join_next().await {
        for told in ended.expect("no panic") {
            let is_told =
                told.contains("another process keeps this ledger") || told.contains("database failed");
            assert!(is_told, "{told}");
        }
    }
    let late = Step { partition: 0, from: 0, to: 1, bookings: Vec::new() };
    let refused = ledger.commit(&[late]).await.expect_err("it comes second").to_string();
    assert!(refused.contains("another process keeps this ledger"), "{refused}");
    let report = ledger::reconcile::reconcile(&node.log, &ledger, |_| {}, |_, _| {}).await.expect("proven");
    assert_eq!((report.differences, report.first), (0, Vec::<String>::new()));
    assert!(report.bookings > 100, "{} bookings", report.bookings);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_of_another_log_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", folder.path().join("ledger.db").display());
    let ledger = Ledger::open(&url).await.expect("the ledger");
    let first = Node::new(1, &[]).await;
    ledger.checkpoints(&ledger::follow::partitions(&first.log).await.expect("a log")).await.expect("new");
    let other = Node::new(3, &[]).await;
    let refused = ledger::follow::follow(&other.log, &ledger, &CancellationToken::new(), &|| {}).await;
    assert!(refused.expect_err("refused").to_string().contains("folded from another log"));
    let kept = sqlx::query("SELECT part FROM ledger_checkpoints").fetch_all(&sql(&url).await).await;
    assert_eq!(kept.expect("the checkpoints").len(), 1, "nothing of the other log was noted");
}
