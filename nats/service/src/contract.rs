//! What a service serves, as data: `OpenAPI` 3.1, and pages to read. The schemas come from the types that are served;
//! tests hold the table of calls against the routes, and real answers against the schemas.

pub mod header;
pub mod page;
mod reference;
pub mod schema;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

pub use page::router;
pub use schema::Schemas;

use crate::problem;
use header::{OF_EVERY_CALL, described, of_problems};

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";
const EVENT_STREAM: &str = "text/event-stream";
/// What any call may meet before it is worked on: another method, a body that does not come, a host that is not ours;
/// and a fault of ours.
const OF_ANY_CALL: [u16; 4] = [405, 408, 421, 500];

/// The media type of several `CloudEvents` in one body.
pub const CLOUD_EVENTS: &str = "application/cloudevents-batch+json";

/// How a position reads: a partition and a sequence, both of which may have many digits.
pub const POSITION: &str = "^[0-9]{1,5}:[0-9]{1,19}$";
/// One or more of them.
pub const POSITIONS: &str = "^[0-9]{1,5}:[0-9]{1,19}(,[0-9]{1,5}:[0-9]{1,19})*$";

/// Groups of calls, in the order in which readers meet them.
const TAGS: [(&str, &str); 12] = [
    ("orders", "Placing, paying, following and undoing orders."),
    ("customers", "A customer's own page."),
    ("stores", "What a store has before it, and what it does with it."),
    ("deliveries", "Riders and the delivery team: what may be picked up, and what was."),
    ("reviews", "What customers think of it."),
    ("records", "The rows of each context: payments, coupons, notifications."),
    ("counts", "How often each item was ordered and each rider delivered."),
    ("sagas", "Where orders stand and why; parked ones go on."),
    ("flows", "How orders travel."),
    ("views", "The read models: how far they are."),
    ("breakers", "Circuit breakers of calls to other contexts and services."),
    ("rebuilds", "Views rebuilt beside those that serve, compared, swapped in, rolled back; snapshots."),
];

/// Names in paths, and what they are.
const IN_PATHS: [(&str, &str, &str); 7] = [
    ("order_id", "the order's id", "uuid"),
    ("customer_id", "the customer's id, as orders are placed with it", ""),
    ("store_id", "the store's id", ""),
    ("rider_id", "the rider's id", ""),
    ("item_id", "the item's id", ""),
    ("name", "a name, as the list gives it", ""),
    ("call", "the breaker's name, as the list gives it", ""),
];

/// One call.
#[derive(Clone, Debug)]
pub struct Operation {
    /// What clients call it: `placeOrder`. Never changes.
    pub id: &'static str,
    /// The group that it belongs to.
    pub tag: &'static str,
    pub method: &'static str,
    /// As the router has it.
    pub path: &'static str,
    pub summary: &'static str,
    /// Who may call it.
    pub whom: &'static str,
    /// `OpenAPI` parameter objects, beyond those in the path.
    pub parameters: Vec<Value>,
    pub body: Option<Body>,
    /// Answers that are no problems.
    pub answers: Vec<Answer>,
    /// Status codes that are problems, beyond those that any call may meet.
    pub problems: &'static [u16],
}

/// What a call brings.
#[derive(Clone, Debug)]
pub struct Body {
    pub schema: Value,
    pub example: Value,
    /// Whether it may be left out altogether.
    pub is_optional: bool,
}

/// What a call gets.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// By media type; none for an answer without a body.
    pub content: Vec<(&'static str, Value)>,
    /// The names of the headers that come with it.
    pub headers: &'static [&'static str],
    pub example: Option<Value>,
    /// Calls to go on with: the link's name, the call, and where its parameters come from.
    pub links: Vec<(&'static str, &'static str, &'static str)>,
}

impl Answer {
    /// JSON of this schema.
    pub fn json(status: u16, schema: Value, headers: &'static [&'static str]) -> Self {
        Self { status, content: vec![(JSON, schema)], headers, example: None, links: Vec::new() }
    }

    /// Nothing but headers.
    pub fn empty(status: u16, headers: &'static [&'static str]) -> Self {
        Self { status, content: Vec::new(), headers, example: None, links: Vec::new() }
    }

    /// Server-Sent Events, each of which is of this schema.
    pub fn stream(event: &Value, headers: &'static [&'static str]) -> Self {
        let schema = json!({
            "type": "string",
            "description": "Server-Sent Events, for as long as the caller stays; each is an item of `contentSchema`.",
            "contentMediaType": EVENT_STREAM,
            "contentSchema": { "type": "array", "items": event },
        });
        Self { status: 200, content: vec![(EVENT_STREAM, schema)], headers, example: None, links: Vec::new() }
    }

    fn describe(&self) -> Value {
        let mut content = Map::new();
        for (kind, schema) in &self.content {
            let mut of_kind = json!({ "schema": schema });
            if let Some(example) = self.example.as_ref().filter(|_| *kind == JSON) {
                of_kind["example"] = example.clone();
            }
            content.insert((*kind).to_owned(), of_kind);
        }
        let mut answer =
            json!({ "description": describe(self.status), "headers": header::named(self.headers) });
        if !content.is_empty() {
            answer["content"] = content.into();
        }
        let links = self.links.iter().map(|(name, call, from)| {
            ((*name).to_owned(), json!({ "operationId": call, "parameters": { "order_id": from } }))
        });
        let links: Map<String, Value> = links.collect();
        if !links.is_empty() {
            answer["links"] = links.into();
        }
        answer
    }
}

/// A header that a call may bring.
pub fn header(name: &str, what: &str, schema: &Value) -> Value {
    json!({ "name": name, "in": "header", "required": false, "description": what, "schema": schema })
}

/// A parameter of the query string.
pub fn query(name: &str, what: &str, schema: &Value) -> Value {
    json!({ "name": name, "in": "query", "required": false, "description": what, "schema": schema })
}

fn in_path(name: &str) -> Value {
    let known = IN_PATHS.iter().find(|(known, ..)| *known == name);
    let (what, format) = known.map_or(("", ""), |(_, what, format)| (*what, *format));
    let schema = match format {
        "" => json!({ "type": "string", "minLength": 1 }),
        format => json!({ "type": "string", "format": format }),
    };
    json!({ "name": name, "in": "path", "required": true, "description": what, "schema": schema })
}

impl Operation {
    fn refusals(&self) -> BTreeSet<u16> {
        self.problems.iter().copied().chain(OF_ANY_CALL).collect()
    }

    fn describe(&self) -> Value {
        let mut answers = Map::new();
        for answer in &self.answers {
            answers.insert(answer.status.to_string(), answer.describe());
        }
        for status in self.refusals() {
            let shared = json!({ "$ref": format!("#/components/responses/{status}") });
            answers.insert(status.to_string(), shared);
        }
        let placeholders = self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let parameters: Vec<Value> =
            placeholders.map(in_path).chain(self.parameters.iter().cloned()).collect();
        let mut described = json!({
            "operationId": self.id, "tags": [self.tag], "summary": self.summary,
            "description": format!("For {}.", self.whom),
            "parameters": parameters, "responses": answers, "security": [{ "token": [] }, {}],
        });
        if let Some(body) = &self.body {
            described["requestBody"] = json!({
                "required": !body.is_optional,
                "content": { JSON: { "schema": body.schema, "example": body.example } },
            });
        }
        described
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
        405 => "this path takes other methods",
        408 => "the body did not come in time; nothing was done",
        409 => "the order's state does not allow it; `code` says why",
        412 => "the order has changed since the ETag in If-Match was given",
        413 => "the body is too large",
        415 => "the body is not JSON",
        421 => "callers are not asked who they are here, so only names of this machine are answered",
        422 => "the call reads, and what it says is not acceptable; every fault at once",
        429 => "this caller calls too often; Retry-After says when to come back",
        500 => "a fault here; the same call meets it again",
        503 => "not now; Retry-After says when to come back",
        _ => "see the problem's detail",
    }
}

/// What a document is of.
pub struct About {
    pub title: &'static str,
    pub description: &'static str,
}

/// The calls that customers, stores, riders and programs make.
pub const SERVICES: About = About {
    title: "Twelve",
    description: "An order platform: commands are decided on an order's own story, queries read views of the log. \
                  Amounts are whole minor units of their currency. Fields and codes may be added; readers ignore what \
                  they do not know.",
};

/// The calls on the operator's own port.
pub const OPERATOR: About = About {
    title: "Twelve: the operator's calls",
    description: "Views rebuilt beside those that serve, compared, swapped in and rolled back; snapshots. On a port of \
                  its own (`--operator-listen`), never behind the front door.",
};

/// The whole as an `OpenAPI` document; `schemas` are those that operations name.
pub fn document(about: &About, operations: &[Operation], mut schemas: Schemas) -> Value {
    let mut paths = Map::new();
    for operation in operations {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = operation.describe();
    }
    let of_problem = schemas.answer::<problem::Document>();
    let problems: BTreeSet<u16> = operations.iter().flat_map(Operation::refusals).collect();
    let responses: BTreeMap<String, Value> = problems
        .into_iter()
        .map(|status| {
            let content = json!({ PROBLEM: { "schema": of_problem } });
            let headers = header::named(of_problems(status));
            let response = json!({ "description": describe(status), "headers": headers, "content": content });
            (status.to_string(), response)
        })
        .collect();
    let answers = operations.iter().flat_map(|operation| &operation.answers);
    let sent: BTreeSet<&str> = answers
        .flat_map(|answer| answer.headers)
        .chain(responses.keys().filter_map(|status| status.parse().ok()).flat_map(of_problems))
        .chain(OF_EVERY_CALL)
        .copied()
        .collect();
    let tags = TAGS.iter().filter(|(tag, _)| operations.iter().any(|operation| operation.tag == *tag));
    let tags: Vec<Value> =
        tags.map(|(name, description)| json!({ "name": name, "description": description })).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": about.title, "version": env!("CARGO_PKG_VERSION"), "description": about.description,
            "contact": { "name": "The makers of Twelve" },
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas.named(),
            "responses": responses,
            "headers": described(&sent),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
        },
    })
}
