//! gRPC beside REST: what it has in common on both sides. A call becomes the REST call that means the same, so that
//! both ways in are one: the same checks, limits, idempotency and events.

pub(crate) mod serving;

use std::time::Duration;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::Response,
};
use serde::{Deserializer, Serialize, de::Deserialize};
use serde_json::Value;
use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};
use tonic_types::{ErrorDetails, StatusExt};
use tower::ServiceExt;

use crate::{
    Caller,
    problem::{self, Problem},
};

/// Types, servers and clients, as `proto/twelve/v1/twelve.proto` declares them.
#[expect(
    clippy::pedantic,
    clippy::allow_attributes,
    unused_qualifications,
    reason = "this is written by the compiler of the contract"
)]
pub mod v1 {
    tonic::include_proto!("twelve.v1");
}

/// The longest answer of a REST call that is handed on, in bytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// The longest call, in bytes, as by REST.
pub const CALL_BYTES_MAX: usize = 64 * 1024;
const CODE: &str = "twelve-code";
const PROBLEM: &str = "problem-bin";
/// Whose reasons they are, in the details of errors.
const DOMAIN: &str = "twelve";
/// The REST answers' headers that are handed on as metadata.
const HANDED_ON: [&str; 6] =
    ["log-position", "durability", "idempotency-replayed", "view-position", "view-generation", "retry-after"];

/// The answer to a REST call.
pub struct Answered {
    pub status: StatusCode,
    pub body: Value,
    pub metadata: MetadataMap,
}

impl Answered {
    /// A header of the answer; empty if it has none of this name.
    pub fn header(&self, name: &str) -> &str {
        self.metadata.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Makes the REST call that means the same, as the same caller.
pub async fn call<M>(
    rest: &Router,
    method: Method,
    path: &str,
    given: tonic::Request<M>,
    body: &impl Serialize,
) -> Result<Answered, Status> {
    let (metadata, extensions, _) = given.into_parts();
    let not_handed_on = || fault("the call could not be handed on");
    let is_query = method == Method::GET;
    let body = if is_query { Vec::new() } else { serde_json::to_vec(body).map_err(|_| not_handed_on())? };
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .body(Body::from(body))
        .map_err(|_| Status::invalid_argument("the call does not read"))?;
    *request.headers_mut() = metadata.into_headers();
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request.headers_mut().remove(header::CONTENT_LENGTH);
    if let Some(caller) = extensions.get::<Caller>() {
        request.extensions_mut().insert(caller.clone());
    }
    let Ok(response) = rest.clone().oneshot(request).await;
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, ANSWER_BYTES_MAX).await.map_err(|_| not_handed_on())?;
    let mut metadata = MetadataMap::new();
    for name in HANDED_ON {
        if let Some(value) = parts.headers.get(name).and_then(|value| value.to_str().ok()?.parse().ok()) {
            metadata.insert(name, value);
        }
    }
    if parts.status.is_success() {
        let body = serde_json::from_slice(&bytes).map_err(|_| not_handed_on())?;
        return Ok(Answered { status: parts.status, body, metadata });
    }
    Err(refusal(parts.status, &bytes, metadata))
}

/// A fault of ours.
pub fn fault(detail: &str) -> Status {
    refused(&Problem::new(problem::Code::Internal, detail))
}

/// A problem as gRPC says it: the nearest code, what happened, and the whole problem beside it.
fn refusal(status: StatusCode, problem: &[u8], mut metadata: MetadataMap) -> Status {
    let Ok(said) = serde_json::from_slice::<Value>(problem) else {
        return Status::unimplemented("this process does not serve this call: see its --roles");
    };
    let code = match status.as_u16() {
        // No path, or a path of other methods: REST's words for a call that there is not.
        404 | 405
            if ["not_found", "method_not_allowed"].contains(&said["code"].as_str().unwrap_or_default()) =>
        {
            return Status::unimplemented("there is no such service or call");
        }
        400 | 413 | 415 | 422 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        408 => Code::DeadlineExceeded,
        402 | 409 => Code::FailedPrecondition,
        412 => Code::Aborted,
        429 => Code::ResourceExhausted,
        503 => Code::Unavailable,
        _ => Code::Internal,
    };
    if let Some(value) = said["code"].as_str().and_then(|code| code.parse().ok()) {
        metadata.insert(CODE, value);
    }
    metadata.insert_bin(PROBLEM, MetadataValue::from_bytes(problem));
    let details = details(&said, &metadata);
    Status::with_error_details_and_metadata(
        code,
        said["detail"].as_str().unwrap_or_default(),
        details,
        metadata,
    )
}

/// The problem in Google's standard details: the code as a reason, each field that is not acceptable, and when to come
/// back.
fn details(said: &Value, metadata: &MetadataMap) -> ErrorDetails {
    let mut details = ErrorDetails::new();
    let reason = said["code"].as_str().unwrap_or_default().to_uppercase();
    details.set_error_info(reason, DOMAIN, std::collections::HashMap::new());
    for fault in said["errors"].as_array().into_iter().flatten() {
        let text = |name: &str| fault[name].as_str().unwrap_or_default();
        details.add_bad_request_violation(field(text("pointer")), text("detail"));
    }
    let seconds = metadata.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    if let Some(seconds) = seconds {
        details.set_retry_info(Some(Duration::from_secs(seconds)));
    }
    details
}

/// A JSON pointer as gRPC names fields: `/lines/0/quantity` is `lines[0].quantity`.
fn field(pointer: &str) -> String {
    let parts = pointer.split('/').filter(|part| !part.is_empty());
    parts.fold(String::new(), |path, part| {
        let part = part.replace("~1", "/").replace("~0", "~");
        match (part.bytes().all(|byte| byte.is_ascii_digit()), path.is_empty()) {
            (true, _) => format!("{path}[{part}]"),
            (false, true) => part,
            (false, false) => format!("{path}.{part}"),
        }
    })
}

/// A problem that is found before a REST call is made, as gRPC says it.
pub fn refused(problem: &Problem) -> Status {
    refusal(problem.status(), &problem.to_vec(), MetadataMap::new())
}

/// What the library refuses by itself, with the code that REST has for it: a message that does not read or is too
/// long, and a call that there is not.
fn coded(mut response: Response) -> Response {
    let status = Status::from_header_map(response.headers());
    let Some(status) = status.filter(|_| !response.headers().contains_key(CODE)) else { return response };
    // The library says so of nothing else; our own faults have a code.
    if status.code() == Code::Internal {
        let detail = format!("the message does not read: {}", status.message());
        return refused(&Problem::malformed(detail)).into_http();
    }
    let own =
        [(Code::OutOfRange, problem::Code::BodyTooLarge), (Code::Unimplemented, problem::Code::NotFound)];
    if let Some((_, code)) = own.iter().find(|(code, _)| *code == status.code()) {
        response.headers_mut().insert(CODE, HeaderValue::from_static(code.as_str()));
    }
    response
}

/// Says refusals of what stands before the calls (tokens, limits) as gRPC does, to who speaks it.
pub(crate) async fn speak(request: Request, next: Next) -> Response {
    let is_grpc = |value: Option<&HeaderValue>| {
        value.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
    };
    let speaks = is_grpc(request.headers().get(header::CONTENT_TYPE));
    let is_ours = request.uri().path().starts_with("/twelve.v1.");
    let response = next.run(request).await;
    if speaks && is_ours && is_grpc(response.headers().get(header::CONTENT_TYPE)) {
        return coded(response);
    }
    if !speaks || is_grpc(response.headers().get(header::CONTENT_TYPE)) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let mut metadata = MetadataMap::new();
    for name in ["retry-after", "www-authenticate"] {
        if let Some(value) = parts.headers.get(name).and_then(|value| value.to_str().ok()?.parse().ok()) {
            metadata.insert(name, value);
        }
    }
    // What is no refusal is no answer to a gRPC call, and may have no end (a live stream): nothing of it is read.
    let is_problem =
        parts.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/problem+json");
    if !is_problem {
        return Status::unimplemented("there is no such call by gRPC").into_http();
    }
    let problem = to_bytes(body, ANSWER_BYTES_MAX).await.unwrap_or_default();
    refusal(parts.status, &problem, metadata).into_http()
}

/// Any JSON as its text.
fn as_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Value::deserialize(deserializer).map(|value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_a_field_as_grpc_names_it() {
        assert_eq!(field("/lines/0/quantity"), "lines[0].quantity");
        assert_eq!(field("/customer/name"), "customer.name");
        assert_eq!(field(""), "");
    }
}
