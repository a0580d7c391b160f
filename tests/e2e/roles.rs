//! The services apart: each context and each view node a process of its own.

use serde_json::json;
use twelve_tests::{Client, Process, Server, client::order, free_port};

fn start(program: &str, server: &Server, more: &[&str]) -> (Process, Client) {
    let listen = format!("127.0.0.1:{}", free_port());
    let mut arguments = vec!["--nats", server.url(), "--listen", &listen];
    arguments.extend(more);
    (Process::start(program, &arguments), Client::new(&format!("http://{listen}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_travels_through_services_that_run_apart_and_two_view_nodes_agree() {
    let server = Server::start().await;
    let (_ordering, ordering) = start("command-svc", &server, &["--roles", "ordering,payment"]);
    let (_delivery, delivery) = start("command-svc", &server, &["--roles", "delivery,marketing,saga"]);
    let folders = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
    let nodes: Vec<_> = folders
        .iter()
        .map(|folder| start("query-api", &server, &["--views", &folder.path().display().to_string()]))
        .collect();
    for client in [&ordering, &delivery, &nodes[0].1, &nodes[1].1] {
        client.until_ready().await;
    }
    let placed = ordering.post("/orders", &order("gentleman")).await;
    assert_eq!(
        (placed.status.as_u16(), placed.header("durability")),
        (201, "memory"),
        "not promised, not claimed"
    );
    let id = placed.order_id();
    nodes[0].1.order_after(&id, placed.header("log-position")).await;
    let row = nodes[0].1.until_status(&id, "out_for_delivery").await;
    let other = nodes[1].1.order_after(&id, row["position"].as_str().expect("a position")).await;
    assert_eq!(row, other);
    assert_eq!(
        ordering.post(&format!("/orders/{id}/delivery/complete"), &json!({})).await.status,
        404,
        "not its role"
    );
    assert_eq!(delivery.post(&format!("/orders/{id}/delivery/complete"), &json!({})).await.status, 200);
    assert_eq!(nodes[0].1.post("/orders", &order("gentleman")).await.status, 405, "queries only read");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_active_saga_dies_the_next_one_takes_over_and_nothing_happens_twice() {
    let server = Server::start().await;
    let (_rest, client) = start("command-svc", &server, &["--roles", "ordering,payment,marketing,delivery"]);
    let (first, first_client) = start("command-svc", &server, &["--roles", "saga"]);
    let folder = tempfile::tempdir().expect("a folder");
    let (_node, node) = start("query-api", &server, &["--views", &folder.path().display().to_string()]);
    for client in [&client, &first_client, &node] {
        client.until_ready().await;
    }
    let (_second, second_client) = start("command-svc", &server, &["--roles", "saga"]);
    second_client.until_ready().await;
    let mut ids = Vec::new();
    for _ in 0..8 {
        let placed = client.post("/orders", &order("gentleman")).await;
        node.order_after(&placed.order_id(), placed.header("log-position")).await;
        ids.push(placed.order_id());
    }
    first.kill();
    for id in &ids {
        node.until_status(id, "out_for_delivery").await;
        assert_eq!(node.event_types(id).await.len(), 6);
    }
}
