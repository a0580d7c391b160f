//! What every query has in common: it may wait for a position, it may page, and its answer says how far it sees.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    extract::{FromRequestParts, Query},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use domain::Position;
use projector::StoreError;
use serde::Serialize;
use service::{
    Caller, Code, Kind, Problem,
    fields::{self, Tags},
};
use tokio::time::timeout;

use crate::{App, answers::Page, pages::off_threads};

const WAIT_MS_DEFAULT: u64 = 2_000;
const WAIT_MS_MAX: u64 = 10_000;
const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 200;
const POSITIONS_MAX: usize = 64;
const RETRY_AFTER_S: u64 = 1;
/// How long the log may take to say where a partition ends.
const LOG_ANSWERS_MAX: Duration = Duration::from_secs(1);
/// Letters by which a cursor says which query it belongs to.
const MARK_LETTERS: usize = 8;

/// A query whose views have reached the positions that it asked for.
pub struct Read {
    parameters: BTreeMap<String, String>,
    pub caller: Caller,
    if_none_match: Option<Tags>,
    pub last_event_id: Option<String>,
    /// How far the views were when the query began; its answer sees at least that.
    seen: Vec<Position>,
    /// What is asked, but for how much of it: a cursor belongs to that.
    asked: String,
}

impl FromRequestParts<App> for Read {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, app)
            .await
            .map_err(|_| Problem::malformed("the query string does not read"))?;
        let mut parameters = BTreeMap::new();
        for (name, value) in pairs {
            if parameters.insert(name.clone(), value).is_some() {
                return Err(Problem::malformed(format!("the parameter {name:?} is given twice")));
            }
        }
        let wait = number(parameters.remove("wait"), "wait", 0, WAIT_MS_MAX)?.unwrap_or(WAIT_MS_DEFAULT);
        let after = parameters.remove("after");
        let positions = wanted(app, &parts.headers, after.as_deref())?;
        let filters = parameters.iter().filter(|(name, _)| !["limit", "cursor"].contains(&name.as_str()));
        let filters: Vec<String> = filters.map(|(name, value)| format!("{name}={value}")).collect();
        let asked = format!("{}?{}", parts.uri.path(), filters.join("&"));
        let caller = Caller::from_request_parts(parts, app).await?;
        wait_for(app, &caller, &positions, Duration::from_millis(wait)).await?;
        let last_event_id = fields::single(&parts.headers, &HeaderName::from_static("last-event-id"))?;
        Ok(Self {
            parameters,
            caller,
            if_none_match: fields::tags(&parts.headers, &header::IF_NONE_MATCH)?,
            last_event_id: last_event_id.map(ToOwned::to_owned),
            seen: app.views.positions(),
            asked,
        })
    }
}

/// The positions in all `Log-Position` lines and in `?after=`.
fn wanted(app: &App, headers: &HeaderMap, after: Option<&str>) -> Result<Vec<Position>, Problem> {
    let mut texts = fields::list(headers, &HeaderName::from_static("log-position"))?;
    texts.extend(after.into_iter().flat_map(|list| list.split(',')));
    parse_positions(app, "a position", texts)
}

/// Positions of this log. `what` they are is told where they are none.
pub(crate) fn parse_positions(app: &App, what: &str, texts: Vec<&str>) -> Result<Vec<Position>, Problem> {
    if texts.len() > POSITIONS_MAX {
        return Err(Problem::malformed(format!("{what}: at most {POSITIONS_MAX} positions are taken")));
    }
    let positions: Result<Vec<Position>, _> = texts.into_iter().map(|text| text.trim().parse()).collect();
    let positions = positions.map_err(|error| Problem::malformed(format!("{what}: {error}")))?;
    let partitions = app.log.partitions();
    match positions.iter().find(|position| position.partition >= partitions) {
        Some(beyond) => {
            Err(unknown(format!("{what}: {beyond} is in no partition; the log has {partitions}")))
        }
        None => Ok(positions),
    }
}

/// Refuses a position that the views have not reached and the log does not have; nothing can be said if the log does
/// not answer in time.
pub(crate) async fn refuse_unknown(app: &App, position: Position) -> Result<(), Problem> {
    let Ok(Ok(info)) = timeout(LOG_ANSWERS_MAX, app.log.partition_info(position.partition)).await else {
        return Ok(());
    };
    let last = info.last_sequence;
    if position.sequence <= last {
        return Ok(());
    }
    let last = Position { sequence: last, ..position };
    Err(unknown(format!("there is no event at {position}; the log has events up to {last} there")))
}

fn unknown(detail: String) -> Problem {
    Problem::new(Code::PositionUnknown, detail)
}

async fn wait_for(
    app: &App,
    caller: &Caller,
    positions: &[Position],
    limit: Duration,
) -> Result<(), Problem> {
    // Who need not wait takes no share of waits.
    let has = app.views.positions();
    if positions.iter().all(|wanted| has.iter().any(|has| has >= wanted && has.partition == wanted.partition))
    {
        return Ok(());
    }
    let _share = caller.share(Kind::Waits)?;
    let until = tokio::time::Instant::now() + limit;
    for position in positions {
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        if !app.views.wait_for(*position, left).await {
            refuse_unknown(app, *position).await?;
            let has = positions_text(&app.views.positions());
            let detail = format!("the views have not reached {position}; they have {has}");
            return Err(Problem::unavailable(Code::ViewBehind, detail, RETRY_AFTER_S)
                .with_header("view-position", has));
        }
    }
    Ok(())
}

fn positions_text(positions: &[Position]) -> String {
    positions.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn number(text: Option<String>, name: &str, least: u64, most: u64) -> Result<Option<u64>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.map(Some).ok_or_else(|| {
        Problem::malformed(format!("{name} is a whole number from {least} to {most}; got {text:?}"))
    })
}

/// Where a page begins and how long it may be.
pub struct Paging {
    pub limit: usize,
    pub after: Option<Vec<u8>>,
}

impl Read {
    /// A parameter of this query.
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.parameters.remove(name)
    }

    /// The truth of a parameter that is `true` or `false`.
    pub fn take_truth(&mut self, name: &str) -> Result<Option<bool>, Problem> {
        let Some(text) = self.take(name) else { return Ok(None) };
        text.parse()
            .map(Some)
            .map_err(|_| Problem::malformed(format!("{name} is true or false; got {text:?}")))
    }

    /// `limit` and `cursor`.
    pub fn paging(&mut self) -> Result<Paging, Problem> {
        self.paging_of(LIMIT_DEFAULT)
    }

    /// As [`Self::paging`], with as many on a page where nothing is said.
    pub fn paging_of(&mut self, default: usize) -> Result<Paging, Problem> {
        let limit = number(self.take("limit"), "limit", 1, LIMIT_MAX as u64)?;
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(default);
        let cursor = self.take("cursor");
        let after = cursor.map(|cursor| {
            let place = from_cursor(&self.asked, &cursor);
            place.ok_or_else(|| {
                Problem::malformed("the cursor is none of this query's: take it as it was given")
            })
        });
        Ok(Paging { limit, after: after.transpose()? })
    }

    /// `top`: how many of the highest.
    pub fn top(&mut self) -> Result<usize, Problem> {
        let top = number(self.take("top"), "top", 1, LIMIT_MAX as u64)?;
        Ok(top.and_then(|top| usize::try_from(top).ok()).unwrap_or(LIMIT_DEFAULT))
    }

    /// A parameter that has one of a few values.
    pub fn take_one_of(
        &mut self,
        name: &str,
        allowed: &[&'static str],
    ) -> Result<Option<&'static str>, Problem> {
        let Some(text) = self.take(name) else { return Ok(None) };
        let known = allowed.iter().find(|known| **known == text);
        known.map(|known| Some(*known)).ok_or_else(|| {
            let detail = format!("{name} is one of: {}; got {text:?}", allowed.join(", "));
            Problem::new(Code::UnknownValue, detail)
        })
    }

    /// The cursor of the next page, as callers bring it.
    pub fn cursor(&self, next: Option<&[u8]>) -> Option<String> {
        next.map(|place| to_cursor(&self.asked, place))
    }

    /// Refuses parameters that nobody took: a filter that is silently ignored gives wrong answers.
    pub fn finish(&self) -> Result<(), Problem> {
        match self.parameters.keys().next() {
            Some(name) => Err(Problem::malformed(format!("this query has no parameter {name:?}"))),
            None => Ok(()),
        }
    }

    /// Answers with one value, unless the caller has it already.
    pub fn answer(&self, app: &App, value: &impl Serialize, etag: Option<String>) -> Response {
        let body = match serde_json::to_vec(value) {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(%error, "cannot write an answer");
                return Problem::new(Code::Internal, "a fault of ours; it was logged").into_response();
            }
        };
        let etag = etag.unwrap_or_else(|| domain::id::fingerprint(&body));
        // Weak or not: what is known well enough not to be sent again (RFC 9110 §13.1.2).
        let known = match &self.if_none_match {
            Some(Tags::Any) => true,
            Some(Tags::Each(tags)) => tags.iter().any(|tag| tag.text == etag),
            None => false,
        };
        let etag = format!("\"{etag}\"");
        let mut response =
            if known { StatusCode::NOT_MODIFIED.into_response() } else { body.into_response() };
        let headers = response.headers_mut();
        if known {
            headers.remove(header::CONTENT_TYPE);
        } else {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let seen = positions_text(&self.seen);
        for (name, value) in [(header::ETAG, etag), (HeaderName::from_static("view-position"), seen)] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
        headers.insert("view-generation", HeaderValue::from(app.views.generation()));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }

    /// Answers with one page of a list.
    pub fn answer_page<T: Serialize>(&self, app: &App, items: &[T], next: Option<&[u8]>) -> Response {
        let page = Page { items: items.iter().collect(), next_cursor: self.cursor(next) };
        off_threads(|| self.answer(app, &page, None))
    }
}

/// A place in a list, for this query only.
fn to_cursor(asked: &str, place: &[u8]) -> String {
    format!("{}{}", mark(asked, place), to_hex(place))
}

/// The place that a cursor of this query stands for; `None` for any other text.
fn from_cursor(asked: &str, cursor: &str) -> Option<Vec<u8>> {
    let (marked, place) = cursor.split_at_checked(MARK_LETTERS)?;
    let place = from_hex(place)?;
    (mark(asked, &place) == marked).then_some(place)
}

fn mark(asked: &str, place: &[u8]) -> String {
    let mut mark = domain::id::fingerprint(&[asked.as_bytes(), &[0], place].concat());
    mark.truncate(MARK_LETTERS);
    mark
}

fn to_hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// A store that fails is our fault; it is logged here.
pub fn store_failed(error: &StoreError) -> Problem {
    tracing::error!(error = %nats::causes(error), "a view could not be read");
    Problem::unavailable(Code::ViewUnavailable, "the view store failed; it was logged", RETRY_AFTER_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_a_made_up_one_does_not() {
        assert_eq!(from_hex(&to_hex(&[0, 255, 16])), Some(vec![0, 255, 16]));
        for wrong in ["0", "zz", "+1", "가나"] {
            assert_eq!(from_hex(wrong), None, "{wrong}");
        }
        let cursor = to_cursor("/orders?", &[0, 255, 16]);
        assert_eq!(from_cursor("/orders?", &cursor), Some(vec![0, 255, 16]));
        assert_eq!(from_cursor("/orders?flow=food", &cursor), None, "another query's");
        for wrong in [&cursor[..cursor.len() - 2], &cursor[2..], &format!("{cursor}00"), "00ff10", "가나"] {
            assert_eq!(from_cursor("/orders?", wrong), None, "{wrong}");
        }
    }
}
