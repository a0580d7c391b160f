//! Where the ledger is: what can never work is refused at the start, what may pass is seen, and readers make nothing.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    time::Instant,
};

use sqlx::any::AnyPoolOptions;
use twelve_tests::{Client, LIMIT, Platform, Server, binary, client::order, free_port, postgres::Postgres};

fn twelve(arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(binary("twelve"));
    let run = command.args(arguments).stdin(Stdio::null()).output().expect("it runs");
    let Output { status, stdout, stderr } = run;
    (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Waits until the ledger's own readiness has this status; answers with what it says.
async fn until_ledger(client: &Client, status: u16) -> String {
    let began = Instant::now();
    loop {
        let ready = client.get("/readyz/ledger").await;
        if ready.status == status {
            return ready.body.to_string();
        }
        assert!(began.elapsed() < LIMIT, "{ready:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_can_never_work_starts_nothing_and_no_password_is_told() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("text");
    std::fs::write(&text, "no database at all, but long enough to be looked at as one".repeat(20))
        .expect("written");
    let mut urls = vec![
        "mysql://shop:secret@127.0.0.1/books".to_owned(),
        "ledger.db".to_owned(),
        format!("sqlite:{}", shown(&folder.path().join("missing/ledger.db"))),
        format!("sqlite:{}", shown(folder.path())),
        format!("sqlite:{}", shown(&text)),
    ];
    let postgres = Postgres::start().await;
    if let Some(postgres) = &postgres {
        let other = postgres.url().replace("twelve@", "twelve:secret@").replace("/postgres", "/nonexistent");
        urls.push(other);
    }
    for url in urls {
        let (listen, data) = (format!("127.0.0.1:{}", free_port()), shown(&folder.path().join("data")));
        let process = ["up", "--listen", &listen, "--data", &data, "--nats", server.url(), "--ledger", &url];
        let (fine, said) = twelve(&process);
        assert!(!fine && said.contains("the ledger at"), "{url}: {said}");
        assert!(!said.contains("secret"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_shows_in_a_readiness_of_its_own_also_when_nothing_is_ordered() {
    let Some(mut postgres) = Postgres::start().await else { return };
    let platform = Platform::up_with(&["--ledger", &postgres.url()]).await;
    let client = &platform.client;
    until_ledger(client, 200).await;
    assert_eq!(client.metric("twelve_ledger_up").await, Some(1.0));
    postgres.kill();
    let why = until_ledger(client, 503).await;
    assert!(why.contains("database failed"), "{why}");
    assert_eq!(client.metric("twelve_ledger_up").await, Some(0.0), "the alert's condition");
    assert_eq!(client.get("/readyz").await.status, 200, "orders go on");
    client.place(&order("gentleman")).await;
    postgres.restart().await;
    until_ledger(client, 200).await;
    assert_eq!(client.metric("twelve_ledger_up").await, Some(1.0));

    postgres.kill();
    let second = Platform::up_with(&["--ledger", &postgres.url()]).await;
    until_ledger(&second.client, 503).await;
    assert_eq!(second.client.get("/readyz").await.status, 200, "it starts without its ledger's database");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_takes_no_booking_is_never_called_ready_however_often_it_is_tried_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", shown(&folder.path().join("ledger.db")));
    ledger::Ledger::open(&url).await.expect("made").close().await;
    sqlx::any::install_default_drivers();
    let pool = AnyPoolOptions::new().max_connections(1).connect(&url).await.expect("the database");
    let trigger =
        "CREATE TRIGGER refuse BEFORE INSERT ON ledger_bookings BEGIN SELECT RAISE(ABORT, 'no'); END";
    sqlx::query(trigger).execute(&pool).await.expect("made");
    let platform = Platform::up_with(&["--ledger", &url]).await;
    let client = &platform.client;
    client.place(&order("gentleman")).await;
    let why = until_ledger(client, 503).await;
    assert!(why.contains("database failed") || why.contains("not been seen"), "{why}");
    // Over more than one try.
    let began = Instant::now();
    while began.elapsed() < std::time::Duration::from_secs(4) {
        let ready = client.get("/readyz/ledger").await;
        assert_eq!(ready.status, 503, "{ready:?}");
    }
    sqlx::query("DROP TRIGGER refuse").execute(&pool).await.expect("done");
    until_ledger(client, 200).await;
    assert_eq!(client.metric("twelve_ledger_up").await, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_a_ledger_make_no_log_no_file_and_no_table() {
    let folder = tempfile::tempdir().expect("a folder");
    let (typo, missing) = (folder.path().join("typo"), folder.path().join("missing.db"));
    let (empty, ledger) = (folder.path().join("empty.db"), folder.path().join("ledger.db"));
    std::fs::write(&empty, "").expect("written");
    for file in [&missing, &empty] {
        let (fine, said) = twelve(&["ledger", "balances", "--ledger", &format!("sqlite:{}", shown(file))]);
        assert!(!fine && said.contains("there is no ledger"), "{said}");
    }
    assert!(!missing.exists(), "no file is made");
    assert_eq!(std::fs::metadata(&empty).expect("a file").len(), 0, "no table is made");

    let url = format!("sqlite:{}", shown(&ledger));
    let platform = Platform::up_with(&["--ledger", &url]).await;
    until_ledger(&platform.client, 200).await;
    let (fine, said) = twelve(&["ledger", "balances", "--ledger", &url]);
    assert!(fine, "a ledger without bookings is one: {said}");
    let (fine, said) = twelve(&["ledger", "verify", "--ledger", &url, "--data", &shown(&typo)]);
    assert!(!fine && said.contains("there is no log in") && said.contains("typo"), "{said}");
    assert!(!typo.exists(), "no log is made");
    let other = Server::start().await;
    let (fine, said) = twelve(&["ledger", "verify", "--ledger", &url, "--nats", other.url()]);
    assert!(!fine && !said.contains("0 differ"), "a server without the log: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_read_a_ledger_reads_its_balances() {
    let Some(postgres) = Postgres::start().await else { return };
    let platform = Platform::up_with(&["--ledger", &postgres.url()]).await;
    platform.client.place(&order("gentleman")).await;
    sqlx::any::install_default_drivers();
    let pool = AnyPoolOptions::new().max_connections(1).connect(&postgres.url()).await.expect("the database");
    for statement in [
        "CREATE ROLE reader LOGIN",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader",
    ] {
        sqlx::query(statement).execute(&pool).await.expect(statement);
    }
    let reader = postgres.url().replace("twelve@", "reader@");
    let began = Instant::now();
    loop {
        let (fine, said) = twelve(&["ledger", "balances", "--ledger", &reader]);
        assert!(fine, "{said}");
        if said.contains("9000000 KRW") {
            break;
        }
        assert!(began.elapsed() < LIMIT, "{said}");
    }
    let nats = platform.server.url();
    let (fine, said) = twelve(&["ledger", "verify", "--ledger", &reader, "--nats", nats]);
    assert!(fine && said.contains("0 differ"), "{said}");
}
