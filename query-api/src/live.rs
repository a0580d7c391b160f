//! Server-Sent Events: a snapshot, then every change; `id:` is a position, by which a reader resumes without a gap.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::{Path, State},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use domain::{OrderId, Position, Timestamp, access::Parties, sight::Sight};
use futures::{StreamExt, stream};
use projector::{
    StoreError, Views,
    live::{Following, LiveEvent, Topic},
    view::{
        List, as_json,
        mypage::MyPage,
        order_key,
        orders::{Entry, Orders, Row},
        places_of,
        store_orders::StoreOrders,
    },
};
use serde::Serialize;
use service::{Caller, Code, Problem};
use tokio::sync::broadcast::error::RecvError;

use crate::{
    App,
    answers::{Dropped, Ended, OrderChange, Snapshot},
    pages::{self, off_threads},
    read::{Read, parse_positions, refuse_unknown, store_failed},
};

/// A line is sent this often, so that a proxy does not take silence for death.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Orders of one customer or store that a live page begins with.
const ORDERS_MAX: usize = 200;
/// Rows that are looked at for what a reader missed; where there are more, it begins with a snapshot.
const ROWS_LOOKED_AT_MAX: usize = 1_000;

/// Why a stream ended that its reader did not end.
#[derive(Clone, Copy)]
enum Ending {
    /// The order is not the reader's to see any more.
    NotPermitted,
    TokenExpired,
}

impl Ending {
    const fn reason(self) -> &'static str {
        match self {
            Self::NotPermitted => "not_permitted",
            Self::TokenExpired => "token_expired",
        }
    }

    const fn detail(self) -> &'static str {
        match self {
            Self::NotPermitted => "this is not yours to see any more",
            Self::TokenExpired => "the token has expired; resume with a new one",
        }
    }
}

/// A stream on its way.
struct Stream {
    /// Who reads it: what they may see is judged again with each event.
    caller: Caller,
    /// Sent before anything live.
    first: VecDeque<Event>,
    live: Following,
    /// The last sequence sent of each partition.
    sent: Vec<Position>,
    /// What is not later than this was told before anything live.
    from: Vec<Position>,
    ended: bool,
}

/// `GET /orders/{id}/live`
pub async fn order(State(app): State<App>, Path(id): Path<String>, read: Read) -> Result<Response, Problem> {
    read.finish()?;
    let order_id: OrderId = id.parse().map_err(|_| Problem::order_not_found())?;
    let resume = resume_from(&app, &read).await?;
    let live = app.views.follow(Topic::Order(order_id));
    let row = app.views.row::<Orders>(&order_key(order_id)).map_err(|error| store_failed(&error))?;
    let row = row.filter(Row::is_visible).ok_or_else(Problem::order_not_found)?;
    let sight = read.caller.sight(&row.parties())?;
    let mut following = Stream::new(live, &app.views, &read.caller);
    following.from = row.position().into_iter().collect();
    following.sent.clone_from(&following.from);
    // The id of another stream, which says nothing of this order, begins with a snapshot.
    let partition = order_id.partition(app.log.partitions());
    match resume.and_then(|seen| seen.into_iter().find(|seen| seen.partition == partition)) {
        None => following.first.push_back(snapshot(&following.sent, &Orders::shown_to(&row, sight))?),
        Some(seen) => {
            following.skip(&[seen]);
            following.sent = vec![seen];
            for entry in row.timeline.iter().filter(|entry| entry.position.sequence > seen.sequence) {
                following.note(order_id, entry, sight)?;
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
    list::<MyPage>(&app, &read, Topic::Customer(customer_id), places).await
}

/// `GET /stores/{id}/orders/live`
pub async fn store(
    State(app): State<App>,
    Path(store_id): Path<String>,
    read: Read,
) -> Result<Response, Problem> {
    let places = places_of(&store_id);
    list::<StoreOrders>(&app, &read, Topic::Store(store_id), places).await
}

/// A live list: the rows at these places, then every change of their orders.
async fn list<L: List<Row = Row>>(
    app: &App,
    read: &Read,
    topic: Topic,
    places: Vec<u8>,
) -> Result<Response, Problem> {
    read.finish()?;
    let seen = resume_from(app, read).await?;
    // Before anything is followed, so that nothing piles up while others have their turn.
    let building = pages::turn(&read.caller).await?;
    let following = off_threads(|| match &seen {
        Some(seen) => resume::<L>(app, read, &topic, &places, seen),
        None => begin::<L>(app, Stream::new(app.views.follow(topic), &app.views, &read.caller), &places),
    })?;
    drop(building);
    Ok(respond(following, app))
}

/// A live list that goes on after what its reader has seen.
fn resume<L: List<Row = Row>>(
    app: &App,
    read: &Read,
    topic: &Topic,
    places: &[u8],
    seen: &[Position],
) -> Result<Stream, Problem> {
    let (live, remembered) = app.views.resume(topic.clone(), seen);
    let mut following = Stream::new(live, &app.views, &read.caller);
    let (missed, told) = if let Some(remembered) = remembered {
        following.from = remembered.upto;
        (with_parties(&app.views, &remembered.events).map(Some), "memory")
    } else {
        let missed = missed::<L>(&app.views, topic, places, seen, &following.from);
        let told = if matches!(missed, Ok(None)) { "snapshot" } else { "rows" };
        (missed, told)
    };
    let missed = missed.map_err(|error| store_failed(&error))?;
    metrics::counter!("twelve_live_resumed_total", "from" => told).increment(1);
    let Some(missed) = missed else { return begin::<L>(app, following, places) };
    following.skip(seen);
    following.sent = seen.to_vec();
    for (order_id, parties, entry) in &missed {
        following.note(*order_id, entry, read.caller.sight(parties)?)?;
    }
    Ok(following)
}

/// A live list from a snapshot on.
fn begin<L: List<Row = Row>>(app: &App, mut following: Stream, places: &[u8]) -> Result<Stream, Problem> {
    let page = app.views.list::<L>(places, None, ORDERS_MAX, |_| true);
    let items = page.map_err(|error| store_failed(&error))?.shown();
    following.first.push_back(snapshot(&following.sent, &Snapshot { items })?);
    Ok(following)
}

/// An event that a reader missed, of which order, and whose that is now.
type Missed = (OrderId, Arc<Parties>, Entry);

/// What is remembered, with whose each order is now: what was a reader's to see then may not be any more.
fn with_parties(views: &Views, events: &[LiveEvent]) -> Result<Vec<Missed>, StoreError> {
    let mut known: HashMap<OrderId, Arc<Parties>> = HashMap::new();
    let mut missed = Vec::new();
    for event in events {
        let parties = if let Some(parties) = known.get(&event.order_id) {
            Arc::clone(parties)
        } else {
            let row = views.row::<Orders>(&order_key(event.order_id))?;
            let parties = Arc::new(row.map_or_else(|| event.parties.clone(), |row| row.parties()));
            known.insert(event.order_id, Arc::clone(&parties));
            parties
        };
        missed.push((event.order_id, parties, event.entry.clone()));
    }
    Ok(missed)
}

/// What was visible after `seen` and up to `until`, each partition in its order; `None` if too many rows would have to
/// be looked at for that.
///
/// What is later than `until` comes live: rows are not read at one moment, so they say nothing certain about it.
fn missed<L: List<Row = Row>>(
    views: &Views,
    topic: &Topic,
    places: &[u8],
    seen: &[Position],
    until: &[Position],
) -> Result<Option<Vec<Missed>>, StoreError> {
    let is_missed = |entry: &Entry| is_news(seen, entry.position) && !is_news(until, entry.position);
    let has_news = |row: &Row| row.seen_by(topic).iter().any(is_missed);
    let page = views.list_within::<L>(places, None, (usize::MAX, ROWS_LOOKED_AT_MAX), has_news)?;
    if page.next.is_some() {
        return Ok(None);
    }
    let mut missed: Vec<Missed> = Vec::new();
    for row in &page.rows {
        let entries = row.seen_by(topic).iter().filter(|entry| is_missed(entry));
        let parties = Arc::new(row.parties());
        missed.extend(entries.map(|entry| (row.order_id, Arc::clone(&parties), entry.clone())));
    }
    // By time, but never before what stands earlier in the same partition, for that is how readers resume.
    missed.sort_by_key(|(.., entry)| entry.position);
    let mut reached: Option<(u16, Timestamp)> = None;
    let mut timed: Vec<_> = missed
        .into_iter()
        .map(|(order_id, parties, entry)| {
            let partition = entry.position.partition;
            let before = reached.filter(|(of, _)| *of == partition).map_or(entry.time, |(_, time)| time);
            let time = before.max(entry.time);
            reached = Some((partition, time));
            (time, order_id, parties, entry)
        })
        .collect();
    timed.sort_by_key(|(time, .., entry)| (*time, entry.position));
    Ok(Some(timed.into_iter().map(|(_, order_id, parties, entry)| (order_id, parties, entry)).collect()))
}

/// The positions in `Last-Event-ID`. They may be further than this node is; they may not be further than the log.
async fn resume_from(app: &App, read: &Read) -> Result<Option<Vec<Position>>, Problem> {
    let Some(text) = &read.last_event_id else { return Ok(None) };
    let seen = parse_positions(app, "Last-Event-ID", text.split(',').collect())?;
    let here = app.views.positions();
    for ahead in seen.iter().filter(|seen| is_news(&here, **seen)) {
        refuse_unknown(app, *ahead).await?;
    }
    Ok(Some(seen))
}

fn is_news(sent: &[Position], position: Position) -> bool {
    sent.iter().all(|sent| sent.partition != position.partition || sent.sequence < position.sequence)
}

fn event_id(sent: &[Position]) -> String {
    sent.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn event(name: &str, sent: &[Position], data: &impl Serialize) -> Result<Event, Problem> {
    Event::default().event(name).id(event_id(sent)).json_data(data).map_err(|error| {
        tracing::error!(%error, "a live event could not be written");
        Problem::unavailable(Code::ViewUnavailable, "a live event could not be written", 1)
    })
}

fn snapshot(sent: &[Position], data: &impl Serialize) -> Result<Event, Problem> {
    event("snapshot", sent, data)
}

impl Stream {
    fn new(live: Following, views: &Views, caller: &Caller) -> Self {
        let from = views.positions();
        let caller = caller.clone();
        Self { caller, first: VecDeque::new(), live, sent: from.clone(), from, ended: false }
    }

    /// What the reader has seen is not told again, although it is news to a node that is behind.
    fn skip(&mut self, seen: &[Position]) {
        for seen in seen {
            match self.from.iter_mut().find(|from| from.partition == seen.partition) {
                Some(from) => from.sequence = from.sequence.max(seen.sequence),
                None => self.from.push(*seen),
            }
        }
    }

    /// Notes that an entry is sent, and makes the event that sends it.
    fn change(&mut self, order_id: OrderId, entry: &Entry, sight: Sight) -> Result<Event, Problem> {
        let position = entry.position;
        match self.sent.iter_mut().find(|sent| sent.partition == position.partition) {
            Some(sent) => sent.sequence = sent.sequence.max(position.sequence),
            None => self.sent.push(position),
        }
        event("change", &self.sent, &OrderChange { entry: entry.shown_to(sight), order_id })
    }

    fn note(&mut self, order_id: OrderId, entry: &Entry, sight: Sight) -> Result<(), Problem> {
        let event = self.change(order_id, entry, sight)?;
        self.first.push_back(event);
        Ok(())
    }

    /// The last event: the stream ends with it, and says why.
    fn end(&mut self, ending: Ending) -> Event {
        self.ended = true;
        metrics::counter!("twelve_live_ended_total", "reason" => ending.reason()).increment(1);
        let ended =
            Ended { reason: ending.reason(), detail: ending.detail(), resume_from: event_id(&self.sent) };
        Event::default().event("ended").data(as_json(&ended).to_string())
    }

    /// What the reader's token leaves of time; without a token, it has no end.
    async fn expiry(expires_at: Option<Timestamp>) {
        let Some(expires_at) = expires_at else { return std::future::pending().await };
        let left = expires_at.duration_since(nats::now());
        tokio::time::sleep(left.try_into().unwrap_or_default()).await;
    }

    async fn next(mut self) -> Option<(Event, Self)> {
        if self.ended {
            return None;
        }
        if let Some(event) = self.first.pop_front() {
            return Some((event, self));
        }
        let expiry = Self::expiry(self.caller.token_expires_at);
        tokio::pin!(expiry);
        loop {
            let heard = tokio::select! {
                biased;
                () = &mut expiry => {
                    let event = self.end(Ending::TokenExpired);
                    return Some((event, self));
                }
                heard = self.live.next() => heard,
            };
            match heard {
                Ok(change) if is_news(&self.from, change.entry.position) => {
                    let event = match self.caller.sight(&change.parties) {
                        Ok(sight) => self.change(change.order_id, &change.entry, sight).ok()?,
                        Err(_) => self.end(Ending::NotPermitted),
                    };
                    return Some((event, self));
                }
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => {
                    self.ended = true;
                    let data = Dropped { reason: "too slow", missed, resume_from: event_id(&self.sent) };
                    let dropped = Event::default().event("dropped").data(as_json(&data).to_string());
                    return Some((dropped, self));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

fn respond(following: Stream, app: &App) -> Response {
    let stop = app.stop.clone();
    let events = stream::unfold(following, Stream::next).map(Ok).take_until(stop.cancelled_owned());
    sse(events)
}

fn sse(events: impl futures::Stream<Item = Result<Event, Infallible>> + Send + 'static) -> Response {
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response();
    response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    response
}
