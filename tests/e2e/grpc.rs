//! The second way in: the same commands by gRPC, on the same port, to the same events.

use serde_json::{Value, json};
use service::grpc::v1::{
    Accepted, Address, Customer, GetOrderRequest, Line, OrderRequest, PaymentMeans, PickUpDeliveryRequest,
    PlaceOrderRequest, ReasonRequest, WriteReviewRequest, commands_client::CommandsClient,
    queries_client::QueriesClient,
};
use tonic::{Code, Request, Status, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tonic_types::StatusExt;
use twelve_tests::{
    Client, Platform,
    client::order,
    issuer::{Issuer, Key},
};

struct Grpc {
    commands: CommandsClient<Channel>,
    queries: QueriesClient<Channel>,
    channel: Channel,
}

impl Grpc {
    async fn of(platform: &Platform) -> Self {
        let channel = Channel::from_shared(platform.client.url().to_owned()).expect("an address");
        let channel = channel.timeout(twelve_tests::LIMIT).connect().await.expect("connected");
        let (commands, queries) = (CommandsClient::new(channel.clone()), QueriesClient::new(channel.clone()));
        Self { commands, queries, channel }
    }
}

/// A meal, by gRPC.
fn meal() -> PlaceOrderRequest {
    PlaceOrderRequest {
        flow: "food".into(),
        customer: Some(Customer { id: "hungry".into(), name: "배고픈".into(), ..Customer::default() }),
        lines: vec![Line {
            item_id: "kimbap".into(),
            name: "김밥".into(),
            quantity: 2,
            unit_price: 4_500,
            options: vec!["참치".into()],
        }],
        currency: "KRW".into(),
        address: Some(Address { line: "마포대로 1".into(), region: Some("mapo".into()) }),
        payment: Some(PaymentMeans { method: "card".into(), token: "tok_ok".into() }),
        store_id: Some("kimbap-heaven".into()),
        delivery_type: Some("bicycle".into()),
        ..PlaceOrderRequest::default()
    }
}

fn on(order_id: &str) -> OrderRequest {
    OrderRequest { order_id: order_id.into() }
}

fn keyed<T>(message: T, key: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("idempotency-key", key.parse().expect("a key"));
    request
}

/// The stable code of a refusal.
fn code(status: &Status) -> (Code, &str) {
    let code = status.metadata().get("twelve-code").and_then(|code| code.to_str().ok());
    (status.code(), code.unwrap_or_default())
}

async fn data(client: &Client, order_id: &str) -> Vec<(Value, Value)> {
    let events = client.get(&format!("/orders/{order_id}/events")).await.body;
    let items = events["items"].as_array().cloned().expect("events");
    let moving = items.into_iter().filter(|event| event["context"] != "notification");
    moving.map(|event| (event["type"].clone(), event["data"].clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn x_12_an_order_by_grpc_has_the_events_of_one_by_rest_from_its_placing_to_its_review() {
    let platform = Platform::up().await;
    let (client, mut grpc) = (&platform.client, Grpc::of(&platform).await);
    let by_rest = client.place(&json!(meal())).await;
    let Accepted { order_id, flow, status, position, durability, replayed, .. } =
        grpc.commands.place_order(keyed(meal(), "one")).await.expect("accepted").into_inner();
    assert_eq!((flow.as_deref(), status.as_str(), durability.as_str()), (Some("food"), "paid", "fsync"));
    assert!(!replayed && position.contains(':'));
    let again = grpc.commands.place_order(keyed(meal(), "one")).await.expect("accepted").into_inner();
    assert_eq!((again.order_id.as_str(), again.replayed), (order_id.as_str(), true), "the same order");
    client.order_after(&order_id, &position).await;
    for id in [&by_rest, &order_id] {
        client.until(id, "received", |row| row["store"]["status"] == "received").await;
    }
    let post = async |path: &str, body: Value| {
        let answer = client.post(&format!("/orders/{by_rest}/{path}"), &body).await;
        assert!(answer.status.is_success(), "{path}: {answer:?}");
    };
    let commands = &mut grpc.commands;
    post("store/accept", json!({})).await;
    commands.accept_store_order(on(&order_id)).await.expect("accepted");
    post("store/start", json!({})).await;
    commands.start_preparation(on(&order_id)).await.expect("started");
    post("store/finish", json!({})).await;
    commands.finish_preparation(on(&order_id)).await.expect("finished");
    for id in [&by_rest, &order_id] {
        client.until(id, "listed", |row| row["delivery"]["status"] == "listed").await;
    }
    post("delivery/pickup", json!({ "rider_id": "rider-7" })).await;
    let pick_up = PickUpDeliveryRequest { order_id: order_id.clone(), rider_id: "rider-7".into() };
    commands.pick_up_delivery(pick_up).await.expect("picked up");
    post("delivery/complete", json!({})).await;
    commands.complete_delivery(on(&order_id)).await.expect("delivered");
    post("review", json!({ "rating": 5, "text": "맛있다" })).await;
    let review = WriteReviewRequest { order_id: order_id.clone(), rating: 5, text: "맛있다".into() };
    let last = commands.write_review(review).await.expect("written").into_inner();
    let get = GetOrderRequest { order_id: order_id.clone(), after: Some(last.position) };
    let order = grpc.queries.get_order(get).await.expect("the order").into_inner();
    let text = order.review.as_ref().map(|review| review.text.as_str());
    assert_eq!((order.status.as_str(), text), ("delivered", Some("맛있다")));
    assert_eq!(order.total.as_ref().map(|total| total.amount), Some(9_000));
    assert!(
        order
            .timeline
            .iter()
            .any(|entry| entry.r#type == "DeliveryPickedUp" && entry.data.contains("rider-7"))
    );
    let without_names = |events: Vec<(Value, Value)>| -> Vec<(Value, Value)> {
        let clean = |(event_type, mut data): (Value, Value)| {
            // The provider's own name for each charge.
            data.as_object_mut().map(|data| data.remove("reference"));
            (event_type, data)
        };
        events.into_iter().map(clean).collect()
    };
    let (rest, other) = (data(client, &by_rest).await, data(client, &order_id).await);
    assert_eq!(without_names(rest), without_names(other));
}

#[test]
fn every_command_by_rest_is_one_by_grpc_too() {
    let text = |file: &str| std::fs::read_to_string(twelve_tests::workspace().join(file)).expect("a source");
    let (routes, grpc) = (text("command-svc/src/routes.rs"), text("command-svc/src/grpc.rs"));
    let mut commands = 0;
    for route in routes.split(".route(\"").skip(1).filter(|route| route.contains("post(")) {
        let path = route.split('"').next().expect("a path");
        let what = path.trim_start_matches("/orders/{order_id}/").trim_start_matches("/sagas/{order_id}/");
        // Breakers are a process's own, and operators hold them by REST.
        if path.starts_with("/breakers") {
            continue;
        }
        let is_there = grpc.contains(&format!("\"{what}\"")) || grpc.contains(&format!("/{what}\""));
        assert!(is_there, "{path} is no command by gRPC");
        commands += 1;
    }
    assert_eq!(commands, grpc.matches("-> Answer {").count(), "and nothing else is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_by_grpc_has_the_code_of_the_one_by_rest_and_says_what_to_do() {
    let platform = Platform::up().await;
    let mut grpc = Grpc::of(&platform).await;
    let mut wrong = meal();
    (wrong.lines[0].quantity, wrong.currency) = (0, "won".into());
    let refused = grpc.commands.place_order(wrong).await.expect_err("refused");
    assert_eq!(code(&refused), (Code::InvalidArgument, "invalid"));
    let problem = refused.metadata().get_bin("problem-bin").and_then(|bytes| bytes.to_bytes().ok());
    let problem: Value = serde_json::from_slice(&problem.expect("the whole problem")).expect("JSON");
    assert_eq!(problem["errors"].as_array().map(Vec::len), Some(2), "every fault at once: {problem:#}");
    let mut declined = meal();
    declined.payment = Some(PaymentMeans { method: "card".into(), token: "tok_declined".into() });
    let refused = grpc.commands.place_order(declined).await.expect_err("refused");
    assert_eq!(code(&refused), (Code::FailedPrecondition, "payment_declined"));
    for id in [uuid::Uuid::new_v4().to_string(), "../../sagas".into(), String::new()] {
        let not_found = (Code::NotFound, "order_not_found");
        let refused = grpc.commands.confirm_order(on(&id)).await.expect_err("refused");
        assert_eq!(code(&refused), not_found, "{id:?}");
        let refused = grpc.commands.resume_saga(on(&id)).await.expect_err("refused");
        assert_eq!(code(&refused), not_found, "{id:?}");
        let refused = grpc.queries.get_order(GetOrderRequest { order_id: id.clone(), after: None }).await;
        assert_eq!(code(&refused.expect_err("refused")), not_found, "{id:?}");
    }
    let unread = GetOrderRequest { order_id: uuid::Uuid::new_v4().to_string(), after: Some("soon".into()) };
    let refused = grpc.queries.get_order(unread).await.expect_err("refused");
    assert_eq!(code(&refused), (Code::InvalidArgument, "malformed"));
    let mut raw = tonic::client::Grpc::new(grpc.channel.clone());
    for path in ["/twelve.v1.Commands/PlaceOrder", "/twelve.v1.Queries/GetOrder"] {
        raw.ready().await.expect("ready");
        let path = axum::http::uri::PathAndQuery::from_static(path);
        // The first field of both calls is a text; here it is a number.
        let codec = tonic_prost::ProstCodec::<HealthCheckResponse, ()>::default();
        let wrong = HealthCheckResponse { status: 1 };
        let refused = raw.unary(Request::new(wrong), path.clone(), codec).await.expect_err("refused");
        assert_eq!(code(&refused), (Code::InvalidArgument, "malformed"), "{path}");
    }
    let placed = grpc.commands.place_order(meal()).await.expect("accepted").into_inner();
    let refused = grpc.commands.complete_delivery(on(&placed.order_id)).await.expect_err("refused");
    assert_eq!(code(&refused).0, Code::FailedPrecondition, "{refused:?}");
    let mut stale = Request::new(ReasonRequest { order_id: placed.order_id.clone(), reason: None });
    stale.metadata_mut().insert("if-match", "\"0:1\"".parse().expect("an ETag"));
    let refused = grpc.commands.cancel_order(stale).await.expect_err("refused");
    assert_eq!(code(&refused), (Code::Aborted, "stale"));
    let mut large = meal();
    large.lines[0].name = "x".repeat(100_000);
    let refused = grpc.commands.place_order(large).await.expect_err("refused");
    assert_eq!(code(&refused), (Code::OutOfRange, "body_too_large"));
}

#[tokio::test(flavor = "multi_thread")]
async fn by_grpc_the_same_tokens_and_limits_hold() {
    let key = Key::ed25519("key");
    let issuer = Issuer::start(&[&key]).await;
    let limits = ["--calls-per-second", "1", "--calls-at-once", "3"];
    let platform = Platform::up_with(&[&["--auth-jwks", issuer.url()], &limits[..]].concat()).await;
    let mut grpc = Grpc::of(&platform).await;
    let refused = grpc.commands.place_order(meal()).await.expect_err("refused");
    assert_eq!(code(&refused), (Code::Unauthenticated, "unauthenticated"));
    let bearing = |customer: &str| {
        let mut request = Request::new(meal());
        let token = format!("Bearer {}", key.token(customer, "customer"));
        request.metadata_mut().insert("authorization", token.parse().expect("a token"));
        request
    };
    let refused = grpc.commands.place_order(bearing("somebody-else")).await.expect_err("refused");
    assert_eq!(code(&refused), (Code::PermissionDenied, "forbidden"));
    grpc.commands.place_order(bearing("hungry")).await.expect("their own");
    let mut refused = None;
    for _ in 0..6 {
        refused = refused.or(grpc.commands.place_order(bearing("hungry")).await.err());
    }
    let refused = refused.expect("too many");
    assert_eq!(code(&refused), (Code::ResourceExhausted, "too_many_calls"), "{refused:?}");
    assert!(refused.metadata().get("retry-after").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcs_own_tools_learn_whether_it_serves_and_what_and_what_it_does_not() {
    let platform = Platform::up().await;
    let channel = Channel::from_shared(platform.client.url().to_owned()).expect("an address");
    let channel = channel.timeout(twelve_tests::LIMIT).connect().await.expect("connected");
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "twelve.v1.Commands", "twelve.v1.Queries"] {
        let asked = HealthCheckRequest { service: service.to_owned() };
        let answered = health.check(asked).await.expect("an answer").into_inner();
        assert_eq!(answered.status(), ServingStatus::Serving, "{service:?}");
    }
    let asked = HealthCheckRequest { service: "no.such.Service".to_owned() };
    assert_eq!(health.check(asked).await.expect_err("unknown").code(), Code::NotFound);
    let asked = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..ServerReflectionRequest::default()
    };
    let mut reflection = ServerReflectionClient::new(channel.clone());
    let answers = reflection.server_reflection_info(futures::stream::iter([asked])).await.expect("an answer");
    let listed = answers.into_inner().message().await.expect("read").and_then(|said| said.message_response);
    let Some(MessageResponse::ListServicesResponse(listed)) = listed else { panic!("{listed:?}") };
    let names: Vec<&str> = listed.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"twelve.v1.Commands") && names.contains(&"grpc.health.v1.Health"), "{names:?}");
    for path in ["/no.such.Service/Call", "/twelve.v1.Commands/NoSuchCall"] {
        let mut raw = tonic::client::Grpc::new(channel.clone());
        raw.ready().await.expect("ready");
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let path = axum::http::uri::PathAndQuery::from_static(path);
        let refused = raw.unary(Request::new(()), path.clone(), codec).await.expect_err("refused");
        assert_eq!(refused.code(), Code::Unimplemented, "{path}");
        let is_ours = path.path().starts_with("/twelve.v1.");
        assert!(!is_ours || code(&refused).1 == "not_found", "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_is_not_acceptable_is_named_in_googles_details() {
    let platform = Platform::up().await;
    let mut grpc = Grpc::of(&platform).await;
    let mut wrong = meal();
    (wrong.lines[0].quantity, wrong.currency) = (0, "won".into());
    let refused = grpc.commands.place_order(wrong).await.expect_err("refused");
    let details = refused.get_error_details();
    let faults = details.bad_request().expect("faults").field_violations.clone();
    let mut fields: Vec<String> = faults.into_iter().map(|fault| fault.field).collect();
    fields.sort();
    assert_eq!(fields, ["currency", "lines[0].quantity"]);
    let reason = details.error_info().expect("a reason");
    assert_eq!((reason.reason.as_str(), reason.domain.as_str()), ("INVALID", "twelve"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_stream_that_is_asked_for_as_grpc_is_no_such_call_and_is_told_so_at_once() {
    let platform = Platform::up().await;
    let id = platform.client.place(&order("gentleman")).await;
    for path in [format!("/orders/{id}/live"), "/customers/gentleman/orders/live".into(), "/flows".into()] {
        let asked = platform.client.request(reqwest::Method::GET, &path);
        let asked =
            asked.header("content-type", "application/grpc").timeout(std::time::Duration::from_secs(5));
        let answered = asked.send().await.expect("an answer at once");
        assert_eq!(answered.headers()["grpc-status"], "12", "{path}");
    }
}
