//! Every call gets an id, a trace context, a span, a metric, and a problem document for what the framework refuses.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{FromRequestParts, MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use domain::{
    Timestamp,
    access::{Parties, Person},
    sight::Sight,
};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{Instrument, Span, field::Empty};
use uuid::Uuid;

use crate::{
    fields, grpc,
    hosts::{self, Rule},
    problem::{Code, Problem},
    shares::{CallerShares, Kind, Share},
};

/// The longest a caller's own request id may be.
const REQUEST_ID_CHARS_MAX: usize = 128;
/// Whose idempotency keys they are where nobody proves who they are.
const ANYONE: &str = "anonymous";
const REQUEST_ID: &str = "x-request-id";
/// Answers are data, of callers' own: nothing runs, frames, sniffs or keeps them.
const SECURITY_HEADERS: [(&str, &str); 4] = [
    ("x-content-type-options", "nosniff"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
];
const TRACE_PARENT: &str = "traceparent";
/// Calls that nobody wants to see in traces.
const PROBES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Who calls, and under which ids.
#[derive(Clone, Debug)]
pub struct Caller {
    pub request_id: String,
    /// A W3C trace context.
    pub trace_parent: String,
    /// Who they proved to be; `None` where nobody is asked, and anybody may do anything.
    pub person: Option<Arc<Person>>,
    /// When the caller's token expires; what goes on for longer than a call ends then.
    pub token_expires_at: Option<Timestamp>,
    /// What this caller has a share of; `None` where calls are not limited.
    shares: Option<CallerShares>,
}

impl Caller {
    fn of(headers: &HeaderMap) -> Self {
        // An id that is given twice is none.
        let given =
            |name: &'static str| fields::single(headers, &HeaderName::from_static(name)).ok().flatten();
        let request_id = given(REQUEST_ID)
            .filter(|id| is_request_id(id))
            .map_or_else(|| Uuid::new_v4().to_string(), ToOwned::to_owned);
        let trace_parent = given(TRACE_PARENT)
            .filter(|text| is_trace_parent(text))
            .map_or_else(new_trace_parent, ToOwned::to_owned);
        Self { request_id, trace_parent, person: None, token_expires_at: None, shares: None }
    }
}

impl Caller {
    /// Counts this caller's calls by these shares.
    pub(crate) fn count_by(&mut self, shares: CallerShares) {
        self.shares = Some(shares);
    }

    /// One more of what callers share, to be held for as long as it is used; refused at once if this caller, or all
    /// callers together, hold as many as they may.
    pub fn share(&self, kind: Kind) -> Result<Share, Problem> {
        self.shares.as_ref().map_or_else(|| Ok(Share::uncounted()), |shares| shares.take(kind))
    }

    /// The name by which this caller is told from others where they take turns; empty where calls are not limited.
    pub fn counted_as(&self) -> Arc<str> {
        self.shares.as_ref().map_or_else(|| "".into(), |shares| Arc::clone(&shares.who))
    }

    /// Refuses those who may not, by what `may` says of the person who calls.
    pub fn permit(&self, may: impl FnOnce(&Person) -> bool) -> Result<(), Problem> {
        match &self.person {
            Some(person) if !may(person) => Err(Problem::forbidden()),
            Some(_) | None => Ok(()),
        }
    }

    /// What the caller sees of an order of these parties; refuses those who see nothing of it.
    pub fn sight(&self, order: &Parties) -> Result<Sight, Problem> {
        match &self.person {
            Some(person) => person.sight(order).ok_or_else(Problem::forbidden),
            None => Ok(Sight::WHOLE),
        }
    }

    /// Whose idempotency keys these are: two persons' same keys are different ones.
    pub fn key_owner(&self) -> &str {
        self.person.as_ref().map_or(ANYONE, |person| &person.id)
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(|| Self::of(&parts.headers)))
    }
}

/// Letters, digits and what ids are written with: nothing that could end a field of a log line and begin another.
fn is_request_id(text: &str) -> bool {
    (1..=REQUEST_ID_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+@#~".contains(&byte))
}

/// `00-<32 hex>-<16 hex>-<2 hex>`, as the W3C Trace Context recommendation has it.
fn is_trace_parent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    lengths == [2, 32, 16, 2]
        && parts[0] == "00"
        && parts.iter().all(|part| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

fn new_trace_parent() -> String {
    let span = Uuid::new_v4().simple().to_string();
    format!("00-{}-{}-01", Uuid::new_v4().simple(), &span[..16])
}

/// 405: there is something at the path, and not for this method.
pub(crate) async fn method_not_allowed() -> Problem {
    Problem::new(Code::MethodNotAllowed, "this path takes other methods")
}

/// Puts the layers that every service has around its routes.
pub(crate) fn layered(router: Router, rule: Rule) -> Router {
    router
        .fallback(async || Problem::new(Code::NotFound, "there is nothing at this path"))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(as_problem))
        .layer(CatchPanicLayer::custom(|_| {
            Problem::new(Code::Internal, "a fault of ours; it was logged").into_response()
        }))
        .layer(middleware::from_fn_with_state(Arc::new(rule), hosts::check))
        .layer(middleware::from_fn(observe))
        .layer(middleware::from_fn(grpc::speak))
}

/// What the framework refuses before a handler sees it (a path or a body that is no text) is a problem document, too.
async fn as_problem(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let kind = response.headers().get(header::CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/")) {
        return response;
    }
    let code = match response.status() {
        StatusCode::BAD_REQUEST => Code::Malformed,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => Code::BodyTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::UnsupportedMediaType,
        _ => return response,
    };
    Problem::new(code, "the call does not read: its path or its body is not what this call takes")
        .into_response()
}

async fn observe(mut request: Request, next: Next) -> Response {
    let mut caller = Caller::of(request.headers());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let method = method(request.method());
    let span = span(&request, method, &route, &mut caller);
    request.extensions_mut().insert(caller.clone());
    let started = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    let status = response.status().as_u16();
    count(route, method, status, started.elapsed());
    span.in_scope(|| tracing::debug!(status, took = ?started.elapsed(), "answered"));
    if nats::trace::is_on() {
        span.record("http.response.status_code", status);
        if status >= 500 {
            span.record("otel.status_code", "ERROR");
        }
    }
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    for (name, value) in [(REQUEST_ID, caller.request_id), (TRACE_PARENT, caller.trace_parent)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    response
}

/// The call's span, which goes on in the caller's trace; what the call leads to goes on in it.
fn span(request: &Request, method: &str, route: &str, caller: &mut Caller) -> Span {
    if PROBES.contains(&route) {
        return Span::none();
    }
    let span = tracing::info_span!(
        "http",
        %method,
        path = ?request.uri().path(),
        request_id = %caller.request_id,
        trace = Empty,
        otel.name = Empty,
        otel.kind = Empty,
        otel.status_code = Empty,
        http.route = Empty,
        http.response.status_code = Empty,
    );
    if nats::trace::is_on() {
        span.record("otel.name", format!("{method} {route}"));
        span.record("otel.kind", "server");
        span.record("http.route", route);
        let is_given = request.headers().get(TRACE_PARENT).is_some_and(|given| *given == caller.trace_parent);
        nats::trace::go_on(&span, is_given.then_some(&caller.trace_parent));
        if let Some(here) = span.in_scope(nats::trace::current) {
            caller.trace_parent = here;
        }
    }
    span.record("trace", &caller.trace_parent[3..35]);
    span
}

/// A method as a label: what is none of HTTP's own is `_OTHER`, as OpenTelemetry's conventions have it.
fn method(method: &Method) -> &'static str {
    const KNOWN: [Method; 9] = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
        Method::TRACE,
        Method::CONNECT,
    ];
    const NAMES: [&str; 9] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT"];
    KNOWN.iter().position(|known| known == method).map_or("_OTHER", |at| NAMES[at])
}

fn count(route: String, method: &'static str, status: u16, took: Duration) {
    let labels = [("route", route), ("method", method.to_owned()), ("status", status.to_string())];
    metrics::counter!("twelve_http_requests_total", &labels).increment(1);
    metrics::histogram!("twelve_http_request_seconds", &labels[..2]).record(took.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_cannot_forge_a_log_line() {
        assert!(is_request_id("0198c5a0-7d2f-7bd1-a0a5-7b9a2c1f0d11") && is_request_id("web/a.b:1+2@x#3~_"));
        let forged = "x} INFO http{request_id=y}: placed";
        for wrong in ["", forged, "a b", "a\tb", "a{b", "a\"b", "a=b", &"x".repeat(129)] {
            assert!(!is_request_id(wrong), "{wrong}");
        }
    }

    #[test]
    fn methods_that_callers_make_up_are_one_label() {
        for (given, label) in [("GET", "GET"), ("POST", "POST"), ("BREW", "_OTHER"), ("get", "_OTHER")] {
            assert_eq!(method(&Method::from_bytes(given.as_bytes()).unwrap()), label);
        }
    }

    #[test]
    fn only_a_real_trace_context_is_taken_over() {
        assert!(is_trace_parent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        assert!(is_trace_parent(&new_trace_parent()));
        for wrong in ["", "00-x-y-01", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", "é"] {
            assert!(!is_trace_parent(wrong), "{wrong}");
        }
    }
}
