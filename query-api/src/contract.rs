//! The queries, as data.

use domain::{Status, order::Channel};
use nats::contract::CloudEvent;
use projector::view::{
    coupons::Coupon,
    deliveries::Delivery,
    food_counts::ItemCount,
    mypage::OrderSummary,
    notifications::Notification,
    open_deliveries::OpenDelivery,
    orders::{Order, StoreStatus},
    payments::Payment,
    rider_counts::RiderCount,
    sagas::Saga,
    store_orders::StoreOrder,
};
use schemars::JsonSchema;
use serde_json::{Value, json};
use service::contract::{Answer, CLOUD_EVENTS, Operation, POSITIONS, Schemas, header, query};

use crate::answers::{
    CustomerEvent, DeclaredFlow, OrderEvent, Page, Reviews, RiderDeliveries, StoreEvent, StoredEvent, View,
};

const PROBLEMS: &[u16] = &[400, 401, 403, 404, 422, 429, 500, 503];
const OPERATORS: &str = "operators";
const ANYBODY: &str = "everybody who has a token";
/// What comes with every answer to a query.
const HEADERS: &[&str] = &["ETag", "View-Position", "View-Generation"];

/// What comes with an order's events.
const EVENTS_HEADERS: &[&str] = &["ETag", "View-Position", "View-Generation", "Link"];

fn text() -> Value {
    json!({ "type": "string", "minLength": 1 })
}

/// What every query takes.
fn common() -> Vec<Value> {
    let positions = json!({ "type": "string", "pattern": POSITIONS, "examples": ["0:17", "0:17,2:1842"] });
    let wait = json!({ "type": "integer", "format": "int32", "minimum": 0, "maximum": 10_000 });
    vec![
        query(
            "after",
            "wait until the views have reached these positions, as commands answered them",
            &positions,
        ),
        query("wait", "milliseconds to wait for them", &wait),
        header("Log-Position", "as `after`", &positions),
        header("If-None-Match", "an ETag that the caller has", &json!({ "type": "string" })),
    ]
}

fn as_of() -> Value {
    let moment = json!({ "type": "string", "examples": ["2026-11-21T12:00:00Z", "0:17,2:1842"] });
    query("as_of", "as it was at this position, or at this time", &moment)
}

fn most(name: &str, what: &str) -> Value {
    query(name, what, &json!({ "type": "integer", "format": "int32", "minimum": 1, "maximum": 200 }))
}

fn paging() -> [Value; 2] {
    let cursor = json!({ "type": "string", "pattern": "^([0-9a-f]{2})*$" });
    [most("limit", "rows on a page"), query("cursor", "`next_cursor` of the page before", &cursor)]
}

/// What a query is like: its name among clients, its group, its path.
fn one(
    (id, tag, path): (&'static str, &'static str, &'static str),
    summary: &'static str,
    whom: &'static str,
    schema: Value,
) -> Operation {
    Operation {
        id,
        tag,
        method: "get",
        path,
        summary,
        whom,
        parameters: common().into_iter().chain([as_of()]).collect(),
        body: None,
        answers: vec![Answer::json(200, schema, HEADERS), Answer::empty(304, HEADERS)],
        problems: PROBLEMS,
    }
}

/// The same, page by page.
fn paged(operation: Operation, filters: Vec<Value>) -> Operation {
    let parameters = operation.parameters.into_iter().chain(paging()).chain(filters).collect();
    Operation { parameters, ..operation }
}

/// The same, the highest first.
fn top(operation: Operation) -> Operation {
    let parameters =
        operation.parameters.into_iter().chain([most("top", "how many of the highest")]).collect();
    Operation { parameters, ..operation }
}

/// The same, but not as of a moment.
fn now_only(operation: Operation) -> Operation {
    let parameters = operation.parameters.into_iter().filter(|parameter| parameter["name"] != "as_of");
    Operation { parameters: parameters.collect(), ..operation }
}

fn live(
    schemas: &mut Schemas,
    event: fn(&mut Schemas) -> Value,
    call: (&'static str, &'static str, &'static str),
    summary: &'static str,
    whom: &'static str,
) -> Operation {
    let resume = header("Last-Event-ID", "goes on after the event of this id", &text());
    Operation {
        parameters: common().into_iter().chain([resume]).collect(),
        answers: vec![Answer::stream(&event(schemas), &[])],
        ..one(call, summary, whom, Value::Null)
    }
}

fn filter(name: &str, what: &str) -> Value {
    query(name, what, &text())
}

/// A filter whose values are these.
fn choice<T: JsonSchema>(schemas: &mut Schemas, name: &str, what: &str) -> Value {
    query(name, what, &schemas.answer::<T>())
}

fn truth(name: &str, what: &str) -> Value {
    query(name, what, &json!({ "type": "boolean" }))
}

fn of_order() -> Value {
    query("order_id", "of this order only", &json!({ "type": "string", "format": "uuid" }))
}

/// All queries.
pub fn operations(schemas: &mut Schemas) -> Vec<Operation> {
    [orders(schemas), of_people(schemas), rows(schemas), of_the_platform(schemas)].concat()
}

fn orders(schemas: &mut Schemas) -> Vec<Operation> {
    let parties = "the order's parties";
    let filters = vec![
        filter("flow", "of this flow"),
        choice::<Status>(schemas, "status", "of this status"),
        choice::<Channel>(schemas, "channel", "of this channel"),
    ];
    let page = schemas.answer::<Page<StoredEvent>>();
    let events = one(
        ("getOrderEvents", "orders", "/orders/{order_id}/events"),
        "its raw events, from the log; as `CloudEvents`, if `Accept` asks for them",
        parties,
        page,
    );
    let mut events = paged(now_only(events), Vec::new());
    events.answers[0].headers = EVENTS_HEADERS;
    let batch = json!({ "type": "array", "items": schemas.answer::<CloudEvent>() });
    events.answers[0].content.push((CLOUD_EVENTS, batch));
    vec![
        one(
            ("getOrder", "orders", "/orders/{order_id}"),
            "an order with its timeline",
            parties,
            schemas.answer::<Order>(),
        ),
        events,
        live(
            schemas,
            Schemas::answer::<OrderEvent>,
            ("followOrder", "orders", "/orders/{order_id}/live"),
            "an order as it changes",
            parties,
        ),
        paged(
            one(
                ("listOrders", "orders", "/orders"),
                "orders, newest first",
                OPERATORS,
                schemas.answer::<Page<Order>>(),
            ),
            filters,
        ),
    ]
}

fn of_people(schemas: &mut Schemas) -> Vec<Operation> {
    let (customer, store) = ("that customer", "who works for that store");
    let state = vec![choice::<StoreStatus>(schemas, "state", "in this state")];
    let open = vec![filter("region", "of this region"), filter("delivery_type", "of this type")];
    let my_page = schemas.answer::<Page<OrderSummary>>();
    let at_store = schemas.answer::<Page<StoreOrder>>();
    vec![
        paged(
            one(
                ("listCustomerOrders", "customers", "/customers/{customer_id}/orders"),
                "my page: a customer's orders",
                customer,
                my_page,
            ),
            Vec::new(),
        ),
        live(
            schemas,
            Schemas::answer::<CustomerEvent>,
            ("followCustomerOrders", "customers", "/customers/{customer_id}/orders/live"),
            "my page as it changes",
            customer,
        ),
        paged(
            one(
                ("listStoreOrders", "stores", "/stores/{store_id}/orders"),
                "what a store has before it",
                store,
                at_store,
            ),
            state,
        ),
        live(
            schemas,
            Schemas::answer::<StoreEvent>,
            ("followStoreOrders", "stores", "/stores/{store_id}/orders/live"),
            "a store's orders as they change",
            store,
        ),
        paged(
            one(
                ("listRiderDeliveries", "deliveries", "/riders/{rider_id}/deliveries"),
                "what a rider picked up",
                "that rider",
                schemas.answer::<RiderDeliveries>(),
            ),
            Vec::new(),
        ),
        paged(
            one(
                ("listOpenDeliveries", "deliveries", "/deliveries/open"),
                "what a rider may pick up: its region, and no address",
                "riders",
                schemas.answer::<Page<OpenDelivery>>(),
            ),
            open,
        ),
    ]
}

fn rows(schemas: &mut Schemas) -> Vec<Operation> {
    let order = || vec![of_order()];
    let told = vec![of_order(), truth("failed", "given up, or not")];
    let by = vec![
        of_order(),
        filter("store_id", "of this store, with its rating"),
        filter("item_id", "of this item, with its rating"),
    ];
    let counts = schemas.answer::<Page<ItemCount>>();
    let count = schemas.answer::<ItemCount>();
    let riders = schemas.answer::<Page<RiderCount>>();
    let coupons = schemas.answer::<Page<Coupon>>();
    let payments = schemas.answer::<Page<Payment>>();
    let deliveries = schemas.answer::<Page<Delivery>>();
    let notifications = schemas.answer::<Page<Notification>>();
    let reviews = schemas.answer::<Reviews>();
    vec![
        top(one(
            ("listItemCounts", "counts", "/items/order-counts"),
            "how often each food was ordered",
            ANYBODY,
            counts,
        )),
        one(
            ("getItemCount", "counts", "/items/{item_id}/order-count"),
            "how often one food was ordered",
            ANYBODY,
            count,
        ),
        top(one(
            ("listRiderCounts", "counts", "/riders/delivery-counts"),
            "how often each rider delivered",
            OPERATORS,
            riders,
        )),
        paged(one(("listCoupons", "records", "/coupons"), "coupons", "marketing", coupons), order()),
        paged(one(("listPayments", "records", "/payments"), "payments", OPERATORS, payments), order()),
        paged(
            one(
                ("listDeliveries", "records", "/deliveries"),
                "deliveries",
                "operators; the delivery team its own",
                deliveries,
            ),
            order(),
        ),
        paged(
            one(
                ("listNotifications", "records", "/notifications"),
                "what customers were told",
                OPERATORS,
                notifications,
            ),
            told,
        ),
        paged(
            one(("listReviews", "reviews", "/reviews"), "what customers think of it", ANYBODY, reviews),
            by,
        ),
    ]
}

fn of_the_platform(schemas: &mut Schemas) -> Vec<Operation> {
    let which = vec![truth("waiting", "for a step"), truth("parked", "refused for good")];
    let sagas = schemas.answer::<Page<Saga>>();
    let saga = schemas.answer::<Saga>();
    let views = schemas.answer::<Page<View>>();
    let view = schemas.answer::<View>();
    let flows = schemas.answer::<Page<DeclaredFlow>>();
    let flow = schemas.answer::<DeclaredFlow>();
    vec![
        paged(one(("listSagas", "sagas", "/sagas"), "where orders stand and why", OPERATORS, sagas), which),
        one(("getSaga", "sagas", "/sagas/{order_id}"), "where an order stands and why", OPERATORS, saga),
        one(
            ("listViews", "views", "/views"),
            "the views: position, generation, rows, bytes",
            OPERATORS,
            views,
        ),
        one(("getView", "views", "/views/{name}"), "one view", OPERATORS, view),
        now_only(one(("listFlows", "flows", "/flows"), "the flows, as data and as diagrams", ANYBODY, flows)),
        now_only(one(("getFlow", "flows", "/flows/{name}"), "one flow", ANYBODY, flow)),
    ]
}
