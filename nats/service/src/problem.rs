//! The one shape of an error answer: an RFC 9457 problem document with a stable code.

pub mod code;

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
pub use code::Code;
use domain::Refusal;
use schemars::JsonSchema;
use serde::Serialize;

/// Where the codes are explained.
pub const PAGES: &str = "/problems";

/// One fault of a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Fault {
    /// Where in the body: a JSON pointer (RFC 6901).
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

/// What went wrong, in words a caller can act on.
#[derive(Clone, Debug)]
pub struct Problem {
    code: Code,
    detail: String,
    faults: Vec<Fault>,
    retry_after_s: Option<u64>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// RFC 9457: what went wrong.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub struct Document {
    /// A page that says what the code means.
    #[schemars(extend("format" = "uri-reference"))]
    r#type: String,
    title: String,
    #[schemars(extend("minimum" = 400, "maximum" = 599))]
    status: u16,
    /// What went wrong here, and what to do.
    detail: String,
    #[serde(serialize_with = "as_str")]
    code: Code,
    /// Every fault of the body at once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Fault>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde has it so")]
fn as_str<S: serde::Serializer>(code: &Code, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(code.as_str())
}

impl Problem {
    /// A problem of this code, and of the status that goes with it.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), faults: Vec::new(), retry_after_s: None, headers: Vec::new() }
    }

    /// 400: the call cannot even be read.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(Code::Malformed, detail)
    }

    /// 422: the call reads, and what it says is not acceptable; every fault at once.
    pub fn invalid(faults: Vec<Fault>) -> Self {
        let detail = match faults.len() {
            1 => "one field is not acceptable".to_owned(),
            count => format!("{count} fields are not acceptable"),
        };
        Self { faults, ..Self::new(Code::Invalid, detail) }
    }

    /// 403: not this person. Nothing is said of what it is that they may not do or see.
    pub fn forbidden() -> Self {
        Self::new(
            Code::Forbidden,
            "this is not permitted: it takes another role, or belongs to another person",
        )
    }

    /// 404: there is no such order.
    pub fn order_not_found() -> Self {
        Self::new(Code::Refused(Refusal::OrderNotFound), "there is no such order")
    }

    /// 503: not now; the same call may be tried again after some seconds.
    pub fn unavailable(code: Code, detail: impl Into<String>, retry_after_s: u64) -> Self {
        Self { retry_after_s: Some(retry_after_s.max(1)), ..Self::new(code, detail) }
    }

    /// 429: this caller calls too often; again after some seconds.
    pub fn too_many(detail: impl Into<String>, retry_after_s: u64) -> Self {
        Self { retry_after_s: Some(retry_after_s.max(1)), ..Self::new(Code::TooManyCalls, detail) }
    }

    /// 429: this caller has too many calls at a time; again once some of them have ended.
    pub fn too_many_at_once(detail: impl Into<String>, retry_after_s: u64) -> Self {
        Self { retry_after_s: Some(retry_after_s.max(1)), ..Self::new(Code::TooManyAtOnce, detail) }
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
        self.code.status()
    }

    pub const fn code(&self) -> &'static str {
        self.code.as_str()
    }

    fn document(&self) -> Document {
        let status = self.status();
        Document {
            r#type: format!("{PAGES}/{}", self.code()),
            title: status.canonical_reason().unwrap_or("Problem").to_owned(),
            status: status.as_u16(),
            detail: self.detail.clone(),
            code: self.code,
            errors: self.faults.clone(),
        }
    }
}

impl Problem {
    /// The document as it is sent.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        serde_json::to_vec(&self.document()).unwrap_or_default()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = self.to_vec();
        let mut response = (self.status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        headers.extend(self.headers);
        response
    }
}
