//! The services apart: each context and each view node a process of its own.

use futures::StreamExt;
use serde_json::json;
use twelve_tests::{Client, LIMIT, Platform, Process, Server, client::order, free_port};

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

#[tokio::test(flavor = "multi_thread")]
async fn the_projector_rebuilds_beside_a_view_node_that_serves_and_both_agree() {
    let server = Server::start().await;
    let (_commands, commands) = start("command-svc", &server, &[]);
    let folder = tempfile::tempdir().expect("a folder");
    let views = folder.path().display().to_string();
    let (node, queries) = start("query-api", &server, &["--views", &views]);
    commands.until_ready().await;
    queries.until_ready().await;
    let placed = commands.post("/orders", &order("gentleman")).await;
    queries.order_after(&placed.order_id(), placed.header("log-position")).await;
    queries.until_status(&placed.order_id(), "out_for_delivery").await;
    let projector = |arguments: &[&str]| {
        let program = twelve_tests::program("projector")
            .args(["--nats", server.url(), "--views", &views])
            .args(arguments)
            .output()
            .expect("it runs");
        (program.status.success(), String::from_utf8_lossy(&program.stdout).into_owned())
    };
    let (built, said) = projector(&["rebuild"]);
    assert!(built && said.contains("generation 2: 6 events"), "{said}");
    assert_eq!(queries.get("/orders").await.status, 200, "the node serves on");
    node.interrupt().await;
    let (equal, said) = projector(&["compare", "1", "2"]);
    assert!(equal && said.contains("0 entries differ"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_orders_way_can_be_read_from_the_log_lines_by_its_id() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let listen = format!("127.0.0.1:{}", free_port());
    let data = folder.path().join("data").display().to_string();
    let mut arguments = vec!["--log", "debug,async_nats=off", "--log-format", "json", "up"];
    arguments.extend(["--listen", &listen, "--data", &data, "--nats", server.url()]);
    let process = Process::start_into("twelve", &arguments, folder.path());
    let client = Client::new(&format!("http://{listen}"));
    client.until_ready().await;
    let id = client.place(&order("gentleman")).await;
    client.until_status(&id, "out_for_delivery").await;
    process.interrupt().await;
    let lines = std::fs::read_to_string(folder.path().join("stderr")).expect("log lines");
    let ours: Vec<&str> = lines.lines().filter(|line| line.contains(&id)).collect();
    for part in
        ["place_order", "approve_payment", "issue_coupon", "start_delivery", "\"saga\"", "DeliveryStarted"]
    {
        assert!(
            ours.iter().any(|line| line.contains(part)),
            "{part} is not to be seen:\n{}",
            ours.join("\n")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_one_process_commands_do_not_go_by_the_server() {
    let platform = Platform::up().await;
    let spy = async_nats::connect(platform.server.url()).await.expect("a server");
    let mut heard = spy.subscribe("twelve.*.decide").await.expect("subscribed");
    spy.flush().await.expect("the server knows");
    let id = platform.client.place(&order("gentleman")).await;
    platform.client.until_status(&id, "out_for_delivery").await;
    spy.publish("twelve.nobody.decide", "the end".into()).await.expect("sent");
    let first = tokio::time::timeout(LIMIT, heard.next()).await.expect("in time").expect("a message");
    assert_eq!(first.payload, "the end", "{first:?}");
}
