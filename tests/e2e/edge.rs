//! What stands before every call: names that are answered to, header fields that are lists, pages of other sites, ids
//! and methods that callers make up.

use std::{fs, path::Path};

use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};
use twelve_tests::{
    Client, Platform, Process, Server,
    client::{Answer, order},
    free_port,
    peers::said,
};

fn code(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.code())
}

async fn named(client: &Client, method: Method, path: &str, host: &str) -> Answer {
    let request = client.request(method.clone(), path).header("Host", host);
    client.send(if method == Method::POST { request.json(&order("gentleman")) } else { request }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nobody_is_asked_who_they_are_only_names_of_this_machine_are_answered_on_every_port() {
    let platform = Platform::up_with(&["--host-names", "shop.example"]).await;
    let client = &platform.client;
    let operator = fs::read_to_string(platform.data.path().join("views/operator")).expect("where it is");
    let operator = Client::new(&operator);
    for host in ["evil.example", "localhost.evil.example:8080", "192.0.2.1"] {
        for (method, path) in [
            (Method::POST, "/orders"),
            (Method::GET, "/orders"),
            (Method::GET, "/metrics"),
            (Method::GET, "/console"),
            (Method::GET, "/nothing"),
            (Method::POST, "/twelve.v1.Commands/PlaceOrder"),
        ] {
            let answer = named(client, method, path, host).await;
            assert_eq!(code(&answer), (421, "host_unknown"), "{host} {path}");
        }
        let answer = named(&operator, Method::GET, "/admin/views/rebuild", host).await;
        assert_eq!(code(&answer), (421, "host_unknown"), "{host}");
    }
    let orders = client.get("/orders").await;
    assert_eq!(orders.body["items"], json!([]), "nothing was placed");
    for host in ["localhost", "127.0.0.1:8080", "[::1]", "shop.example"] {
        assert_eq!(named(client, Method::GET, "/orders", host).await.status, 200, "{host}");
    }
    // A page of another site that calls a loopback address by its number is told from what it is by its origin.
    let cross =
        operator.request(Method::POST, "/admin/views/rebuild").header("Origin", "http://evil.example");
    assert_eq!(code(&operator.send(cross).await), (403, "cross_site"));
    assert_eq!(code(&operator.get("/admin/views/rebuild").await), (404, "no_rebuild"), "nothing was begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_names_exactly_one_host() {
    let platform = Platform::up().await;
    let call = |fields: &str| format!("GET /healthz HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
    for (fields, status) in [
        ("Host: localhost\r\n", "200"),
        ("", "400"),
        ("Host: localhost\r\nHost: localhost\r\n", "400"),
        ("Host: localhost\r\nHost: evil.example\r\n", "400"),
        ("Host: a b\r\n", "400"),
        ("Host: evil@localhost\r\n", "400"),
        ("Host:\r\n", "400"),
    ] {
        let answer = said(&platform.client, &call(fields)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{fields:?}: {answer}");
        assert!(status == "200" || answer.contains("\"code\":\"malformed\""), "{answer}");
    }
    let absolute = "GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = said(&platform.client, absolute).await;
    assert!(answer.starts_with("HTTP/1.1 421 "), "the request line goes before the field: {answer}");
}

/// A call with these header fields, each a line of its own.
async fn with(
    client: &Client,
    method: Method,
    path: &str,
    fields: &[(&'static str, &str)],
    body: &Value,
) -> Answer {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, value.parse().expect("a value"));
    }
    let request = client.request(method.clone(), path).headers(headers);
    client.send(if method == Method::POST { request.json(body) } else { request }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn header_fields_that_are_lists_are_read_alike_in_one_line_and_in_several() {
    let platform = Platform::up().await;
    let client = &platform.client;
    let id = client.place(&order("gentleman")).await;
    let one = format!("/orders/{id}");
    let get = async |path: &str, fields: &[(&'static str, &str)]| {
        with(client, Method::GET, path, fields, &Value::Null).await
    };
    // Read-your-writes: the second line counts. The log is not that long.
    let lines = [("log-position", "0:0"), ("log-position", "0:99999")];
    assert_eq!(code(&get("/orders?wait=50", &lines).await), (400, "position_unknown"));
    assert_eq!(
        code(&get("/orders?wait=50", &[("log-position", "0:0, 0:99999")]).await),
        (400, "position_unknown")
    );
    assert_eq!(get("/orders?wait=50", &[("log-position", "0:0,"), ("log-position", "")]).await.status, 200);

    client.until_status(&id, "out_for_delivery").await;
    let row = get(&one, &[]).await;
    let etag = row.header("etag").to_owned();
    for known in ["*", &etag, &format!("W/{etag}"), &format!("\"a,b\", {etag}")] {
        assert_eq!(get(&one, &[("if-none-match", known)]).await.status, 304, "{known}");
    }
    assert_eq!(get(&one, &[("if-none-match", "\"x\""), ("if-none-match", &etag)]).await.status, 304);
    assert_eq!(get(&one, &[("if-none-match", "\"x\"")]).await.status, 200);

    let events = format!("{one}/events");
    let cloud = "application/cloudevents-batch+json";
    for (accept, kind) in [
        ("application/cloudevents-batch+json", cloud),
        ("text/html, application/cloudevents-batch+json;q=0.5", cloud),
        ("application/cloudevents-batch+json;q=0", "application/json"),
        ("application/json, application/cloudevents-batch+json;q=0.1", "application/json"),
    ] {
        assert_eq!(get(&events, &[("accept", accept)]).await.header("content-type"), kind, "{accept}");
    }

    let post = async |path: &str, fields: &[(&'static str, &str)], body: Value| {
        with(client, Method::POST, path, fields, &body).await
    };
    let keys = [("idempotency-key", "first"), ("idempotency-key", "second")];
    assert_eq!(code(&post("/orders", &keys, order("gentleman")).await), (400, "malformed"));
    let cancel = format!("{one}/cancel");
    let stale = "\"0:1\"".replace("0:", &etag[1..3]);
    for wrong in [&stale, &format!("W/{etag}"), "\"3:77\", \"2:78\"", &format!("{stale}, W/{etag}"), "", ","]
    {
        let refused = post(&cancel, &[("if-match", wrong)], json!({})).await;
        assert_eq!(code(&refused), (412, "stale"), "{wrong}");
    }
    let listed = [("if-match", stale.as_str()), ("if-match", etag.as_str())];
    let canceled = post(&cancel, &listed, json!({ "reason": "both lines count" })).await;
    assert_eq!(canceled.status, 200, "{canceled:?}");
    let any = post(&cancel, &[("if-match", "*")], json!({})).await;
    assert_ne!(any.status, 412, "{any:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_trusted_site_may_call_and_sees_what_it_needs_and_no_other_page_may() {
    let platform = Platform::up_with(&["--trusted-origins", "https://shop.example"]).await;
    let client = &platform.client;
    let preflight = async |origin: &str, path: &str| {
        let request = client.request(Method::OPTIONS, path).header("Origin", origin);
        let request = request.header("Access-Control-Request-Method", "POST");
        client.send(request.header("Access-Control-Request-Headers", "authorization,idempotency-key")).await
    };
    for path in ["/orders", "/orders/x/live", "/customers/gentleman/orders"] {
        let allowed = preflight("https://shop.example", path).await;
        assert_eq!(allowed.status, 200, "{path}");
        assert_eq!(allowed.header("access-control-allow-origin"), "https://shop.example");
        let fields = allowed.header("access-control-allow-headers").to_ascii_lowercase();
        for field in ["authorization", "idempotency-key", "last-event-id", "log-position", "if-match"] {
            assert!(fields.contains(field), "{field}: {fields}");
        }
        assert!(allowed.header("access-control-allow-methods").contains("POST"));
        let other = preflight("https://evil.example", path).await;
        assert_eq!(other.header("access-control-allow-origin"), "", "{path}");
    }
    let placed = client.request(Method::POST, "/orders").header("Origin", "https://shop.example");
    let placed = client.send(placed.json(&order("gentleman"))).await;
    assert_eq!(placed.status, 201, "{placed:?}");
    let shown = placed.header("access-control-expose-headers").to_ascii_lowercase();
    for field in ["log-position", "etag", "location", "view-position", "retry-after", "x-request-id"] {
        assert!(shown.contains(field), "{field}: {shown}");
    }
    let cross = client.request(Method::POST, "/orders").header("Origin", "https://evil.example");
    let cross = client.send(cross.json(&order("gentleman"))).await;
    assert_eq!(code(&cross), (403, "cross_site"));
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_methods_nor_ids_that_callers_make_up_get_into_metrics_or_log_lines() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (_process, client) = started(&server, folder.path()).await;
    for number in 0..50 {
        let method = Method::from_bytes(format!("BREW{number}").as_bytes()).expect("a method");
        client.send(client.request(method, "/orders")).await;
    }
    let metrics = client.get("/metrics").await;
    let text = metrics.body.as_str().unwrap_or_default();
    assert!(text.contains("method=\"_OTHER\"") && !text.contains("BREW"), "{text}");

    let forged = "x}: nats: NOTHING HAPPENED order_id=1";
    let answer = with(&client, Method::GET, "/orders", &[("x-request-id", forged)], &Value::Null).await;
    assert_ne!(answer.header("x-request-id"), forged, "another id is given");
    let twice = [("x-request-id", "one"), ("x-request-id", "two")];
    let answer = with(&client, Method::GET, "/orders", &twice, &Value::Null).await;
    assert!(!["one", "two"].contains(&answer.header("x-request-id")));
    let answer = with(&client, Method::GET, "/orders", &[("x-request-id", "web-1/a:b")], &Value::Null).await;
    assert_eq!(answer.header("x-request-id"), "web-1/a:b");
    let lines = fs::read_to_string(folder.path().join("stderr")).expect("log lines");
    assert!(lines.contains("web-1/a:b") && !lines.contains("NOTHING HAPPENED"), "{lines}");
}

/// `query-api` that logs each call, into this folder.
async fn started(server: &Server, folder: &Path) -> (Process, Client) {
    let listen = format!("127.0.0.1:{}", free_port());
    let views = folder.join("views").display().to_string();
    let settings = ["--listen", &listen, "--nats", server.url(), "--views", &views, "--log", "debug"];
    let process = Process::start_into("query-api", &settings, folder);
    let client = Client::new(&format!("http://{listen}"));
    client.until_ready().await;
    (process, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orders_events_come_page_by_page_and_so_do_cloud_events() {
    let platform = Platform::up().await;
    let client = &platform.client;
    let id = client.place(&order("gentleman")).await;
    client.until_status(&id, "out_for_delivery").await;
    let path = format!("/orders/{id}/events");
    let whole = client.get(&path).await.body;
    let whole = whole["items"].as_array().expect("events");
    let (mut paged, mut query) = (Vec::new(), String::from("?limit=2"));
    loop {
        let page = client.get(&format!("{path}{query}")).await.body;
        let items = page["items"].as_array().expect("events");
        assert!(items.len() == 2 || page["next_cursor"].is_null(), "{page:#}");
        paged.extend(items.clone());
        let Some(next) = page["next_cursor"].as_str() else { break };
        query = format!("?limit=2&cursor={next}");
    }
    assert_eq!(&paged, whole);
    let cloud = [("accept", "application/cloudevents-batch+json")];
    let (mut ids, mut next) = (Vec::new(), Some(format!("{path}?limit=3")));
    while let Some(path) = next {
        let page = with(client, Method::GET, &path, &cloud, &Value::Null).await;
        let events = page.body.as_array().expect("a batch");
        ids.extend(events.iter().map(|event| event["id"].clone()));
        let link =
            page.header("link").strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""));
        next = link.map(|link| format!("{link}&limit=3"));
    }
    let of_whole: Vec<Value> = whole.iter().map(|event| event["event_id"].clone()).collect();
    assert_eq!(ids, of_whole);
}
