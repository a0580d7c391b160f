//! Peers who do nothing, begin and never end, or never read: they are let go in time, and take nothing from the rest.

use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use tokio::{io::AsyncWriteExt, time::timeout};
use twelve_tests::{
    Client, LIMIT, Platform,
    client::order,
    issuer::{Issuer, Key},
    peers::{self, DRIBBLE_WINDOW, Http2, connect, said, until_closed},
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
        for _ in 0..20 {
            let call = connection.begin("GET", path, &[], true).await.expect("a call");
            connections.push(timeout(LIMIT, call.response).await.expect("in time").expect("an answer"));
        }
        for answer in connections.drain(..) {
            let ended = peers::whole(answer.into_body());
            assert!(!timeout(LIMIT, ended).await.expect("given up within the limit"), "{path}");
        }
    }
    until_metric(client, "twelve_answers_cut_total{why=\"unread\"}", 100.0).await;
    // Over HTTP/1 calls are answered until the socket takes nothing more.
    let mut greedy = connect(client, "127.0.0.2").await.expect("a connection");
    let call = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(200);
    let asking = async { while greedy.write_all(call.as_bytes()).await.is_ok() {} };
    timeout(LIMIT, asking).await.expect("closed within the limit");
    until_metric(client, "twelve_connections_cut_total{why=\"unread\"}", 1.0).await;
    all_are_placed(client, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_which_a_part_was_read_is_given_up_too() {
    let platform = Platform::up_with(&["--unread-max-ms", "1500"]).await;
    let client = &platform.client;
    let mut connection = Http2::open(client, "127.0.0.2", 16_384).await.expect("a connection");
    let unread = connection.begin("GET", "/openapi.json", &[], true).await.expect("a call");
    let unread = unread.response.await.expect("an answer").into_body();
    until_metric(client, "twelve_answers_cut_total{why=\"unread\"}", 1.0).await;
    assert!(
        !timeout(LIMIT, peers::whole(unread)).await.expect("given up within the limit"),
        "it is not whole"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_dribble_do_not_take_the_room_for_answers_from_those_who_read() {
    let limits = ["--unread-bytes-max", "1048576", "--unread-max-ms", "600000"];
    let platform = Platform::up_with(&limits).await;
    let client = &platform.client;
    let mut connection = Http2::open(client, "127.0.0.2", DRIBBLE_WINDOW).await.expect("a connection");
    let mut dribbling = Vec::new();
    while client.metric("twelve_unread_bytes").await.unwrap_or_default() < 700_000.0 {
        let call = connection.begin("GET", "/openapi.json", &[], true).await.expect("a call");
        let answer = timeout(LIMIT, call.response).await.expect("in time").expect("an answer");
        dribbling.push(tokio::spawn(peers::dribble(answer.into_body(), Duration::from_millis(300))));
    }
    for _ in 0..20 {
        let read = client.get("/openapi.json").await;
        assert_eq!((read.status.as_u16(), &read.body["openapi"]), (200, &json!("3.1.0")));
    }
    dribbling.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_begins_as_its_idle_connection_is_told_to_end_is_answered_to_its_end() {
    let platform = Platform::up_with(&["--idle-max-ms", "300"]).await;
    let client = &platform.client;
    let id = client.place(&order("gentleman")).await;
    // By hand: this peer has read that the connection ends and calls all the same, as one does who reads it too late.
    let mut stream = connect(client, "127.0.0.2").await.expect("a connection");
    stream.write_all(&peers::http2_begin()).await.expect("sent");
    let mut read = Vec::new();
    assert!(peers::until_frame(&mut stream, &mut read, peers::GOAWAY).await, "told to end");
    let live = peers::http2_get(&format!("/orders/{id}/live"), &peers::address(client).to_string());
    stream.write_all(&live).await.expect("sent");
    assert!(peers::until_bytes(&mut stream, &mut read, b"event: snapshot").await);
    // Longer than a connection without a call has to end.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    client.post(&format!("/orders/{id}/cancel"), &json!({})).await;
    assert!(peers::until_bytes(&mut stream, &mut read, b"OrderCancelRequested").await, "it goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_begins_many_bodies_makes_room_for_who_began_one_before() {
    let key = Key::ed25519("key");
    let issuer = Issuer::start(&[&key]).await;
    let limits = ["--auth-jwks", issuer.url(), "--bodies-max", "10", "--body-within-ms", "60000"];
    let platform = Platform::up_with(&limits).await;
    let client = &platform.client;
    let bearing = |who: &str| format!("Bearer {}", key.token(who, "customer"));
    let (modest, greedy) = (bearing("modest"), bearing("greedy"));
    let fields = |token| [("content-type", "application/json"), ("authorization", token)];
    let mut connection = Http2::open(client, "127.0.0.2", 65_535).await.expect("a connection");
    let mut first = connection.begin("POST", "/orders", &fields(&modest), false).await.expect("a call");
    let body = order("modest").to_string();
    let (begin, end) = body.split_at(20);
    first.body.send_data(begin.to_owned().into(), false).expect("sent");
    let mut others = Vec::new();
    for _ in 0..40 {
        others.push(connection.begin("POST", "/orders", &fields(&greedy), false).await.expect("a call"));
    }
    until_metric(client, "twelve_bodies_refused_total{why=\"crowded\"}", 31.0).await;
    first.body.send_data(end.to_owned().into(), true).expect("sent");
    assert_eq!(timeout(LIMIT, first.response).await.expect("in time").expect("an answer").status(), 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_callers_pages_take_turns_with_anothers_and_are_a_share() {
    let key = Key::ed25519("key");
    let issuer = Issuer::start(&[&key]).await;
    let platform = Platform::up_with(&["--auth-jwks", issuer.url(), "--pages-each-max", "5"]).await;
    let greedy = platform.client.bearing(&key.token("greedy", "customer"));
    let modest = platform.client.bearing(&key.token("modest", "customer"));
    for number in 0..100 {
        greedy.post_with_key("/orders", &number.to_string(), &order("greedy")).await;
    }
    let many =
        join_all(
            (0..200).map(|number| {
                let live = if number % 2 == 0 { "" } else { "/live" };
                let path = format!("/customers/greedy/orders{live}");
                let greedy = &greedy;
                async move {
                    greedy.request(Method::GET, &path).send().await.expect("an answer").status().as_u16()
                }
            }),
        );
    let one = modest.get("/customers/modest/orders");
    let (statuses, one) = tokio::join!(many, one);
    assert_eq!(one.status, 200, "{one:?}");
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert!(count(429) > 0 && count(200) >= 5 && count(429) + count(200) == 200, "{statuses:?}");
    until_metric(&platform.client, "twelve_shares_refused_total{kind=\"pages\",bound=\"each\"}", 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_no_token_has_deadlines_and_bounds_as_well() {
    let limits = ["--body-within-ms", "500", "--idle-max-ms", "1000", "--live-max", "10"];
    let platform = Platform::up_with(&limits).await;
    let client = &platform.client;
    let mut connection = Http2::open(client, "127.0.0.2", 65_535).await.expect("a connection");
    let json = ["/openapi.json", "/docs", "/problems", "/console", "/healthz", "/readyz", "/metrics"];
    let paths = json.map(|path| ("GET", path, &JSON[..], "408"));
    let check = ("POST", "/grpc.health.v1.Health/Check", &GRPC[..], "4");
    for (method, path, fields, told) in paths.into_iter().chain([check]) {
        let call = connection.begin(method, path, fields, false).await.expect("a call");
        let answer = timeout(LIMIT, call.response).await.expect("in time").expect("an answer");
        let status = answer.headers().get("grpc-status").and_then(|status| status.to_str().ok());
        assert_eq!(status.unwrap_or(answer.status().as_str()), told, "{path}");
    }
    // Conversations by gRPC count as live streams, and end.
    let talk = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let mut calls = Vec::new();
    for _ in 0..30 {
        calls.push(connection.begin("POST", talk, &GRPC, false).await.expect("a call"));
    }
    let answers = join_all(calls.into_iter().map(async |call| {
        let answer = timeout(LIMIT, call.response).await.expect("in time").expect("an answer");
        let refused = answer.headers().contains_key("grpc-status");
        (timeout(LIMIT, peers::whole(answer.into_body())).await.expect("it ends"), refused, call.body)
    }));
    let refused = answers.await.iter().filter(|(_, refused, _)| *refused).count();
    assert_eq!(refused, 20);
    until_metric(client, "twelve_shares_refused_total{kind=\"live\",bound=\"all\"}", 20.0).await;
    // A watcher of the health stays, and counts too.
    let mut watchers = Vec::new();
    for _ in 0..15 {
        let mut call =
            connection.begin("POST", "/grpc.health.v1.Health/Watch", &GRPC, false).await.expect("a call");
        call.body.send_data(vec![0; 5].into(), true).expect("sent");
        let answer = timeout(LIMIT, call.response).await.expect("in time").expect("an answer");
        if !answer.headers().contains_key("grpc-status") {
            watchers.push(answer);
        }
    }
    assert_eq!(watchers.len(), 10);
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
