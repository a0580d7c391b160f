//! One front door before services that run apart: the shipped nginx configuration, with the real nginx.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use twelve_tests::{
    Client, Gateway, Services,
    client::{Answer, order},
    issuer::{Issuer, Key},
};

const SHOP: &str = "https://shop.example";

/// Services behind a door; `None` where there is no nginx.
async fn open(more: &[&str]) -> Option<(Services, Gateway)> {
    let mut services = Services::new(more).await;
    let commands =
        services.start("ordering,payment,store,marketing,delivery,review,notification,saga", &[]).await;
    let queries = services.start_views(more).await;
    let gateway = Gateway::start(&[&commands], &[&queries], &[SHOP]).await?;
    Some((services, gateway))
}

async fn from_page(client: &Client, origin: &str, body: &Value) -> Answer {
    let request = client.request(Method::POST, "/orders").header("Origin", origin);
    client.send(request.header("Sec-Fetch-Site", "cross-site").json(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_queries_and_live_streams_go_through_one_door() {
    let Some((services, gateway)) = open(&[]).await else { return };
    let door = &gateway.client;
    let placed = door.post("/orders", &order("gentleman")).await;
    assert_eq!(placed.status, 201, "{placed:?} {}", gateway.said());
    let id = placed.order_id();
    assert!(!placed.header("log-position").is_empty() && placed.header("location").ends_with(&id));
    let row = door.order_after(&id, placed.header("log-position")).await;
    assert_eq!(row["order_id"], json!(id));
    // A stream is told of each event as it comes, or this waits for ever.
    door.until_status(&id, "out_for_delivery").await;
    let done = door.post(&format!("/orders/{id}/delivery/complete"), &json!({})).await;
    assert_eq!(done.status, 200, "{done:?}");
    for path in ["/orders", "/customers/gentleman/orders", "/flows", "/views", "/items/order-counts"] {
        assert_eq!(door.get(path).await.status, 200, "{path}");
    }
    for (path, kind) in [
        ("/console", "text/html"),
        ("/console/console.js", "text/javascript"),
        ("/docs", "text/html"),
        ("/openapi.json", "application/json"),
        ("/asyncapi.json", "application/json"),
    ] {
        let answer = door.get(path).await;
        assert!(
            answer.status == 200 && answer.header("content-type").starts_with(kind),
            "{path}: {answer:?}"
        );
    }
    let contract = door.get("/openapi.json").await.body;
    assert!(contract["paths"]["/orders"]["post"].is_object(), "the whole contract, commands too");
    for path in ["/metrics", "/readyz", "/admin/views/rebuild", "/breakers"] {
        assert_eq!(door.get(path).await.status, 404, "{path} is not for callers");
    }
    let request = door.request(Method::GET, "/orders").header("X-Request-Id", "mine-1");
    assert_eq!(door.send(request).await.header("x-request-id"), "mine-1");
    let mut large = order("gentleman");
    large["address"]["line"] = json!("가".repeat(40_000));
    let refused = door.post("/orders", &large).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"));
    drop(services);
    let away = door.post("/orders", &order("gentleman")).await;
    assert_eq!((away.status.as_u16(), away.code(), away.header("retry-after")), (503, "unavailable", "1"));
    assert!(away.header("content-type").starts_with("application/problem+json"), "{away:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_web_sites_neither_command_nor_read_unless_they_are_named() {
    let Some((_services, gateway)) = open(&["--trusted-origins", SHOP]).await else { return };
    let door = &gateway.client;
    let body = order("gentleman");
    let ours = from_page(door, SHOP, &body).await;
    assert_eq!((ours.status.as_u16(), ours.header("access-control-allow-origin")), (201, SHOP), "{ours:?}");
    assert!(ours.header("access-control-expose-headers").contains("Log-Position"));
    let evil = from_page(door, "https://evil.example", &body).await;
    assert_eq!((evil.status.as_u16(), evil.code()), (403, "cross_site"));
    assert_eq!(evil.header("access-control-allow-origin"), "");
    let asks = |origin: &str| {
        let request = door.request(Method::OPTIONS, "/orders").header("Origin", origin);
        request.header("Access-Control-Request-Method", "POST")
    };
    let allowed = door.send(asks(SHOP)).await;
    assert_eq!((allowed.status.as_u16(), allowed.header("access-control-allow-origin")), (204, SHOP));
    assert!(allowed.header("access-control-allow-headers").contains("Idempotency-Key"));
    assert_eq!(door.send(asks("https://evil.example")).await.header("access-control-allow-origin"), "");
    let read = door.get("/orders").await;
    assert_eq!(read.header("x-content-type-options"), "nosniff");
    assert!(read.header("content-security-policy").contains("frame-ancestors 'none'"));
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_the_door_callers_are_told_apart_by_where_they_come_from_and_cannot_claim_another_place() {
    let key = Key::ed25519("key");
    let issuer = Issuer::start(&[&key]).await;
    let limits = ["--calls-per-second", "1", "--calls-at-once", "3", "--trusted-proxies", "127.0.0.1/32"];
    let Some((services, gateway)) = open(&limits).await else { return };
    let claimed = |number: u32| {
        let request = gateway.client.request(Method::POST, "/orders").json(&order("gentleman"));
        request.header("X-Forwarded-For", format!("198.51.100.{number}"))
    };
    let mut statuses = Vec::new();
    for number in 0..8 {
        statuses.push(gateway.client.send(claimed(number)).await.status.as_u16());
    }
    assert!(statuses.contains(&429), "one caller, whatever they claim: {statuses:?}");
    drop(services);
    let Some((_services, gateway)) = open(&["--auth-jwks", issuer.url()]).await else { return };
    assert_eq!(gateway.client.post("/orders", &order("gentleman")).await.status, 401);
    let customer = gateway.client.bearing(&key.token("gentleman", "customer"));
    assert_eq!(customer.post("/orders", &order("gentleman")).await.status, 201, "tokens pass the door");
}
