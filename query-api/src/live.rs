//! Server-Sent Events: a snapshot, then every change; `id:` is a position, by which a reader resumes without a gap.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::{
    extract::{Path, State},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use domain::{OrderId, Position};
use futures::{Stream, StreamExt, stream};
use projector::{
    LiveEvent, Views,
    view::{
        List,
        mypage::MyPage,
        order_key,
        orders::{Entry, Orders, Row},
        places_of,
        store_orders::StoreOrders,
    },
};
use serde_json::{Value, json};
use service::Problem;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::{
    App,
    read::{Read, store_failed},
};

/// A line is sent this often, so that a proxy does not take silence for death.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Orders of one customer or store that a live page looks at.
const ORDERS_MAX: usize = 200;

/// What a stream follows.
#[derive(Clone, PartialEq)]
enum Subject {
    Order(OrderId),
    Customer(String),
    Store(String),
}

/// A stream on its way.
struct Following {
    subject: Subject,
    /// Sent before anything live.
    first: VecDeque<Event>,
    live: Receiver<LiveEvent>,
    /// The last sequence sent of each partition.
    sent: Vec<Position>,
    ended: bool,
}

/// `GET /orders/{id}/live`
pub async fn order(State(app): State<App>, Path(id): Path<String>, read: Read) -> Result<Response, Problem> {
    read.finish()?;
    let order_id: OrderId = id.parse().map_err(|_| Problem::order_not_found())?;
    let resume = resume_from(&read)?;
    let live = app.views.live();
    let row = app.views.row::<Orders>(&order_key(order_id)).map_err(|error| store_failed(&error))?;
    let row = row.filter(Row::is_visible).ok_or_else(Problem::order_not_found)?;
    let mut following = Following::new(Subject::Order(order_id), live, &app.views);
    following.sent = row.position().into_iter().collect();
    match resume {
        None => following.first.push_back(snapshot(&following.sent, &Orders::show(&row))?),
        Some(seen) => {
            let seen = seen.first().copied().unwrap_or_default();
            following.sent = vec![seen];
            for entry in row.timeline.iter().filter(|entry| entry.position.sequence > seen.sequence) {
                following.note(order_id, entry)?;
            }
        }
    }
    Ok(respond(following, &app))
}

/// `GET /customers/{id}/orders/live`
pub async fn customer(
    State(app): State<App>,
    Path(customer_id): Path<String>,
    read: Read,
) -> Result<Response, Problem> {
    let places = places_of(&customer_id);
    list::<MyPage>(&app, &read, Subject::Customer(customer_id), &places)
}

/// `GET /stores/{id}/orders/live`
pub async fn store(
    State(app): State<App>,
    Path(store_id): Path<String>,
    read: Read,
) -> Result<Response, Problem> {
    let places = places_of(&store_id);
    list::<StoreOrders>(&app, &read, Subject::Store(store_id), &places)
}

/// A live list: the rows at these places, then every change of their orders.
fn list<L: List<Row = Row>>(
    app: &App,
    read: &Read,
    subject: Subject,
    places: &[u8],
) -> Result<Response, Problem> {
    read.finish()?;
    let resume = resume_from(read)?;
    let mut following = Following::new(subject, app.views.live(), &app.views);
    let page =
        app.views.list::<L>(places, None, ORDERS_MAX, |_| true).map_err(|error| store_failed(&error))?;
    let Some(seen) = resume else {
        let items: Vec<Value> = page.shown();
        following.first.push_back(snapshot(&following.sent, &json!({ "items": items }))?);
        return Ok(respond(following, app));
    };
    let mut missed = Vec::new();
    for row in page.rows {
        missed.extend(row.timeline.into_iter().map(|entry| (row.order_id, entry)));
    }
    missed.retain(|(_, entry)| is_news(&seen, entry.position));
    missed.sort_by_key(|(_, entry)| (entry.time, entry.position));
    following.sent = seen;
    for (order_id, entry) in &missed {
        following.note(*order_id, entry)?;
    }
    Ok(respond(following, app))
}

/// The positions in `Last-Event-ID`.
fn resume_from(read: &Read) -> Result<Option<Vec<Position>>, Problem> {
    let Some(text) = &read.last_event_id else { return Ok(None) };
    let positions: Result<Vec<Position>, _> = text.split(',').map(str::parse).collect();
    positions.map(Some).map_err(|error| Problem::malformed(format!("Last-Event-ID: {error}")))
}

fn is_news(sent: &[Position], position: Position) -> bool {
    sent.iter().all(|sent| sent.partition != position.partition || sent.sequence < position.sequence)
}

fn event_id(sent: &[Position]) -> String {
    sent.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn event(name: &str, sent: &[Position], data: &Value) -> Result<Event, Problem> {
    Event::default().event(name).id(event_id(sent)).json_data(data).map_err(|error| {
        tracing::error!(%error, "a live event could not be written");
        Problem::unavailable("view_unavailable", "a live event could not be written", 1)
    })
}

fn snapshot(sent: &[Position], data: &Value) -> Result<Event, Problem> {
    event("snapshot", sent, data)
}

impl Following {
    fn new(subject: Subject, live: Receiver<LiveEvent>, views: &Views) -> Self {
        Self { subject, first: VecDeque::new(), live, sent: views.positions(), ended: false }
    }

    /// Notes that an entry is sent, and makes the event that sends it.
    fn change(&mut self, order_id: OrderId, entry: &Entry) -> Result<Event, Problem> {
        let position = entry.position;
        match self.sent.iter_mut().find(|sent| sent.partition == position.partition) {
            Some(sent) => sent.sequence = sent.sequence.max(position.sequence),
            None => self.sent.push(position),
        }
        let mut data = entry.show();
        if let Some(fields) = data.as_object_mut() {
            fields.insert("order_id".into(), json!(order_id));
        }
        event("change", &self.sent, &data)
    }

    fn note(&mut self, order_id: OrderId, entry: &Entry) -> Result<(), Problem> {
        let event = self.change(order_id, entry)?;
        self.first.push_back(event);
        Ok(())
    }

    async fn next(mut self) -> Option<(Event, Self)> {
        if let Some(event) = self.first.pop_front() {
            return Some((event, self));
        }
        while !self.ended {
            match self.live.recv().await {
                Ok(change) if self.concerns(&change) => {
                    let event = self.change(change.order_id, &change.entry).ok()?;
                    return Some((event, self));
                }
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => {
                    self.ended = true;
                    let data = json!({ "reason": "too slow", "missed": missed, "resume_from": event_id(&self.sent) });
                    return Some((Event::default().event("dropped").data(data.to_string()), self));
                }
                Err(RecvError::Closed) => return None,
            }
        }
        None
    }

    fn concerns(&self, change: &LiveEvent) -> bool {
        let is_ours = match &self.subject {
            Subject::Order(order_id) => change.order_id == *order_id,
            Subject::Customer(customer_id) => change.customer_id == *customer_id,
            Subject::Store(store_id) => change.store_id.as_ref() == Some(store_id),
        };
        is_ours && is_news(&self.sent, change.entry.position)
    }
}

fn respond(following: Following, app: &App) -> Response {
    let stop = app.stop.clone();
    let events = stream::unfold(following, Following::next).map(Ok).take_until(stop.cancelled_owned());
    sse(events)
}

fn sse(events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static) -> Response {
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response();
    response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    response
}
