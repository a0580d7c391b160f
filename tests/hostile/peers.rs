//! The hostile peers, one kind each. Each begins again when it is shown the door.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use futures::future::join_all;
use tokio::{io::AsyncWriteExt, time::sleep};
use twelve_tests::{
    Client,
    client::order,
    issuer::Key,
    peers::{DRIBBLE_WINDOW, Http2, connect, dribble, drip},
};

/// Where they come from; honest callers come from 127.0.0.1.
const FROM: [&str; 4] = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"];
const LIVE: &str = "/customers/greedy/orders/live";
const PLACE: &str = "/twelve.v1.Commands/PlaceOrder";
const LIST: &str = "/customers/greedy/orders?limit=200";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// A kind of hostile peer.
#[derive(Clone, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// Connections that say nothing
    Silent,
    /// Connections that drip a head
    Heads,
    /// HTTP/2 calls whose bodies never end
    Bodies,
    /// gRPC calls whose messages never end
    Messages,
    /// HTTP/1 bodies that drip, on each kind of route
    Drips,
    /// Lists that are asked for and not read
    Lists,
    /// Lists that are asked for, as fast as they come
    Pages,
    /// Answers that are read a little at a time
    Dribbles,
    /// Conversations by gRPC that go on for ever
    Conversations,
    /// Live streams that are not read
    Live,
    /// Calls over HTTP/1, one after the other, whose answers are not read
    Pipelines,
    /// Tokens with made-up keys, while the key server hangs
    Tokens,
    /// Methods, hosts and ids that are made up
    Labels,
    /// One customer's slow payments
    Payments,
    /// One customer's waits
    Waits,
    /// One customer's looks at the past
    Past,
}

impl Peer {
    pub(crate) fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    /// As the command line has it.
    pub(crate) fn name(&self) -> String {
        self.to_possible_value().expect("it has one").get_name().to_owned()
    }

    /// Does what it does, again and again.
    pub(crate) async fn stay(self, target: Target, until: Instant) {
        while Instant::now() < until {
            drop(tokio::time::timeout_at(until.into(), self.once(&target)).await);
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn once(&self, target: &Target) {
        let Target { client, customer, operator, token } = target;
        let token = token.as_str();
        let json = [("content-type", "application/json"), ("authorization", token)];
        let grpc = [("content-type", "application/grpc"), ("te", "trailers"), ("authorization", token)];
        let bearer = [("authorization", token)];
        match self {
            Self::Silent => silent(client).await,
            Self::Heads => heads(client).await,
            Self::Bodies => http2(client, ("POST", "/orders"), &json, (65_535, false)).await,
            Self::Messages => http2(client, ("POST", PLACE), &grpc, (65_535, false)).await,
            Self::Drips => drips(client, token).await,
            Self::Lists => http2(client, ("GET", LIST), &bearer, (0, true)).await,
            Self::Pages => many(customer, LIST, 100).await,
            Self::Dribbles => dribbles(client, token).await,
            Self::Conversations => {
                http2(client, ("POST", REFLECTION), &grpc, (65_535, false)).await;
                http2(client, ("POST", WATCH), &grpc, (65_535, false)).await;
            }
            Self::Live => http2(client, ("GET", LIVE), &bearer, (0, true)).await,
            Self::Pipelines => pipelines(client, token).await,
            Self::Tokens => tokens(client).await,
            Self::Labels => labels(client).await,
            Self::Payments => payments(customer).await,
            Self::Waits => many(customer, "/customers/greedy/orders?after=0:99999999&wait=10000", 500).await,
            Self::Past => many(operator, "/orders?limit=1&as_of=0:5", 20).await,
        }
    }
}

/// The platform that peers are hostile to, and as whom.
#[derive(Clone)]
pub(crate) struct Target {
    client: Client,
    customer: Client,
    operator: Client,
    /// The customer's, as a header field has it.
    token: String,
}

impl Target {
    pub(crate) fn new(url: &str, customer: &str, operator: &str) -> Self {
        let client = Client::new(url);
        let token = format!("Bearer {customer}");
        Self { customer: client.bearing(customer), operator: client.bearing(operator), client, token }
    }
}

async fn payments(greedy: &Client) {
    let mut slow = order("greedy");
    slow["payment"]["token"] = "tok_slow:2900".into();
    for _ in 0..20 {
        let (greedy, slow) = (greedy.clone(), slow.clone());
        tokio::spawn(async move {
            greedy.try_send(greedy.request(reqwest::Method::POST, "/orders").json(&slow)).await
        });
    }
    sleep(Duration::from_secs(1)).await;
}

/// Answers of which a little is taken at a time, over as many connections as calls.
async fn dribbles(client: &Client, token: &str) {
    let paths = [LIST, "/openapi.json", "/docs/swagger-ui.js", LIVE];
    let reading = (0..200).map(async |number: usize| {
        let mut connection = Http2::open(client, FROM[number % FROM.len()], DRIBBLE_WINDOW).await?;
        let fields = [("authorization", token)];
        let call = connection.begin("GET", paths[number % paths.len()], &fields, true).await?;
        let answer = call.response.await.ok()?;
        Some(dribble(answer.into_body(), Duration::from_millis(300)).await)
    });
    join_all(reading).await;
}

async fn many(client: &Client, path: &str, count: usize) {
    let calls = (0..count).map(|_| client.try_send(client.request(reqwest::Method::GET, path)));
    join_all(calls).await;
}

async fn silent(client: &Client) {
    let mut held = Vec::new();
    for number in 0..1_200 {
        held.extend(connect(client, FROM[number % FROM.len()]).await.ok());
    }
    sleep(Duration::from_secs(8)).await;
}

async fn heads(client: &Client) {
    let dripping = (0..200).map(async |number: usize| {
        let Ok(mut stream) = connect(client, FROM[number % FROM.len()]).await else { return };
        drop(stream.write_all(b"GET /orders HTTP/1.1\r\nHost: localhost\r\nX-A: ").await);
        drip(stream, Duration::from_millis(300)).await;
    });
    join_all(dripping).await;
}

/// Ten connections with as many calls as they may have.
async fn http2(
    client: &Client,
    (method, path): (&str, &str),
    fields: &[(&str, &str)],
    (window, is_whole): (u32, bool),
) {
    let connections = (0..10).map(async |number: usize| {
        let Some(mut connection) = Http2::open(client, FROM[number % FROM.len()], window).await else {
            return;
        };
        let mut calls = Vec::new();
        for _ in 0..100 {
            let Some(mut call) = connection.begin(method, path, fields, is_whole).await else { break };
            if !is_whole {
                drop(call.body.send_data("{".into(), false));
            }
            calls.push(call);
        }
        // Another one for each that is given up, for as long as the connection is open.
        while connection.is_open() && !calls.is_empty() {
            let call = calls.remove(0);
            let answered = tokio::time::timeout(Duration::from_secs(30), call.response).await;
            if !matches!(answered, Ok(Ok(_))) || (is_whole && window > 0) {
                return;
            }
            if is_whole {
                // Answered, and not read: until the connection is cut.
                while connection.is_open() {
                    sleep(Duration::from_millis(100)).await;
                }
                return;
            }
            calls.extend(connection.begin(method, path, fields, is_whole).await);
        }
    });
    join_all(connections).await;
}

async fn drips(client: &Client, token: &str) {
    let routes = [
        "POST /orders",
        "POST /orders/x/cancel",
        "GET /orders",
        "GET /customers/greedy/orders/live",
        "GET /views",
        "POST /nothing",
        "GET /metrics",
        "GET /docs",
        "GET /problems/not_found",
        "POST /grpc.health.v1.Health/Check",
        "POST /twelve.v1.Commands/PlaceOrder",
    ];
    let dripping = (0..160).map(async |number: usize| {
        let Ok(mut stream) = connect(client, FROM[number % FROM.len()]).await else { return };
        let route = routes[number % routes.len()];
        let head = format!(
            "{route} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\nContent-Type: application/json\r\n\
             Content-Length: 60000\r\n\r\n"
        );
        drop(stream.write_all(head.as_bytes()).await);
        drip(stream, Duration::from_millis(300)).await;
    });
    join_all(dripping).await;
}

async fn pipelines(client: &Client, token: &str) {
    let call = format!("GET {LIST} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n\r\n");
    let calls = call.repeat(50);
    let asking = (0..10).map(async |number: usize| {
        let Ok(mut stream) = connect(client, FROM[number % FROM.len()]).await else { return };
        while stream.write_all(calls.as_bytes()).await.is_ok() {}
    });
    join_all(asking).await;
}

async fn tokens(client: &Client) {
    let calls = (0..10).map(async |number: usize| {
        let made_up = Key::ed25519(&format!("made-up-{number}"));
        many(&client.bearing(&made_up.token("x", "customer")), "/orders", 5).await;
    });
    join_all(calls).await;
}

async fn labels(client: &Client) {
    for number in 0..20 {
        let method = reqwest::Method::from_bytes(format!("X{number}").as_bytes()).expect("a method");
        let request = client.request(method, &format!("/made/up/{number}"));
        drop(client.try_send(request.header("X-Request-Id", format!("x}} {number}"))).await);
    }
}
