//! A cluster of three servers, and a log of three replicas: what is acknowledged outlives any one of them.

use serde_json::json;
use twelve_tests::{Client, LIMIT, Process, client::order, cluster::Cluster, free_port};

fn start(program: &str, cluster: &Cluster, more: &[&str]) -> (Process, Client) {
    let (listen, url) = (format!("127.0.0.1:{}", free_port()), cluster.url());
    let common = ["--nats", &url, "--listen", &listen, "--replicas", "3", "--durability", "replicated"];
    (Process::start(program, &[&common[..], more].concat()), Client::new(&format!("http://{listen}")))
}

/// Waits until the views have the order: they follow a server that may have to be left first.
async fn until_seen(queries: &Client, id: &str) {
    let looking = async {
        while queries.get(&format!("/orders/{id}")).await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, looking).await.unwrap_or_else(|_| panic!("{id} is not seen"));
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

    let mut placed = vec![first];
    for (round, is_killed) in [(0, true), (1, false)] {
        let stream = format!("ORDERS-{}", round % twelve_tests::partitions());
        let leader = cluster.leader_of(&stream).await.expect("a leader");
        let (placing, sent) = (client.clone(), format!("round-{round}"));
        let placing = tokio::spawn(async move {
            let keys = (0..40).map(|number| format!("{sent}-{number}"));
            let body = order("gentleman");
            let place = async |key: String| placing.place_at_last(&body, &key).await;
            futures::future::join_all(keys.map(place)).await
        });
        if is_killed {
            cluster.kill(leader);
        } else {
            cluster.freeze(leader, true);
        }
        placed.extend(placing.await.expect("all are taken"));
        if is_killed {
            cluster.restart(leader);
        } else {
            cluster.freeze(leader, false);
        }
    }
    for answer in &placed {
        let id = answer.order_id();
        until_seen(&queries, &id).await;
        queries.until_status(&id, "out_for_delivery").await;
        assert_eq!(queries.event_types(&id).await.len(), 6, "each event once");
    }
    let rows = queries.get("/views/orders").await.body["rows"].clone();
    assert_eq!(rows, json!(placed.len()));
}

/// A partition without a majority takes no event, whatever context decides. Its callers are told that, and once it is
/// there again, none is told that the payment is away.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_the_log_cannot_take_is_not_blamed_on_the_payment() {
    let mut cluster = Cluster::start().await;
    let (_commands, client) = start("command-svc", &cluster, &[]);
    client.until_ready().await;
    assert_eq!(client.post("/orders", &order("gentleman")).await.status, 201);
    cluster.kill(1);
    cluster.kill(2);
    let placing = (0..12).map(|_| async { client.post("/orders", &order("gentleman")).await });
    for answer in futures::future::join_all(placing).await {
        assert_eq!((answer.status.as_u16(), answer.code()), (503, "log_unavailable"), "{answer:?}");
    }
    cluster.restart(1);
    cluster.restart(2);
    let again = async {
        loop {
            let answer = client.post("/orders", &order("gentleman")).await;
            if answer.status == 201 {
                return;
            }
            assert_eq!((answer.status.as_u16(), answer.code()), (503, "log_unavailable"), "{answer:?}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, again).await.expect("orders are taken again");
}
