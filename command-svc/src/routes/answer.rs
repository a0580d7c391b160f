//! What callers bring in headers, and how they are answered.

use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use domain::{
    Command, CommandId, OrderId, Position, Refusal, Status,
    access::{Parties, Person},
    id::PositionText,
};
use nats::{EventLog, FlowBookError, LoadError};
use schemars::JsonSchema;
use serde::Serialize;
use service::{
    Caller, Code, Problem,
    fields::{self, Tags},
};

use super::App;
use crate::admission::{Admitted, CALLS_OUT_MAX, CallOut};
use crate::body::Body;
use crate::execute::{ExecuteError, Executed, Intent};

/// Seconds after which a caller may try again when the log or a context is away.
pub(super) const RETRY_AFTER_S: u64 = 1;
/// The same while the log is nearly full: an operator has to make room.
const FULL_RETRY_AFTER_S: u64 = 60;
const KEY_CHARS_MAX: usize = 128;
const WAIT_S_MAX: u64 = 30;

/// What a command's headers say.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) key: Option<String>,
    pub(super) caller: Caller,
    /// `Prefer: wait=N`, in seconds.
    pub(super) wait_s: Option<u64>,
    if_match: Option<IfMatch>,
}

/// Which story of its order a command holds for.
#[derive(Clone, Debug)]
enum IfMatch {
    /// Any: an order that is not there is refused anyway.
    Any,
    /// The one that ends at one of these positions.
    OneOf(Vec<Position>),
}

impl<S: Sync> FromRequestParts<S> for Given {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let single = |name| fields::single(&parts.headers, &HeaderName::from_static(name));
        Ok(Self {
            key: single("idempotency-key")?.map(idempotency_key).transpose()?,
            caller,
            wait_s: wait(&parts.headers),
            if_match: fields::tags(&parts.headers, &header::IF_MATCH)?.map(if_match).transpose()?,
        })
    }
}

/// A bare key, or one quoted as a structured-field string (RFC 9651 §3.3.3).
fn idempotency_key(text: &str) -> Result<String, Problem> {
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let fits = (1..=KEY_CHARS_MAX).contains(&bare.len()) && bare.bytes().all(|byte| byte.is_ascii_graphic());
    if fits {
        Ok(bare.to_owned())
    } else {
        Err(Problem::malformed(format!("Idempotency-Key has 1 to {KEY_CHARS_MAX} visible ASCII characters")))
    }
}

/// What is compared strongly: a weak tag is none of ours, and holds for no story (RFC 9110 §13.1.1).
fn if_match(tags: Tags) -> Result<IfMatch, Problem> {
    let Tags::Each(tags) = tags else { return Ok(IfMatch::Any) };
    let strong = tags.iter().filter(|tag| !tag.is_weak);
    let positions: Result<Vec<Position>, _> = strong.map(|tag| tag.text.parse()).collect();
    let wrong = |_| Problem::malformed("If-Match takes an order's ETag, as a query gave it");
    positions.map(IfMatch::OneOf).map_err(wrong)
}

fn wait(headers: &HeaderMap) -> Option<u64> {
    let preferences = fields::list(headers, &HeaderName::from_static("prefer")).unwrap_or_default();
    let wait = preferences.into_iter().find_map(|preference| fields::parameter(preference, "wait"));
    wait.and_then(|seconds| seconds.parse().ok()).map(|seconds: u64| seconds.min(WAIT_S_MAX))
}

impl Given {
    /// The order that a placement makes: the same for every repeat under a key.
    pub(super) fn new_order(&self) -> OrderId {
        match &self.key {
            Some(key) => OrderId::from_key(self.caller.key_owner(), key),
            None => OrderId(uuid::Uuid::now_v7()),
        }
    }

    /// The command, as this caller gave it; `body` tells a repeat from a reused key.
    pub(super) fn intent(&self, order_id: OrderId, command: Command, body: &Body) -> Intent {
        let (command_id, fingerprint) = match &self.key {
            Some(key) => {
                let fingerprint = body.fingerprint(command.name());
                (CommandId::from_key(self.caller.key_owner(), order_id, key), Some(fingerprint))
            }
            None => (CommandId(uuid::Uuid::now_v7()), None),
        };
        Intent {
            order_id,
            command,
            command_id,
            causation_id: None,
            expected: None,
            fingerprint,
            trace_parent: Some(self.caller.trace_parent.clone()),
        }
    }
}

/// What every command answers with.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Accepted {
    order_id: OrderId,
    #[serde(skip_serializing_if = "Option::is_none")]
    flow: Option<String>,
    status: Status,
    /// Where the order stands in the log now: bring it to a query as `?after=`.
    position: PositionText,
}

/// The answer to a command that stands.
pub(super) fn accepted(
    log: &EventLog,
    order_id: OrderId,
    executed: &Executed,
    status: StatusCode,
) -> Response {
    let position =
        Position { partition: order_id.partition(log.partitions()), sequence: executed.state.sequence() };
    let body = Accepted {
        order_id,
        flow: executed.state.flow.as_ref().map(|flow| flow.name.clone()),
        status: executed.state.status(),
        position: PositionText(position),
    };
    let mut response = (status, Json(body)).into_response();
    let mut set = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    };
    set("log-position", position.to_string());
    set("durability", log.durability().as_str().to_owned());
    if executed.replayed {
        set("idempotency-replayed", "true".to_owned());
    }
    if matches!(status, StatusCode::CREATED | StatusCode::ACCEPTED) {
        set("location", format!("/orders/{order_id}"));
    }
    response
}

/// A command on an order, as it came in.
pub(super) struct Call {
    pub(super) app: App,
    pub(super) id: String,
    pub(super) given: Given,
    pub(super) body: Body,
    /// Its place among those that are worked on.
    admitted: Admitted,
}

/// A place among the commands that are worked on, or a refusal at once.
pub(super) fn admit(app: &App) -> Result<Admitted, Problem> {
    app.executor.admission().admit().ok_or_else(|| {
        metrics::counter!("twelve_refused_total", "why" => "slow").increment(1);
        let detail = "more commands come than can be stored in time; nothing was done, try again";
        Problem::unavailable(Code::Overloaded, detail, RETRY_AFTER_S)
    })
}

/// Refuses what is new where the log has no room for what it would lead to. What this very command began goes on, or
/// gets its first answer.
pub(super) async fn has_room(app: &App, intent: &Intent) -> Result<(), Problem> {
    if app.rooms.has_room(intent.order_id) {
        return Ok(());
    }
    let begun = app.executor.has_begun(intent).await;
    let has_key = intent.fingerprint.is_some();
    if begun.map_err(|error| failed(intent.order_id, &error.into(), has_key))? {
        return Ok(());
    }
    metrics::counter!("twelve_refused_total", "why" => "full").increment(1);
    let detail = "the log is nearly full, and what room is left is kept for orders that are under way; nothing was done";
    Err(Problem::unavailable(Code::LogNearlyFull, detail, FULL_RETRY_AFTER_S))
}

/// A place among the commands that wait for others.
pub(super) fn call_out(app: &App) -> Result<CallOut, Problem> {
    app.executor.admission().call_out().ok_or_else(|| {
        metrics::counter!("twelve_refused_total", "why" => "calls_out").increment(1);
        let detail =
            format!("{CALLS_OUT_MAX} commands wait for a payment or a delivery; nothing was done, try again");
        Problem::unavailable(Code::Overloaded, detail, RETRY_AFTER_S)
    })
}

impl FromRequest<App> for Call {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let id = Path::<String>::from_request_parts(&mut parts, app).await;
        let Path(id) = id.map_err(|_| Problem::order_not_found())?;
        let given = Given::from_request_parts(&mut parts, app).await?;
        let body = Body::from_request(Request::from_parts(parts, body), app).await?;
        Ok(Self { app: app.clone(), id, given, body, admitted: admit(app)? })
    }
}

impl Call {
    /// The order that the path names. What is no id names no order.
    pub(super) fn order_id(&self) -> Result<OrderId, Problem> {
        self.id.parse().map_err(|_| Problem::order_not_found())
    }

    /// Its place among those that are worked on.
    pub(super) const fn admitted(&self) -> &Admitted {
        &self.admitted
    }

    /// From here on it waits for an outcome.
    pub(super) fn release(&self) {
        self.admitted.release();
    }

    /// A command that led to nothing, as this caller is to understand it.
    pub(super) fn failed(&self, order_id: OrderId, error: &ExecuteError) -> Problem {
        failed(order_id, error, self.given.key.is_some())
    }

    /// Refuses callers who may not do this to the order.
    pub(super) async fn permit(&self, may: impl Fn(&Person, &Parties) -> bool) -> Result<(), Problem> {
        let order_id = self.order_id()?;
        permit(&self.app, &self.given.caller, order_id, may).await.map_err(|error| match error {
            Unpermitted::Refused(problem) => *problem,
            Unpermitted::Unread(error) => self.failed(order_id, &error.into()),
        })
    }

    /// The command as this caller gave it, if they may give it.
    pub(super) async fn intent(&self, command: Command) -> Result<Intent, Problem> {
        let order_id = self.order_id()?;
        self.permit(|person, order| person.may(&command, order)).await?;
        let expected = self.expected(order_id).await?;
        Ok(Intent { expected, ..self.given.intent(order_id, command, &self.body) })
    }

    /// Where the order's story has to end for the command to hold.
    async fn expected(&self, order_id: OrderId) -> Result<Option<u64>, Problem> {
        let Some(IfMatch::OneOf(positions)) = &self.given.if_match else { return Ok(None) };
        let partition = order_id.partition(self.app.executor.log().partitions());
        let here = positions.iter().filter(|position| position.partition == partition);
        let sequences: Vec<u64> = here.map(|position| position.sequence).collect();
        match sequences.as_slice() {
            [] => Err(self.failed(order_id, &ExecuteError::Moved)),
            [only] => Ok(Some(*only)),
            [first, ..] => {
                let story = self.app.executor.read(order_id, 0).await;
                let now = story.map_err(|error| self.failed(order_id, &error.into()))?.sequence();
                // Of none that holds, any will do: it is refused as stale, or is a repeat.
                Ok(Some(if sequences.contains(&now) { now } else { *first }))
            }
        }
    }

    /// Executes a command.
    pub(super) async fn execute(&self, command: Command) -> Result<Executed, Problem> {
        let intent = self.intent(command).await?;
        let order_id = intent.order_id;
        self.app.executor.execute(intent).await.map_err(|error| self.failed(order_id, &error))
    }

    /// Answers with where the order stands.
    pub(super) fn answer(&self, executed: &Executed, status: StatusCode) -> Result<Response, Problem> {
        Ok(accepted(self.app.executor.log(), self.order_id()?, executed, status))
    }

    /// Executes a command and answers 200.
    pub(super) async fn perform(&self, command: Command) -> Result<Response, Problem> {
        self.answer(&self.execute(command).await?, StatusCode::OK)
    }
}

/// Why a caller is not let to do something.
enum Unpermitted {
    Refused(Box<Problem>),
    Unread(LoadError),
}

/// Refuses callers who may not do something to an order. Whose it is never changes but by facts that are added, so a
/// remembered story is good enough to let them; it is not to refuse them.
async fn permit(
    app: &App,
    caller: &Caller,
    order_id: OrderId,
    may: impl Fn(&Person, &Parties) -> bool,
) -> Result<(), Unpermitted> {
    let Some(person) = &caller.person else { return Ok(()) };
    let unread = Unpermitted::Unread;
    let remembered = app.executor.story(order_id, 0).await.map_err(unread)?;
    if may(person, &remembered.parties()) {
        return Ok(());
    }
    let story = app.executor.read(order_id, 0).await.map_err(unread)?;
    let parties = story.parties();
    if may(person, &parties) {
        return Ok(());
    }
    // Where there is no order, there is nobody whose it could be.
    let problem =
        if parties.customer_id.is_none() { Problem::order_not_found() } else { Problem::forbidden() };
    Err(Unpermitted::Refused(Box::new(problem)))
}

/// A refusal, as its caller is to understand it.
pub(super) fn refused(refusal: Refusal) -> Problem {
    Problem::new(Code::Refused(refusal), refusal.to_string())
}

/// What a caller may do after a call that may have led to something, by whether the call had an idempotency key.
pub(super) const fn may_repeat(has_key: bool) -> &'static str {
    if has_key {
        "the same call with the same Idempotency-Key is safe to repeat"
    } else {
        "it may have been done, and a repeat may do it twice; with an Idempotency-Key a call is safe to repeat"
    }
}

/// A command that led to nothing, as its caller is to understand it; what is our fault is logged here. `has_key`:
/// whether the call had an idempotency key.
pub(super) fn failed(order_id: OrderId, error: &ExecuteError, has_key: bool) -> Problem {
    match error {
        ExecuteError::Refused(refusal) => refused(*refusal),
        ExecuteError::Moved => Problem::new(
            Code::Stale,
            "the order has changed since the ETag in If-Match was given; read it again and decide afresh",
        ),
        ExecuteError::Contended => Problem::unavailable(
            Code::Contended,
            "other commands on this order kept coming first; try again",
            RETRY_AFTER_S,
        ),
        ExecuteError::Flow(error @ (FlowBookError::Unknown(_) | FlowBookError::Unreadable { .. })) => {
            tracing::error!(%order_id, error = %nats::causes(error), "the order cannot be carried on here");
            Problem::new(Code::FlowUnknown, error.to_string())
        }
        ExecuteError::Load(LoadError::Undecodable(unreadable)) => {
            tracing::error!(%order_id, position = %unreadable.position, reason = unreadable.reason, "an order has an event that does not read");
            let detail = format!(
                "{unreadable}; nothing was done, and nothing will be until a program that reads it runs"
            );
            Problem::new(Code::OrderUnreadable, detail)
        }
        ExecuteError::Load(LoadError::TooLong(_)) => refused(Refusal::OrderTooLong),
        ExecuteError::Load(LoadError::Unavailable(_) | LoadError::Refused { .. } | LoadError::Archive(_))
        | ExecuteError::Flow(FlowBookError::Unavailable { .. })
        | ExecuteError::Append(_) => {
            tracing::warn!(%order_id, error = %nats::causes(error), "the log is not available");
            log_unavailable(order_id, has_key)
        }
    }
}

/// A command that the log did not take.
pub(super) fn log_unavailable(order_id: OrderId, has_key: bool) -> Problem {
    let detail = format!("the log did not take the command for order {order_id}; {}", may_repeat(has_key));
    Problem::unavailable(Code::LogUnavailable, detail, RETRY_AFTER_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idempotency_key_is_the_same_bare_and_quoted() {
        let key = |text: &str| idempotency_key(text).ok();
        assert_eq!(key("order-1"), key("\"order-1\""));
        assert_eq!(key("order-1").as_deref(), Some("order-1"));
        for wrong in ["", "\"\"", "two words", &"x".repeat(129)] {
            assert!(idempotency_key(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_preference_to_wait_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.insert("prefer", HeaderValue::from_static("return=minimal, wait=7"));
        assert_eq!(wait(&headers), Some(7));
        headers.insert("prefer", HeaderValue::from_static("wait=99999"));
        assert_eq!(wait(&headers), Some(WAIT_S_MAX));
        headers.insert("prefer", HeaderValue::from_static("wait=soon"));
        assert_eq!(wait(&headers), None);
    }
}
