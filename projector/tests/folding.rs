//! However the log is cut into commits, the same views come of it.

use std::path::Path;

use domain::{Event, Flows, OrderId, Position, Recorded, Timestamp, event::StoreEvent, history};
use nats::{Stored, Undecodable, follow::Batch};
use projector::{
    Store, Unreadable, compare,
    fold::{Pace, Projection},
};

const PARTITIONS: u16 = 4;

/// A log of whole lives, an event of each in turn, by partition.
fn log(orders: u64) -> Vec<Stored> {
    let flows = Flows::shipped().expect("they read");
    let flows: Vec<_> = flows.iter().collect();
    let lives = (0..orders).zip(flows.iter().cycle()).map(|(number, declared)| {
        let began = Timestamp::from_second(i64::try_from(number).expect("small")).expect("a moment");
        history::life(declared, number, began).into_iter()
    });
    let mut lives: Vec<_> = lives.collect();
    let mut sequences = [0_u64; PARTITIONS as usize];
    let mut log = Vec::new();
    while !lives.is_empty() {
        lives.retain_mut(|life| {
            let next = life.next();
            log.extend(next.iter().map(|event| stored(event, &mut sequences)));
            next.is_some()
        });
    }
    log
}

fn stored(event: &Recorded, sequences: &mut [u64]) -> Stored {
    let partition = event.order_id.partition(PARTITIONS);
    let last = &mut sequences[usize::from(partition)];
    *last += 1;
    let position = Position { partition, sequence: *last };
    let mut data = Vec::new();
    event.event.serialize_data(&mut serde_json::Serializer::new(&mut data)).expect("it is JSON");
    let recorded = Recorded { position, ..event.clone() };
    Stored { recorded, data: data.into(), causation_id: None, trace_parent: None }
}

/// Folds the log in batches of `size`, with a commit after each; a new projection takes over after every third.
fn folded(folder: &Path, log: &[Stored], size: usize, pace: Pace) -> Store {
    let created = vec!["then".to_owned(); usize::from(PARTITIONS)];
    let store = Store::open(folder).expect("a store");
    let mut projection = Projection::resume(store.clone(), &created, pace).expect("it resumes");
    for (number, events) in log.chunks(size).enumerate() {
        for partition in 0..PARTITIONS {
            let ours = events.iter().filter(|event| event.recorded.position.partition == partition);
            let batch = Batch { partition, events: ours.cloned().map(Ok).collect(), pending: 0, upto: 0 };
            projection.fold(batch).expect("it folds");
        }
        projection.commit().expect("it commits");
        if number % 3 == 2 {
            projection.finish().expect("it is written");
            projection = Projection::resume(store.clone(), &created, pace).expect("it resumes");
        }
    }
    projection.finish().expect("it is written");
    store
}

#[test]
fn commits_of_any_size_ahead_of_the_checkpoint_or_not_lead_to_the_same_views() {
    let (log, folder) = (log(200), tempfile::tempdir().expect("a folder"));
    let small = Pace { rows_kept: 20, ..Pace::LIVE };
    let whole = folded(&folder.path().join("whole"), &log, log.len(), Pace::BULK);
    for (name, size, pace) in [("live", 7, small), ("bulk", 61, Pace { rows_kept: 20, ..Pace::BULK })] {
        let cut = folded(&folder.path().join(name), &log, size, pace);
        let found = compare::compare(&whole, &cut).expect("both read");
        assert_eq!(found.differences, 0, "{name}: {:?}", found.first.first());
        assert!(found.entries > 1_000);
        for view in projector::view::NAMES {
            let rows = |store: &Store| store.rows(view).expect("a count");
            assert_eq!(rows(&cut), rows(&whole), "{name}: rows of {view}");
            // At the end nothing is left to be picked up, and nothing is parked.
            let is_empty = ["open-deliveries", "parked-sagas"].contains(&view);
            assert_eq!(rows(&whole) == 0, is_empty, "{view}");
        }
    }
}

/// The log with each item under another name in every order, as customers' clients send them.
fn with_names_of_their_own(mut log: Vec<Stored>) -> Vec<Stored> {
    for event in &mut log {
        let order_id = event.recorded.order_id;
        if let Event::Store(StoreEvent::StoreOrderReceived(received)) = &mut event.recorded.event {
            for item in &mut received.items {
                item.name = format!("{} of {order_id}", item.name);
            }
        }
    }
    log
}

#[test]
fn partitions_that_come_in_any_order_lead_to_the_same_views() {
    let (log, folder) = (with_names_of_their_own(log(80)), tempfile::tempdir().expect("a folder"));
    let of = |partition| {
        let ours = log.iter().filter(move |event| event.recorded.position.partition == partition);
        ours.cloned().collect::<Vec<_>>()
    };
    let first_to_last: Vec<Stored> = (0..PARTITIONS).flat_map(of).collect();
    let last_to_first: Vec<Stored> = (0..PARTITIONS).rev().flat_map(of).collect();
    let as_they_came = folded(&folder.path().join("came"), &log, 7, Pace::LIVE);
    for (name, log) in [("first", first_to_last), ("last", last_to_first)] {
        let otherwise = folded(&folder.path().join(name), &log, 7, Pace::LIVE);
        let found = compare::compare(&as_they_came, &otherwise).expect("both read");
        assert_eq!(found.differences, 0, "{name}: {:?}", found.first.first());
    }
}

#[test]
fn a_build_that_was_interrupted_in_the_middle_of_a_commit_ends_as_if_it_had_not_been() {
    let (log, folder) = (log(120), tempfile::tempdir().expect("a folder"));
    let created = vec!["then".to_owned(); usize::from(PARTITIONS)];
    let whole = folded(&folder.path().join("whole"), &log, log.len(), Pace::LIVE);
    for written in (0..400).step_by(23) {
        let store = Store::open(&folder.path().join(written.to_string())).expect("a store");
        let mut projection = Projection::resume(store.clone(), &created, Pace::BULK).expect("it resumes");
        for (number, events) in log.chunks(log.len() / 4).enumerate() {
            for event in events {
                let partition = event.recorded.position.partition;
                let batch = Batch { partition, events: vec![Ok(event.clone())], pending: 0, upto: 0 };
                projection.fold(batch).expect("it folds");
            }
            if number == 2 {
                projection.interrupt(written).expect("it writes some");
                break;
            }
            projection.commit().expect("it commits");
        }
        drop((projection, store));
        // From the last checkpoint on, and with other commits than before.
        let resumed = folded(&folder.path().join(written.to_string()), &log, 50, Pace::BULK);
        let found = compare::compare(&whole, &resumed).expect("both read");
        assert_eq!(found.differences, 0, "{written} written: {:?}", found.first.first());
        for view in projector::view::NAMES {
            let rows = |store: &Store| store.rows(view).expect("a count");
            assert_eq!(rows(&resumed), rows(&whole), "{written} written: rows of {view}");
        }
    }
}

#[test]
fn an_order_that_was_set_aside_is_folded_whole_once_a_program_reads_it() {
    let (log, folder) = (log(60), tempfile::tempdir().expect("a folder"));
    let whole = folded(&folder.path().join("whole"), &log, 50, Pace::LIVE);
    let order_id = log[7].recorded.order_id;
    let events: Vec<Stored> =
        log.iter().filter(|event| event.recorded.order_id == order_id).cloned().collect();
    let poison = events[events.len() / 2].recorded.position;
    let created = vec!["then".to_owned(); usize::from(PARTITIONS)];
    let store = Store::open(&folder.path().join("mended")).expect("a store");
    let mut projection = Projection::resume(store.clone(), &created, Pace::LIVE).expect("it resumes");
    projection.set_unreadable(Unreadable::SetAside);
    for event in &log {
        let position = event.recorded.position;
        let undecodable = Undecodable {
            position,
            subject: String::new(),
            order_id: Some(order_id),
            reason: "not yet".into(),
        };
        let event = if position == poison { Err(undecodable) } else { Ok(event.clone()) };
        let batch = Batch { partition: position.partition, events: vec![event], pending: 0, upto: 0 };
        projection.fold(batch).expect("it folds");
    }
    projection.commit().expect("it commits");
    assert!(projection.stopped().is_empty());
    assert_ne!(compare::compare(&whole, &store).expect("both read").differences, 0, "it is not there");

    let mut projection = Projection::resume(store.clone(), &created, Pace::LIVE).expect("it resumes");
    assert_eq!(projection.set_aside()[&order_id].position, poison);
    projection.mend(order_id, &events).expect("it folds");
    assert!(store.set_aside().expect("it reads").is_empty());
    let found = compare::compare(&whole, &store).expect("both read");
    assert_eq!(found.differences, 0, "{:?}", found.first.first());
}

#[test]
fn orders_are_found_by_their_ids_wherever_they_lie() {
    let (log, folder) = (log(50), tempfile::tempdir().expect("a folder"));
    let store = folded(folder.path(), &log, 40, Pace::BULK);
    let ids: std::collections::BTreeSet<OrderId> = log.iter().map(|event| event.recorded.order_id).collect();
    for id in ids {
        let key = projector::view::order_key(id);
        let row = store.row(<projector::view::orders::Orders as projector::List>::ROWS, &key);
        assert!(row.expect("it reads").is_some(), "{id}");
    }
}
