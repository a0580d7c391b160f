//! Pages of other web sites that are trusted: what they may send, and what of an answer they may see (CORS).

use std::time::Duration;

use anyhow::Context as _;
use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method, header},
};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::request::method_not_allowed;

/// How long a browser may remember what was allowed.
const REMEMBERED: Duration = Duration::from_mins(10);

/// What a page may send beyond what every page may.
fn sent() -> [HeaderName; 10] {
    [
        header::AUTHORIZATION,
        header::CONTENT_TYPE,
        HeaderName::from_static("idempotency-key"),
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        HeaderName::from_static("last-event-id"),
        HeaderName::from_static("log-position"),
        HeaderName::from_static("prefer"),
        HeaderName::from_static("traceparent"),
        HeaderName::from_static("x-request-id"),
    ]
}

/// What a page may see of an answer beyond its body.
fn shown() -> [HeaderName; 12] {
    [
        HeaderName::from_static("log-position"),
        HeaderName::from_static("view-position"),
        HeaderName::from_static("view-generation"),
        header::ETAG,
        header::LOCATION,
        HeaderName::from_static("durability"),
        HeaderName::from_static("idempotency-replayed"),
        header::RETRY_AFTER,
        HeaderName::from_static("ratelimit"),
        HeaderName::from_static("ratelimit-policy"),
        header::WWW_AUTHENTICATE,
        HeaderName::from_static("x-request-id"),
    ]
}

/// Lets the pages of these web sites call, and see the answers. They bring a token, never a cookie: none is known here.
pub(crate) fn with_cors(router: Router, origins: &[String]) -> anyhow::Result<Router> {
    if origins.is_empty() {
        return Ok(router);
    }
    let origins: anyhow::Result<Vec<HeaderValue>> = origins
        .iter()
        .map(|origin| origin.parse().with_context(|| format!("--trusted-origins {origin}")))
        .collect();
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins?))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(sent())
        .expose_headers(shown())
        .max_age(REMEMBERED);
    // Before the layer, so that a browser's question whether it may call (OPTIONS) is answered by it.
    Ok(router.method_not_allowed_fallback(method_not_allowed).layer(layer))
}
