//! Group commit on a real server: shared syncs, the loser of a conflict alone, all of a batch or nothing.

use domain::{OrderId, event::SagaResumed};
use futures::future::join_all;
use nats::{
    AppendError, Connection, Durability, EventLog, connection::SERVER_TIMEOUT, log::Appended,
    topology::Topology,
};
use tokio::time::timeout;
use twelve_tests::{
    Server,
    log::{Stored, event, requested},
};

async fn open(server: &Server) -> EventLog {
    let connection = Connection::open(server.url(), "test").await.expect("the server answers");
    let topology = Topology { partitions: 1, ..Topology::default() };
    EventLog::open(connection, topology, Durability::Fsync).await.expect("the log")
}

fn order(name: impl std::fmt::Display) -> OrderId {
    OrderId::from_key("test", &name.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_that_wait_at_the_same_time_are_written_together_and_each_is_told_its_own_sequence() {
    let server = Server::start().await;
    let log = open(&server).await;
    let append = async |number: u32| {
        let id = order(number);
        (id, log.append(id, 0, &requested(id, "request")).await.expect("stored").into_stored())
    };
    let stored = join_all((0..600).map(append)).await;
    for (id, stored) in &stored {
        let story = log.load(*id, 0).await.expect("read");
        assert_eq!(story.len(), 1);
        assert_eq!(story[0].recorded.position, stored.recorded.position, "{id}");
    }
    let on_log = Stored::at(server.url()).await;
    let last = on_log.sequences.values().flatten().max();
    assert_eq!((on_log.sequences.len(), last), (600, Some(&600)), "each once");
    assert!(on_log.together() > 300, "{} were written in batches", on_log.together());
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_group_the_one_whose_story_moved_on_loses_alone() {
    let server = Server::start().await;
    let log = open(&server).await;
    let moved = order("moved");
    log.append(moved, 0, &requested(moved, "request")).await.expect("stored");
    let stale = event(moved, "resume", SagaResumed {}.into());
    let good = join_all((0..200).map(async |number: u32| {
        let id = order(number);
        log.append(id, 0, &requested(id, "request")).await
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
                    (id, log.append(id, 0, &requested(id, "request")).await.is_ok())
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
    let on_log = Stored::at(server.url()).await;
    assert!(on_log.sequences.len() >= acknowledged.len());
    assert_eq!(on_log.torn(), Vec::<String>::new());
}
