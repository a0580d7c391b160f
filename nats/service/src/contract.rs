//! What a service serves, as data: `OpenAPI` 3.1, and a page to read. A test holds it against the routes.

use std::collections::BTreeSet;

use axum::{
    Json, Router,
    http::header,
    response::{Html, IntoResponse},
    routing::get,
};
use serde_json::{Map, Value, json};

/// A page styles itself, and does nothing else.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
const TITLE: &str = "Twelve";

/// The media type of several `CloudEvents` in one body.
pub const CLOUD_EVENTS: &str = "application/cloudevents-batch+json";

/// One call.
#[derive(Clone, Debug)]
pub struct Operation {
    pub method: &'static str,
    /// As the router has it.
    pub path: &'static str,
    pub summary: &'static str,
    /// Who may call it.
    pub whom: &'static str,
    /// `OpenAPI` parameter objects, beyond those in the path.
    pub parameters: Vec<Value>,
    /// The schema of the body; `None` if there is none.
    pub body: Option<Value>,
    /// Status codes that are no problems, each with the schema of its answer.
    pub answers: Vec<(u16, Value)>,
    /// Status codes that are problems.
    pub problems: &'static [u16],
}

/// A reference to a named schema.
pub fn named(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// A header that a call may bring.
pub fn header(name: &str, what: &str, schema: &Value) -> Value {
    json!({ "name": name, "in": "header", "required": false, "description": what, "schema": schema })
}

/// A parameter of the query string.
pub fn query(name: &str, what: &str, schema: &Value) -> Value {
    json!({ "name": name, "in": "query", "required": false, "description": what, "schema": schema })
}

/// A page of a list.
pub fn page_of(item: &Value) -> Value {
    let cursor = json!({ "type": ["string", "null"], "description": "for the next page; null at the end" });
    json!({
        "type": "object", "required": ["items", "next_cursor"],
        "properties": { "items": { "type": "array", "items": item }, "next_cursor": cursor },
    })
}

impl Operation {
    fn describe(&self) -> Value {
        let mut answers = Map::new();
        for (status, schema) in &self.answers {
            let kind = if self.path.ends_with("/live") { "text/event-stream" } else { "application/json" };
            let mut content = json!({ kind: { "schema": schema } });
            if self.path.ends_with("/events") {
                let batch = json!({ "type": "array", "items": { "type": "object" } });
                content[CLOUD_EVENTS] = json!({ "schema": batch });
            }
            let answer = match status {
                304 => json!({ "description": describe(*status) }),
                _ => json!({ "description": describe(*status), "content": content }),
            };
            answers.insert(status.to_string(), answer);
        }
        for status in self.problems {
            let shared = json!({ "$ref": format!("#/components/responses/{status}") });
            answers.insert(status.to_string(), shared);
        }
        let placeholders = self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let in_path = placeholders.map(|name| {
            json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 } })
        });
        let parameters: Vec<Value> = in_path.chain(self.parameters.iter().cloned()).collect();
        let mut described = json!({
            "operationId": self.id(), "summary": self.summary, "description": format!("For {}.", self.whom),
            "parameters": parameters, "responses": answers, "security": [{ "token": [] }, {}],
        });
        if let Some(body) = &self.body {
            described["requestBody"] = json!({ "content": { "application/json": { "schema": body } } });
        }
        described
    }

    fn id(&self) -> String {
        let words = self.path.split(['/', '-']).map(|part| part.trim_matches(['{', '}']));
        std::iter::once(self.method)
            .chain(words)
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join("_")
    }
}

const fn describe(status: u16) -> &'static str {
    match status {
        200 => "done, or as it is",
        201 => "it is there now",
        202 => "under way: the outcome is the order's, later",
        304 => "the caller has it already",
        400 => "the call does not read",
        401 => "the call needs a token, or a better one",
        402 => "the payment was declined; nothing was charged",
        403 => "not this caller's",
        404 => "there is no such thing",
        409 => "the order's state does not allow it; `code` says why",
        412 => "the order has changed since the ETag in If-Match was given",
        413 => "the body is too large",
        415 => "the body is not JSON",
        422 => "the call reads, and what it says is not acceptable; every fault at once",
        429 => "this caller calls too often; Retry-After says when to come back",
        503 => "not now; Retry-After says when to come back",
        _ => "see the problem's detail",
    }
}

fn problem() -> Value {
    let fault = json!({
        "type": "object", "required": ["pointer", "detail"],
        "properties": { "pointer": { "type": "string" }, "detail": { "type": "string" } },
    });
    json!({
        "type": "object", "description": "RFC 9457; `code` is stable.",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": { "type": "string" }, "title": { "type": "string" }, "status": { "type": "integer" },
            "detail": { "type": "string" }, "code": { "type": "string" },
            "errors": { "type": "array", "items": fault },
        },
    })
}

/// The whole as an `OpenAPI` document; `schemas` are those that operations name.
pub fn document(operations: &[Operation], schemas: &Value) -> Value {
    let mut paths = Map::new();
    for operation in operations {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = operation.describe();
    }
    let mut components = schemas.clone();
    components["Problem"] = problem();
    let problems: BTreeSet<u16> =
        operations.iter().flat_map(|operation| operation.problems.iter().copied()).collect();
    let content = json!({ "application/problem+json": { "schema": named("Problem") } });
    let responses: Map<String, Value> = problems
        .into_iter()
        .map(|status| (status.to_string(), json!({ "description": describe(status), "content": content })))
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": TITLE, "version": env!("CARGO_PKG_VERSION"),
            "description": "An order platform: commands are decided on an order's own story, queries read views of the log.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": responses,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
        },
    })
}

/// `/openapi.json`, `/docs`, and the log's own `/asyncapi.json`.
pub fn router(document: Value) -> Router {
    let page = page(&document);
    let shown = move || {
        let page = page.clone();
        async move { ([(header::CONTENT_SECURITY_POLICY, PAGE_POLICY)], Html(page)).into_response() }
    };
    let of_log = nats::contract::document();
    Router::new()
        .route("/openapi.json", get(async || Json(document)))
        .route("/asyncapi.json", get(async || Json(of_log)))
        .route("/docs", get(shown))
}

fn page(document: &Value) -> String {
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
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{TITLE}: calls</title>\
         <style>body{{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}\
         summary{{cursor:pointer;padding:.3rem 0}}pre{{background:#f4f4f4;padding:1rem;overflow:auto}}i{{color:#555}}\
         </style><h1>{TITLE}: calls</h1><p>The same as data: <a href=\"/openapi.json\">/openapi.json</a>; the events: <a href=\"/asyncapi.json\">/asyncapi.json</a></p>\n{rows}\
         <details><summary>Schemas</summary><pre>{schemas}</pre></details></html>"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
