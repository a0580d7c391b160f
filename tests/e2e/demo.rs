//! `twelve demo` and `twelve orders`: a newcomer's first minutes with a running platform.

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use twelve_tests::{
    Client, Platform, Process, binary,
    client::order,
    free_port,
    issuer::{Issuer, Key},
};

/// Runs `twelve` with these arguments against this platform.
fn twelve(client: &Client, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("twelve"));
    command.args(arguments).args(["--url", client.url()]).stdin(Stdio::null()).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What it printed; it must have ended well.
fn said(client: &Client, arguments: &[&str]) -> String {
    let output = twelve(client, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// What it refused with.
fn refused(client: &Client, arguments: &[&str]) -> String {
    let output = twelve(client, arguments);
    assert!(!output.status.success(), "{arguments:?}: {}", text(&output.stdout));
    text(&output.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_day_gives_every_page_and_every_query_something_to_show() {
    let platform = Platform::up().await;
    let client = &platform.client;
    let told = said(client, &["demo", "--orders", "60"]);
    assert!(told.contains("60 orders were placed") && told.contains("/console"), "{told}");
    let all = client.get("/orders?limit=200").await.body["items"].as_array().cloned().unwrap_or_default();
    assert_eq!(all.len(), 56, "four cards were declined, and those are no orders");
    let has = |field: &str, value: &str| all.iter().any(|order| order[field] == value);
    for flow in ["marketplace", "appliance", "rental", "food", "kitchen"] {
        assert!(has("flow", flow), "no order of {flow}");
    }
    for status in
        ["paid", "awaiting_payment", "preparing", "prepared", "out_for_delivery", "delivered", "rejected"]
    {
        assert!(has("status", status), "no order is {status}: {told}");
    }
    // What it says to look at, and the rest of what is listed.
    let lines = told.lines().filter_map(|line| line.split_once("curl '")?.1.strip_suffix('\''));
    let told: Vec<&str> = lines.filter_map(|url| url.strip_prefix(client.url())).collect();
    assert!(told.len() >= 10, "{told:?}");
    for path in told.into_iter().chain(["/coupons", "/payments", "/deliveries", "/views", "/flows"]) {
        shows_something(client, path).await;
    }
    let parked = client.get("/sagas?parked=true").await.body["items"][0].clone();
    let resumed = client
        .post(&format!("/sagas/{}/resume", parked["order_id"].as_str().expect("an id")), &json!({}))
        .await;
    assert!(resumed.status.is_success(), "{resumed:?}");
    client.until_status(parked["order_id"].as_str().expect("an id"), "canceled").await;
    let canceled = all.iter().filter(|order| order["status"] == "canceled").count();
    assert!(canceled >= 2, "some are canceled");
    let again = said(client, &["demo", "--orders", "30"]);
    assert!(again.contains("30 orders were placed"), "a second day is another day: {again}");
}

/// Waits until a list has an item: the saga may have a step to do before.
async fn shows_something(client: &Client, path: &str) {
    let began = std::time::Instant::now();
    loop {
        let shown = client.get(path).await.body;
        if shown["items"].as_array().is_some_and(|items| !items.is_empty()) {
            return;
        }
        assert!(began.elapsed() < twelve_tests::LIMIT, "{path} shows nothing: {shown}");
        tokio::time::sleep(twelve_tests::client::LOOK_PAUSE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_listed_shown_followed_and_canceled_on_the_command_line() {
    let platform = Platform::up().await;
    let client = &platform.client;
    let empty = said(client, &["orders", "list"]);
    assert!(empty.contains("twelve demo"), "what to do next: {empty}");
    let ids = [client.place(&order("gentleman")).await, client.place(&order("lady")).await];
    client.until_status(&ids[1], "out_for_delivery").await;

    let listed = said(client, &["orders", "list"]);
    assert!(ids.iter().all(|id| listed.contains(id)) && listed.contains("홍길동"), "{listed}");
    let own = said(client, &["orders", "list", "--customer", "lady", "--json"]);
    let own: Vec<Value> = own.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(own.len() == 1 && own[0]["order_id"] == *ids[1], "{own:?}");
    let one = said(client, &["orders", "list", "--limit", "1"]);
    assert!(one.contains(&ids[1]) && !one.contains(&ids[0]) && one.contains("--limit"), "{one}");

    let shown = said(client, &["orders", "show", &ids[1]]);
    assert!(
        ["홍길동", "9000000 KRW", "PaymentApproved", "CouponIssued"].iter().all(|part| shown.contains(part)),
        "{shown}"
    );
    let shown: Value =
        serde_json::from_str(&said(client, &["orders", "show", &ids[1], "--json"])).expect("JSON");
    assert_eq!(shown["order_id"], *ids[1]);

    let folder = tempfile::tempdir().expect("a folder");
    let follow = ["orders", "follow", &ids[1], "--until", "canceled", "--url", client.url()];
    let following = Process::start_into("twelve", &follow, folder.path());
    let canceled = said(client, &["orders", "cancel", &ids[1], "--reason", "changed my mind"]);
    assert!(canceled.contains("cancel"), "{canceled}");
    assert!(following.wait(), "it ends with the order");
    let followed = std::fs::read_to_string(folder.path().join("stdout")).expect("what it printed");
    let last = followed.lines().last().unwrap_or_default();
    assert!(followed.contains("CouponIssued") && last.contains("canceled"), "{followed}");
    let again = said(client, &["orders", "cancel", &ids[1]]);
    assert!(again.contains("is canceled"), "a repetition is no failure: {again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_broke_off_is_followed_on_without_a_gap_or_a_repetition() {
    let mut platform = Platform::up().await;
    let client = platform.client.clone();
    let id = client.place(&order("gentleman")).await;
    client.until_status(&id, "out_for_delivery").await;
    let folder = tempfile::tempdir().expect("a folder");
    let follow = ["orders", "follow", &id, "--until", "delivered", "--url", client.url()];
    let following = Process::start_into("twelve", &follow, folder.path());
    let printed = || std::fs::read_to_string(folder.path().join("stdout")).expect("what it printed");
    let began = std::time::Instant::now();
    while !printed().contains("DeliveryStarted") {
        assert!(began.elapsed() < twelve_tests::LIMIT, "nothing is shown");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    platform.kill();
    platform.start().await;
    let done = client.post(&format!("/orders/{id}/delivery/complete"), &json!({})).await;
    assert!(done.status.is_success(), "{done:?}");
    assert!(following.wait(), "it ends with the order");
    let printed = printed();
    for event in ["PaymentApproved", "CouponIssued", "DeliveryStarted", "DeliveryCompleted"] {
        assert_eq!(printed.matches(event).count(), 1, "{event}: {printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_on_the_command_line_is_told_with_what_to_do_next() {
    let key = Key::ed25519("key-1");
    let issuer = Issuer::start(&[&key]).await;
    let platform = Platform::up_with(&["--auth-jwks", issuer.url(), "--auth-issuer", "test-issuer"]).await;
    let client = &platform.client;
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let operator = file("operator", key.token("boss", "operator") + "\n");
    let customer = file("customer", key.token("gentleman", "customer"));

    let unknown = refused(client, &["orders", "list"]);
    assert!(unknown.contains("--token-file FILE"), "{unknown}");
    let foreign = refused(client, &["orders", "list", "--token-file", &customer]);
    assert!(foreign.contains("another role"), "{foreign}");
    let told = said(client, &["demo", "--orders", "30", "--token-file", &operator]);
    assert!(told.contains("30 orders were placed"), "{told}");
    let none = "00000000-0000-5000-8000-000000000000";
    let missing = refused(client, &["orders", "cancel", none, "--token-file", &operator]);
    assert!(missing.contains(none) && missing.contains("no such order"), "{missing}");

    let away = Client::new(&format!("http://127.0.0.1:{}", free_port()));
    for arguments in [&["orders", "list"][..], &["orders", "follow", none], &["demo"]] {
        let failed = refused(&away, arguments);
        assert!(failed.contains(away.url()) && failed.contains("twelve up"), "{failed}");
    }
    let lost = refused(client, &["orders", "list", "--token-file", "/nonexistent/token"]);
    assert!(lost.contains("/nonexistent/token"), "{lost}");
}
