//! Views that are defined otherwise now do not move until they are built anew: that comes about whatever goes wrong on
//! the way, it is told until then, and nobody misses anything by it.

use serde_json::{Value, json};
use twelve_tests::{
    LIMIT, Link, Node,
    client::{LOOK_PAUSE, Live},
    history,
};

/// Orders that the node knew before.
const KNOWN: u64 = 20;

/// A node whose views are of an older definition, and the link to its server.
async fn outdated() -> (Node, Link) {
    let mut node = Node::new(1, &["--snapshot-every-s", "0"]).await;
    history::append(&node.log, 0..KNOWN).await;
    node.start().await;
    node.kill();
    let store = projector::Store::open_generation(&node.views(), 1).expect("the store");
    store.redefine("an older definition").expect("written");
    drop(store);
    let link = Link::to(node.server.url()).await;
    (node.through(link.url()), link)
}

fn is(state: &'static str) -> impl Fn(&Value) -> bool {
    move |job| job["state"] == state
}

/// Waits until the node is up, and has begun to build its views anew.
async fn until_it_builds(node: &Node) {
    let looking = async {
        while node.client.try_send(node.client.request(reqwest::Method::GET, "/healthz")).await.is_none() {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    let waited = tokio::time::timeout(LIMIT, looking).await;
    assert!(waited.is_ok(), "it does not listen: {}", node.said());
    node.job(is("building")).await;
}

async fn generation(node: &Node) -> String {
    node.client.get("/orders?limit=1").await.header("view-generation").to_owned()
}

async fn until_generation(node: &Node, number: &str) {
    let looking = async {
        while generation(node).await != number {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    let waited = tokio::time::timeout(LIMIT, looking).await;
    assert!(waited.is_ok(), "generation {number} does not serve: {}", node.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_at_the_start_that_fails_is_told_and_tried_again_until_it_serves() {
    let (mut node, link) = outdated().await;
    link.refuse(Some("twelve-rebuild"));
    node.spawn();
    let told = async {
        loop {
            let ready = node.client.try_send(node.client.request(reqwest::Method::GET, "/readyz")).await;
            if let Some(ready) = ready.filter(|ready| ready.body.to_string().contains("is tried again")) {
                return ready;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    let told = tokio::time::timeout(LIMIT, told).await;
    let ready = told.unwrap_or_else(|_| panic!("nobody is told: {}", node.said()));
    assert_eq!(ready.status, 503, "{ready:?}");
    assert_eq!(node.client.metric("twelve_view_outdated").await, Some(1.0));
    assert_eq!(generation(&node).await, "1", "what serves goes on serving");
    link.refuse(None);
    until_generation(&node, "2").await;
    node.client.until_ready().await;
    assert_eq!(node.client.metric("twelve_view_outdated").await, Some(0.0));
    assert_eq!(node.client.get("/views/orders").await.body["rows"], KNOWN);
    let again = tokio::time::timeout(std::time::Duration::from_secs(6), until_generation(&node, "3")).await;
    assert!(again.is_err(), "what serves by now is not built again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_at_the_start_outlives_an_answer_that_does_not_come() {
    let (mut node, link) = outdated().await;
    link.lose_pages(true);
    node.spawn();
    until_it_builds(&node).await;
    // How far the log goes by now, it is asked once what there was is folded.
    link.lose_info();
    link.lose_pages(false);
    let job = node.job(|job| ["serving", "failed"].contains(&job["state"].as_str().unwrap_or(""))).await;
    assert_eq!(job["state"], "serving", "{job} {}", node.said());
    assert_eq!((link.infos_left_to_lose(), &job["generation"]), (0, &json!(2)), "the first one still: {job}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_is_only_to_be_verified_does_not_take_the_place_of_an_outdated_one() {
    let (mut node, link) = outdated().await;
    link.lose_pages(true);
    node.spawn();
    until_it_builds(&node).await;
    node.operator.post("/admin/views/rebuild/cancel", &json!({})).await;
    node.job(is("canceled")).await;
    link.lose_pages(false);
    let refused = node.operator.post("/admin/views/verify", &json!({})).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (409, "generation_outdated"), "{refused:?}");
    // Without being told, one that is built does not take over either.
    node.operator.post("/admin/views/rebuild", &json!({})).await;
    node.job(is("ready")).await;
    assert_eq!(generation(&node).await, "1");
    let swapped = node.operator.post("/admin/views/swap", &json!({})).await;
    assert_eq!(swapped.status, 200, "{swapped:?}");
    until_generation(&node, "2").await;
    assert_eq!(node.client.get("/views/orders").await.body["rows"], KNOWN);
}

/// The kinds of events that are told of an order, until its stream ends or the last of these is.
async fn told(live: &mut Live, last: &str) -> Vec<String> {
    let mut kinds = Vec::new();
    let reading = async {
        while let Some(event) = live.next().await {
            if let Some(kind) = event.data["type"].as_str() {
                kinds.push(kind.to_owned());
                if kind == last {
                    return;
                }
            }
        }
    };
    tokio::time::timeout(LIMIT, reading).await.expect("it is told, or the stream ends");
    kinds
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_outdated_views_hears_what_came_before_the_new_ones_took_over() {
    let (mut node, link) = outdated().await;
    link.lose_pages(true);
    node.spawn();
    until_it_builds(&node).await;
    let from = node.client.get("/orders?limit=1").await.header("view-position").to_owned();
    // Ten orders of one customer.
    let path = "/customers/customer-2/orders/live";
    let mut live = node.client.live(path, Some(&from)).await;
    history::append(&node.log, KNOWN..KNOWN + 10).await;
    link.lose_pages(false);
    until_generation(&node, "2").await;
    let mut heard = told(&mut live, "OrderPlaced").await;
    if heard.is_empty() {
        // As a browser does whose stream has ended.
        heard = told(&mut node.client.live(path, Some(&from)).await, "OrderPlaced").await;
    }
    assert!(heard.contains(&"OrderPlaced".to_owned()), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_cannot_go_on_says_why_and_how_far_behind_it_is() {
    let mut node = Node::new(1, &["--snapshot-every-s", "0"]).await;
    history::append(&node.log, 0..KNOWN).await;
    let link = Link::to(node.server.url()).await;
    node = node.through(link.url());
    node.start().await;
    link.lose_pages(true);
    for more in [0, 10] {
        let before = node.log.partition_info(0).await.expect("described").last_sequence;
        #[expect(clippy::cast_precision_loss, reason = "a short log")]
        let appended = history::append(&node.log, KNOWN + more..KNOWN + more + 10).await as f64;
        let looking = async {
            while node.client.metric("twelve_view_behind_events").await < Some(appended) {
                tokio::time::sleep(LOOK_PAUSE).await;
            }
        };
        let told = tokio::time::timeout(LIMIT, looking).await;
        assert!(told.is_ok(), "it is not told behind {before}: {}", node.said());
    }
    let said = node.said();
    assert!(
        said.contains("a follower of the log cannot go on") && said.contains("lost messages on its way"),
        "{said}"
    );
    link.lose_pages(false);
    let looking = async {
        while node.client.metric("twelve_view_behind_events").await != Some(0.0) {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    tokio::time::timeout(LIMIT, looking).await.expect("it goes on");
}
