//! `/console`: a page of the platform's own, without a library, a build or another host. It asks what any caller may.

use axum::{
    Router,
    http::header,
    response::{IntoResponse, Redirect},
    routing::get,
};

/// The page runs and styles itself from here, and calls nobody else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const PAGE: &str = include_str!("../console/index.html");
const SCRIPT: &str = include_str!("../console/console.js");
const STYLE: &str = include_str!("../console/console.css");

/// The page and what belongs to it. Nothing of it needs a token; what it asks for does.
pub fn router() -> Router {
    let file = |kind: &'static str, text: &'static str| {
        get(async move || {
            ([(header::CONTENT_TYPE, kind), (header::CONTENT_SECURITY_POLICY, POLICY)], text).into_response()
        })
    };
    Router::new()
        .route("/", get(async || Redirect::temporary("/console")))
        .route("/console", file("text/html; charset=utf-8", PAGE))
        .route("/console/console.js", file("text/javascript; charset=utf-8", SCRIPT))
        .route("/console/console.css", file("text/css; charset=utf-8", STYLE))
}
