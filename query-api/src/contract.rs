//! The queries, as data.

use serde_json::{Value, json};
use service::contract::{Operation, header, named, page_of, query};

const PROBLEMS: &[u16] = &[400, 401, 403, 404, 422, 429, 503];
const OPERATORS: &str = "operators";
const ANYBODY: &str = "everybody who has a token";

fn text() -> Value {
    json!({ "type": "string", "minLength": 1 })
}

/// What every query takes.
fn common() -> Vec<Value> {
    let positions = json!({ "type": "string", "pattern": "^[0-9]{1,2}:[0-9]{1,9}$" });
    vec![
        query(
            "after",
            "wait until the views have reached this position, as a command answered it",
            &positions,
        ),
        query(
            "wait",
            "milliseconds to wait for it",
            &json!({ "type": "integer", "minimum": 0, "maximum": 10_000 }),
        ),
        header("Log-Position", "as `after`", &positions),
        header("If-None-Match", "an ETag that the caller has", &json!({ "type": "string" })),
    ]
}

fn as_of() -> Value {
    let moment = json!({ "type": "string", "examples": ["2026-11-21T12:00:00Z", "0:17,2:1842"] });
    query("as_of", "as it was at this position, or at this time", &moment)
}

fn paging() -> [Value; 2] {
    [
        query("limit", "rows on a page", &json!({ "type": "integer", "minimum": 1, "maximum": 200 })),
        query(
            "cursor",
            "`next_cursor` of the page before",
            &json!({ "type": "string", "pattern": "^([0-9a-f]{2})*$" }),
        ),
    ]
}

/// What a query of one thing is like.
fn one(path: &'static str, summary: &'static str, whom: &'static str, schema: Value) -> Operation {
    let parameters = common().into_iter().chain([as_of()]).collect();
    let answers = vec![(200, schema), (304, Value::Null)];
    Operation { method: "get", path, summary, whom, parameters, body: None, answers, problems: PROBLEMS }
}

fn list(
    path: &'static str,
    summary: &'static str,
    whom: &'static str,
    filters: Vec<Value>,
    item: &str,
) -> Operation {
    let whole = one(path, summary, whom, page_of(&named(item)));
    let parameters = whole.parameters.into_iter().chain(paging()).chain(filters).collect();
    Operation { parameters, ..whole }
}

fn top(path: &'static str, summary: &'static str, whom: &'static str) -> Operation {
    let whole = one(path, summary, whom, page_of(&named("Row")));
    let most =
        query("top", "how many of the highest", &json!({ "type": "integer", "minimum": 1, "maximum": 200 }));
    Operation { parameters: whole.parameters.into_iter().chain([most]).collect(), ..whole }
}

fn live(path: &'static str, summary: &'static str, whom: &'static str) -> Operation {
    let resume = header("Last-Event-ID", "goes on after the event of this id", &text());
    Operation {
        method: "get",
        path,
        summary,
        whom,
        parameters: common().into_iter().chain([resume]).collect(),
        body: None,
        answers: vec![(
            200,
            json!({ "type": "string", "description": "Server-Sent Events: snapshot, change, dropped, ended" }),
        )],
        problems: PROBLEMS,
    }
}

fn filter(name: &str, what: &str) -> Value {
    query(name, what, &text())
}

fn truth(name: &str, what: &str) -> Value {
    query(name, what, &json!({ "type": "boolean" }))
}

fn of_order() -> Value {
    query("order_id", "of this order only", &json!({ "type": "string", "format": "uuid" }))
}

/// The same, but not as of a moment.
fn now_only(operation: Operation) -> Operation {
    let parameters = operation.parameters.into_iter().filter(|parameter| parameter["name"] != "as_of");
    Operation { parameters: parameters.collect(), ..operation }
}

/// All queries.
pub fn operations() -> Vec<Operation> {
    [orders(), of_people(), rows(), of_the_platform()].concat()
}

fn orders() -> Vec<Operation> {
    let parties = "the order's parties";
    let filters = vec![
        filter("flow", "of this flow"),
        filter("status", "of this status"),
        filter("channel", "of this channel"),
    ];
    vec![
        one("/orders/{order_id}", "an order with its timeline", parties, named("Order")),
        now_only(one(
            "/orders/{order_id}/events",
            "its raw events, from the log",
            parties,
            page_of(&named("Row")),
        )),
        live("/orders/{order_id}/live", "an order as it changes", parties),
        list("/orders", "orders, newest first", OPERATORS, filters, "Order"),
    ]
}

fn of_people() -> Vec<Operation> {
    let (customer, store) = ("that customer", "who works for that store");
    let (state, open) = (
        vec![filter("state", "in this state")],
        vec![filter("region", "of this region"), filter("delivery_type", "of this type")],
    );
    vec![
        list("/customers/{customer_id}/orders", "my page: a customer's orders", customer, Vec::new(), "Row"),
        live("/customers/{customer_id}/orders/live", "my page as it changes", customer),
        list("/stores/{store_id}/orders", "what a store has before it", store, state, "Row"),
        live("/stores/{store_id}/orders/live", "a store's orders as they change", store),
        list("/riders/{rider_id}/deliveries", "what a rider picked up", "that rider", Vec::new(), "Row"),
        list(
            "/deliveries/open",
            "what a rider may pick up: its region, and no address",
            "riders",
            open,
            "Row",
        ),
    ]
}

fn rows() -> Vec<Operation> {
    let order = || vec![of_order()];
    let told = vec![of_order(), truth("failed", "given up, or not")];
    let reviews = vec![
        of_order(),
        filter("store_id", "of this store, with its rating"),
        filter("item_id", "of this item, with its rating"),
    ];
    vec![
        top("/items/order-counts", "how often each food was ordered", ANYBODY),
        one("/items/{item_id}/order-count", "how often one food was ordered", ANYBODY, named("Row")),
        top("/riders/delivery-counts", "how often each rider delivered", OPERATORS),
        list("/coupons", "coupons", "marketing", order(), "Row"),
        list("/payments", "payments", OPERATORS, order(), "Row"),
        list("/deliveries", "deliveries", "operators; the delivery team its own", order(), "Row"),
        list("/notifications", "what customers were told", OPERATORS, told, "Row"),
        list("/reviews", "what customers think of it", ANYBODY, reviews, "Row"),
    ]
}

fn of_the_platform() -> Vec<Operation> {
    let sagas = vec![truth("waiting", "for a step"), truth("parked", "refused for good")];
    vec![
        list("/sagas", "where orders stand and why", OPERATORS, sagas, "Row"),
        one("/sagas/{order_id}", "where an order stands and why", OPERATORS, named("Row")),
        one("/views", "the views: position, generation, rows, bytes", OPERATORS, named("Row")),
        one("/views/{name}", "one view", OPERATORS, named("Row")),
        now_only(one("/flows", "the flows, as data and as diagrams", ANYBODY, page_of(&named("Row")))),
        now_only(one("/flows/{name}", "one flow", ANYBODY, named("Row"))),
    ]
}

/// What the operations name.
pub fn schemas() -> Value {
    let entry = json!({
        "type": "object", "required": ["position", "time", "context", "type", "status", "data"],
        "properties": {
            "position": text(), "time": { "type": "string", "format": "date-time" }, "context": text(), "type": text(),
            "status": text(), "data": { "type": "object" },
        },
    });
    let part = json!({ "type": ["object", "null"] });
    json!({
        "Row": { "type": "object", "description": "fields may be added" },
        "Order": {
            "type": "object", "description": "fields may be added",
            "required": ["order_id", "flow", "channel", "customer", "lines", "total", "address", "status", "timeline"],
            "properties": {
                "order_id": { "type": "string", "format": "uuid" }, "flow": text(), "channel": { "enum": ["web", "phone"] },
                "customer": { "type": ["object", "null"], "required": ["id", "name"], "properties": { "id": text(), "name": text() } }, "store_id": { "type": ["string", "null"] },
                "lines": { "type": "array", "items": { "type": "object" } },
                "total": { "type": ["object", "null"], "required": ["amount", "currency"], "properties": { "amount": { "type": "integer" }, "currency": text() } }, "address": { "type": "object" },
                "delivery_type": { "type": ["string", "null"] }, "status": text(), "payment": part, "coupon": part,
                "store": part, "delivery": part, "review": part,
                "timeline": { "type": "array", "items": entry },
            },
        },
    })
}
