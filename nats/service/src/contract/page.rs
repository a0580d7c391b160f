//! Pages to read: the contract, and what each problem's code means.

use axum::{
    Json, Router,
    extract::Path,
    http::header,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use serde_json::Value;

use super::reference;
use crate::{
    grpc,
    problem::{Code, PAGES, Problem},
};

/// A page styles itself, and does nothing else.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
const STYLE: &str = "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}";

/// `/openapi.json`, `/docs`, the log's own `/asyncapi.json`, and a page for each problem.
pub fn router(document: Value) -> Router {
    let of_log = nats::contract::document();
    let reflection = grpc::serving::reflection().unwrap_or_else(|error| {
        tracing::error!(error = %format!("{error:#}"), "gRPC's reflection is not served");
        Router::new()
    });
    Router::new()
        .route("/openapi.json", get(async || Json(document)))
        .route("/asyncapi.json", get(async || Json(of_log)))
        .route(PAGES, get(async || shown(problems())))
        .route("/problems/{code}", get(problem))
        .merge(reference::router())
        .merge(reflection)
}

fn shown(page: String) -> Response {
    ([(header::CONTENT_SECURITY_POLICY, PAGE_POLICY)], Html(page)).into_response()
}

fn html(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style>\
         <h1>{title}</h1>{body}</html>"
    )
}

fn problems() -> String {
    let row = |code: &Code| {
        let (name, status) = (code.as_str(), code.status().as_u16());
        format!(
            "<li><a href=\"{PAGES}/{name}\"><code>{name}</code></a> ({status}): {}",
            escape(&code.meaning())
        )
    };
    let rows: String = Code::all().iter().map(row).collect();
    html(
        "Problems",
        &format!("<p>What the <code>code</code> of a problem document means.</p><ul>{rows}</ul>"),
    )
}

async fn problem(Path(name): Path<String>) -> Response {
    let Some(code) = Code::all().into_iter().find(|code| code.as_str() == name) else {
        return Problem::new(Code::NotFound, format!("no problem has this code; {PAGES} lists them"))
            .into_response();
    };
    let status = code.status();
    let body = format!(
        "<p>{}</p><p>Status {status}. The <code>detail</code> of the problem says more of the case.</p>\
         <p><a href=\"{PAGES}\">All problems</a></p>",
        escape(&code.meaning())
    );
    shown(html(&format!("Problem: {}", code.as_str()), &body))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
