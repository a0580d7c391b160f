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
        assert_eq!((complete.status.as_u16(), complete.code()), (503, "order_unreadable"), "{complete:?}");
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
