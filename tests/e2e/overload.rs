//! Too much at once: who asks too often is told so, and what is more than can be done is refused at once.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use twelve_tests::{
    LIMIT, Platform, Services,
    client::{Answer, order},
    issuer::{Issuer, Key},
};

fn number(answer: &Answer, header: &str) -> u64 {
    answer.header(header).parse().unwrap_or_else(|_| panic!("{header}: {answer:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn x_4_more_calls_than_a_caller_may_make_are_429_with_a_time_to_wait_and_reach_nothing() {
    let key = Key::ed25519("key");
    let issuer = Issuer::start(&[&key]).await;
    let settings = ["--auth-jwks", issuer.url(), "--calls-per-second", "5", "--calls-at-once", "10"];
    let platform = Platform::up_with(&settings).await;
    let greedy = platform.client.bearing(&key.token("greedy", "customer"));
    let modest = platform.client.bearing(&key.token("modest", "customer"));
    let body = order("greedy");
    let answers = join_all((0..40).map(|_| greedy.post("/orders", &body))).await;
    let (placed, refused): (Vec<&Answer>, Vec<&Answer>) =
        answers.iter().partition(|answer| answer.status == 201);
    assert!((10..=25).contains(&placed.len()), "ten at once, and five a second: {}", placed.len());
    for answer in &refused {
        assert_eq!((answer.status.as_u16(), answer.code()), (429, "too_many_calls"));
        assert!((1..=10).contains(&number(answer, "retry-after")), "{answer:?}");
        assert!(
            answer.header("ratelimit-policy").contains("q=10") && answer.header("ratelimit").contains("r=0")
        );
    }
    for answer in &placed {
        assert!(answer.header("ratelimit").contains("\"caller\";r="), "{answer:?}");
    }
    let mine = modest.post("/orders", &order("modest")).await;
    assert_eq!(mine.status, 201, "another caller notices nothing: {mine:?}");
    let operator = platform.client.bearing(&key.token("op", "operator"));
    let last = placed.last().expect("some were placed").header("log-position");
    let seen = operator.get(&format!("/orders?limit=200&after={},{last}", mine.header("log-position"))).await;
    let count = seen.body["items"].as_array().map(Vec::len);
    assert_eq!(count, Some(placed.len() + 1), "what was refused left nothing");
    assert_eq!(platform.client.get("/readyz").await.status, 200, "probes are not counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_calls_in_progress_than_there_may_be_are_refused_at_once_and_the_rest_are_answered() {
    let platform =
        Platform::up_with(&["--calls-in-progress-max", "20", "--provider-timeout-ms", "5000"]).await;
    let client = &platform.client;
    let waiting = join_all((0..60).map(|_| client.get("/orders?after=0:99999&wait=1500")));
    let body = order("gentleman");
    let placing = client.post("/orders", &body);
    let (answers, placed) = tokio::join!(waiting, placing);
    assert_eq!(placed.status, 201, "queries that wait leave room for commands: {placed:?}");
    let overloaded = answers.iter().filter(|answer| answer.code() == "overloaded").count();
    // The log is not that long, which a call that waited is told.
    let beyond = answers.iter().filter(|answer| answer.code() == "position_unknown").count();
    assert_eq!((beyond, overloaded), (20, 40));
    let refused = answers.iter().filter(|answer| answer.code() == "overloaded");
    assert!(refused.into_iter().all(|answer| answer.status == 503 && number(answer, "retry-after") > 0));
    assert_eq!(client.get("/orders").await.status, 200, "and then all is as before");
    let refused = client.metric("twelve_refused_total{why=\"in_progress\"}").await;
    assert_eq!(refused, Some(40.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_callers_waits_and_slow_calls_take_a_share_and_never_what_all_callers_need() {
    let key = Key::ed25519("key");
    let issuer = Issuer::start(&[&key]).await;
    let limits =
        ["--calls-in-progress-max", "40", "--calls-in-progress-each-max", "25", "--waits-each-max", "10"];
    let platform = Platform::up_with(&[&["--auth-jwks", issuer.url()][..], &limits].concat()).await;
    let greedy = platform.client.bearing(&key.token("greedy", "customer"));
    let modest = platform.client.bearing(&key.token("modest", "customer"));
    let wait = "/customers/greedy/orders?after=0:99999&wait=3000";
    let mut slow = order("greedy");
    slow["payment"]["token"] = json!("tok_slow:2000");
    let calls_refused = "twelve_shares_refused_total{kind=\"calls\",bound=\"each\"}";
    let many = async {
        let waits = join_all((0..60).map(|_| greedy.get(wait)));
        let orders = join_all((0..60).map(|_| greedy.post("/orders", &slow)));
        tokio::join!(waits, orders)
    };
    let honest = async {
        let full = async {
            while platform.client.metric(calls_refused).await.is_none() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, full).await.expect("one caller has all that one may");
        let placed = modest.post("/orders", &order("modest")).await;
        (placed.status, modest.get("/customers/modest/orders").await.status)
    };
    let ((waits, orders), honest) = tokio::join!(many, honest);
    assert_eq!((honest.0.as_u16(), honest.1.as_u16()), (201, 200), "others notice nothing");
    let refused = |answers: &[Answer]| answers.iter().filter(|answer| answer.status == 429).count();
    assert!(refused(&waits) >= 50 && refused(&orders) >= 35, "{} {}", refused(&waits), refused(&orders));
    for answer in waits.iter().chain(&orders).filter(|answer| answer.status == 429) {
        assert_eq!(answer.code(), "too_many_at_once");
        assert!(number(answer, "retry-after") > 0);
    }
    assert_eq!(greedy.get("/customers/greedy/orders").await.status, 200, "and then all is as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_operators_looks_at_the_past_are_a_share_and_leave_room_for_anothers() {
    let key = Key::ed25519("key");
    let issuer = Issuer::start(&[&key]).await;
    let platform = Platform::up_with(&["--auth-jwks", issuer.url(), "--as-of-each-max", "2"]).await;
    let customer = platform.client.bearing(&key.token("gentleman", "customer"));
    for number in 0..20 {
        customer.post_with_key("/orders", &number.to_string(), &order("gentleman")).await;
    }
    let greedy = platform.client.bearing(&key.token("greedy", "operator"));
    let modest = platform.client.bearing(&key.token("modest", "operator"));
    let many = (1..=30).map(|sequence| {
        let greedy = greedy.clone();
        async move { greedy.get(&format!("/orders?limit=1&as_of=0:{}", 1 + sequence % 6)).await }
    });
    let (many, one) = tokio::join!(join_all(many), modest.get("/orders?limit=1&as_of=0:3"));
    assert_eq!(one.status, 200, "{one:?}");
    let refused = many.iter().filter(|answer| answer.status == 429).count();
    assert!(refused > 0 && many.iter().all(|answer| [200, 429].contains(&answer.status.as_u16())));
    let told = platform.client.metric("twelve_shares_refused_total{kind=\"as_of\",bound=\"each\"}").await;
    assert!(told.is_some_and(|told| told > 0.0), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_cannot_be_stored_in_time_make_room_for_fewer_and_it_recovers_by_itself() {
    // Nothing is stored within a millisecond and every command is too slow: the fewest are admitted.
    let platform = Platform::up_with(&["--store-goal-ms", "1"]).await;
    let client = &platform.client;
    let slow = join_all((0..8).map(|_| {
        let mut body = order("gentleman");
        body["payment"]["token"] = json!("tok_slow:1500");
        async move { client.post("/orders", &body).await }
    }));
    let body = order("gentleman");
    let flood = async {
        let mut overloaded = 0;
        while overloaded == 0 {
            let answers = join_all((0..200).map(|_| client.post("/orders", &body))).await;
            for answer in &answers {
                let code = (answer.status.as_u16(), answer.code());
                assert!(code == (201, "") || code == (503, "overloaded"), "{answer:?}");
                overloaded += u32::from(answer.code() == "overloaded");
            }
        }
    };
    let (slow, ()) = tokio::join!(slow, async {
        tokio::time::timeout(LIMIT, flood).await.expect("too many at some time");
    });
    assert!(slow.iter().any(|answer| answer.status == 201), "what was admitted is answered");
    let recovered = async {
        while client.post("/orders", &order("gentleman")).await.status != 201 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, recovered).await.expect("it takes orders again");
    assert!(client.metric("twelve_commands_at_once_max").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_holds_a_breaker_open_or_closed_and_lets_it_go() {
    let mut services = Services::new(&[]).await;
    let shop = services.start("ordering,payment,marketing,delivery,saga", &["--breaker-calls", "4"]).await;
    let queries = services.start_views(&[]).await;
    let state = async |call: &str| {
        let shown = shop.get("/breakers").await.body;
        let items = shown["items"].as_array().cloned().expect("breakers");
        items.into_iter().find(|item| item["call"] == call).expect("this one")
    };
    assert_eq!(state("payment").await, json!({ "call": "payment", "state": "closed", "held": null }));
    let held = shop.post("/breakers/payment", &json!({ "hold": "open" })).await;
    assert_eq!((held.status.as_u16(), &held.body["state"]), (200, &json!("open")));
    let refused = shop.post("/orders", &order("gentleman")).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (503, "payment_unavailable"));
    assert_eq!(shop.metric("twelve_breaker_state{call=\"payment\"}").await, Some(2.0));
    assert_eq!(shop.metric("twelve_breaker_held{call=\"payment\"}").await, Some(1.0));

    // Held closed it lets calls through that fail, however many.
    shop.post("/breakers/payment", &json!({ "hold": "closed" })).await;
    let mut down = order("gentleman");
    down["payment"]["token"] = json!("tok_down");
    for _ in 0..12 {
        assert_eq!(shop.post("/orders", &down).await.status, 503);
    }
    assert_eq!(state("payment").await["state"], "closed");
    let freed = shop.post("/breakers/payment", &json!({ "hold": null })).await;
    assert_eq!((freed.status.as_u16(), &freed.body["held"]), (200, &Value::Null));
    for _ in 0..12 {
        assert_eq!(shop.post("/orders", &down).await.status, 503);
    }
    assert_ne!(state("payment").await["state"], "closed", "it goes by its calls again");
    shop.post("/breakers/payment", &json!({ "hold": null })).await;
    let placed = shop.post("/orders", &order("gentleman")).await;
    queries.order_after(&placed.order_id(), placed.header("log-position")).await;
    let unknown = shop.post("/breakers/banana", &json!({ "hold": "open" })).await;
    assert_eq!((unknown.status.as_u16(), unknown.code()), (404, "breaker_not_found"));
    for wrong in [json!({ "hold": "ajar" }), json!({ "holt": "open" })] {
        assert_eq!(shop.post("/breakers/payment", &wrong).await.status, 400, "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_operators_hold_breakers() {
    let key = Key::ed25519("key");
    let issuer = Issuer::start(&[&key]).await;
    let platform = Platform::up_with(&["--auth-jwks", issuer.url()]).await;
    for (role, status) in [("customer", 403), ("marketing", 403), ("operator", 200)] {
        let client = platform.client.bearing(&key.token("somebody", role));
        assert_eq!(client.get("/breakers").await.status, status, "{role}");
        let hold = client.request(Method::POST, "/breakers/payment").json(&json!({ "hold": null }));
        assert_eq!(client.send(hold).await.status, status, "{role}");
    }
}
