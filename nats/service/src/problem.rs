//! The one shape of an error answer: an RFC 9457 problem document with a stable code.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// One fault of a body, at a JSON pointer (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    pub pointer: String,
    pub detail: String,
}

/// What went wrong, in words a caller can act on.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    faults: Vec<Fault>,
    retry_after_s: Option<u64>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: &'a Vec<Fault>,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { status, code, detail, faults: Vec::new(), retry_after_s: None, headers: Vec::new() }
    }

    /// 400: the call cannot even be read.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    /// 422: the call reads, and what it says is not acceptable; every fault at once.
    pub fn invalid(faults: Vec<Fault>) -> Self {
        let detail = match faults.len() {
            1 => "one field is not acceptable".to_owned(),
            count => format!("{count} fields are not acceptable"),
        };
        Self { faults, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail) }
    }

    /// 403: not this person. Nothing is said of what it is that they may not do or see.
    pub fn forbidden() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "this is not for you: it takes another role, or is somebody else's",
        )
    }

    /// 404: there is no such order.
    pub fn order_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "order_not_found", "there is no such order")
    }

    /// 503: not now; the same call may be tried again after some seconds.
    pub fn unavailable(code: &'static str, detail: impl Into<String>, retry_after_s: u64) -> Self {
        Self {
            retry_after_s: Some(retry_after_s.max(1)),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
        }
    }

    /// 429: this caller calls too often; again after some seconds.
    pub fn too_many(detail: impl Into<String>, retry_after_s: u64) -> Self {
        Self {
            retry_after_s: Some(retry_after_s.max(1)),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_calls", detail)
        }
    }

    /// 429: this caller has too many calls at a time; again once some of them have ended.
    pub fn too_many_at_once(detail: impl Into<String>, retry_after_s: u64) -> Self {
        Self {
            retry_after_s: Some(retry_after_s.max(1)),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_at_once", detail)
        }
    }

    /// Adds a header to the answer, if it can be one.
    #[must_use]
    pub fn with_header(self, name: &'static str, value: impl Into<String>) -> Self {
        match HeaderValue::try_from(value.into()) {
            Ok(value) => self.with_value(HeaderName::from_static(name), value),
            Err(_) => self,
        }
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_value(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub const fn status(&self) -> StatusCode {
        self.status
    }

    pub const fn code(&self) -> &'static str {
        self.code
    }

    fn document(&self) -> Document<'_> {
        Document {
            r#type: format!("/problems/{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Problem"),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            errors: &self.faults,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.document()).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        headers.extend(self.headers);
        response
    }
}
