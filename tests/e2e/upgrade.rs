//! Logs and views of earlier builds, with orders under way, opened by today's programs. `tests/upgrade/upgrade.py` made
//! them with those very builds; `tests/upgrade/run` goes the whole way, and back.

use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};
use twelve_tests::{Client, Process, binary, client::order, free_port, workspace};

/// The builds whose logs are kept.
const BEFORE: [&str; 1] = ["3ff3b77"];

#[tokio::test(flavor = "multi_thread")]
async fn orders_of_an_earlier_build_go_on_where_they_were_and_their_keys_get_their_first_answers() {
    for build in BEFORE {
        let kept = workspace().join("tests/upgrade").join(build);
        let data = tempfile::tempdir().expect("a folder");
        let unpacked = Command::new("tar")
            .arg("-xzf")
            .arg(kept.with_extension("tar.gz"))
            .arg("-C")
            .arg(data.path())
            .status();
        assert!(unpacked.expect("tar runs").success(), "{build}");
        let orders = std::fs::read(kept.with_extension("json")).expect("its orders");
        let orders: Vec<Value> = serde_json::from_slice(&orders).expect("JSON");
        let (listen, nats) = (free_port(), free_port());
        let folder = data.path().display().to_string();
        let (listen, nats) = (format!("127.0.0.1:{listen}"), format!("127.0.0.1:{nats}"));
        let tools = workspace().join(".tools").display().to_string();
        let started =
            ["up", "--data", &folder, "--tools", &tools, "--listen", &listen, "--nats-listen", &nats];
        let process = Process::start("twelve", &started);
        let client = Client::new(&format!("http://{listen}"));
        client.until_ready().await;
        for order in &orders {
            is_as_it_was(&client, order).await;
        }
        go_on(&client, &orders).await;
        for arguments in [
            vec!["views", "verify", "--data", &folder],
            vec!["doctor", "--nats", &format!("nats://{nats}"), "--json"],
        ] {
            let output = Command::new(binary("twelve")).args(&arguments).output().expect("it runs");
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(output.status.success(), "{arguments:?}: {said}");
        }
        process.interrupt().await;
    }
}

/// Its story begins as it did, and its key gets the first answer.
async fn is_as_it_was(client: &Client, order: &Value) {
    let id = id(order);
    let events = client.event_types(&id).await;
    let before = order["events"].as_array().into_iter().flatten().filter_map(Value::as_str);
    // As this client lists them: what was told comes when it comes.
    let before: Vec<&str> = before.filter(|name| !name.starts_with("Notification")).collect();
    assert_eq!(events[..before.len()], before, "{order}");
    let key = order["key"].as_str().expect("a key");
    // To the byte: another spelling is another body.
    let body = order["body"].as_str().expect("a body").to_owned();
    let request = client.request(Method::POST, "/orders").header("Idempotency-Key", key);
    let again = client.send(request.header("Content-Type", "application/json").body(body)).await;
    assert_eq!((again.status.as_u16(), &again.body), (201, &order["answer"]), "{key}");
}

/// Each of them reaches what comes next.
async fn go_on(client: &Client, orders: &[Value]) {
    let id = |key: &str| id(orders.iter().find(|order| order["key"] == key).expect("it is kept"));
    for (key, act) in
        [("leaving", "delivery/complete"), ("cooking", "store/finish"), ("rented", "delivery/start")]
    {
        let answer = client.post(&format!("/orders/{}/{act}", id(key)), &json!({})).await;
        assert_eq!(answer.status, 200, "{key}: {answer:?}");
    }
    for (key, status) in [("leaving", "delivered"), ("rented", "out_for_delivery"), ("canceled", "canceled")]
    {
        client.until_status(&id(key), status).await;
    }
    client.until(&id("cooking"), "listed", |row| row["delivery"]["status"] == "listed").await;
    // The store had a quarter of an hour, which is over.
    client.until(&id("waiting"), "paid back", |row| row["payment"]["status"] == "canceled").await;
    client.place(&order("gentleman")).await;
}

fn id(order: &Value) -> String {
    order["answer"]["order_id"].as_str().expect("an id").to_owned()
}
