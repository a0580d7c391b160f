//! Queries as of a moment that has passed: they say what readers saw then.

use serde_json::{Value, json};
use twelve_tests::{
    Client, LIMIT, Platform,
    client::{LOOK_PAUSE, order},
    issuer::{Issuer, Key},
};

const QUERIES: [&str; 8] = [
    "/orders?limit=200",
    "/orders?status=canceled",
    "/customers/gentleman/orders",
    "/coupons?limit=200",
    "/payments",
    "/deliveries",
    "/items/order-counts",
    "/stores/store-1/orders",
];

fn meal() -> Value {
    let mut body = order("eater");
    body["flow"] = json!("kitchen");
    body["store_id"] = json!("store-1");
    body
}

/// What readers see now, and where that is.
async fn look(client: &Client) -> (String, Vec<Value>) {
    let mut answers = Vec::new();
    let mut position = String::new();
    for query in QUERIES {
        let answer = client.get(query).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.header("view-position").clone_into(&mut position);
        answers.push(answer.body);
    }
    (position, answers)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_as_of_a_position_or_a_time_says_what_readers_saw_then() {
    let platform = Platform::up().await;
    let client = &platform.client;
    let mut seen = Vec::new();
    let mut times = Vec::new();
    let first = client.place(&order("gentleman")).await;
    client.until_status(&first, "out_for_delivery").await;
    seen.push(look(client).await);
    times.push(client.get(&format!("/orders/{first}")).await.body["updated_at"].clone());
    let second = client.place(&meal()).await;
    client
        .until(&second, "at the store and told", |row| {
            row["timeline"].as_array().is_some_and(|all| all.len() == 5)
        })
        .await;
    seen.push(look(client).await);
    client.post(&format!("/orders/{first}/cancel"), &json!({})).await;
    client.until_status(&first, "canceled").await;
    seen.push(look(client).await);
    assert_ne!(seen[0].1, seen[1].1);
    assert_ne!(seen[1].1, seen[2].1);
    for (position, answers) in &seen {
        for (query, then) in QUERIES.iter().zip(answers) {
            let join = if query.contains('?') { '&' } else { '?' };
            let answer = client.get(&format!("{query}{join}as_of={position}")).await;
            assert_eq!(answer.status, 200, "{query} as of {position}: {answer:?}");
            assert_eq!(&answer.body, then, "{query} as of {position}");
        }
    }
    let time = times[0].as_str().expect("a time");
    let by_time = client.get(&format!("/orders?limit=200&as_of={time}")).await;
    assert_eq!(by_time.body, seen[0].1[0], "as of {time}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_order_as_of_each_of_its_events_is_the_order_that_its_timeline_tells() {
    let platform = Platform::up().await;
    let client = &platform.client;
    let id = client.place(&order("gentleman")).await;
    client.until_status(&id, "out_for_delivery").await;
    let row = client.get(&format!("/orders/{id}")).await.body;
    for entry in row["timeline"].as_array().expect("a timeline") {
        for moment in [&entry["position"], &entry["time"]] {
            let moment = moment.as_str().expect("a moment");
            let then = client.get(&format!("/orders/{id}?as_of={moment}")).await;
            if ["PaymentRequested", "PaymentApproved"].contains(&entry["type"].as_str().unwrap_or_default()) {
                assert_eq!(then.code(), "order_not_found", "it did not stand yet");
            } else {
                assert_eq!((then.status.as_u16(), &then.body["status"]), (200, &entry["status"]), "{moment}");
                assert_eq!(then.header("view-position"), entry["position"].as_str().expect("a position"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_that_is_none_or_too_far_is_refused_by_name() {
    let platform = Platform::up_with(&["--as-of-events-max", "5"]).await;
    let client = &platform.client;
    let id = client.place(&order("gentleman")).await;
    client.until_status(&id, "out_for_delivery").await;
    let refused = async |query: &str| {
        let answer = client.get(query).await;
        (answer.status.as_u16(), answer.code().to_owned())
    };
    assert_eq!(refused("/orders?as_of=0:999999").await, (400, "position_unknown".into()));
    assert_eq!(refused("/orders?as_of=99:1").await, (400, "position_unknown".into()), "no such partition");
    assert_eq!(refused("/orders?as_of=2999-01-01T00:00:00Z").await, (400, "malformed".into()));
    assert_eq!(refused("/orders?as_of=yesterday").await, (400, "malformed".into()));
    assert_eq!(refused("/flows?as_of=0:1").await, (400, "malformed".into()));
    assert_eq!(refused(&format!("/orders/{id}/live?as_of=0:1")).await, (400, "malformed".into()));
    let now = client.get(&format!("/orders/{id}")).await.body["updated_at"].clone();
    let far = format!("/orders?as_of={}", now.as_str().expect("a time"));
    assert_eq!(refused(&far).await, (422, "as_of_too_far".into()), "six events, and five are the limit");
    let folder = platform.data.path().join("views");
    let left: Vec<_> =
        std::fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
    assert!(
        left.iter().all(|name| !name.to_string_lossy().starts_with("passing")),
        "nothing stays: {left:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_may_be_percent_encoded_in_any_way_and_offsets_may_have_a_plain_plus() {
    let platform = Platform::up().await;
    let client = &platform.client;
    let id = client.place(&order("gentleman")).await;
    client.until_status(&id, "out_for_delivery").await;
    let then = client.get("/orders").await;
    let position = then.header("view-position").to_owned();
    let time = client.get(&format!("/orders/{id}")).await.body["updated_at"].clone();
    let time = time.as_str().expect("a time").trim_end_matches('Z').to_owned();
    for moment in [
        position.replace(':', "%3a").replace(',', "%2c"),
        position.replace(':', "%3A").replace(',', "%2C"),
        position.replace('0', "%30"),
        format!("{time}+00:00"),
        format!("{time}%2b00%3a00"),
        format!("{time}%2B00:00"),
    ] {
        let answer = client.get(&format!("/orders?as_of={moment}")).await;
        assert_eq!((answer.status.as_u16(), &answer.body), (200, &then.body), "{moment}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn moments_between_two_events_share_their_views_which_are_let_go_when_nobody_asks_for_them() {
    let platform = Platform::up().await;
    let client = &platform.client;
    let first = client.place(&order("gentleman")).await;
    client.until_status(&first, "out_for_delivery").await;
    // Another moment of the same views: after the first order's events, before the second's.
    let between: Vec<_> = (0..4).map(|_| nats::now()).collect();
    // Something happens later in every partition.
    let mut later = std::collections::BTreeSet::new();
    while later.len() < usize::from(twelve_tests::partitions()) {
        let id = client.place(&order("gentleman")).await;
        later.insert(id.parse::<domain::OrderId>().expect("an id").partition(twelve_tests::partitions()));
    }
    let mut answers = Vec::new();
    for time in &between {
        let answer = client.get(&format!("/orders?as_of={time}")).await;
        assert_eq!(answer.body["items"].as_array().map(Vec::len), Some(1), "{answer:?}");
        answers.push(answer.body);
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(client.metric("twelve_as_of_kept").await, Some(1.0), "they are folded once");
    let passing = || {
        let entries = std::fs::read_dir(platform.data.path().join("views")).expect("a folder").flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("passing")).count()
    };
    assert_eq!(passing(), 1);
    let let_go = async {
        while client.metric("twelve_as_of_kept").await != Some(0.0) || passing() > 0 {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    tokio::time::timeout(LIMIT, let_go).await.expect("without another query");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_views_of_a_moment_are_for_operators_and_an_order_of_it_for_its_parties() {
    let key = Key::ed25519("first");
    let issuer = Issuer::start(&[&key]).await;
    let platform = Platform::up_with(&["--auth-jwks", issuer.url(), "--auth-issuer", "test-issuer"]).await;
    let one = |id: &str, role: &str| platform.client.bearing(&key.token(id, role));
    let (mine, operator, rider) =
        (one("gentleman", "customer"), one("op", "operator"), one("rider-1", "rider"));
    let placed = mine.post("/orders", &order("gentleman")).await;
    assert_eq!(placed.status, 201, "{placed:?}");
    let id = placed.order_id();
    let position = placed.header("log-position").to_owned();
    mine.order_after(&id, &position).await;
    assert_eq!(mine.get(&format!("/orders/{id}?as_of={position}")).await.status, 200);
    let list = format!("/customers/gentleman/orders?as_of={position}");
    for (who, path) in [(&mine, list.as_str()), (&rider, &format!("/deliveries/open?as_of={position}"))] {
        let refused = who.get(path).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (403, "forbidden"), "{path}");
    }
    let told = operator.get(&list).await;
    assert_eq!(
        (told.status.as_u16(), told.body["items"].as_array().map(Vec::len)),
        (200, Some(1)),
        "{told:?}"
    );
}
