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
use command_svc::provider::books::{self, Books};
use domain::{Currency, Money};
use serde_json::{Value, json};

/// How long an answer that is to be lost is held back: longer than any caller waits.
const LOST: Duration = Duration::from_mins(1);

/// What the provider knows of a key, in minor units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Charged(i64),
    Declined,
    /// With what was given back.
    Closed(i64),
}

impl From<&books::Entry> for Entry {
    fn from(entry: &books::Entry) -> Self {
        match entry {
            books::Entry::Charged(money) => Self::Charged(money.amount),
            books::Entry::Declined => Self::Declined,
            books::Entry::Closed(money) => Self::Closed(money.amount),
        }
    }
}

/// What every call is answered with, whatever the books say.
#[derive(Clone, Debug, Default)]
pub struct Fault {
    pub status: u16,
    /// Seconds, or nothing.
    pub retry_after: Option<u32>,
}

#[derive(Default)]
struct Shelf {
    books: Books,
    /// How often money was taken under a key.
    charges: BTreeMap<String, u32>,
    calls: u32,
    /// Charges that arrived, however late.
    arrived: u32,
    fault: Option<Fault>,
    /// What a close says went back, whatever did.
    says_returned: Option<i64>,
    /// How long the answers to closes are held back; they are closed at once.
    close_delay: Duration,
    /// What the answers about charges say in the place of the truth.
    says_charged: Option<Value>,
    /// How the provider calls a charge.
    reference: Option<String>,
}

/// A provider that runs until the test ends.
#[derive(Clone)]
pub struct PaymentProvider {
    url: String,
    books: Arc<Mutex<Shelf>>,
}

impl PaymentProvider {
    pub async fn start() -> Self {
        let books = Arc::new(Mutex::new(Shelf::default()));
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

    fn books(&self) -> MutexGuard<'_, Shelf> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers every call with 500, or no more.
    pub fn set_down(&self, is_down: bool) {
        self.set_fault(is_down.then_some(Fault { status: 500, retry_after: None }));
    }

    /// Answers every call so, or by its books again.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.books().fault = fault;
    }

    /// Says of every close that so much went back, or the truth again.
    pub fn say_returned(&self, returned: Option<i64>) {
        self.books().says_returned = returned;
    }

    /// Answers closes so much later than they are done.
    pub fn answer_closes_after(&self, delay: Duration) {
        self.books().close_delay = delay;
    }

    /// Says these members of every charge, or the truth again.
    pub fn say_charged(&self, members: Option<Value>) {
        self.books().says_charged = members;
    }

    /// Calls charges so from now on.
    pub fn call_charges(&self, reference: &str) {
        self.books().reference = Some(reference.to_owned());
    }

    /// What is written about an attempt to pay an order.
    pub fn entry(&self, order_id: &str, attempt: u32) -> Option<Entry> {
        self.books().books.entry(&format!("{order_id}.{attempt}")).map(Entry::from)
    }

    /// The keys under which money is held now.
    pub fn held(&self) -> Vec<String> {
        self.held_of("")
    }

    /// Those of one order.
    pub fn held_of(&self, order_id: &str) -> Vec<String> {
        let books = self.books();
        let held = books.books.held().filter(|(key, _)| key.starts_with(order_id));
        held.map(|(key, _)| key.to_owned()).collect()
    }

    /// Gives back what is held under a key, without being asked.
    pub fn close_behind_our_back(&self, key: &str) {
        self.books().books.close(key, Money { amount: 0, currency: Currency::WON });
    }

    /// All that is held, in minor units.
    pub fn balance(&self) -> i64 {
        self.balance_of("")
    }

    /// What is held of one order.
    pub fn balance_of(&self, order_id: &str) -> i64 {
        let books = self.books();
        books.books.held().filter(|(key, _)| key.starts_with(order_id)).map(|(_, held)| held).sum()
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

type Shared = State<Arc<Mutex<Shelf>>>;

fn open(books: &Mutex<Shelf>) -> Result<MutexGuard<'_, Shelf>, Box<Response>> {
    let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
    books.calls += 1;
    let Some(fault) = &books.fault else { return Ok(books) };
    let status = StatusCode::from_u16(fault.status).expect("a status");
    let mut answer = status.into_response();
    if let Some(seconds) = fault.retry_after {
        answer.headers_mut().insert("retry-after", seconds.into());
    }
    Err(Box::new(answer))
}

/// `tok_ok` charges, `tok_lost` charges and never answers, `tok_late:<ms>` charges after that long, `tok_error` charges
/// and answers 500, `tok_garbage` charges and answers nonsense, `tok_status:<code>` answers so and takes nothing,
/// `tok_busy:<ms>` charges, answers after that long, and answers all other calls under its key with 400, all others
/// decline.
async fn charge(State(books): Shared, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    if let Err(down) = open(&books) {
        return *down;
    }
    let key = headers["idempotency-key"].to_str().expect("a key").to_owned();
    let token = body["token"].as_str().unwrap_or_default().to_owned();
    let amount: Money =
        serde_json::from_value(json!({ "amount": body["amount"], "currency": body["currency"] }))
            .expect("money");
    if let Some(status) = token.strip_prefix("tok_status:").and_then(|code| code.parse().ok()) {
        return StatusCode::from_u16(status).expect("a status").into_response();
    }
    let late = token.strip_prefix("tok_late:").and_then(|ms| ms.parse().ok());
    if let Some(ms) = late {
        // The call goes on although its caller has left.
        let (sleep, books) = (tokio::time::sleep(Duration::from_millis(ms)), Arc::clone(&books));
        let book = tokio::spawn(async move {
            sleep.await;
            write(&books, &key, true, amount)
        });
        return book.await.expect("an answer");
    }
    if let Some(ms) = token.strip_prefix("tok_busy:").and_then(|ms| ms.parse().ok()) {
        let is_new = books.lock().unwrap_or_else(PoisonError::into_inner).books.entry(&key).is_none();
        if !is_new {
            return StatusCode::BAD_REQUEST.into_response();
        }
        let answer = write(&books, &key, true, amount);
        tokio::time::sleep(Duration::from_millis(ms)).await;
        return answer;
    }
    let pays = ["tok_ok", "tok_lost", "tok_error", "tok_garbage"].contains(&token.as_str());
    let is_new = books.lock().unwrap_or_else(PoisonError::into_inner).books.entry(&key).is_none();
    let answer = write(&books, &key, pays, amount);
    match token.as_str() {
        "tok_lost" if is_new => tokio::time::sleep(LOST).await,
        "tok_error" if is_new => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        "tok_garbage" if is_new => return (StatusCode::OK, "<html>thank you</html>").into_response(),
        _ => {}
    }
    answer
}

fn write(books: &Mutex<Shelf>, key: &str, pays: bool, amount: Money) -> Response {
    let mut shelf = books.lock().unwrap_or_else(PoisonError::into_inner);
    shelf.arrived += 1;
    if pays && shelf.books.entry(key).is_none() {
        *shelf.charges.entry(key.to_owned()).or_default() += 1;
    }
    shelf.books.charge(key, amount, pays);
    answer(key, &shelf)
}

fn answer(key: &str, shelf: &Shelf) -> Response {
    let (status, body) = match shelf.books.entry(key) {
        Some(books::Entry::Charged(money)) => {
            let reference = shelf.reference.clone().unwrap_or_else(|| format!("pay-{key}"));
            let mut body = json!({ "status": "approved", "reference": reference, "amount": money.amount });
            for (member, said) in shelf.says_charged.iter().filter_map(Value::as_object).flatten() {
                body[member] = said.clone();
            }
            (StatusCode::OK, body)
        }
        Some(books::Entry::Declined) => {
            (StatusCode::PAYMENT_REQUIRED, json!({ "status": "declined", "reason": "no cover" }))
        }
        Some(books::Entry::Closed(_)) => (StatusCode::CONFLICT, json!({ "status": "closed" })),
        None => (StatusCode::NOT_FOUND, json!({})),
    };
    (status, Json(body)).into_response()
}

async fn look_up(State(books): Shared, Path(key): Path<String>) -> Response {
    match open(&books) {
        Ok(books) => {
            let mut found = answer(&key, &books);
            if found.status() != StatusCode::NOT_FOUND {
                *found.status_mut() = StatusCode::OK;
            }
            found
        }
        Err(down) => *down,
    }
}

async fn close(State(books): Shared, Path(key): Path<String>) -> Response {
    let (returned, delay) = match open(&books) {
        Ok(mut books) => {
            let nothing = Money { amount: 0, currency: Currency::WON };
            let returned = books.books.close(&key, nothing).amount;
            (books.says_returned.unwrap_or(returned), books.close_delay)
        }
        Err(down) => return *down,
    };
    tokio::time::sleep(delay).await;
    Json(json!({ "returned": returned })).into_response()
}
