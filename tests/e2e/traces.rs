//! One trace for all that a call leads to, across processes, through the log, to the collector.

use reqwest::Method;
use serde_json::json;
use twelve_tests::{
    Platform, client::order, collector::Collector, payments::PaymentProvider, services::Services,
    webhook::Webhook,
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_a_call_through_the_log_to_sagas_views_and_calls_out() {
    let (collector, provider, webhook) =
        (Collector::start(), PaymentProvider::start().await, Webhook::start().await);
    let traced = ["--otlp", collector.url()];
    let mut services = Services::new(&traced).await;
    let ordering = services.start("ordering", &[]).await;
    services.start("saga", &[]).await;
    services.start("payment", &["--payment-url", provider.url()]).await;
    services.start("marketing,delivery,store", &[]).await;
    services.start("notification", &["--kakao-url", webhook.url(), "--sms-url", webhook.url()]).await;
    let queries = services.start_views(&traced).await;

    let mut body = order("gentleman");
    body["flow"] = json!("food");
    body["store_id"] = json!("kimbap-heaven");
    body["delivery_type"] = json!("bicycle");
    body["customer"]["phone"] = json!("010-0000-0000");
    let traceparent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let call = ordering.request(Method::POST, "/orders").header("traceparent", &traceparent).json(&body);
    let placed = ordering.send(call).await;
    assert_eq!(placed.status, 201, "{placed:?}");
    let answered = placed.header("traceparent");
    assert!(answered.contains(TRACE) && answered != traceparent, "the call's own span: {answered}");
    queries.order_after(&placed.order_id(), placed.header("log-position")).await;

    let spans = collector
        .until(
            TRACE,
            &[
                "POST /orders",
                "ask payment",
                "answer payment",
                "payment provider",
                "payment approve_payment",
                "append",
                "ordering place_order",
                "project OrderPlaced",
                "saga receive_store_order",
                "answer store",
                "store receive_store_order",
                "project StoreOrderReceived",
                "tell kakao",
            ],
        )
        .await;
    assert!(spans.iter().all(|span| !span.parent.is_empty()), "nothing begins anew: {spans:#?}");
    let parent_of = |name: &str| {
        let span = spans.iter().find(|span| span.name == name).expect("it is there");
        spans.iter().find(|parent| parent.id == span.parent).map(|parent| parent.name.as_str())
    };
    assert_eq!(parent_of("answer payment"), Some("ask payment"), "across processes");
    assert_eq!(parent_of("project OrderPlaced"), Some("ordering place_order"), "through the log");
    assert_eq!(parent_of("saga receive_store_order"), Some("ordering place_order"), "through the log");
    let services: std::collections::BTreeSet<&str> = spans.iter().map(|span| span.service.as_str()).collect();
    assert!(services.contains("twelve-command-svc") && services.contains("twelve-query-api"), "{services:?}");
    let told = webhook.until(1).await;
    assert!(told[0].header("traceparent").contains(TRACE), "and out again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_no_order() {
    let gone = format!("http://127.0.0.1:{}", twelve_tests::free_port());
    let platform = Platform::up_with(&["--otlp", &gone]).await;
    for _ in 0..20 {
        platform.client.place(&order("gentleman")).await;
    }
    let untraced = Platform::up_with(&["--trace-percent", "0", "--otlp", &gone]).await;
    let placed = untraced.client.post("/orders", &order("gentleman")).await;
    assert_eq!(placed.status, 201);
    assert!(placed.header("traceparent").ends_with("-00"), "of no trace that is sent: {placed:?}");
}
