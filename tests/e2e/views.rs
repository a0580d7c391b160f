//! Views: they see what was written, they can be thrown away, and they say when they stand still.

use std::process::Command;

use domain::Position;
use projector::{Store, compare, generations};
use serde_json::{Value, json};
use twelve_tests::{
    Node, Platform, binary,
    client::{Answer, order},
    history, program,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_brings_the_position_of_a_command_sees_its_effect() {
    let platform = Platform::up().await;
    for number in 0..30 {
        let placed = platform.client.post("/orders", &order(&format!("customer-{number}"))).await;
        let position = placed.header("log-position").to_owned();
        let path = format!("/customers/customer-{number}/orders");
        let request = platform.client.request(reqwest::Method::GET, &path).header("Log-Position", &position);
        let mine = platform.client.send(request).await;
        assert_eq!(mine.body["items"][0]["order_id"], json!(placed.order_id()), "{position}");
        assert!(mine.header("view-position").contains(':') && mine.header("view-generation") == "1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_the_views_do_not_reach_is_said_honestly() {
    let platform = Platform::up().await;
    let id = platform.client.place(&order("gentleman")).await;
    platform.client.until_status(&id, "out_for_delivery").await;
    let end = stop_a_partition(&platform).await;
    let behind = platform.client.get(&format!("/orders?after={end}&wait=50")).await;
    assert_eq!((behind.status.as_u16(), behind.code()), (503, "view_behind"));
    assert!(behind.header("view-position").contains("0:") && !behind.header("retry-after").is_empty());
    for wrong in [
        "after=banana",
        "after=1:2:3",
        "wait=99999",
        "limit=0",
        "limit=201",
        "cursor=xyz",
        "colour=red",
        "as_of=0",
        "limit=1&limit=2",
    ] {
        let refused = platform.client.get(&format!("/orders?{wrong}")).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (400, "malformed"), "{wrong}");
    }
}

/// Stops the views of a partition before its last event, which this is.
async fn stop_a_partition(platform: &Platform) -> Position {
    let jetstream =
        async_nats::jetstream::new(async_nats::connect(platform.server.url()).await.expect("a server"));
    let stranger = domain::OrderId::from_key("test", "stranger");
    let partition = stranger.partition(twelve_tests::partitions());
    let subject = format!("orders.{partition}.{stranger}");
    let stored =
        jetstream.publish(subject, "no event at all".into()).await.expect("sent").await.expect("stored");
    Position { partition, sequence: stored.sequence }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_cannot_be_is_refused_wherever_it_is_given() {
    let platform = Platform::up().await;
    let client = &platform.client;
    let id = client.place(&order("gentleman")).await;
    let row = client.until_status(&id, "out_for_delivery").await;
    let real = row["position"].as_str().expect("a position").to_owned();
    let live = format!("/orders/{id}/live");
    let beyond = format!("{}:1", twelve_tests::partitions());
    for wrong in [beyond.as_str(), "0:999999", "65535:1"] {
        let after = client.get(&format!("/orders?after={wrong}&wait=50")).await;
        let header = client.request(reqwest::Method::GET, "/orders?wait=50").header("Log-Position", wrong);
        let second = client.request(reqwest::Method::GET, "/orders?wait=50");
        let second = second.header("Log-Position", &real).header("Log-Position", wrong);
        let mine = client.request(reqwest::Method::GET, "/customers/gentleman/orders/live");
        let mine = mine.header("Last-Event-ID", format!("{real}, {wrong}"));
        let one = client.request(reqwest::Method::GET, &live).header("Last-Event-ID", wrong);
        let as_of = client.get(&format!("/orders?as_of={wrong}")).await;
        let answers = [
            after,
            client.send(header).await,
            client.send(second).await,
            client.send(mine).await,
            client.send(one).await,
            as_of,
        ];
        for (place, answer) in answers.iter().enumerate() {
            let said = (answer.status.as_u16(), answer.code());
            assert_eq!(said, (400, "position_unknown"), "{wrong} at {place}: {answer:?}");
        }
    }
    let many = vec![real.as_str(); 65].join(",");
    let refused = client.get(&format!("/orders?after={many}")).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (400, "malformed"), "{refused:?}");
    assert_eq!(client.get(&format!("/orders?after={real},%20{real}")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_nothing_can_fit_and_a_cursor_of_another_query_are_refused() {
    let platform = Platform::up().await;
    let client = &platform.client;
    for _ in 0..3 {
        client.place(&order("gentleman")).await;
    }
    for (query, allowed) in [
        ("/orders?status=cancelled", "canceled"),
        ("/orders?channel=fax", "phone"),
        ("/stores/store-1/orders?state=ready", "prepared"),
    ] {
        let refused = client.get(query).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (422, "unknown_value"), "{query}");
        assert!(refused.body["detail"].as_str().is_some_and(|said| said.contains(allowed)), "{refused:?}");
    }
    let page = client.get("/orders?limit=1&channel=web").await.body;
    let cursor = page["next_cursor"].as_str().expect("there is more").to_owned();
    let next = client.get(&format!("/orders?limit=2&channel=web&cursor={cursor}")).await;
    assert_eq!(next.body["items"].as_array().map(Vec::len), Some(2), "another limit is the same query");
    let torn = &cursor[..cursor.len() - 2];
    for wrong in [
        format!("/payments?cursor={cursor}"),
        format!("/orders?cursor={cursor}"),
        format!("/orders?channel=phone&cursor={cursor}"),
        format!("/orders?channel=web&cursor={torn}"),
        format!("/notifications?cursor={cursor}"),
        format!("/customers/gentleman/orders?cursor={cursor}"),
    ] {
        let refused = client.get(&wrong).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (400, "malformed"), "{wrong}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_page_through_every_row_once_newest_first_and_filter() {
    let platform = Platform::up().await;
    let mut placed = Vec::new();
    for number in 0..7 {
        let mut body = order("gentleman");
        body["channel"] = json!(if number % 2 == 0 { "web" } else { "phone" });
        placed.push(platform.client.place(&body).await);
    }
    placed.reverse();
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = platform.client.get(&format!("/customers/gentleman/orders?limit=3{cursor}")).await;
        let items = page.body["items"].as_array().cloned().expect("rows");
        seen.extend(items.iter().filter_map(|row| row["order_id"].as_str()).map(ToOwned::to_owned));
        let Some(next) = page.body["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, placed);
    for view in ["orders", "mypage"] {
        let described = platform.client.get(&format!("/views/{view}")).await.body;
        assert_eq!(described["rows"], json!(7), "{described}");
    }
    let phone = platform.client.get("/orders?channel=phone").await;
    assert_eq!(phone.body["items"].as_array().map(Vec::len), Some(3));
    assert_eq!(platform.client.get("/orders?status=canceled").await.body["items"], json!([]));
    assert_eq!(
        platform.client.get("/customers/gentle/orders").await.body["items"],
        json!([]),
        "a prefix is nobody"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn views_that_are_rebuilt_from_the_log_are_equal_to_the_byte() {
    let mut platform = Platform::up().await;
    for number in 0..12 {
        let id = platform.client.place(&order(&format!("customer-{number}"))).await;
        platform.client.until_status(&id, "out_for_delivery").await;
        let act = if number % 3 == 0 { "cancel" } else { "delivery/complete" };
        let done = platform.client.post(&format!("/orders/{id}/{act}"), &json!({})).await;
        platform.client.order_after(&id, done.header("log-position")).await;
    }
    platform.stop().await;
    let data = platform.data.path().display().to_string();
    let run = |arguments: &[&str]| {
        let output = Command::new(binary("twelve"))
            .args(arguments)
            .args(["--data", &data, "--nats", platform.server.url()])
            .output();
        output.expect("twelve runs")
    };
    let rebuilt = run(&["views", "rebuild"]);
    assert!(rebuilt.status.success(), "{}", String::from_utf8_lossy(&rebuilt.stderr));
    assert!(String::from_utf8_lossy(&rebuilt.stdout).contains("generation 2"));
    let views = platform.data.path().join("views");
    {
        let (old, new) = (
            Store::open_generation(&views, 1).expect("old"),
            Store::open_generation(&views, 2).expect("new"),
        );
        assert!(new.contents().count() >= 12 * 3, "it has rows");
        assert_eq!(compare::compare(&old, &new).expect("comparable").differences, 0);
    }
    assert_eq!(generations::current(&views).expect("a number"), Some(2));
    platform.start().await;
    let rows = platform.client.get("/orders?limit=200").await;
    assert_eq!(rows.header("view-generation"), "2");
    assert_eq!(rows.body["items"].as_array().map(Vec::len), Some(12));
    let back = Command::new(binary("twelve")).args(["views", "rollback", "--data", &data]).output();
    let back = back.expect("it runs");
    let said = String::from_utf8_lossy(&[back.stdout, back.stderr].concat()).into_owned();
    assert_eq!(platform.client.get("/orders").await.header("view-generation"), "1", "the one before: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_says_that_there_is_no_generation_before_the_only_one() {
    let platform = Platform::up().await;
    let data = platform.data.path().display().to_string();
    let back = Command::new(binary("twelve")).args(["views", "rollback", "--data", &data]).output();
    let said = String::from_utf8(back.expect("it runs").stderr).expect("a text");
    assert!(said.contains("there is no generation to go back to"), "{said}");
    let status = Command::new(binary("twelve")).args(["views", "status", "--data", &data]).output();
    let status = status.expect("it runs");
    assert!(status.status.success(), "{status:?}");
    assert!(String::from_utf8_lossy(&status.stdout).contains("nothing was rebuilt"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn views_of_another_log_are_set_aside_and_built_anew() {
    let first = Platform::up().await;
    first.client.place(&order("gentleman")).await;
    let mut second = Platform::up().await;
    second.client.place(&order("somebody else")).await;
    second.stop().await;
    let views = second.data.path().join("views");
    std::fs::remove_dir_all(&views).expect("removed");
    let mut first = first;
    first.stop().await;
    let copied = Command::new("cp").arg("-r").arg(first.data.path().join("views")).arg(&views).status();
    assert!(copied.expect("cp runs").success());
    second.start().await;
    let orders = second.client.get("/orders").await;
    let customers: Vec<&Value> =
        orders.body["items"].as_array().expect("rows").iter().map(|row| &row["customer"]["id"]).collect();
    assert_eq!(customers, [&json!("somebody else")]);
    assert_eq!(orders.header("view-generation"), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_does_not_read_stops_the_views_there_and_is_never_skipped() {
    let platform = Platform::up().await;
    let id = platform.client.place(&order("gentleman")).await;
    platform.client.until_status(&id, "out_for_delivery").await;
    let jetstream =
        async_nats::jetstream::new(async_nats::connect(platform.server.url()).await.expect("a server"));
    let stranger = domain::OrderId::from_key("test", "stranger");
    let subject = format!("orders.{}.{stranger}", stranger.partition(twelve_tests::partitions()));
    jetstream.publish(subject, "no event at all".into()).await.expect("sent").await.expect("stored");
    let looking = async {
        loop {
            let view = platform.client.get("/views/orders").await;
            if let Some(why) = view.body["stopped"].as_str() {
                return why.to_owned();
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let why = tokio::time::timeout(twelve_tests::LIMIT, looking).await.expect("it says so");
    assert!(why.contains("Event-Type") || why.contains("Schema-Version"), "{why}");
    assert_eq!(platform.client.get("/readyz").await.status, 503);
    let placed = platform.client.post("/orders", &order("gentleman")).await;
    assert_eq!(placed.status, 201, "commands go on");
    let partition = stranger.partition(twelve_tests::partitions());
    let behind = format!("twelve_view_behind_events{{partition=\"{partition}\"}}");
    let behind = platform.client.metric(&behind).await;
    assert!(
        behind.is_some_and(|events| events >= 1.0),
        "what is stopped is behind, and no event comes: {behind:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_readers_who_wait_for_positions_of_every_partition_all_get_their_answer() {
    let platform = Platform::up_with(&["--waits-each-max", "1000"]).await;
    let client = &platform.client;
    client.place(&order("gentleman")).await;
    let now = client.get("/orders").await;
    let ahead: Vec<(u64, u64)> = positions(now.header("view-position"))
        .map(|(partition, sequence)| (partition, sequence + 6))
        .collect();
    assert_eq!(ahead.len(), usize::from(twelve_tests::partitions()));
    let waiting = futures::future::join_all((0..1_000).map(|reader| {
        let (partition, sequence) = ahead[reader % ahead.len()];
        async move {
            let answer =
                client.get(&format!("/orders?limit=1&after={partition}:{sequence}&wait=10000")).await;
            let mut seen = positions(answer.header("view-position"));
            let is_there = seen.any(|(at, is)| at == partition && is >= sequence);
            (answer.status.as_u16(), is_there)
        }
    }));
    let placing = async {
        let body = order("gentleman");
        let place = async |number: u32| client.place_at_last(&body, &number.to_string()).await;
        futures::future::join_all((0..60).map(place)).await
    };
    let (answers, _) = tokio::join!(waiting, placing);
    assert!(
        answers.iter().all(|answer| *answer == (200, true)),
        "{:?}",
        answers.iter().find(|answer| **answer != (200, true))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_readers_who_wait_while_the_node_is_killed_get_their_answer_from_its_successor() {
    let mut node =
        Node::new(twelve_tests::partitions(), &["--snapshot-every-s", "0", "--waits-each-max", "1000"]).await;
    history::append(&node.log, 0..20).await;
    node.start().await;
    let now = node.client.get("/orders").await;
    let ahead: Vec<(u64, u64)> = positions(now.header("view-position"))
        .map(|(partition, sequence)| (partition, sequence + 1))
        .collect();
    let waiting: Vec<_> = (0..1_000)
        .map(|reader| {
            let (client, (partition, sequence)) = (node.client.clone(), ahead[reader % ahead.len()]);
            tokio::spawn(async move {
                let path = format!("/orders?limit=1&after={partition}:{sequence}&wait=10000");
                // As any caller would: again, where the connection broke, the node says that it is behind, or there is
                // no such event yet.
                loop {
                    let asked = client.try_send(client.request(reqwest::Method::GET, &path)).await;
                    let is_there = |answer: &Answer| ![503, 400].contains(&answer.status.as_u16());
                    let Some(answer) = asked.filter(is_there) else {
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                        continue;
                    };
                    let mut seen = positions(answer.header("view-position"));
                    let is_there = seen.any(|(at, is)| at == partition && is >= sequence);
                    return (answer.status.as_u16(), is_there);
                }
            })
        })
        .collect();
    let all_wait = async {
        while node.client.metric("twelve_view_waiters").await != Some(1_000.0) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(twelve_tests::LIMIT, all_wait).await.expect("all of them wait");
    node.kill();
    node.start().await;
    history::append(&node.log, 20..120).await;
    for answer in waiting {
        let answered = tokio::time::timeout(twelve_tests::LIMIT, answer).await.expect("in time");
        assert_eq!(answered.expect("no panic"), (200, true));
    }
}

/// Partitions and sequences of a `View-Position`.
fn positions(header: &str) -> impl Iterator<Item = (u64, u64)> {
    let number = |text: &str| text.parse().expect("a number");
    let pairs = header.split(',').filter_map(|position| position.split_once(':'));
    pairs.map(move |(partition, sequence)| (number(partition), number(sequence)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_only_looks_makes_nothing_where_the_data_or_the_server_is_mistyped() {
    let folder = tempfile::tempdir().expect("a folder");
    let typo = folder.path().join("typo");
    let data = typo.display().to_string();
    let run = |arguments: &[&str]| {
        let output =
            Command::new(binary("twelve")).arg("views").args(arguments).output().expect("twelve runs");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), said)
    };
    let commands: [&[&str]; 11] = [
        &["rebuild"],
        &["rebuild", "--view", "food-counts"],
        &["rebuild", "--until", "0:1"],
        &["compare", "1", "2"],
        &["verify"],
        &["swap"],
        &["rollback"],
        &["cancel"],
        &["status"],
        &["snapshot"],
        &["snapshots"],
    ];
    for command in commands {
        let arguments = [&command[..1], &["--data", &data], &command[1..]].concat();
        let (fine, said) = run(&arguments);
        assert!(!fine && said.contains("typo"), "{command:?}: {said}");
        assert!(!typo.exists(), "{command:?} made it");
    }
    let server = twelve_tests::Server::start().await;
    let (fine, said) = run(&["rebuild", "--data", &data, "--nats", server.url()]);
    assert!(!fine && said.contains("ORDERS-0 is missing"), "{said}");
    let jetstream = async_nats::jetstream::new(async_nats::connect(server.url()).await.expect("connected"));
    let absent = jetstream.get_stream("ORDERS-0").await;
    assert!(absent.is_err() && !typo.join("views").join("current").exists(), "nothing was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_are_about_a_log_make_none_where_the_data_or_the_server_is_mistyped() {
    let folder = tempfile::tempdir().expect("a folder");
    let typo = folder.path().join("typo");
    let (data, ledger) = (typo.display().to_string(), folder.path().join("ledger.db"));
    let (ledger, views) = (format!("sqlite:{}", ledger.display()), typo.join("views").display().to_string());
    let server = twelve_tests::Server::start().await;
    let run = |name: &str, arguments: &[&str]| {
        let output = program(name).args(arguments).output().expect("it runs");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), said)
    };
    let archive = ["archive", "--old-orders", "archive"];
    let commands: [&[&str]; 4] = [
        &archive,
        &[&archive[..], &["--dry-run"]].concat(),
        &[&archive[..], &["--verify"]].concat(),
        &["ledger", "follow", "--ledger", &ledger],
    ];
    for command in commands {
        let (fine, said) = run("twelve", &[command, &["--data", &data]].concat());
        assert!(!fine && said.contains("there is no log in") && said.contains("typo"), "{command:?}: {said}");
        assert!(!typo.exists(), "{command:?} made it");
        let (fine, said) = run("twelve", &[command, &["--data", &data, "--nats", server.url()]].concat());
        assert!(!fine && said.contains(server.url()), "{command:?}: {said}");
        assert!(said.contains("ORDERS-0 is missing; run: twelve nats setup"), "{command:?}: {said}");
    }
    let (fine, said) = run("projector", &["--views", &views, "--nats", server.url(), "rebuild"]);
    assert!(!fine && said.contains(server.url()) && said.contains("ORDERS-0 is missing"), "{said}");
    let (fine, said) = run("projector", &["--views", &views, "compare", "1", "2"]);
    assert!(!fine && said.contains("no two such generations") && said.contains("typo"), "{said}");
    let jetstream = async_nats::jetstream::new(async_nats::connect(server.url()).await.expect("connected"));
    let streams: Vec<_> = futures::StreamExt::collect(jetstream.stream_names()).await;
    assert!(streams.is_empty() && !typo.exists(), "nothing was made: {streams:?}");
}
