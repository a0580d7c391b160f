//! The calls of the command side, as data.

use domain::{
    money::AMOUNT_LIMIT,
    order::{LINES_MAX, QUANTITY_MAX, TEXT_CHARS_MAX},
};
use serde_json::{Value, json};
use service::contract::{Operation, header, named};

use crate::Role;

const PROBLEMS: &[u16] = &[400, 401, 403, 404, 409, 412, 413, 415, 422, 429, 503];
const PAYING: &[u16] = &[400, 401, 402, 403, 404, 409, 412, 413, 415, 422, 429, 503];

fn parameters() -> Vec<Value> {
    let text = |pattern: &str| json!({ "type": "string", "pattern": pattern });
    vec![
        header(
            "Idempotency-Key",
            "a repeat under the same key gets the first answer",
            &text("^[!-~]{1,126}$"),
        ),
        header(
            "Prefer",
            "`wait=N`: wait up to N seconds for an outcome that the saga decides",
            &text("^wait=[0-9]{1,2}$"),
        ),
        header(
            "If-Match",
            "an order's ETag: the command holds only for the order as it was then",
            &text("^\"[0-9]:[0-9]{1,9}\"$"),
        ),
    ]
}

fn command(path: &'static str, summary: &'static str, whom: &'static str, body: Value) -> Operation {
    Operation {
        method: "post",
        path,
        summary,
        whom,
        parameters: parameters(),
        body: Some(body),
        answers: vec![(200, named("Accepted"))],
        problems: PROBLEMS,
    }
}

/// The calls of a process with these roles.
pub fn operations(roles: &[Role]) -> Vec<Operation> {
    let of_roles = roles.iter().flat_map(|role| of(*role));
    of_roles.chain(breakers()).collect()
}

fn of(role: Role) -> Vec<Operation> {
    let (nothing, reason) = (named("Nothing"), named("Reason"));
    let (customer, store) = ("the order's customer", "the order's store");
    let rider = "the rider who picked it up; else, the delivery team";
    match role {
        Role::Ordering => ordering(customer, &nothing, &reason),
        Role::Store => vec![
            command("/orders/{order_id}/store/accept", "the store takes the order", store, nothing.clone()),
            command(
                "/orders/{order_id}/store/reject",
                "the store does not; the customer gets the money back",
                store,
                reason,
            ),
            command("/orders/{order_id}/store/start", "cooking or packing begins", store, nothing.clone()),
            command("/orders/{order_id}/store/finish", "it is ready to leave", store, nothing),
        ],
        Role::Delivery => vec![
            command("/orders/{order_id}/delivery/pickup", "a rider takes it", "that rider", named("PickUp")),
            command("/orders/{order_id}/delivery/start", "the goods leave", rider, nothing.clone()),
            command("/orders/{order_id}/delivery/complete", "the goods arrived", rider, nothing.clone()),
            command(
                "/orders/{order_id}/delivery/cancel",
                "the goods stay, where the flow lets the delivery decide",
                rider,
                nothing.clone(),
            ),
            command(
                "/orders/{order_id}/return/pickup",
                "what is given back is fetched",
                rider,
                nothing.clone(),
            ),
            command("/orders/{order_id}/return/complete", "it is back", rider, nothing),
        ],
        Role::Review => vec![Operation {
            answers: vec![(201, named("Accepted"))],
            ..command(
                "/orders/{order_id}/review",
                "what the customer thinks of it, once",
                customer,
                named("Review"),
            )
        }],
        Role::Saga => {
            vec![command("/sagas/{order_id}/resume", "a parked order goes on", "operators", nothing)]
        }
        Role::Payment | Role::Marketing | Role::Notification => Vec::new(),
    }
}

fn ordering(customer: &'static str, nothing: &Value, reason: &Value) -> Vec<Operation> {
    let cancel = "the order is undone, as far as its flow allows";
    vec![
        Operation {
            answers: vec![(201, named("Accepted"))],
            problems: PAYING,
            ..command(
                "/orders",
                "places an order: paid first where its flow says so",
                "customers, for themselves",
                named("Placement"),
            )
        },
        Operation {
            problems: PAYING,
            ..command(
                "/orders/{order_id}/payment",
                "pays an order that waits for it",
                customer,
                named("PaymentMeans"),
            )
        },
        Operation {
            answers: vec![(200, named("Accepted")), (202, named("Accepted"))],
            ..command("/orders/{order_id}/cancel", cancel, customer, reason.clone())
        },
        command("/orders/{order_id}/confirm", "the customer has it", customer, nothing.clone()),
        command("/orders/{order_id}/return", "the customer gives it back", customer, reason.clone()),
    ]
}

fn breakers() -> [Operation; 2] {
    let list = Operation {
        method: "get",
        path: "/breakers",
        summary: "the circuit breakers of this process",
        whom: "operators",
        parameters: Vec::new(),
        body: None,
        answers: vec![(
            200,
            json!({ "type": "object", "properties": { "items": { "type": "array", "items": named("Breaker") } } }),
        )],
        problems: &[400, 401, 403, 429, 503],
    };
    let hold = Operation {
        answers: vec![(200, named("Breaker"))],
        parameters: Vec::new(),
        problems: &[400, 401, 403, 404, 413, 415, 429, 503],
        ..command("/breakers/{call}", "holds one open or closed, or lets it go", "operators", named("Hold"))
    };
    [list, hold]
}

fn object(required: &[&str], properties: &Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties, "additionalProperties": false })
}

fn or_null(schema: &Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

/// What the operations name.
pub fn schemas() -> Value {
    let text = json!({ "type": "string", "minLength": 1, "maxLength": TEXT_CHARS_MAX, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$" });
    let amount = json!({ "type": "integer", "minimum": 0, "exclusiveMaximum": AMOUNT_LIMIT });
    let hold = json!({ "enum": ["open", "closed", null] });
    let line = object(
        &["item_id", "name", "quantity", "unit_price"],
        &json!({
            "item_id": text, "name": text, "quantity": { "type": "integer", "minimum": 1, "maximum": QUANTITY_MAX },
            "unit_price": amount, "options": { "type": "array", "maxItems": 20, "items": text },
        }),
    );
    let customer = object(
        &["id", "name"],
        &json!({
            "id": text, "name": text, "phone": or_null(&text), "email": or_null(&text), "language": { "enum": ["ko", "en", null] },
        }),
    );
    let means = object(&["method", "token"], &json!({ "method": text, "token": text }));
    json!({
        "Placement": object(&["flow", "customer", "lines", "currency", "address"], &json!({
            "flow": { "type": "string", "examples": ["marketplace"], "description": "GET /flows lists them; what else is needed depends on it" },
            "channel": { "enum": ["web", "phone", null] }, "customer": customer, "store_id": or_null(&text),
            "lines": { "type": "array", "minItems": 1, "maxItems": LINES_MAX, "items": line },
            "currency": { "type": "string", "examples": ["KRW"] },
            "address": object(&["line"], &json!({ "line": text, "region": or_null(&text) })),
            "delivery_type": or_null(&text), "payment": or_null(&means),
        })),
        "PaymentMeans": means,
        "Nothing": object(&[], &json!({})),
        "Reason": object(&[], &json!({ "reason": or_null(&text) })),
        "PickUp": object(&["rider_id"], &json!({ "rider_id": text })),
        "Review": object(&["rating", "text"], &json!({ "rating": { "type": "integer", "minimum": 1, "maximum": 5 }, "text": text })),
        "Hold": object(&["hold"], &json!({ "hold": hold })),
        "Breaker": object(&["call", "state", "held"], &json!({
            "call": { "type": "string" }, "state": { "enum": ["closed", "half_open", "open"] }, "held": hold,
        })),
        "Accepted": object(&["order_id", "status", "position"], &json!({
            "order_id": { "type": "string", "format": "uuid" }, "flow": { "type": "string" }, "status": { "type": "string" },
            "position": { "type": "string", "pattern": "^[0-9]+:[0-9]+$", "description": "bring it to a query as ?after=" },
        })),
    })
}
