//! Pages to read: the contract, and what each problem's code means.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Router,
    body::Bytes,
    extract::Path,
    http::header,
    response::{Html, IntoResponse, Response},
    routing::{MethodRouter, get},
};
use serde_json::Value;

use super::reference;
use crate::{
    grpc,
    limits::{LimitSettings, conversing, limited},
    problem::{Code, PAGES, Problem},
};

/// A page styles itself, and does nothing else.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
const STYLE: &str = "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}";

/// `/openapi.json`, `/docs`, the log's own `/asyncapi.json`, and a page for each problem. All are made here, once.
pub fn router(document: &Value, limits: &LimitSettings) -> Router {
    let reflection = grpc::serving::reflection().unwrap_or_else(|error| {
        tracing::error!(error = %format!("{error:#}"), "gRPC's reflection is not served");
        Router::new()
    });
    let of_each: HashMap<&str, Bytes> =
        Code::all().into_iter().map(|code| (code.as_str(), problem(code).into())).collect();
    let of_each = Arc::new(of_each);
    let pages = Router::new()
        .route("/openapi.json", as_json(document))
        .route("/asyncapi.json", as_json(&nats::contract::document()))
        .route(PAGES, page(problems()))
        .route("/problems/{code}", get(async move |Path(name): Path<String>| one(&of_each, &name)))
        .merge(reference::router());
    limited(pages, limits).merge(conversing(reflection, limits))
}

fn as_json(document: &Value) -> MethodRouter {
    let text = Bytes::from(document.to_string());
    get(async move || ([(header::CONTENT_TYPE, "application/json")], text))
}

fn page(text: String) -> MethodRouter {
    let text = Bytes::from(text);
    get(async move || shown(text))
}

fn shown(page: Bytes) -> Response {
    ([(header::CONTENT_SECURITY_POLICY, PAGE_POLICY)], Html(page)).into_response()
}

fn one(of_each: &HashMap<&str, Bytes>, name: &str) -> Response {
    let Some(page) = of_each.get(name) else {
        return Problem::new(Code::NotFound, format!("no problem has this code; {PAGES} lists them"))
            .into_response();
    };
    shown(page.clone())
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

fn problem(code: Code) -> String {
    let status = code.status();
    let body = format!(
        "<p>{}</p><p>Status {status}. The <code>detail</code> of the problem says more of the case.</p>\
         <p><a href=\"{PAGES}\">All problems</a></p>",
        escape(&code.meaning())
    );
    html(&format!("Problem: {}", code.as_str()), &body)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
