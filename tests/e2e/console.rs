//! The console, in a real browser: what it shows and does, and that it asks nobody else.

use serde_json::{Value, json};
use twelve_tests::{
    Platform, browser,
    client::order,
    flows::{changed, folder},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_console_shows_orders_as_they_change_and_cancels_one_and_asks_nobody_else() {
    // No rider comes within a second of its cooking, so the order is shown to an operator.
    let hurried = changed("food", &[("after_s = 3600,", "after_s = 1,")]);
    let flows = folder(&[("food", hurried)]);
    let platform = Platform::up_with(&["--flows", &flows.path().display().to_string()]).await;
    let parked = without_a_rider(&platform).await;
    let mut body = order("gentleman");
    body["flow"] = json!("kitchen");
    body["store_id"] = json!("kimbap-heaven");
    // Names are text, never markup.
    body["customer"]["name"] = json!("<img src=x onerror=alert(1)>홍길동");
    let id = platform.client.place(&body).await;
    platform.client.place(&order("gentleman")).await;
    let Some(saw) = browser::run("console.mjs", &[platform.client.url(), &id, &parked]).await else { return };
    // The one fault is the browser's own line about the order that there is not.
    let faults: Vec<&str> =
        saw["faults"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert!(faults.iter().all(|fault| fault.contains("404")), "{faults:?}");
    let happened: Vec<&str> =
        saw["timeline"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert!(happened.contains(&"OrderPlaced") && happened.contains(&"PaymentApproved"), "{happened:?}");
    assert!(saw["facts"].as_str().is_some_and(|facts| facts.contains("<img src=x onerror=alert(1)>홍길동")));
    assert_eq!((&saw["after"], &saw["filtered"]), (&json!("canceled"), &json!(1)));
    let status = platform.client.get(&format!("/orders/{id}")).await.body["status"].clone();
    assert_eq!(status, "canceled", "it really is");
    assert!(saw["parked"].as_str().is_some_and(|row| row.contains("Resume")), "{saw:#}");
    let happened = platform.client.event_types(&parked).await;
    assert!(happened.contains(&"SagaResumed".to_owned()), "it really goes on: {happened:?}");
}

/// A meal that is cooked and that no rider picks up, once it is parked.
async fn without_a_rider(platform: &Platform) -> String {
    let client = &platform.client;
    let mut body = order("hungry");
    for (field, value) in
        [("flow", "food"), ("channel", "web"), ("store_id", "s"), ("delivery_type", "bicycle")]
    {
        body[field] = json!(value);
    }
    let id = client.place(&body).await;
    client.until(&id, "at the store", |row| row["store"]["status"] == "received").await;
    for act in ["accept", "start", "finish"] {
        assert_eq!(client.post(&format!("/orders/{id}/store/{act}"), &json!({})).await.status, 200);
    }
    client.until(&id, "parked", |row| row["timeline"].to_string().contains("SagaParked")).await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_may_run_only_what_comes_with_it() {
    let platform = Platform::up().await;
    for (path, kind) in [
        ("/console", "text/html"),
        ("/console/console.js", "text/javascript"),
        ("/console/console.css", "text/css"),
    ] {
        let answer = platform.client.get(path).await;
        assert_eq!(answer.status, 200);
        assert!(answer.header("content-type").starts_with(kind), "{path}");
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}
