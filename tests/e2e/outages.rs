//! When something under the platform goes away.

use std::time::Duration;

use domain::{Context, Refusal};
use nats::{Connection, ask::Answer};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use twelve_tests::{
    Client, LIMIT, Node, Platform, Process, Server, SmallDisk, client::order, free_port, history, node,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_nats_server_means_503_and_after_its_return_everything_goes_on() {
    let mut platform = Platform::up().await;
    let id = platform.client.place(&order("gentleman")).await;
    platform.client.until_status(&id, "out_for_delivery").await;
    platform.server.kill();
    let answer = platform.client.post_with_key("/orders", "outage", &order("gentleman")).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(!answer.header("retry-after").is_empty());
    let cancel = platform.client.post(&format!("/orders/{id}/cancel"), &json!({})).await;
    assert_eq!((cancel.status.as_u16(), cancel.code()), (503, "log_unavailable"));
    assert_eq!(platform.client.get(&format!("/orders/{id}")).await.status, 200, "the views still answer");
    assert_eq!(platform.client.get("/readyz").await.status, 503);
    assert_eq!(platform.client.get("/healthz").await.status, 200);
    platform.server.restart().await;
    platform.client.until_ready().await;
    let placed = platform.client.place_at_last(&order("gentleman"), "outage").await.order_id();
    platform.client.until_status(&placed, "out_for_delivery").await;
    assert_eq!(platform.client.event_types(&placed).await.len(), 6, "nothing half done, nothing twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_under_way_when_the_nats_server_is_killed_are_whole_or_not_there() {
    let mut platform = Platform::up().await;
    let keys: Vec<String> = (0..24).map(|number| format!("mid-{number}")).collect();
    let client = platform.client.clone();
    let body = order("gentleman");
    let placing =
        futures::future::join_all(keys.iter().map(|key| client.post_with_key("/orders", key, &body)));
    tokio::pin!(placing);
    // This chooses the moment of the kill, nothing waits for it.
    tokio::select! { _ = &mut placing => {}, () = tokio::time::sleep(Duration::from_millis(12)) => {} }
    platform.server.kill();
    // It comes back as soon as it is missed, whoever still waits.
    tokio::select! { _ = &mut placing => {}, () = until_not_ready(&client) => {} }
    platform.server.restart().await;
    platform.client.until_ready().await;
    for key in &keys {
        let id = platform.client.place_at_last(&body, key).await.order_id();
        platform.client.until_status(&id, "out_for_delivery").await;
        assert_eq!(platform.client.event_types(&id).await.len(), 6, "{key}");
    }
}

/// Waits until the process says that it is not ready.
async fn until_not_ready(client: &Client) {
    let noticed = async { while client.get("/readyz").await.status == 200 {} };
    tokio::time::timeout(LIMIT, noticed).await.expect("it is noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_the_views_which_say_so_and_commands_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(disk) = SmallDisk::mount(folder.path(), 2) else { return };
    let server = Server::start().await;
    let listen = format!("127.0.0.1:{}", free_port());
    let views = folder.path().join("views").display().to_string();
    let start = ["--nats", server.url(), "--listen", &listen, "--views", &views];
    let query = Process::start("query-api", &start);
    let queries = Client::new(&format!("http://{listen}"));
    let commands_listen = format!("127.0.0.1:{}", free_port());
    let _commands = Process::start("command-svc", &["--nats", server.url(), "--listen", &commands_listen]);
    let commands = Client::new(&format!("http://{commands_listen}"));
    queries.until_ready().await;
    commands.until_ready().await;
    let mut big = order("gentleman");
    big["lines"] =
        vec![json!({ "item_id": "1", "name": "가".repeat(100), "quantity": 1, "unit_price": 1 }); 60].into();
    let filling = async {
        loop {
            let placed = futures::future::join_all((0..8).map(|_| commands.post("/orders", &big))).await;
            assert!(placed.iter().all(|answer| answer.status == 201), "commands go on");
            let ready =
                queries.try_send(queries.request(reqwest::Method::GET, "/readyz")).await.expect("it lives");
            if ready.status == 503 {
                return ready;
            }
        }
    };
    let ready = tokio::time::timeout(LIMIT, filling).await.expect("the disk is full at some time");
    assert!(ready.body.to_string().contains("view store failed"), "{ready:?}");
    assert_eq!(commands.post("/orders", &order("gentleman")).await.status, 201, "commands go on");
    drop(query);
    disk.resize(64);
    let _query = Process::start("query-api", &start);
    queries.until_ready().await;
    let placed = commands.post("/orders", &order("gentleman")).await;
    queries.order_after(&placed.order_id(), placed.header("log-position")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_finds_no_room_leaves_what_serves_as_it_is_and_succeeds_once_there_is_room() {
    let mut node = Node::new(twelve_tests::partitions(), &["--snapshot-every-s", "0"]).await;
    std::fs::create_dir_all(node.views()).expect("made");
    let Some(disk) = SmallDisk::mount(&node.views(), 128) else { return };
    history::append(&node.log, 0..1_500).await;
    node.start().await;
    // Room for what serves, and for a little more.
    let used: u64 =
        node::files(&node.views()).iter().map(|file| file.metadata().map_or(0, |file| file.len())).sum();
    disk.resize(used.div_ceil(1 << 20) + 3);
    let before = node.client.get("/orders?limit=200").await;
    node.operator.post("/admin/views/rebuild", &json!({ "swap": true })).await;
    let failed =
        node.job(|job| ["failed", "serving"].contains(&job["state"].as_str().unwrap_or("none"))).await;
    assert_eq!(failed["state"], "failed", "{failed}");
    assert!(failed["failure"].as_str().is_some_and(|why| why.contains("view store failed")), "{failed}");
    let after = node.client.get("/orders?limit=200").await;
    assert_eq!((after.status.as_u16(), &after.body), (200, &before.body));
    disk.resize(128);
    history::append(&node.log, 1_500..1_520).await;
    assert_eq!(node.verify().await["differences"], 0);
    node.operator.post("/admin/views/rebuild", &json!({ "swap": true })).await;
    node.job(|job| job["state"] == "serving").await;
    assert_eq!(node.verify().await["differences"], 0);
    node.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_refused_for_good_parks_the_order_until_an_operator_resumes_it() {
    let server = Server::start().await;
    let listen = format!("127.0.0.1:{}", free_port());
    let roles = ["--nats", server.url(), "--listen", &listen, "--roles", "ordering,payment,delivery,saga"];
    let _shop = Process::start("command-svc", &roles);
    let shop = Client::new(&format!("http://{listen}"));
    let folder = tempfile::tempdir().expect("a folder");
    let listen = format!("127.0.0.1:{}", free_port());
    let views = folder.path().display().to_string();
    let _node =
        Process::start("query-api", &["--nats", server.url(), "--listen", &listen, "--views", &views]);
    let node = Client::new(&format!("http://{listen}"));
    shop.until_ready().await;
    node.until_ready().await;
    let stubborn = CancellationToken::new();
    let connection = Connection::open(server.url(), "stubborn-marketing").await.expect("a server");
    let offer = connection.offer(Context::Marketing).await.expect("offered");
    let until = stubborn.clone();
    let marketing = tokio::spawn(async move {
        let refuse = async |_| Answer::Refused(Refusal::CouponCanceled);
        offer.serve(until, refuse).await
    });
    let placed = shop.post("/orders", &order("gentleman")).await;
    let id = placed.order_id();
    node.order_after(&id, placed.header("log-position")).await;
    node.until(&id, "parked", |row| row["timeline"].to_string().contains("SagaParked")).await;
    let saga = node.get(&format!("/sagas/{id}")).await.body;
    assert_eq!(
        (&saga["parked"]["step"], &saga["parked"]["code"]),
        (&json!("issue_coupon"), &json!("coupon_canceled"))
    );
    assert_eq!(node.get("/sagas?parked=true").await.body["items"].as_array().map(Vec::len), Some(1));
    stubborn.cancel();
    marketing.await.expect("no panic").expect("it ended well");
    let _willing = Process::start(
        "command-svc",
        &["--nats", server.url(), "--listen", "127.0.0.1:0", "--roles", "marketing"],
    );
    let resumed = shop.post(&format!("/sagas/{id}/resume"), &json!({})).await;
    assert_eq!(resumed.status, 200, "{resumed:?}");
    node.until_status(&id, "out_for_delivery").await;
    assert_eq!(node.get("/sagas?parked=true").await.body["items"], json!([]));
    let again = shop.post(&format!("/sagas/{id}/resume"), &json!({})).await;
    assert_eq!((again.status.as_u16(), again.code()), (409, "not_parked"));
}
