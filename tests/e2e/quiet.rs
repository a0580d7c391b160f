//! A quiet system: nothing that is asked of it waits for the next event to end, to be noticed, or to go on.

use serde_json::{Value, json};
use twelve_tests::{LIMIT, Node, history};

/// A node whose log gets no more events.
async fn quiet() -> Node {
    let mut node = Node::new(twelve_tests::partitions(), &["--snapshot-every-s", "0"]).await;
    history::append(&node.log, 0..20).await;
    node.start().await;
    node
}

/// Asks for a job and sees it end.
async fn job(node: &Node, asked: &str, body: Value, ends: &str) -> Value {
    let begun = node.operator.post(&format!("/admin/views/{asked}"), &body).await;
    assert!(begun.status.is_success(), "{asked}: {begun:?} {}", node.said());
    let over = |job: &Value| [ends, "failed"].contains(&job["state"].as_str().unwrap_or_default());
    let job = node.job(over).await;
    assert_eq!(job["state"], ends, "{asked}: {job}");
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_take_over_from_one_another_back_and_forth_while_no_event_comes() {
    let node = quiet().await;
    let rows = node.client.get("/orders?limit=200").await.body;
    job(&node, "rebuild", json!({}), "ready").await;
    job(&node, "swap", json!({}), "serving").await;
    for generation in [1, 2, 1] {
        let back = job(&node, "rollback", json!({}), "serving").await;
        assert_eq!(back["generation"], generation, "{back}");
        assert_eq!(back["comparison"]["differences"], 0, "{back}");
        assert_eq!(node.client.get("/orders?limit=200").await.body, rows);
    }
    job(&node, "rebuild", json!({ "swap": true }), "serving").await;
    job(&node, "verify", json!({}), "verified").await;
    assert_eq!(node.client.get("/orders?limit=200").await.header("view-generation"), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_serves_no_more_lets_its_files_go_while_no_event_comes() {
    let node = quiet().await;
    job(&node, "rebuild", json!({ "swap": true }), "serving").await;
    job(&node, "rebuild", json!({ "swap": true }), "serving").await;
    // The one before the one before is removed by the next job.
    job(&node, "verify", json!({}), "verified").await;
    let freed = async {
        while node.open_files().iter().any(|file| file.contains("generation-000001")) {
            tokio::time::sleep(twelve_tests::client::LOOK_PAUSE).await;
        }
    };
    tokio::time::timeout(LIMIT, freed).await.expect("what is removed is not kept open");
}
