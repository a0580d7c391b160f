//! The headers that come with answers, each described once.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{POSITION, POSITIONS};

/// What every answer has.
pub(super) const OF_EVERY_CALL: &[&str] = &["X-Request-Id", "Traceparent", "RateLimit", "RateLimit-Policy"];

/// The headers that problems of a status have, beyond those of every call.
pub(super) const fn of_problems(status: u16) -> &'static [&'static str] {
    match status {
        401 => &["WWW-Authenticate"],
        429 => &["Retry-After"],
        // How far the views are, where they are behind.
        503 => &["Retry-After", "View-Position"],
        _ => &[],
    }
}

fn text(what: &str, pattern: Option<&str>, example: &str) -> Value {
    let mut schema = json!({ "type": "string", "examples": [example] });
    if let Some(pattern) = pattern {
        schema["pattern"] = json!(pattern);
    }
    json!({ "description": what, "schema": schema })
}

fn describe(name: &str) -> Value {
    match name {
        "Log-Position" => text(
            "where the order stands in the log now; a query that brings it back sees at least that",
            Some(POSITION),
            "2:1842",
        ),
        "Durability" => json!({
            "description": "what it means that the log acknowledged it",
            "schema": { "type": "string", "enum": ["fsync", "replicated", "memory"] },
        }),
        "Idempotency-Replayed" => json!({
            "description": "the call is a repeat under its key, and this is the first one's answer",
            "schema": { "type": "string", "enum": ["true"] },
        }),
        "Location" => {
            let schema = json!({ "type": "string", "format": "uri-reference", "examples": ["/orders/4add65e2-7000-5edf-8c10-06703825a0ed"] });
            json!({ "description": "the order", "schema": schema })
        }
        "ETag" => text(
            "for If-None-Match; an order's also for a command's If-Match",
            Some("^\"[^\"]+\"$"),
            "\"2:1842\"",
        ),
        "View-Position" => {
            text("how far the views were, by partition", Some(POSITIONS), "0:17,1:9,2:1842,3:0")
        }
        "View-Generation" => {
            let schema = json!({ "type": "integer", "format": "int64", "minimum": 0 });
            json!({ "description": "which generation of the views answered", "schema": schema })
        }
        "Link" => text(
            "where the next page is (RFC 8288), of a batch that has no `next_cursor`",
            None,
            "</orders/4add65e2-7000-5edf-8c10-06703825a0ed/events?cursor=5f1c>; rel=\"next\"",
        ),
        "Retry-After" => {
            let schema = json!({ "type": "integer", "format": "int64", "minimum": 1 });
            json!({ "description": "seconds after which the call may be made again", "schema": schema })
        }
        "WWW-Authenticate" => text("what the token lacks (RFC 6750)", None, "Bearer error=\"invalid_token\""),
        "RateLimit" => text("calls that are left, where there is a limit", None, "\"caller\";r=99;t=1"),
        "RateLimit-Policy" => text("the limit, where there is one", None, "\"caller\";q=200;w=2"),
        "X-Request-Id" => text("the caller's own, or one that was made up", None, "5f0c7a52"),
        "Traceparent" => text(
            "the W3C trace context that the call went on in",
            Some("^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"),
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        other => text("", None, other),
    }
}

/// References to these, and to what every answer has.
pub(super) fn named(names: &[&str]) -> Map<String, Value> {
    let reference =
        |name: &&str| ((*name).to_owned(), json!({ "$ref": format!("#/components/headers/{name}") }));
    names.iter().chain(OF_EVERY_CALL).map(reference).collect()
}

/// What these are.
pub(super) fn described(names: &BTreeSet<&str>) -> Map<String, Value> {
    names.iter().map(|name| ((*name).to_owned(), describe(name))).collect()
}
