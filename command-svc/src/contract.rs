//! The calls of the command side, as data.

use schemars::JsonSchema;
use serde_json::{Value, json};
use service::contract::{Answer, Body, Operation, Schemas, header};

use crate::{
    Role,
    body::shape::{HoldBreaker, NoBody, PickUp, PlaceOrder, Reason, WriteReview},
    breaker,
    routes::{Accepted, BreakerList},
};

const PROBLEMS: &[u16] = &[400, 401, 403, 404, 409, 412, 413, 415, 422, 429, 500, 503];
const PAYING: &[u16] = &[400, 401, 402, 403, 404, 409, 412, 413, 415, 422, 429, 500, 503];
/// What comes with every answer to a command.
const HEADERS: &[&str] = &["Log-Position", "Durability", "Idempotency-Replayed"];
/// And where the order is, if that is new.
const LOCATED: &[&str] = &["Log-Position", "Durability", "Idempotency-Replayed", "Location"];
/// An order's id, as examples have it.
const ORDER_ID: &str = "4add65e2-7000-5edf-8c10-06703825a0ed";

fn parameters() -> Vec<Value> {
    let text =
        |pattern: &str, example: &str| json!({ "type": "string", "pattern": pattern, "examples": [example] });
    vec![
        header(
            "Idempotency-Key",
            "a repeat under the same key gets the first answer; the key of a command that changed nothing is not remembered",
            &text("^[!-~]{1,126}$", "8e03978e-40d5-43e8-bc93-6894a57f9324"),
        ),
        header(
            "Prefer",
            "`wait=N`: wait up to N seconds for an outcome that the saga decides",
            &text("^wait=[0-9]{1,2}$", "wait=5"),
        ),
        header(
            "If-Match",
            "an order's ETag: the command holds only for the order as it was then",
            &text("^\"[0-9]{1,5}:[0-9]{1,19}\"$", "\"2:1842\""),
        ),
    ]
}

/// What an order's commands answer with.
fn accepted(schemas: &mut Schemas, status: u16) -> Answer {
    let headers = if status == 200 { HEADERS } else { LOCATED };
    let example = json!({ "order_id": ORDER_ID, "flow": "marketplace", "status": "paid", "position": "1:3" });
    Answer { example: Some(example), ..Answer::json(status, schemas.answer::<Accepted>(), headers) }
}

/// A command: its name among clients, its group, its path.
fn command<B: JsonSchema>(
    schemas: &mut Schemas,
    (id, tag, path): (&'static str, &'static str, &'static str),
    summary: &'static str,
    whom: &'static str,
    example: Value,
) -> Operation {
    let is_optional = example.as_object().is_some_and(serde_json::Map::is_empty) || path.ends_with("/cancel");
    Operation {
        id,
        tag,
        method: "post",
        path,
        summary,
        whom,
        parameters: parameters(),
        body: Some(Body { schema: schemas.body::<B>(), example, is_optional }),
        answers: vec![accepted(schemas, 200)],
        problems: PROBLEMS,
    }
}

/// The calls of a process with these roles.
pub fn operations(roles: &[Role], schemas: &mut Schemas) -> Vec<Operation> {
    let mut operations = Vec::new();
    for role in roles {
        operations.extend(match role {
            Role::Ordering => ordering(schemas),
            Role::Store => store(schemas),
            Role::Delivery => delivery(schemas),
            Role::Review => vec![review(schemas)],
            Role::Saga => vec![command::<NoBody>(
                schemas,
                ("resumeSaga", "sagas", "/sagas/{order_id}/resume"),
                "a parked order goes on",
                "operators",
                json!({}),
            )],
            Role::Payment | Role::Marketing | Role::Notification => Vec::new(),
        });
    }
    operations.extend(breakers(schemas));
    operations
}

fn review(schemas: &mut Schemas) -> Operation {
    let answers = vec![accepted(schemas, 201)];
    let call = ("writeReview", "reviews", "/orders/{order_id}/review");
    let said = json!({ "rating": 5, "text": "as it should be" });
    let summary = "what the customer thinks of it, once";
    Operation { answers, ..command::<WriteReview>(schemas, call, summary, "the order's customer", said) }
}

fn store(schemas: &mut Schemas) -> Vec<Operation> {
    let whom = "the order's store";
    let reject = ("rejectOrder", "stores", "/orders/{order_id}/store/reject");
    let bare = [
        ("acceptOrder", "/orders/{order_id}/store/accept", "the store takes the order"),
        ("startPreparation", "/orders/{order_id}/store/start", "cooking or packing begins"),
        ("finishPreparation", "/orders/{order_id}/store/finish", "it is ready to leave"),
    ];
    let mut calls: Vec<Operation> = bare
        .into_iter()
        .map(|(id, path, summary)| command::<NoBody>(schemas, (id, "stores", path), summary, whom, json!({})))
        .collect();
    let summary = "the store does not; the customer gets the money back";
    calls.insert(1, command::<Reason>(schemas, reject, summary, whom, json!({ "reason": "sold out" })));
    calls
}

fn delivery(schemas: &mut Schemas) -> Vec<Operation> {
    let rider = "the rider who picked it up; else, the delivery team";
    let pick_up = ("pickUpDelivery", "deliveries", "/orders/{order_id}/delivery/pickup");
    let rider_id = json!({ "rider_id": "rider-1" });
    let mut calls = vec![command::<PickUp>(schemas, pick_up, "a rider takes it", "that rider", rider_id)];
    let bare = [
        ("startDelivery", "/orders/{order_id}/delivery/start", "the goods leave"),
        ("completeDelivery", "/orders/{order_id}/delivery/complete", "the goods arrived"),
        (
            "cancelDelivery",
            "/orders/{order_id}/delivery/cancel",
            "the goods stay, where the flow lets the delivery decide",
        ),
        ("pickUpReturn", "/orders/{order_id}/return/pickup", "what is given back is fetched"),
        ("completeReturn", "/orders/{order_id}/return/complete", "it is back"),
    ];
    calls.extend(bare.into_iter().map(|(id, path, summary)| {
        command::<NoBody>(schemas, (id, "deliveries", path), summary, rider, json!({}))
    }));
    calls
}

/// What the calls of the order that was placed are, for those who explore the contract.
fn links() -> Vec<(&'static str, &'static str, &'static str)> {
    const PLACED: &str = "$response.body#/order_id";
    ["getOrder", "getOrderEvents", "cancelOrder", "getSaga", "acceptOrder"]
        .map(|call| (call, call, PLACED))
        .into()
}

fn ordering(schemas: &mut Schemas) -> Vec<Operation> {
    let customer = "the order's customer";
    let placement = json!({
        "flow": "marketplace", "channel": "phone",
        "customer": { "id": "gentleman", "name": "홍길동", "phone": "010-0000-0000" },
        "lines": [{ "item_id": "2001", "name": "gram", "quantity": 1, "unit_price": 9_000_000 }],
        "currency": "KRW", "address": { "line": "England", "region": "london" },
        "payment": { "method": "card", "token": "tok_ok" },
    });
    let placed = Answer { links: links(), ..accepted(schemas, 201) };
    let reason = json!({ "reason": "changed my mind" });
    vec![
        Operation {
            answers: vec![placed],
            problems: PAYING,
            ..command::<PlaceOrder>(
                schemas,
                ("placeOrder", "orders", "/orders"),
                "places an order: paid first where its flow says so",
                "customers, for themselves",
                placement,
            )
        },
        Operation {
            problems: PAYING,
            ..command::<crate::body::shape::PaymentMeans>(
                schemas,
                ("payOrder", "orders", "/orders/{order_id}/payment"),
                "pays an order that waits for it",
                customer,
                json!({ "method": "card", "token": "tok_ok" }),
            )
        },
        Operation {
            answers: vec![accepted(schemas, 200), accepted(schemas, 202)],
            ..command::<Reason>(
                schemas,
                ("cancelOrder", "orders", "/orders/{order_id}/cancel"),
                "the order is undone, as far as its flow allows",
                customer,
                reason.clone(),
            )
        },
        command::<NoBody>(
            schemas,
            ("confirmOrder", "orders", "/orders/{order_id}/confirm"),
            "the customer has it",
            customer,
            json!({}),
        ),
        command::<Reason>(
            schemas,
            ("returnOrder", "orders", "/orders/{order_id}/return"),
            "the customer gives it back",
            customer,
            reason,
        ),
    ]
}

fn breakers(schemas: &mut Schemas) -> [Operation; 2] {
    let hold = Operation {
        answers: vec![Answer::json(200, schemas.answer::<breaker::Shown>(), &[])],
        parameters: Vec::new(),
        problems: &[400, 401, 403, 404, 413, 415, 422, 429, 503],
        ..command::<HoldBreaker>(
            schemas,
            ("holdBreaker", "breakers", "/breakers/{call}"),
            "holds one open or closed, or lets it go",
            "operators",
            json!({ "hold": "open" }),
        )
    };
    let list = Operation {
        id: "listBreakers",
        method: "get",
        path: "/breakers",
        summary: "the circuit breakers of this process",
        body: None,
        answers: vec![Answer::json(200, schemas.answer::<BreakerList>(), &[])],
        problems: &[400, 401, 403, 429, 503],
        ..hold.clone()
    };
    [list, hold]
}
