//! A cluster of three servers, and a log of three replicas: what is acknowledged outlives any one of them.

use std::time::Duration;

use serde_json::json;
use twelve_tests::{Client, LIMIT, Process, client::order, cluster::Cluster, free_port};

fn start(program: &str, cluster: &Cluster, more: &[&str]) -> (Process, Client) {
    let (listen, url) = (format!("127.0.0.1:{}", free_port()), cluster.url());
    let common = ["--nats", &url, "--listen", &listen, "--replicas", "3", "--durability", "replicated"];
    (Process::start(program, &[&common[..], more].concat()), Client::new(&format!("http://{listen}")))
}

/// Places an order under a key, again until it is taken.
async fn place(client: &Client, key: String) -> String {
    let placing = async {
        loop {
            let request = client.request(reqwest::Method::POST, "/orders").header("idempotency-key", &key);
            let answer = client.send(request.json(&order("gentleman"))).await;
            match answer.status.as_u16() {
                201 | 200 => return answer.order_id(),
                503 => tokio::time::sleep(Duration::from_millis(50)).await,
                _ => panic!("{answer:?}"),
            }
        }
    };
    tokio::time::timeout(LIMIT, placing).await.unwrap_or_else(|_| panic!("{key} is not taken"))
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_go_on_while_any_one_server_of_three_dies_or_hangs_and_none_is_lost_or_twice() {
    let mut cluster = Cluster::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (_commands, client) = start("command-svc", &cluster, &["--retry-pause-max-ms", "300"]);
    client.until_ready().await;
    let (_views, queries) = start("query-api", &cluster, &["--views", &folder.path().display().to_string()]);
    queries.until_ready().await;
    let first = client.post("/orders", &order("gentleman")).await;
    assert_eq!((first.status.as_u16(), first.header("durability")), (201, "replicated"));

    let mut ids = vec![first.order_id()];
    for (round, is_killed) in [(0, true), (1, false)] {
        let stream = format!("ORDERS-{}", round % twelve_tests::partitions());
        let leader = cluster.leader_of(&stream).await.expect("a leader");
        let (placing, sent) = (client.clone(), format!("round-{round}"));
        let placed = tokio::spawn(async move {
            let keys = (0..40).map(|number| format!("{sent}-{number}"));
            futures::future::join_all(keys.map(|key| place(&placing, key))).await
        });
        if is_killed {
            cluster.kill(leader);
        } else {
            cluster.freeze(leader, true);
        }
        ids.extend(placed.await.expect("all are taken"));
        if is_killed {
            cluster.restart(leader);
        } else {
            cluster.freeze(leader, false);
        }
    }
    for id in &ids {
        queries.until_status(id, "out_for_delivery").await;
        assert_eq!(queries.event_types(id).await.len(), 6, "each event once");
    }
    let rows = queries.get("/views/orders").await.body["rows"].clone();
    assert_eq!(rows, json!(ids.len()));
}
