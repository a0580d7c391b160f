//! `GET /orders…` and a customer's page.

use axum::{
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use domain::{OrderId, Status, access::Parties, id::PositionText, order::Channel, sight::Sight};
use nats::{
    Stored,
    contract::{CloudEvent, cloud_event},
};
use projector::{
    PAGE_BYTES_MAX,
    view::{
        mypage::MyPage,
        order_key,
        orders::{Orders, Row, shown_data},
        places_of,
    },
};
use serde_json::{Value, json};
use service::{Code, Problem, contract::CLOUD_EVENTS, fields};

use super::{App, order_id};
use crate::{
    answers::StoredEvent,
    pages::{self, off_threads},
    read::{Read, store_failed},
};

/// Events of an order that a page has at most, where the caller says no limit: more than nearly all orders have.
const EVENTS_DEFAULT: usize = 200;

pub(super) async fn one(
    State(app): State<App>,
    Path(id): Path<String>,
    read: Read,
) -> Result<Response, Problem> {
    let order_id = order_id(&id)?;
    read.finish()?;
    let row = app.views.row::<Orders>(&order_key(order_id)).map_err(|error| store_failed(&error))?;
    let row = row.filter(Row::is_visible).ok_or_else(Problem::order_not_found)?;
    let sight = app.sight(&read.caller, &row)?;
    let etag = row.position().map(|position| position.to_string());
    Ok(read.answer(&app, &Orders::shown_to(&row, sight), etag))
}

pub(super) async fn list(State(app): State<App>, mut read: Read) -> Result<Response, Problem> {
    let paging = read.paging()?;
    let statuses = Status::ALL.map(Status::as_str);
    let channels = [Channel::Web, Channel::Phone].map(Channel::as_str);
    let flow = read.take("flow");
    let (status, channel) = (read.take_one_of("status", &statuses)?, read.take_one_of("channel", &channels)?);
    read.finish()?;
    let fits = |wanted: Option<&str>, is: Option<&str>| wanted.is_none_or(|wanted| is == Some(wanted));
    let page = app.list::<Orders>(&read.caller, &[], paging.after.as_deref(), paging.limit, |row| {
        row.is_visible()
            && fits(flow.as_deref(), row.flow())
            && fits(channel, row.channel())
            && fits(status, Some(row.state.status().as_str()))
    });
    let page = page.await?;
    Ok(read.answer_page(&app, &page.shown(), page.next.as_deref()))
}

pub(super) async fn of_customer(
    State(app): State<App>,
    Path(customer_id): Path<String>,
    mut read: Read,
) -> Result<Response, Problem> {
    let paging = read.paging()?;
    read.finish()?;
    let prefix = places_of(&customer_id);
    let page = app.list::<MyPage>(&read.caller, &prefix, paging.after.as_deref(), paging.limit, |_| true);
    let page = page.await?;
    Ok(read.answer_page(&app, &page.shown(), page.next.as_deref()))
}

/// The raw events, from the log itself; as `CloudEvents`, if that is asked for.
pub(super) async fn events(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
    mut read: Read,
) -> Result<Response, Problem> {
    let order_id = order_id(&id)?;
    let paging = read.paging_of(EVENTS_DEFAULT)?;
    read.finish()?;
    let story = story(&app, order_id).await?;
    // The log itself says whose the order is: the views may be behind it.
    let parties = Parties::of(story.iter().map(|stored| &stored.recorded.event));
    if read.caller.person.is_some() && parties.customer_id.is_none() {
        return Err(Problem::order_not_found());
    }
    let sight = read.caller.sight(&parties)?;
    let accepted = fields::list(&headers, &header::ACCEPT)?;
    let wanted = |kind| fields::quality(&accepted, kind).unwrap_or_default();
    let building = pages::turn(&read.caller).await?;
    let (page, next) = page(&story, paging.after.as_deref(), paging.limit);
    let answer = off_threads(|| {
        if wanted(CLOUD_EVENTS) > 0 && wanted(CLOUD_EVENTS) >= wanted("application/json") {
            return cloud_events(&app, &read, order_id, (page, next.as_deref()), sight);
        }
        let items: Vec<StoredEvent> = page.iter().map(|stored| shown(stored, sight)).collect();
        read.answer_page(&app, &items, next.as_deref())
    });
    drop(building);
    Ok(answer)
}

/// All events of an order, which has some.
async fn story(app: &App, order_id: OrderId) -> Result<Vec<Stored>, Problem> {
    let row = app.views.row::<Orders>(&order_key(order_id)).map_err(|error| store_failed(&error))?;
    // A replica of the log may be behind the views, and is not to answer with less than they show.
    let at_least = row.as_ref().and_then(Row::position).map_or(0, |position| position.sequence);
    let story = app.log.load(order_id, at_least).await.map_err(|error| {
        tracing::warn!(%order_id, error = %nats::causes(&error), "an order's events could not be read");
        Problem::unavailable(Code::LogUnavailable, "the log did not answer; try again", 1)
    })?;
    if story.is_empty() { Err(Problem::order_not_found()) } else { Ok(story) }
}

/// At most `limit` events after the place of a cursor, and at most [`PAGE_BYTES_MAX`] as they are stored, but one at
/// least; and the place at which the next page goes on.
fn page<'a>(story: &'a [Stored], after: Option<&[u8]>, limit: usize) -> (&'a [Stored], Option<Vec<u8>>) {
    let after = after.and_then(|place| place.try_into().ok()).map_or(0, u64::from_be_bytes);
    let rest = &story[story.partition_point(|stored| stored.recorded.position.sequence <= after)..];
    let mut bytes = 0;
    let fits = |stored: &&Stored| {
        bytes += stored.data.len();
        bytes <= PAGE_BYTES_MAX
    };
    let count = rest.iter().take(limit).take_while(fits).count().max(1).min(rest.len());
    let page = &rest[..count];
    let last = page.last().filter(|_| count < rest.len());
    (page, last.map(|last| last.recorded.position.sequence.to_be_bytes().to_vec()))
}

/// A page as one batch; where the next one is, a header tells (RFC 8288).
fn cloud_events(
    app: &App,
    read: &Read,
    order_id: OrderId,
    (page, next): (&[Stored], Option<&[u8]>),
    sight: Sight,
) -> Response {
    let events: Vec<CloudEvent> =
        page.iter().map(|stored| cloud_event(stored, seen_data(stored, sight))).collect();
    let mut response = read.answer(app, &events, None);
    if response.status() == StatusCode::OK {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CLOUD_EVENTS));
    }
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    let link =
        read.cursor(next).map(|next| format!("</orders/{order_id}/events?cursor={next}>; rel=\"next\""));
    if let Some(link) = link.and_then(|link| link.parse().ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

fn shown(stored: &Stored, sight: Sight) -> StoredEvent {
    let recorded = &stored.recorded;
    StoredEvent {
        position: PositionText(recorded.position),
        event_id: recorded.event_id,
        r#type: recorded.event.type_name(),
        context: recorded.event.context(),
        time: recorded.time,
        command_id: recorded.command_id,
        causation_id: stored.causation_id,
        traceparent: stored.trace_parent.clone(),
        data: seen_data(stored, sight).unwrap_or_else(|| json!({})),
    }
}

/// An event's data as it is stored, but for what the caller does not see; `None` if they see nothing of it.
fn seen_data(stored: &Stored, sight: Sight) -> Option<Value> {
    if sight.is_whole() {
        return Some(serde_json::from_slice(&stored.data).unwrap_or_default());
    }
    shown_data(&stored.recorded.event, sight)
}
