//! A payment provider: a real HTTP server with books of its own, by the protocol of `docs/payment-provider.md`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

/// How long an answer that is to be lost is held back: longer than any caller waits.
const LOST: Duration = Duration::from_mins(1);

/// What the provider knows of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Charged(i64),
    Declined,
    /// With what was given back.
    Closed(i64),
}

#[derive(Default)]
struct Books {
    entries: BTreeMap<String, Entry>,
    /// How often money was taken under a key.
    charges: BTreeMap<String, u32>,
    calls: u32,
    /// Charges that arrived, however late.
    arrived: u32,
    is_down: bool,
}

/// A provider that runs until the test ends.
#[derive(Clone)]
pub struct PaymentProvider {
    url: String,
    books: Arc<Mutex<Books>>,
}

impl PaymentProvider {
    pub async fn start() -> Self {
        let books = Arc::new(Mutex::new(Books::default()));
        let router = Router::new()
            .route("/charges", post(charge))
            .route("/charges/{key}", get(look_up))
            .route("/charges/{key}/close", post(close))
            .with_state(Arc::clone(&books));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, books }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers every call with 500, or no more.
    pub fn set_down(&self, is_down: bool) {
        self.books().is_down = is_down;
    }

    /// What is written about an attempt to pay an order.
    pub fn entry(&self, order_id: &str, attempt: u32) -> Option<Entry> {
        self.books().entries.get(&format!("{order_id}.{attempt}")).cloned()
    }

    /// The keys under which money is held now.
    pub fn held(&self) -> Vec<String> {
        self.held_of("")
    }

    /// Those of one order.
    pub fn held_of(&self, order_id: &str) -> Vec<String> {
        let books = self.books();
        let of = books.entries.range(order_id.to_owned()..).take_while(|(key, _)| key.starts_with(order_id));
        let held = of.filter(|(_, entry)| matches!(entry, Entry::Charged(_)));
        held.map(|(key, _)| key.clone()).collect()
    }

    /// The most often that money was taken under one key.
    pub fn charges_max(&self) -> u32 {
        self.books().charges.values().copied().max().unwrap_or_default()
    }

    /// How many charges arrived, heard by their callers or not.
    pub fn arrived(&self) -> u32 {
        self.books().arrived
    }

    pub fn calls(&self) -> u32 {
        self.books().calls
    }
}

type Shared = State<Arc<Mutex<Books>>>;

fn open(books: &Mutex<Books>) -> Result<MutexGuard<'_, Books>, Box<Response>> {
    let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
    books.calls += 1;
    if books.is_down { Err(Box::new(StatusCode::INTERNAL_SERVER_ERROR.into_response())) } else { Ok(books) }
}

/// `tok_ok` charges, `tok_lost` charges and never answers, `tok_late:<ms>` charges after that long, all others decline.
async fn charge(State(books): Shared, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    if let Err(down) = open(&books) {
        return *down;
    }
    let key = headers["idempotency-key"].to_str().expect("a key").to_owned();
    let token = body["token"].as_str().unwrap_or_default().to_owned();
    let late = token.strip_prefix("tok_late:").and_then(|ms| ms.parse().ok());
    if let Some(ms) = late {
        // The call goes on although its caller has left.
        let (sleep, books) = (tokio::time::sleep(Duration::from_millis(ms)), Arc::clone(&books));
        let book = tokio::spawn(async move {
            sleep.await;
            write(&books, &key, true, body["amount"].as_i64().unwrap_or_default())
        });
        return book.await.expect("an answer");
    }
    let pays = ["tok_ok", "tok_lost"].contains(&token.as_str());
    let is_new = !books.lock().unwrap_or_else(PoisonError::into_inner).entries.contains_key(&key);
    let answer = write(&books, &key, pays, body["amount"].as_i64().unwrap_or_default());
    if token == "tok_lost" && is_new {
        tokio::time::sleep(LOST).await;
    }
    answer
}

fn write(books: &Mutex<Books>, key: &str, pays: bool, amount: i64) -> Response {
    let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
    books.arrived += 1;
    if !books.entries.contains_key(key) {
        if pays {
            *books.charges.entry(key.to_owned()).or_default() += 1;
        }
        books.entries.insert(key.to_owned(), if pays { Entry::Charged(amount) } else { Entry::Declined });
    }
    answer(key, books.entries.get(key))
}

fn answer(key: &str, entry: Option<&Entry>) -> Response {
    let (status, body) = match entry {
        Some(Entry::Charged(_)) => {
            (StatusCode::OK, json!({ "status": "approved", "reference": format!("pay-{key}") }))
        }
        Some(Entry::Declined) => {
            (StatusCode::PAYMENT_REQUIRED, json!({ "status": "declined", "reason": "no cover" }))
        }
        Some(Entry::Closed(_)) => (StatusCode::CONFLICT, json!({ "status": "closed" })),
        None => (StatusCode::NOT_FOUND, json!({})),
    };
    (status, Json(body)).into_response()
}

async fn look_up(State(books): Shared, Path(key): Path<String>) -> Response {
    match open(&books) {
        Ok(books) => {
            let mut found = answer(&key, books.entries.get(&key));
            if found.status() != StatusCode::NOT_FOUND {
                *found.status_mut() = StatusCode::OK;
            }
            found
        }
        Err(down) => *down,
    }
}

async fn close(State(books): Shared, Path(key): Path<String>) -> Response {
    match open(&books) {
        Ok(mut books) => {
            let returned = match books.entries.get(&key) {
                Some(Entry::Charged(amount) | Entry::Closed(amount)) => *amount,
                Some(Entry::Declined) | None => 0,
            };
            books.entries.insert(key, Entry::Closed(returned));
            Json(json!({ "returned": returned })).into_response()
        }
        Err(down) => *down,
    }
}
