//! A user of the REST surface. It waits for facts by the live streams, with a limit.

use std::time::{Duration, Instant};

use futures::StreamExt;
use reqwest::{Method, RequestBuilder, Response, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::LIMIT;

/// How long to wait before looking again whether a fact has come about.
pub const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    /// A header's text; empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The problem's code; empty if the answer is none.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    pub fn order_id(&self) -> String {
        self.body["order_id"].as_str().unwrap_or_else(|| panic!("no order in {self:?}")).to_owned()
    }

    /// The JSON pointers of the body's faults, sorted.
    pub fn pointers(&self) -> Vec<&str> {
        let faults = self.body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut pointers: Vec<&str> = faults.iter().filter_map(|fault| fault["pointer"].as_str()).collect();
        pointers.sort_unstable();
        pointers
    }
}

/// One Server-Sent Event.
#[derive(Clone, Debug)]
pub struct LiveEvent {
    pub name: String,
    pub id: String,
    pub data: Value,
}

/// An order of the marketplace that the sandbox approves.
pub fn order(customer: &str) -> Value {
    json!({
        "flow": "marketplace",
        "customer": { "id": customer, "name": "홍길동", "phone": "010-0000-0000" },
        "lines": [{ "item_id": "2001", "name": "gram", "quantity": 1, "unit_price": 9_000_000 }],
        "currency": "KRW",
        "address": { "line": "England", "region": "london" },
        "payment": { "method": "card", "token": "tok_ok" },
    })
}

#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

impl Client {
    pub fn new(url: &str) -> Self {
        let http = reqwest::Client::builder().timeout(LIMIT).build().expect("a client");
        Self { http, url: url.to_owned(), token: None }
    }

    /// The same, with a connection of its own for each call.
    #[must_use]
    pub fn without_keep_alive(&self) -> Self {
        let http = reqwest::Client::builder().timeout(LIMIT).pool_max_idle_per_host(0).build();
        Self { http: http.expect("a client"), ..self.clone() }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The same, as the bearer of this token.
    #[must_use]
    pub fn bearing(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub async fn send(&self, request: RequestBuilder) -> Answer {
        self.try_send(request).await.expect("an answer")
    }

    /// `None` if the connection broke before an answer came.
    pub async fn try_send(&self, request: RequestBuilder) -> Option<Answer> {
        let response = request.send().await.ok()?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await.ok()?;
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Some(Answer { status, headers, body })
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    pub async fn post_with(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
        let request = self.request(Method::POST, path).json(body);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.send(request).await
    }

    pub async fn post_with_key(&self, path: &str, key: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).header("Idempotency-Key", key).json(body)).await
    }

    /// Places an order under a key, again where the answer is "not now", as any caller would.
    pub async fn place_at_last(&self, body: &Value, key: &str) -> Answer {
        let placing = async {
            loop {
                let answer = self.post_with_key("/orders", key, body).await;
                match answer.status.as_u16() {
                    201 => return answer,
                    503 => tokio::time::sleep(Duration::from_millis(50)).await,
                    _ => panic!("{answer:?}"),
                }
            }
        };
        timeout(LIMIT, placing).await.unwrap_or_else(|_| panic!("{key} is not taken"))
    }

    /// Places an order that must stand, and waits until the views have seen it.
    pub async fn place(&self, body: &Value) -> String {
        let placed = self.post("/orders", body).await;
        assert_eq!(placed.status, 201, "{placed:?}");
        self.order_after(&placed.order_id(), placed.header("log-position")).await;
        placed.order_id()
    }

    /// An order's row, once the views have seen `position`.
    pub async fn order_after(&self, order_id: &str, position: &str) -> Value {
        let order = self.get(&format!("/orders/{order_id}?after={position}&wait=10000")).await;
        assert_eq!(
            order.status,
            200,
            "{position} {order:?} {:#}",
            self.get(&format!("/orders/{order_id}/events")).await.body
        );
        order.body
    }

    /// Waits until the order's row says so; answers with the row.
    pub async fn until(&self, order_id: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/orders/{order_id}");
        let waiting = async {
            // The views may not know of it yet.
            while self.get(&path).await.status == 404 {
                tokio::time::sleep(LOOK_PAUSE).await;
            }
            let mut live = self.live(&format!("{path}/live"), None).await;
            while let Some(event) = live.next().await {
                let row = if event.name == "snapshot" { event.data } else { self.get(&path).await.body };
                if holds(&row) {
                    return row;
                }
            }
            panic!("the live stream of {order_id} ended before {what}");
        };
        if let Ok(row) = timeout(LIMIT, waiting).await {
            return row;
        }
        panic!("{order_id} is not {what} after {LIMIT:?}: {:#}", self.get(&path).await.body)
    }

    pub async fn until_status(&self, order_id: &str, status: &str) -> Value {
        self.until(order_id, status, |row| row["status"] == status).await
    }

    /// The events of an order, in order, by type; what its customer was told, and when, is left out.
    pub async fn event_types(&self, order_id: &str) -> Vec<String> {
        let path = format!("/orders/{order_id}/events");
        let (mut items, mut next) = (Vec::new(), Some(path.clone()));
        while let Some(asked) = next {
            let events = self.get(&asked).await;
            assert_eq!(events.status, 200, "{events:?}");
            items.extend(events.body["items"].as_array().cloned().unwrap_or_default());
            next = events.body["next_cursor"].as_str().map(|cursor| format!("{path}?cursor={cursor}"));
        }
        let moving = items.iter().filter(|event| event["context"] != "notification");
        moving.filter_map(|event| event["type"].as_str()).map(ToOwned::to_owned).collect()
    }

    /// Follows a live stream, resuming after `last_event_id` if one is given.
    pub async fn live(&self, path: &str, last_event_id: Option<&str>) -> Live {
        let mut request = self.request(Method::GET, path).header("Accept", "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        let response = request.send().await.expect("a live stream");
        assert_eq!(response.status(), 200, "{path}");
        Live::new(response)
    }

    /// Waits until the process says that it is ready.
    pub async fn until_ready(&self) {
        self.until_ready_or(String::new).await;
    }

    /// Waits until the process says that it is ready; `said` tells why it is not.
    pub async fn until_ready_or(&self, said: impl Fn() -> String) {
        let started = Instant::now();
        loop {
            let ready = self.try_send(self.request(Method::GET, "/readyz")).await;
            if ready.as_ref().is_some_and(|ready| ready.status == 200) {
                return;
            }
            assert!(started.elapsed() < LIMIT, "{} is not ready: {ready:?} {}", self.url, said());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// One number of `/metrics`; `None` if there is no such line.
    pub async fn metric(&self, line_begins: &str) -> Option<f64> {
        let metrics = self.get("/metrics").await;
        let text = metrics.body.as_str().unwrap_or_default();
        text.lines().find(|line| line.starts_with(line_begins))?.rsplit_once(' ')?.1.parse().ok()
    }
}

/// A live stream being read.
pub struct Live {
    bytes: futures::stream::BoxStream<'static, Vec<u8>>,
    buffer: Vec<u8>,
}

impl Live {
    fn new(response: Response) -> Self {
        let bytes = response.bytes_stream().filter_map(async |chunk| chunk.ok().map(|chunk| chunk.to_vec()));
        Self { bytes: bytes.boxed(), buffer: Vec::new() }
    }

    /// The next event; `None` once the stream ended.
    pub async fn next(&mut self) -> Option<LiveEvent> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                if let Some(event) = parse(&String::from_utf8_lossy(&block)) {
                    return Some(event);
                }
            } else {
                let chunk = timeout(LIMIT, self.bytes.next()).await.expect("something within the limit")?;
                self.buffer.extend(chunk);
            }
        }
    }
}

fn parse(block: &str) -> Option<LiveEvent> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    Some(LiveEvent {
        name: field("event:")?.to_owned(),
        id: field("id:").unwrap_or_default().to_owned(),
        data: serde_json::from_str(field("data:")?).ok()?,
    })
}
