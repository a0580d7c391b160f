//! Peers who do nothing, begin and never end, or never read: they are let go in time, and take nothing from the rest.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use tokio::{io::AsyncWriteExt, time::timeout};
use twelve_tests::{
    Client, LIMIT, Platform,
    client::order,
    peers::{self, Http2, connect, said, until_closed},
};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
const GRPC: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];
const PLACE: &str = "/twelve.v1.Commands/PlaceOrder";

/// Waits until a metric is at least so much.
async fn until_metric(client: &Client, line: &str, least: f64) {
    let seen = async {
        while client.metric(line).await.is_none_or(|value| value < least) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, seen).await.unwrap_or_else(|_| panic!("{line} never came to {least}"));
}

async fn all_are_placed(client: &Client, count: usize) {
    let client = client.without_keep_alive();
    for _ in 0..count {
        let placed = client.post("/orders", &order("gentleman")).await;
        assert_eq!(placed.status, 201, "{placed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_counts_once_its_body_is_there_and_one_whose_body_never_ends_is_given_up() {
    let limits = ["--calls-in-progress-max", "20", "--body-within-ms", "4000"];
    let platform = Platform::up_with(&limits).await;
    let client = &platform.client;
    let (mut connections, mut calls) = (Vec::new(), Vec::new());
    for number in 0..6 {
        let mut connection = Http2::open(client, "127.0.0.2", 65_535).await.expect("a connection");
        let (path, fields) = if number % 2 == 0 { ("/orders", &JSON[..]) } else { (PLACE, &GRPC[..]) };
        for _ in 0..50 {
            let mut call = connection.begin("POST", path, fields, false).await.expect("a call");
            call.body.send_data("{".into(), false).expect("sent");
            calls.push(call);
        }
        connections.push(connection);
    }
    let began = Instant::now();
    all_are_placed(client, 10).await;
    assert!(began.elapsed() < Duration::from_secs(4), "the bodies were still open");
    let answers = join_all(calls.into_iter().map(async |call| {
        let answer = timeout(LIMIT, call.response).await.expect("an answer").expect("an answer");
        (answer.status().as_u16(), call.body)
    }));
    let statuses: Vec<u16> = answers.await.into_iter().map(|(status, _)| status).collect();
    assert!(statuses.iter().all(|status| [408, 200].contains(status)), "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 408).count(), 150, "by REST");
    until_metric(client, "twelve_bodies_refused_total{why=\"late\"}", 300.0).await;

    let unfinished = "POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{";
    let late = said(client, unfinished).await;
    assert!(late.starts_with("HTTP/1.1 408") && late.contains("\"code\":\"body_late\""), "{late}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_too_many_bodies_that_are_not_whole_the_oldest_are_given_up_and_those_that_come_are_taken() {
    let platform = Platform::up_with(&["--bodies-max", "10", "--body-within-ms", "60000"]).await;
    let client = &platform.client;
    let mut connection = Http2::open(client, "127.0.0.2", 65_535).await.expect("a connection");
    let mut calls = Vec::new();
    for _ in 0..40 {
        calls.push(connection.begin("POST", "/orders", &JSON, false).await.expect("a call"));
    }
    until_metric(client, "twelve_bodies_refused_total{why=\"crowded\"}", 30.0).await;
    all_are_placed(client, 20).await;
    let first = timeout(LIMIT, calls.swap_remove(0).response).await.expect("an answer").expect("an answer");
    assert_eq!(first.status(), 503);
    assert!(peers::text(first.into_body()).await.contains("overloaded"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_call_is_closed_in_time_and_a_live_stream_is_not() {
    let limits = ["--head-within-ms", "500", "--idle-max-ms", "1500", "--unread-max-ms", "1000"];
    let platform = Platform::up_with(&limits).await;
    let client = &platform.client;
    let id = client.place(&order("gentleman")).await;
    let mut live = client.live(&format!("/orders/{id}/live"), None).await;
    assert_eq!(live.next().await.expect("a snapshot").name, "snapshot");

    let silent = connect(client, "127.0.0.2").await.expect("a connection");
    let mut half = connect(client, "127.0.0.2").await.expect("a connection");
    half.write_all(b"POST /orders HTTP/1.1\r\nHost: loc").await.expect("sent");
    let mut preface = connect(client, "127.0.0.2").await.expect("a connection");
    preface.write_all(b"PRI * HTTP/2.0\r\n").await.expect("sent");
    let mut dripping = connect(client, "127.0.0.2").await.expect("a connection");
    dripping.write_all(b"GET /orders HTTP/1.1\r\nHost: localhost\r\nX-A: ").await.expect("sent");
    let mut used = connect(client, "127.0.0.2").await.expect("a connection");
    used.write_all(b"GET /orders HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    let mut second = connect(client, "127.0.0.2").await.expect("a connection");
    second.write_all(b"GET /orders HTTP/1.1\r\nHost: localhost\r\n\r\nGET /or").await.expect("sent");
    let mut http2 = Http2::open(client, "127.0.0.2", 65_535).await.expect("a connection");
    let dripped = timeout(LIMIT, peers::drip(dripping, Duration::from_millis(100)));
    let (mut silent, whole) = (silent, "HTTP/1.1 200");
    let (silent, half, preface, used, second, (), dripped) = tokio::join!(
        until_closed(&mut silent),
        until_closed(&mut half),
        until_closed(&mut preface),
        until_closed(&mut used),
        until_closed(&mut second),
        http2.until_closed(),
        dripped,
    );
    dripped.expect("closed within the limit");
    assert_eq!((silent.as_str(), half.as_str(), preface.as_str()), ("", "", ""));
    assert!(used.starts_with(whole) && second.starts_with(whole), "{used} {second}");
    for why in ["head", "idle"] {
        until_metric(client, &format!("twelve_connections_cut_total{{why=\"{why}\"}}"), 2.0).await;
    }
    client.post(&format!("/orders/{id}/cancel"), &json!({})).await;
    assert_eq!(live.next().await.expect("it goes on").name, "change");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_not_read_are_given_up_with_their_connections() {
    let platform = Platform::up_with(&["--unread-max-ms", "700"]).await;
    let client = &platform.client;
    let id = client.place(&order("gentleman")).await;
    let live = format!("/orders/{id}/live");
    let mut connections = Vec::new();
    for path in ["/orders", "/openapi.json", &live, "/customers/gentleman/orders/live", "/metrics"] {
        let mut connection = Http2::open(client, "127.0.0.2", 0).await.expect("a connection");
        let mut calls = Vec::new();
        for _ in 0..20 {
            calls.push(connection.begin("GET", path, &[], true).await.expect("a call"));
        }
        connections.push((connection, calls));
    }
    let unread = "twelve_connections_cut_total{why=\"unread\"}";
    for (connection, _calls) in &mut connections {
        connection.until_closed().await;
    }
    until_metric(client, unread, 5.0).await;

    // Over HTTP/1 calls are answered until the socket takes nothing more.
    let mut greedy = connect(client, "127.0.0.2").await.expect("a connection");
    let call = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(200);
    let asking = async { while greedy.write_all(call.as_bytes()).await.is_ok() {} };
    timeout(LIMIT, asking).await.expect("closed within the limit");
    until_metric(client, unread, 6.0).await;
    all_are_placed(client, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_bound_of_connections_those_that_do_nothing_make_room() {
    for bound in ["--connections-max", "--connections-each-max"] {
        let platform = Platform::up_with(&[bound, "20"]).await;
        let client = &platform.client;
        let id = client.place(&order("gentleman")).await;
        let mut live = client.live(&format!("/orders/{id}/live"), None).await;
        live.next().await.expect("a snapshot");
        let mut held = Vec::new();
        for _ in 0..60 {
            held.push(connect(client, "127.0.0.2").await.expect("a connection"));
        }
        all_are_placed(client, 30).await;
        until_metric(client, "twelve_connections_cut_total{why=\"crowded\"}", 40.0).await;
        client.post(&format!("/orders/{id}/cancel"), &json!({})).await;
        assert_eq!(live.next().await.expect("it goes on").name, "change", "what is worked on stays");
    }
}
