//! Events that this program cannot read, in the middle of living orders: each order is parked where it is, says why,
//! and keeps nobody else from going on.

use async_nats::HeaderMap;
use domain::OrderId;
use serde_json::json;
use twelve_tests::{LIMIT, Platform, client::order};

/// A header's name, and what it says instead; or another body.
enum Strange {
    Header(&'static str, &'static str),
    Body(&'static str),
}

/// Copies the order's newest event to its end, made strange.
async fn plant(platform: &Platform, order_id: &str, strange: &Strange) {
    let client = async_nats::connect(platform.server.url()).await.expect("a server");
    let jetstream = async_nats::jetstream::new(client);
    let partition = order_id.parse::<OrderId>().expect("an id").partition(twelve_tests::partitions());
    let subject = nats::subject::order(partition, order_id.parse().expect("an id"));
    let stream = jetstream.get_stream(nats::subject::stream(partition)).await.expect("a partition");
    let newest = stream.get_last_raw_message_by_subject(&subject).await.expect("an event");
    let mut headers = HeaderMap::new();
    for name in ["Event-Type", "Event-Id", "Schema-Version", "Time", "Command-Id"] {
        headers.insert(name, newest.headers.get(name).expect("a header").clone());
    }
    let mut body = newest.payload.clone();
    match strange {
        Strange::Header(name, says) => headers.insert(*name, *says),
        Strange::Body(says) => body = (*says).into(),
    }
    jetstream.publish_with_headers(subject, headers, body).await.expect("sent").await.expect("stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_with_an_event_that_does_not_read_is_parked_and_says_why_and_all_others_go_on() {
    let platform = Platform::up_with(&["--unreadable", "set-aside"]).await;
    let client = &platform.client;
    let kinds = [
        (Strange::Body("{\"half"), "EOF"),
        (Strange::Header("Event-Type", "OrderTeleported"), "OrderTeleported"),
        (Strange::Header("Schema-Version", "99"), "99"),
    ];
    for (strange, why) in kinds {
        let id = client.place(&order("gentleman")).await;
        client.until_status(&id, "out_for_delivery").await;
        plant(&platform, &id, &strange).await;
        let aside = async {
            loop {
                let said = client.get("/views/orders").await.body["set_aside"].to_string();
                if said.contains(&id) {
                    return said;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        let said = tokio::time::timeout(LIMIT, aside).await.expect("it is set aside");
        assert!(said.contains(why), "{said}");
        let before = client.get("/views/orders").await.body["partitions"].clone();
        let complete = client.post(&format!("/orders/{id}/delivery/complete"), &json!({})).await;
        assert_eq!((complete.status.as_u16(), complete.code()), (500, "order_unreadable"), "{complete:?}");
        assert_eq!(complete.header("retry-after"), "", "trying again does not help");
        let then = client.get(&format!("/orders/{id}?as_of={}", nats::now())).await;
        assert_eq!((then.status.as_u16(), then.code()), (500, "order_unreadable"), "{then:?}");
        assert!(complete.body["detail"].as_str().is_some_and(|detail| detail.contains(why)), "{complete:?}");
        let row = client.get(&format!("/orders/{id}")).await;
        assert_eq!(row.body["status"], "out_for_delivery", "it is shown as it was");
        assert_eq!(client.get("/views/orders").await.body["partitions"], before, "nothing was recorded");
    }
    let other = client.place(&order("gentleman")).await;
    client.until_status(&other, "out_for_delivery").await;
    let done = client.post(&format!("/orders/{other}/delivery/complete"), &json!({})).await;
    assert_eq!(done.status, 200, "{done:?}");
}

/// Messages that are no order's, on subjects of the log and of the work queues.
async fn plant_foreign(platform: &Platform, known: &str) -> Vec<String> {
    let jetstream =
        async_nats::jetstream::new(async_nats::connect(platform.server.url()).await.expect("a server"));
    let partitions = twelve_tests::partitions();
    let partition = known.parse::<OrderId>().expect("an id").partition(partitions);
    let mut subjects: Vec<String> =
        (0..partitions).map(|partition| format!("orders.{partition}.not-a-uuid")).collect();
    subjects.push(format!("orders.{partition}.{}", known.to_uppercase()));
    subjects.push(format!("orders.{partition}.{}", known.replace('-', "")));
    if partitions > 1 {
        subjects.push(format!("orders.{}.{known}", (partition + 1) % partitions));
    }
    let queues = ["due", "notices"].map(|queue| format!("{queue}.{partition}.not-a-uuid"));
    for subject in subjects.iter().chain(&queues) {
        jetstream.publish(subject.clone(), "{}".into()).await.expect("sent").await.expect("stored");
    }
    subjects
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_no_orders_are_quarantined_under_their_subjects_and_nobody_stands_still() {
    let folder = tempfile::tempdir().expect("a folder");
    let books = format!("sqlite:{}", folder.path().join("ledger.db").display());
    let mut platform = Platform::up_with(&["--ledger", &books]).await;
    let client = platform.client.clone();
    let known = client.place(&order("gentleman")).await;
    client.until_status(&known, "out_for_delivery").await;
    let foreign = plant_foreign(&platform, &known).await;
    // Enough for each partition to go on.
    let mut placed = vec![known.clone()];
    let mut meal = order("eater");
    meal["flow"] = json!("food");
    meal["store_id"] = json!("store-1");
    meal["delivery_type"] = json!("bicycle");
    for _ in 0..8 {
        placed.push(client.place(&meal).await);
    }
    let told = |row: &serde_json::Value| {
        let timeline = row["timeline"].as_array().cloned().unwrap_or_default();
        row["store"]["status"] == "received"
            && timeline.iter().any(|event| event["type"] == "NotificationSent")
    };
    for id in &placed[1..] {
        client.until(id, "before its store, and its customer told", told).await;
    }
    let mut view = client.get("/views/orders").await.body;
    assert_eq!(view["quarantined"]["messages"], json!(foreign.len()), "{view}");
    let named = |view: &serde_json::Value| {
        let first = view["quarantined"]["first"].as_array().cloned().unwrap_or_default();
        first.iter().filter_map(|one| one["subject"].as_str().map(ToOwned::to_owned)).collect::<Vec<_>>()
    };
    let (mut is, mut expected) = (named(&view), foreign.clone());
    is.sort();
    expected.sort();
    assert_eq!((is, &view["stopped"]), (expected, &serde_json::Value::Null));
    assert_eq!(
        client.metric("twelve_view_messages_quarantined").await,
        Some(f64::from(u32::try_from(foreign.len()).expect("few")))
    );
    assert_eq!(client.get("/readyz").await.status, 200);
    let all = client.get("/orders?limit=100").await.body;
    let then = client.get(&format!("/orders?limit=100&as_of={}", nats::now())).await;
    assert_eq!(
        (then.status.as_u16(), then.body["items"].as_array().map(Vec::len)),
        (200, Some(placed.len()))
    );
    platform.stop().await;
    platform.start().await;
    view = client.get("/views/orders").await.body;
    assert_eq!(view["quarantined"]["messages"], json!(foreign.len()), "it is kept: {view}");
    assert_eq!(client.get("/orders?limit=100").await.body, all);

    let log = twelve_tests::history::log(&platform.server, twelve_tests::partitions()).await;
    let book = ledger::Ledger::open(&books).await.expect("the ledger");
    let infos = ledger::follow::partitions(&log).await.expect("described");
    let ends: Vec<u64> = infos.iter().map(|info| info.last_sequence).collect();
    let booked = async {
        while book.checkpoints(&infos).await.expect("checkpoints") != ends {
            tokio::time::sleep(twelve_tests::client::LOOK_PAUSE).await;
        }
    };
    tokio::time::timeout(LIMIT, booked).await.expect("the ledger goes on");
    let report = ledger::reconcile::reconcile(&log, &book, |_| {}, |_, _| {}).await.expect("it reads");
    assert_eq!(report.differences, 0, "{report:?}");
}
