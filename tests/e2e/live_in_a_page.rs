//! The script of docs/live-in-a-page.md, in a page of another site, in a real browser.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Json, Router,
    extract::State,
    response::Html,
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use twelve_tests::{
    LIMIT, Platform, browser,
    client::{LOOK_PAUSE, order},
    issuer::{Issuer, Key},
    workspace,
};

/// What the page was told, in its order: the name of each event, and its data.
type Told = Arc<Mutex<Vec<(String, Value)>>>;

/// The page's script: all of the document's but the call at its end.
fn script() -> String {
    let text = std::fs::read_to_string(workspace().join("docs/live-in-a-page.md")).expect("the page");
    let (_, script) = text.split_once("```js\n").expect("a script");
    let (script, _) = script.split_once("\n```").expect("its end");
    let (function, call) = script.split_once("\nfollow(").expect("a call of it");
    assert!(call.contains("/customers/gentleman/orders/live"), "{call}");
    function.to_owned()
}

/// A site of its own, whose page follows `live` and hands on what it is told; its title says when an order is canceled.
fn site(listener: TcpListener, live: &str, token: &str) -> Told {
    let page = format!(
        "<!doctype html><title>under way</title><script>{}
         let before = Promise.resolve();
         const told = (event, data) => {{
           const body = JSON.stringify([event, data]);
           const headers = {{ 'Content-Type': 'application/json' }};
           before = before.then(() => fetch('/told', {{ method: 'POST', headers, body }}));
           if (body.includes('\"canceled\"')) before.then(() => document.title = 'done');
         }};
         follow('{live}', async () => '{token}', told);
         </script>",
        script()
    );
    let told = Told::default();
    let router = Router::new()
        .route("/", get(async move || Html(page)))
        .route("/told", post(receive))
        .with_state(told.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    told
}

async fn receive(State(told): State<Told>, Json(event): Json<(String, Value)>) {
    told.lock().unwrap_or_else(PoisonError::into_inner).push(event);
}

/// The names of the events, once something holds of them.
async fn until(told: &Told, what: &str, holds: impl Fn(&[(String, Value)]) -> bool) -> Vec<String> {
    let read = || told.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let looking = async {
        while !holds(&read()) {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, looking).await.is_ok(), "the page is not told {what}: {:?}", read());
    read().into_iter().map(|(name, _)| name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_follows_a_live_stream_through_a_crash_without_a_gap_as_its_document_has_it() {
    if !browser::is_here() {
        return;
    }
    let key = Key::ed25519("first");
    let issuer = Issuer::start(&[&key]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let origin = format!("http://{}", listener.local_addr().expect("an address"));
    let settings =
        ["--auth-jwks", issuer.url(), "--auth-issuer", "test-issuer", "--trusted-origins", &origin];
    let mut platform = Platform::up_with(&settings).await;
    let customer = platform.client.bearing(&key.token("gentleman", "customer"));
    let live = format!("{}/customers/gentleman/orders/live", platform.client.url());
    let told = site(listener, &live, &key.token("gentleman", "customer"));
    let script = async { browser::run("follow.mjs", &[&origin]).await };
    let changes = async {
        until(&told, "how it stands", |told| told.iter().any(|(name, _)| name == "snapshot")).await;
        let first = customer.place(&order("gentleman")).await;
        let is_of = |order: &str, event: &(String, Value)| event.1.to_string().contains(order);
        let left = |told: &[(String, Value)]| {
            told.iter().any(|event| is_of(&first, event) && event.1.to_string().contains("out_for_delivery"))
        };
        until(&told, "that it left", left).await;
        platform.kill();
        platform.start().await;
        let second = customer.place(&order("gentleman")).await;
        until(&told, "of the second", |told| told.iter().any(|event| is_of(&second, event))).await;
        let canceled = customer.post(&format!("/orders/{second}/cancel"), &json!({})).await;
        assert!(canceled.status.is_success(), "{canceled:?}");
        until(&told, "that it is canceled", |told| {
            told.iter().any(|event| is_of(&second, event) && event.1.to_string().contains("\"canceled\""))
        })
        .await
    };
    let (saw, names) = tokio::join!(script, changes);
    assert_eq!(saw.expect("a browser")["faults"], json!([]));
    let snapshots = names.iter().filter(|name| *name == "snapshot").count();
    assert_eq!(snapshots, 1, "it went on where it was: {names:?}");
}
