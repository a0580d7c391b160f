//! What the five systems have in common, by the scenarios' ids: catching up, scaling out, standing alone.

use std::{collections::BTreeSet, process::Stdio};

use futures::future::join_all;
use serde_json::{Value, json};
use twelve_tests::{LIMIT, Platform, Services, client::order, workspace};

const ALL: &str = "ordering,payment,store,marketing,delivery,review,saga";

fn meal() -> Value {
    let mut body = order("eater");
    body["flow"] = json!("kitchen");
    body["store_id"] = json!("store-1");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn x_1_a_service_that_was_stopped_processes_what_it_missed_once_and_its_views_list_it_all() {
    let mut services = Services::new(&[]).await;
    let orders = services.start("ordering,payment,marketing,saga", &[]).await;
    services.start("delivery", &[]).await;
    let queries = services.start_views(&[]).await;
    services.stop("delivery");
    services.stop("views");
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(orders.post("/orders", &order("gentleman")).await.order_id());
    }
    drop(queries);
    let queries = services.start_views(&[]).await;
    services.start("delivery", &[]).await;
    for id in &ids {
        queries.until_status(id, "out_for_delivery").await;
        assert_eq!(queries.event_types(id).await.len(), 6, "each once");
    }
    for view in ["/deliveries?limit=200", "/customers/gentleman/orders?limit=200"] {
        assert_eq!(queries.get(view).await.body["items"].as_array().map(Vec::len), Some(20), "{view}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn x_2_replicas_share_the_work_and_each_effect_is_there_once_also_when_one_is_killed() {
    let mut services = Services::new(&[]).await;
    let orders = services.start("ordering,payment,marketing", &[]).await;
    services.start("saga", &[]).await;
    // The same role twice, told apart by how it is written.
    let one = services.start("delivery", &[]).await;
    let other = services.start("delivery,review", &[]).await;
    let queries = services.start_views(&[]).await;
    let body = order("gentleman");
    let placed = join_all((0..40).map(|_| orders.post("/orders", &body))).await;
    let started = r#"twelve_commands_total{command="start_delivery",outcome="done"}"#;
    for answer in &placed {
        queries.order_after(&answer.order_id(), answer.header("log-position")).await;
        queries.until_status(&answer.order_id(), "out_for_delivery").await;
    }
    let counts =
        [one.metric(started).await.unwrap_or_default(), other.metric(started).await.unwrap_or_default()];
    assert!(counts.iter().all(|count| *count > 0.0), "both did work: {counts:?}");
    assert!((counts[0] + counts[1] - 40.0).abs() < 0.5, "each delivery started once: {counts:?}");
    let more = join_all((0..20).map(|_| orders.post("/orders", &body)));
    let (placed, ()) = tokio::join!(more, async { services.stop("delivery") });
    for answer in &placed {
        queries.order_after(&answer.order_id(), answer.header("log-position")).await;
        queries.until_status(&answer.order_id(), "out_for_delivery").await;
        assert_eq!(queries.event_types(&answer.order_id()).await.len(), 6);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn x_8_core_flows_work_without_each_supporting_service() {
    let mut services = Services::new(&[]).await;
    let core = services.start("ordering,payment,store,delivery,saga", &[]).await;
    // No marketing, no review, no notification, and no customer centre while the orders travel.
    let mut ids = Vec::new();
    for _ in 0..3 {
        let placed = core.post("/orders", &meal()).await;
        assert_eq!(placed.status, 201, "{placed:?}");
        ids.push(placed.order_id());
    }
    let waiting = core.post("/orders", &order("gentleman")).await;
    assert_eq!(waiting.status, 201, "taken, although its coupon will have to wait");
    let queries = services.start_views(&[]).await;
    for id in &ids {
        queries.until(id, "at the store", |row| row["store"]["status"] == "received").await;
        for act in ["store/accept", "store/start", "store/finish"] {
            assert_eq!(core.post(&format!("/orders/{id}/{act}"), &json!({})).await.status, 200);
        }
        queries.until(id, "listed", |row| row["delivery"]["status"] == "listed").await;
        core.post(&format!("/orders/{id}/delivery/pickup"), &json!({ "rider_id": "r" })).await;
        assert_eq!(core.post(&format!("/orders/{id}/confirm"), &json!({})).await.body["status"], "completed");
    }
    let row = queries.order_after(&waiting.order_id(), waiting.header("log-position")).await;
    assert_eq!(row["delivery"]["status"], "requested", "no coupon, no delivery: as the seed wants it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a002_11_and_12_and_x_9_a_new_subscriber_sees_past_and_new_events_and_its_end_changes_nothing() {
    let platform = Platform::up().await;
    let seoul = |number: usize| {
        let mut body = order("gentleman");
        body["address"]["region"] = json!(if number.is_multiple_of(2) { "seoul" } else { "busan" });
        body
    };
    for number in 0..4 {
        platform.client.place(&seoul(number)).await;
    }
    let insight = twelve_tests::binary("examples").join("marketing_insight");
    let mut child = tokio::process::Command::new(insight)
        .args(["--nats", platform.server.url()])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let mut lines =
        tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stdout.take().expect("its words")));
    let mut until = async |wanted: Value| {
        let reading = async {
            loop {
                let line = lines.next_line().await.expect("readable").expect("it runs on");
                if serde_json::from_str::<Value>(&line).expect("JSON") == wanted {
                    return;
                }
            }
        };
        tokio::time::timeout(LIMIT, reading).await.unwrap_or_else(|_| panic!("{wanted} is never said"));
    };
    until(json!({ "busan": 2, "seoul": 2 })).await;
    platform.client.place(&seoul(0)).await;
    until(json!({ "busan": 2, "seoul": 3 })).await;
    child.kill().await.expect("retired");
    let id = platform.client.place(&seoul(1)).await;
    platform.client.until_status(&id, "out_for_delivery").await;
    assert!(workspace().join("nats/examples/marketing_insight.rs").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a003_1_an_order_is_on_the_stream_at_once_and_in_the_store_once_that_is_started() {
    let mut services = Services::new(&[]).await;
    let orders = services.start("ordering,payment,saga", &[]).await;
    let queries = services.start_views(&[]).await;
    let placed = orders.post("/orders", &meal()).await;
    let nats = async_nats::connect(services.server.url()).await.expect("connected");
    let jetstream = async_nats::jetstream::new(nats);
    let (partition, sequence) = placed.header("log-position").split_once(':').expect("a position");
    let stream = jetstream.get_stream(format!("ORDERS-{partition}")).await.expect("a partition");
    let message = stream.get_raw_message(sequence.parse().expect("a number")).await.expect("a message");
    assert_eq!(message.headers.get("Event-Type").map(ToString::to_string), Some("OrderPlaced".into()));
    assert!(message.subject.ends_with(&placed.order_id()));
    assert_eq!(queries.get("/stores/store-1/orders").await.body["items"], json!([]));
    services.start("store", &[]).await;
    queries.until(&placed.order_id(), "at the store", |row| row["store"]["status"] == "received").await;
    assert_eq!(queries.get("/stores/store-1/orders").await.body["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn x_13_queries_answer_while_every_command_service_is_down_and_a_rebuild_says_the_same() {
    let mut services = Services::new(&[]).await;
    let orders = services.start(ALL, &[]).await;
    let queries = services.start_views(&[]).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        let placed = orders.post("/orders", &order("gentleman")).await;
        queries.order_after(&placed.order_id(), placed.header("log-position")).await;
        queries.until_status(&placed.order_id(), "out_for_delivery").await;
        ids.push(placed.order_id());
    }
    services.stop(ALL);
    let rows = queries.get("/customers/gentleman/orders").await.body;
    assert_eq!(rows["items"].as_array().map(Vec::len), Some(5));
    let one = queries.get(&format!("/orders/{}", ids[0])).await.body;
    let built_anew = tempfile::tempdir().expect("a folder");
    services.stop("views");
    let queries = services.start_views_in(built_anew.path(), &[]).await;
    assert_eq!(queries.get("/customers/gentleman/orders").await.body, rows);
    assert_eq!(queries.get(&format!("/orders/{}", ids[0])).await.body, one);
}

#[tokio::test(flavor = "multi_thread")]
async fn x_14_every_event_names_its_order_and_its_cause_and_a_cancel_changes_only_its_own_order() {
    let platform = Platform::up().await;
    let client = &platform.client;
    let body = order("gentleman");
    let placed = join_all((0..20).map(|_| client.post("/orders", &body))).await;
    let ids: Vec<String> = placed.iter().map(twelve_tests::client::Answer::order_id).collect();
    for (id, answer) in ids.iter().zip(&placed) {
        client.order_after(id, answer.header("log-position")).await;
        client.until_status(id, "out_for_delivery").await;
    }
    client.post(&format!("/orders/{}/cancel", ids[7]), &json!({})).await;
    client.until_status(&ids[7], "canceled").await;
    for (number, id) in ids.iter().enumerate() {
        let events = client.get(&format!("/orders/{id}/events")).await.body;
        let events = events["items"].as_array().cloned().unwrap_or_default();
        assert_eq!(events.len(), if number == 7 { 11 } else { 6 }, "{id}");
        let known: BTreeSet<&str> = events.iter().filter_map(|event| event["event_id"].as_str()).collect();
        for event in &events {
            let is_from_outside = ["PaymentRequested", "OrderCancelRequested"]
                .contains(&event["type"].as_str().unwrap_or_default());
            let cause = event["causation_id"].as_str();
            assert_eq!(cause.is_none(), is_from_outside, "{event}");
            assert!(
                cause.is_none_or(|cause| known.contains(cause)),
                "the cause is one of the order's own: {event}"
            );
        }
    }
}
