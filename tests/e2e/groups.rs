//! Group commit on a real server: shared syncs, the loser of a conflict alone, all of a batch or nothing.

use std::collections::BTreeMap;

use domain::{
    CommandId, OrderId,
    event::{PaymentRequested, SagaResumed},
};
use futures::future::join_all;
use nats::{
    AppendError, Connection, Durability, EventLog, NewEvent, connection::SERVER_TIMEOUT, log::Appended,
    topology::Topology,
};
use serde_json::json;
use tokio::time::timeout;
use twelve_tests::Server;

async fn open(server: &Server) -> EventLog {
    let connection = Connection::open(server.url(), "test").await.expect("the server answers");
    let topology = Topology { partitions: 1, ..Topology::default() };
    EventLog::open(connection, topology, Durability::Fsync).await.expect("the log")
}

fn first(order_id: OrderId) -> NewEvent {
    let request: PaymentRequested = serde_json::from_value(json!({
        "flow": { "name": "marketplace", "version": "v" }, "customer_id": "c", "method": "card",
        "amount": { "amount": 1, "currency": "KRW" },
    }))
    .expect("a request");
    new(order_id, request.into())
}

fn new(order_id: OrderId, event: domain::Event) -> NewEvent {
    let command_id = CommandId::from_key("test", order_id, event.type_name());
    NewEvent {
        event,
        command_id,
        causation_id: None,
        time: nats::now(),
        fingerprint: None,
        trace_parent: None,
    }
}

fn order(name: impl std::fmt::Display) -> OrderId {
    OrderId::from_key("test", &name.to_string())
}

/// The batches in the log, by their ids: the numbers of their messages in order, and whether the last one closes it.
async fn batches(server: &Server) -> (u64, BTreeMap<String, (Vec<u64>, bool)>) {
    let client = async_nats::connect(server.url()).await.expect("connected");
    let mut stream = async_nats::jetstream::new(client).get_stream("ORDERS-0").await.expect("the partition");
    let last = stream.info().await.expect("described").state.last_sequence;
    let mut batches: BTreeMap<String, (Vec<u64>, bool)> = BTreeMap::new();
    for sequence in 1..=last {
        let message = stream.get_raw_message(sequence).await.expect("an event");
        let text = |name: &str| message.headers.get(name).map(ToString::to_string);
        let Some(id) = text("Nats-Batch-Id") else { continue };
        let (numbers, is_closed) = batches.entry(id).or_default();
        numbers.push(text("Nats-Batch-Sequence").and_then(|number| number.parse().ok()).expect("a number"));
        *is_closed = text("Nats-Batch-Commit").is_some();
    }
    (last, batches)
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_that_wait_at_the_same_time_are_written_together_and_each_is_told_its_own_sequence() {
    let server = Server::start().await;
    let log = open(&server).await;
    let append = async |number: u32| {
        let id = order(number);
        (id, log.append(id, 0, &first(id)).await.expect("stored").into_stored())
    };
    let stored = join_all((0..600).map(append)).await;
    for (id, stored) in &stored {
        let story = log.load(*id, 0).await.expect("read");
        assert_eq!(story.len(), 1);
        assert_eq!(story[0].recorded.position, stored.recorded.position, "{id}");
    }
    let (last, batches) = batches(&server).await;
    assert_eq!(last, 600, "each once");
    let together: usize = batches.values().map(|(numbers, _)| numbers.len()).sum();
    assert!(together > 300, "{together} were written in batches");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_group_the_one_whose_story_moved_on_loses_alone() {
    let server = Server::start().await;
    let log = open(&server).await;
    let moved = order("moved");
    log.append(moved, 0, &first(moved)).await.expect("stored");
    let stale = new(moved, SagaResumed {}.into());
    let good = join_all((0..200).map(async |number: u32| {
        let id = order(number);
        log.append(id, 0, &first(id)).await
    }));
    let (good, lost) = tokio::join!(good, log.append(moved, 0, &stale));
    assert!(good.iter().all(|appended| matches!(appended, Ok(Appended::New(_)))), "all others are stored");
    assert!(matches!(lost, Err(AppendError::Conflict { .. })), "{lost:?}");
    assert_eq!(log.load(moved, 0).await.expect("read").len(), 1, "and nothing of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_in_the_middle_of_batches_has_all_of_each_or_nothing_and_all_that_was_acknowledged()
 {
    let mut server = Server::start().await;
    let log = open(&server).await;
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        let placing = {
            let log = log.clone();
            tokio::spawn(async move {
                let append = async |number: u32| {
                    let id = order(format_args!("{round}-{number}"));
                    (id, log.append(id, 0, &first(id)).await.is_ok())
                };
                join_all((0..400).map(append)).await
            })
        };
        // Somewhere in the middle: at another moment in each round.
        tokio::time::sleep(std::time::Duration::from_millis(3 + 9 * round)).await;
        server.kill();
        server.restart().await;
        // Nobody waits for an answer of the server that is gone, and keeps those behind them waiting.
        let placed = timeout(SERVER_TIMEOUT / 2, placing).await.expect("soon").expect("no panic");
        acknowledged.extend(placed.into_iter().filter(|(_, is_stored)| *is_stored).map(|(id, _)| id));
    }
    for id in &acknowledged {
        assert_eq!(log.load(*id, 0).await.expect("read").len(), 1, "{id} was acknowledged");
    }
    let (last, batches) = batches(&server).await;
    assert!(last >= acknowledged.len() as u64);
    for (id, (numbers, is_closed)) in batches {
        let whole: Vec<u64> = (1..=numbers.len() as u64).collect();
        assert!(is_closed && numbers == whole, "batch {id} is there in part: {numbers:?}");
    }
}
