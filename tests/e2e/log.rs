//! The log on the server, as it is declared.

use domain::{Command, OrderId, event::PaymentEvent};
use nats::{
    AppendError, Connection, Durability, EventLog,
    topology::{Streams, Topology},
    worklist::{List, Worklist},
};
use serde_json::Value;
use twelve_tests::{Platform, Server, client::order, log::requested};

/// Long enough for a worker to join a list some times.
const JOINS: std::time::Duration = std::time::Duration::from_secs(1);

async fn raw(server: &Server) -> async_nats::jetstream::Context {
    async_nats::jetstream::new(async_nats::connect(server.url()).await.expect("the server answers"))
}

async fn open(server: &Server, partitions: u16) -> Result<EventLog, nats::TopologyError> {
    let connection = Connection::open(server.url(), "test").await.expect("the server answers");
    EventLog::open(connection, Topology { partitions, ..Topology::default() }, Durability::Fsync).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_of_an_order_is_one_message_on_its_one_subject_with_short_headers() {
    let platform = Platform::up().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = platform.client.request(reqwest::Method::POST, "/orders").header("traceparent", trace);
    let placed = platform.client.send(request.json(&order("gentleman"))).await;
    assert_eq!(placed.header("traceparent"), trace);
    let id = placed.order_id();
    platform.client.order_after(&id, placed.header("log-position")).await;
    platform.client.until_status(&id, "out_for_delivery").await;
    let (partition, _) = placed.header("log-position").split_once(':').expect("a position");
    let jetstream = raw(&platform.server).await;
    let stream = jetstream.get_stream(format!("ORDERS-{partition}")).await.expect("the partition");
    for sequence in 1..=6 {
        let message = stream.get_raw_message(sequence).await.expect("one message an event");
        assert_eq!(message.subject.as_str(), format!("orders.{partition}.{id}"));
        assert!(serde_json::from_slice::<Value>(&message.payload).is_ok_and(|data| data.is_object()));
        for name in ["Event-Type", "Context", "Event-Id", "Schema-Version", "Time", "Command-Id"] {
            assert!(message.headers.get(name).is_some(), "{name}");
        }
        assert_eq!(
            message.headers.get("traceparent").map(async_nats::HeaderValue::as_str),
            Some(trace),
            "one trace all the way"
        );
        assert_eq!(message.headers.get("Causation-Id").is_some(), sequence > 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_cannot_be_deleted_from_nor_purged_and_forgets_nothing_by_itself() {
    let server = Server::start().await;
    let log = open(&server, 4).await.expect("a log");
    let id = OrderId::from_key("test", "1");
    log.append(id, 0, &requested(id, "a")).await.expect("stored");
    let jetstream = raw(&server).await;
    for partition in 0..4 {
        let mut stream = jetstream.get_stream(format!("ORDERS-{partition}")).await.expect("four partitions");
        let config = stream.info().await.expect("described").config.clone();
        assert!(
            config.deny_delete && config.deny_purge && config.allow_direct && !config.allow_message_schedules
        );
        assert_eq!(config.discard, async_nats::jetstream::stream::DiscardPolicy::New);
        assert!(config.max_bytes > 0 && config.max_age.is_zero());
        assert_eq!(config.metadata.get("twelve-partitions").map(String::as_str), Some("4"));
        assert!(stream.purge().await.is_err() && stream.delete_message(1).await.is_err());
    }
    let other = open(&server, 8).await.err().expect("another number of partitions is refused");
    assert!(other.to_string().contains("--partitions 4"), "{other}");
    assert!(open(&server, 2).await.is_err(), "fewer, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_work_queue_that_is_missing_is_made_where_the_log_is_declared_so_and_only_there() {
    let server = Server::start().await;
    let log = open(&server, 1).await.expect("a log");
    for (streams, are_missing) in [(Streams::Verify, true), (Streams::Make, false)] {
        let connection = Connection::open(server.url(), "test").await.expect("the server answers");
        let topology = Topology { partitions: 1, streams, ..Topology::default() };
        let declared = EventLog::look(connection, topology, Durability::Fsync);
        let mut worklist = Worklist::new(&declared, 0, List::Saga);
        // It is joined again and again.
        let worked = tokio::time::timeout(JOINS, worklist.next()).await;
        assert!(worked.is_err(), "there is no work");
        let faults = log.queue_faults(&[List::Saga]).await.expect("described");
        assert_eq!(!faults.is_empty(), are_missing, "{streams:?}: {faults:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_on_an_old_story_is_refused_and_names_how_far_the_story_is() {
    let server = Server::start().await;
    let log = open(&server, 4).await.expect("a log");
    let id = OrderId::from_key("test", "1");
    let first = log.append(id, 0, &requested(id, "first")).await.expect("stored").into_stored();
    let conflict = log.append(id, 0, &requested(id, "second")).await.expect_err("a conflict");
    let AppendError::Conflict { last } = conflict else { panic!("{conflict}") };
    assert_eq!(last, Some(first.recorded.position.sequence));
    let again = log.append(id, 0, &requested(id, "first")).await;
    let again = again.expect("its own event is found, not appended twice").into_stored();
    assert_eq!(again.recorded.position, first.recorded.position);
    assert_eq!(log.load(id, 0).await.expect("a story").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_that_was_lost_is_found_by_reading_the_order_back() {
    let server = Server::start().await;
    let log = open(&server, 4).await.expect("a log");
    let id = OrderId::from_key("test", "1");
    server.freeze();
    let appending = tokio::spawn({
        let log = log.clone();
        async move { log.append(id, 0, &requested(id, "frozen")).await }
    });
    // Longer than the server may take: the client gives up waiting, and the message is stored all the same.
    tokio::time::sleep(nats::connection::SERVER_TIMEOUT + std::time::Duration::from_millis(500)).await;
    server.thaw();
    let appended = appending.await.expect("no panic");
    let stored = appended.expect("stored, though the acknowledgement came too late").into_stored();
    let story = log.load(id, 0).await.expect("a story");
    assert_eq!(story.len(), 1);
    assert_eq!(story[0].recorded.position, stored.recorded.position);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_server_that_is_too_old_is_refused_by_its_version() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.expect("a client");
        let greeting = format!(
            "INFO {{\"server_id\":\"x\",\"server_name\":\"old\",\"version\":\"2.14.5\",\"go\":\"go1\",\"host\":\"127.0.0.1\",\"port\":{},\"max_payload\":1048576,\"proto\":1,\"headers\":true}}\r\n",
            address.port()
        );
        stream.write_all(greeting.as_bytes()).await.expect("sent");
        let mut buffer = [0; 4096];
        while let Ok(count) = stream.read(&mut buffer).await {
            if count == 0 {
                break;
            }
            stream.write_all(b"PONG\r\n").await.ok();
        }
    });
    let refused = Connection::open(&format!("nats://{address}"), "test").await.err().expect("refused");
    assert!(refused.to_string().contains("2.14.5") && refused.to_string().contains("2.15"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_was_left_unpaid_by_a_crash_is_given_up_and_the_money_goes_back() {
    let platform = Platform::up().await;
    // What a crash right after the intent leaves behind, an hour ago.
    let connection = Connection::open(platform.server.url(), "test").await.expect("the server answers");
    let topology = Topology { partitions: twelve_tests::partitions(), ..Topology::default() };
    let log = EventLog::open(connection, topology, Durability::Fsync).await.expect("the log");
    let id = OrderId::from_key("test", "left");
    let flow = platform.client.get("/flows/marketplace").await.body["version"].clone();
    let mut event = requested(id, "left");
    if let domain::Event::Payment(PaymentEvent::PaymentRequested(request)) = &mut event.event {
        request.flow.version = flow.as_str().expect("a version").to_owned();
    }
    event.time = domain::Timestamp::UNIX_EPOCH;
    log.append(id, 0, &event).await.expect("stored");
    let looking = async {
        loop {
            let rows = platform.client.get(&format!("/payments?order_id={id}")).await;
            if rows.body["items"][0]["status"] == "canceled" {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(twelve_tests::LIMIT, looking).await.expect("given up");
    assert_eq!(
        platform.client.event_types(&id.to_string()).await,
        ["PaymentRequested", "OrderExpired", "PaymentCanceled"]
    );
    assert_eq!(platform.client.get(&format!("/orders/{id}")).await.status, 404);
    assert_eq!(Command::ReturnPayment.name(), "return_payment");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_acknowledged_is_in_the_story_at_once_however_many_write() {
    let server = Server::start().await;
    let log = open(&server, 4).await.expect("a log");
    let writing = (0..64).map(|writer| {
        let log = log.clone();
        tokio::spawn(async move {
            let mut missing = 0;
            for number in 0..40 {
                let id = OrderId::from_key("test", &format!("{writer}-{number}"));
                for step in ["a", "b"] {
                    let sequence = log
                        .load(id, 0)
                        .await
                        .expect("a story")
                        .last()
                        .map_or(0, |last| last.recorded.position.sequence);
                    let appended = log.append(id, sequence, &requested(id, step)).await.expect("stored");
                    let stored = appended.into_stored();
                    let story = log.load(id, 0).await.expect("a story");
                    missing += u32::from(
                        story.last().map(|last| last.recorded.position) != Some(stored.recorded.position),
                    );
                }
            }
            missing
        })
    });
    let missing: u32 =
        futures::future::join_all(writing).await.into_iter().map(|missing| missing.expect("no panic")).sum();
    assert_eq!(missing, 0);
}
