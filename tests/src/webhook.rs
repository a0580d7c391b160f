//! A receiver of webhooks: a real HTTP server that keeps what it was sent.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::Value;
use tokio::sync::watch;

use crate::LIMIT;

/// One message, as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub headers: HeaderMap,
    pub text: String,
    pub body: Value,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

#[derive(Clone)]
struct Shared {
    received: Arc<Mutex<Vec<Received>>>,
    count: Arc<watch::Sender<usize>>,
    answer: Arc<Mutex<(u16, Duration)>>,
    retry_after: Arc<Mutex<Option<u32>>>,
}

/// A receiver that runs until the test ends.
pub struct Webhook {
    url: String,
    shared: Shared,
}

impl Webhook {
    pub async fn start() -> Self {
        let shared = Shared {
            received: Arc::default(),
            count: Arc::new(watch::channel(0).0),
            answer: Arc::new(Mutex::new((204, Duration::ZERO))),
            retry_after: Arc::default(),
        };
        let router = Router::new().route("/", post(receive)).with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, shared }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Answers from now on with this status, after so long. What is not 2xx counts as not received.
    pub fn answer(&self, status: u16, after: Duration) {
        *self.shared.answer.lock().unwrap_or_else(PoisonError::into_inner) = (status, after);
    }

    /// Answers the next call with 503 and so many seconds in `Retry-After`.
    pub fn be_busy_once(&self, seconds: u32) {
        *self.shared.retry_after.lock().unwrap_or_else(PoisonError::into_inner) = Some(seconds);
    }

    /// What was received so far, in order.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so many were received.
    pub async fn until(&self, count: usize) -> Vec<Received> {
        let mut counts = self.shared.count.subscribe();
        let waited = tokio::time::timeout(LIMIT, counts.wait_for(|seen| *seen >= count)).await;
        assert!(waited.is_ok(), "{count} messages; there are {:?}", self.received());
        drop(waited);
        self.received()
    }
}

async fn receive(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let busy = shared.retry_after.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(seconds) = busy {
        return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", seconds.to_string())]).into_response();
    }
    let (status, after) = *shared.answer.lock().unwrap_or_else(PoisonError::into_inner);
    tokio::time::sleep(after).await;
    if (200..300).contains(&status) {
        let text = String::from_utf8(body.to_vec()).expect("UTF-8");
        let body = serde_json::from_str(&text).expect("JSON");
        let mut received = shared.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.push(Received { headers, text, body });
        shared.count.send_replace(received.len());
    }
    StatusCode::from_u16(status).expect("a status").into_response()
}
