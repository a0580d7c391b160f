//! Pages to read: the contract, and what each problem's code means.

use axum::{
    Json, Router,
    extract::Path,
    http::header,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};

use crate::problem::{Code, PAGES, Problem};

/// A page styles itself, and does nothing else.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
const STYLE: &str = "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
    summary{cursor:pointer;padding:.3rem 0}pre{background:#f4f4f4;padding:1rem;overflow:auto}i{color:#555}";

/// `/openapi.json`, `/docs`, the log's own `/asyncapi.json`, and a page for each problem.
pub fn router(document: Value) -> Router {
    let page = whole(&document);
    let of_log = nats::contract::document();
    Router::new()
        .route("/openapi.json", get(async || Json(document)))
        .route("/asyncapi.json", get(async || Json(of_log)))
        .route("/docs", get(move || async move { shown(page.clone()) }))
        .route(PAGES, get(async || shown(problems())))
        .route("/problems/{code}", get(problem))
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
    html("Problems", &format!("<p>What the <code>code</code> of a problem document means.</p><ul>{rows}</ul>"))
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

fn whole(document: &Value) -> String {
    let mut rows = Vec::new();
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let text = |value: &Value| escape(value.as_str().unwrap_or_default());
            let details = json!({
                "parameters": operation["parameters"], "body": operation["requestBody"]["content"]["application/json"]["schema"],
                "answers": operation["responses"],
            });
            rows.push(format!(
                "<details><summary><b>{}</b> <code>{}</code> {} <i>{}</i></summary><pre>{}</pre></details>\n",
                escape(&method.to_uppercase()),
                escape(path),
                text(&operation["summary"]),
                text(&operation["description"]),
                escape(&format!("{details:#}")),
            ));
        }
    }
    let rows = rows.concat();
    let schemas = escape(&format!("{:#}", document["components"]["schemas"]));
    let title = escape(document["info"]["title"].as_str().unwrap_or_default());
    html(
        &format!("{title}: calls"),
        &format!(
            "<p>The same as data: <a href=\"/openapi.json\">/openapi.json</a>; the events: \
             <a href=\"/asyncapi.json\">/asyncapi.json</a></p>\n{rows}\
             <details><summary>Schemas</summary><pre>{schemas}</pre></details>"
        ),
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
