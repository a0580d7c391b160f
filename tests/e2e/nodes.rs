//! View nodes that are killed, torn, fed what they cannot read, and begun anew from a snapshot.

use std::{ops::RangeInclusive, time::Duration};

use domain::{OrderId, Position};
use projector::{
    NodeSettings, Views,
    as_of::{self, Moment},
    compare, snapshot,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use twelve_tests::{Node, Server, history, node::files};

/// Times that a node is killed; `TWELVE_KILLS` says otherwise, for longer runs.
const KILLS: u64 = 12;

fn kills() -> u64 {
    std::env::var("TWELVE_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number"))
}

/// The next of a row of numbers that look drawn.
fn draw(seed: &mut u64, from: RangeInclusive<u64>) -> u64 {
    *seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
    from.start() + (*seed >> 33) % (from.end() - from.start() + 1)
}

async fn is_killed_again_and_again(partitions: u16) {
    let mut node = Node::new(partitions, &["--snapshot-every-s", "1"]).await;
    let (mut orders, mut seed) = (60, u64::from(partitions));
    history::append(&node.log, 0..orders).await;
    for kill in 0..kills() {
        node.spawn();
        if kill % 4 > 0 {
            node.client.until_ready().await;
        }
        let asked = match kill % 4 {
            1 => Some("rebuild"),
            2 => Some("snapshots"),
            // Live, and while it starts.
            _ => None,
        };
        let (operator, log) = (node.operator.clone(), node.log.clone());
        let asking = tokio::spawn(async move {
            if let Some(what) = asked {
                let post = operator.request(reqwest::Method::POST, &format!("/admin/views/{what}"));
                operator.try_send(post.json(&json!({ "swap": true }))).await;
            }
        });
        let appending = tokio::spawn(async move { history::append(&log, orders..orders + 10).await });
        orders += 10;
        // It chooses the moment of the kill, nothing waits for it.
        tokio::time::sleep(Duration::from_millis(draw(&mut seed, 1..=400))).await;
        node.kill();
        asking.await.expect("asked");
        appending.await.expect("appended");
        node.start().await;
        let found = node.verify().await;
        assert_eq!(found["differences"], 0, "after kill {kill}: {found}");
        node.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_at_any_moment_has_the_views_that_the_log_makes() {
    is_killed_again_and_again(4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_one_partition_that_is_killed_at_any_moment_has_the_views_that_the_log_makes() {
    is_killed_again_and_again(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_just_after_a_swap_can_be_verified_rebuilt_and_rolled_back() {
    let mut node = Node::new(twelve_tests::partitions(), &[]).await;
    history::append(&node.log, 0..10).await;
    node.start().await;
    node.operator.post("/admin/views/rebuild", &json!({ "swap": true })).await;
    node.job(|job| job["state"] == "serving").await;
    node.kill();
    let current = std::fs::read(node.views().join("current")).expect("there is one");
    std::fs::write(node.views().join("building"), current).expect("noted, as before the swap");
    node.start().await;
    assert_eq!(node.verify().await["differences"], 0);
    node.operator.post("/admin/views/rollback", &json!({})).await;
    let back = node.job(|job| job["state"] == "serving").await;
    assert_eq!(back["generation"], 1);
}

/// Everything that some queries answer.
async fn look(node: &Node) -> Vec<Value> {
    let mut seen = Vec::new();
    for query in ["/orders?limit=100", "/sagas?limit=50", "/items/order-counts", "/notifications", "/reviews"]
    {
        seen.push(node.client.get(query).await.body);
    }
    for view in projector::view::NAMES {
        seen.push(node.client.get(&format!("/views/{view}")).await.body["rows"].clone());
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_begins_with_a_snapshot_and_a_torn_one_is_left_alone() {
    let mut node = Node::new(twelve_tests::partitions(), &["--snapshot-every-s", "0"]).await;
    history::append(&node.log, 0..40).await;
    node.start().await;
    let before = look(&node).await;
    let position = node.client.get("/orders").await.header("view-position").to_owned();
    let taken = node.operator.post("/admin/views/snapshots", &json!({})).await;
    assert_eq!(taken.status, 200, "{taken:?}");
    history::append(&node.log, 40..50).await;
    node.kill();
    std::fs::remove_dir_all(node.views()).expect("removed");
    node.start().await;
    assert!(node.said().contains("begin with a snapshot"), "{}", node.said());
    assert_eq!(node.verify().await["differences"], 0);
    let after = look(&node).await;
    assert_ne!(before, after, "it has the tail as well");

    let as_of = node.client.get(&format!("/orders?limit=100&as_of={position}")).await.body;
    assert_eq!(as_of, before[0], "a moment is folded from the snapshot");

    tear_the_newest(&node.log).await;
    node.kill();
    std::fs::remove_dir_all(node.views()).expect("removed");
    node.start().await;
    assert!(node.said().contains("no snapshot helps"), "{}", node.said());
    assert_eq!(node.verify().await["differences"], 0);
    assert_eq!(look(&node).await, after);
}

/// Keeps a copy of the newest snapshot that lacks its end, and looks newer.
async fn tear_the_newest(log: &nats::EventLog) {
    let snapshots = log.snapshots().await.expect("a store");
    let newest = snapshots.list().await.expect("a list").pop().expect("a snapshot");
    let file = tempfile::NamedTempFile::new().expect("a file");
    snapshots.fetch(&newest.name, file.path()).await.expect("fetched");
    let bytes = std::fs::read(file.path()).expect("read");
    std::fs::write(file.path(), &bytes[..bytes.len() * 2 / 3]).expect("written");
    snapshots.remove(&newest.name).await.expect("removed");
    snapshots.put("torn", newest.about, file.path()).await.expect("kept");
}

/// With snapshots and without, at positions and at times, of a log of one partition and of four.
async fn a_moment_is_what_a_rebuild_until_it_makes(partitions: u16) {
    let node = Node::new(partitions, &[]).await;
    let (folder, stop) = (tempfile::tempdir().expect("a folder"), CancellationToken::new());
    history::append(&node.log, 0..40).await;
    let (views, _tasks) = Views::start(&node.log, &folder.path().join("now"), NodeSettings::default(), &stop)
        .await
        .expect("views");
    let mut seed = 3;
    for round in 0..6_u64 {
        let mut ends = Vec::new();
        for position in 0..partitions {
            let sequence = node.log.partition_info(position).await.expect("described").last_sequence;
            ends.push(Position { partition: position, sequence });
        }
        for end in &ends {
            assert!(views.wait_for(*end, twelve_tests::LIMIT).await, "it follows");
        }
        let drawn = ends.iter().map(|end| Position { sequence: draw(&mut seed, 1..=end.sequence), ..*end });
        let mut moment = Moment::At(drawn.collect());
        if round % 3 == 2 {
            let time = node.log.time_of(ends[0]).await.expect("known").expect("there");
            moment = Moment::Time(time);
        }
        let then = as_of::views(&node.log, &views, &moment, u64::MAX).await.expect("folded");
        let then = then.views.serving();
        let built =
            as_of::build(&node.log, &folder.path().join(round.to_string()), &moment, |_, _| Duration::ZERO)
                .await
                .expect("built");
        let found = compare::compare(&built, &then).expect("both read");
        assert_eq!(found.differences, 0, "{moment:?}: {:?}", found.first.first());
        assert!(found.entries > 10, "{moment:?}");
        snapshot::take(&views, &node.log).await.expect("taken");
        history::append(&node.log, 40 + round * 5..45 + round * 5).await;
    }
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_views_as_of_a_moment_are_what_a_rebuild_until_it_makes() {
    a_moment_is_what_a_rebuild_until_it_makes(4).await;
    a_moment_is_what_a_rebuild_until_it_makes(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_at_the_same_position_have_the_same_rows_and_checksums_however_they_came_there() {
    let mut node = Node::new(twelve_tests::partitions(), &[]).await;
    history::append(&node.log, 0..30).await;
    node.start().await;
    history::append(&node.log, 30..40).await;
    node.client.get("/orders").await;
    node.kill();
    node.start().await;
    let first = node.verify().await;
    let views = first["views"].as_array().expect("a sum of each view");
    assert_eq!(views.len(), projector::view::NAMES.len(), "{first}");
    let orders = views.iter().find(|sum| sum["view"] == "orders").expect("orders");
    assert!(orders["rows"].as_u64() > Some(30) && orders["checksum"].as_str().map(str::len) == Some(64));

    node.kill();
    std::fs::remove_dir_all(node.views()).expect("removed");
    node.start().await;
    let second = node.verify().await;
    assert_eq!((&second["position"], &second["views"]), (&first["position"], &first["views"]));
    history::append(&node.log, 40..41).await;
    node.kill();
    node.start().await;
    assert_ne!(node.verify().await["views"], first["views"], "another event, another checksum");
}

#[tokio::test(flavor = "multi_thread")]
async fn torn_files_of_a_store_are_noticed_or_healed_and_never_served_as_the_truth() {
    let mut node = Node::new(twelve_tests::partitions(), &["--snapshot-every-s", "0"]).await;
    history::append(&node.log, 0..60).await;
    let mut seed = 7;
    for round in 0..kills() / 2 {
        node.start().await;
        node.kill();
        let files = files(&node.views().join("generation-000001"));
        let files: Vec<_> =
            files.iter().filter(|file| file.metadata().is_ok_and(|data| data.len() > 0)).collect();
        let torn = files[usize::try_from(draw(&mut seed, 0..=files.len() as u64 - 1)).expect("small")];
        let mut bytes = std::fs::read(torn).expect("read");
        let at = usize::try_from(draw(&mut seed, 0..=bytes.len() as u64 - 1)).expect("small");
        if round % 2 == 0 {
            bytes.truncate(at);
        } else {
            let end = bytes.len().min(at + 512);
            bytes[at..end].fill(0xaa);
        }
        std::fs::write(torn, bytes).expect("written");
        node.start().await;
        let found = node.verify().await;
        if found["differences"] != 0 {
            let asked = json!({ "swap": false });
            node.operator.post("/admin/views/rebuild", &asked).await;
            node.job(|job| job["state"] == "ready").await;
            let swapped = json!({ "although_it_differs": true });
            assert_eq!(node.operator.post("/admin/views/swap", &swapped).await.status, 200);
            assert_eq!(node.verify().await["differences"], 0, "a rebuild heals");
        }
        node.kill();
        std::fs::remove_dir_all(node.views()).expect("removed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_does_not_read_sets_its_order_aside_where_that_is_wanted_and_all_others_go_on() {
    let mut node =
        Node::new(twelve_tests::partitions(), &["--snapshot-every-s", "0", "--unreadable", "set-aside"])
            .await;
    history::append(&node.log, 0..20).await;
    node.start().await;
    let stranger = OrderId::from_key("history", "3");
    let subject = format!("orders.{}.{stranger}", stranger.partition(twelve_tests::partitions()));
    let row = node.client.get(&format!("/orders/{stranger}")).await.body;
    let jetstream = jetstream(&node.server).await;
    let stored =
        jetstream.publish(subject, "no event at all".into()).await.expect("sent").await.expect("stored");
    let poison =
        Position { partition: stranger.partition(twelve_tests::partitions()), sequence: stored.sequence };
    history::append(&node.log, 20..30).await;
    let later = node.log.partition_info(poison.partition).await.expect("described").last_sequence;
    let later = Position { sequence: later, ..poison };
    assert_eq!(node.client.get(&format!("/orders?after={later}")).await.status, 200, "the others go on");
    let view = node.client.get("/views/orders").await.body;
    assert_eq!(view["set_aside"][0]["order_id"], json!(stranger), "{view}");
    assert_eq!(view["stopped"], Value::Null);
    assert_eq!(node.client.get(&format!("/orders/{stranger}")).await.body, row, "it stays as it was");
    assert_eq!(node.client.get("/readyz").await.status, 200);
    assert_eq!(node.verify().await["differences"], 0);
    assert_eq!(
        node.operator.post("/admin/views/snapshots", &json!({})).await.status,
        503,
        "not of such views"
    );
    node.kill();
    node.start().await;
    let view = node.client.get("/views/orders").await.body;
    assert_eq!(view["set_aside"][0]["position"], json!(poison.to_string()), "{view}");
}

async fn jetstream(server: &Server) -> async_nats::jetstream::Context {
    async_nats::jetstream::new(async_nats::connect(server.url()).await.expect("a server"))
}
