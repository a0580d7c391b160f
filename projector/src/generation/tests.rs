//! A generation that takes the place of a frozen one, with a store of its own and nothing between its threads and the
//! test.

use std::sync::atomic::AtomicU64;

use domain::{Flows, Position, Recorded, Timestamp, history};
use nats::follow::PartitionInfo;

use super::*;
use crate::store::Store;

/// Slow enough that a swap comes between two events.
const EVENTS_PER_SECOND: u64 = 50;
const LIMIT: Duration = Duration::from_secs(20);

/// The events of some orders, one after the other on one partition.
fn events() -> Vec<Event> {
    let flows = Flows::shipped().expect("they read");
    let lives = (0_u8..).zip(flows.iter()).map(|(number, declared)| {
        let began = Timestamp::from_second(i64::from(number)).expect("a moment");
        history::life(declared, number.into(), began)
    });
    let stored = |(sequence, event): (u64, Recorded)| {
        let mut data = Vec::new();
        event.event.serialize_data(&mut serde_json::Serializer::new(&mut data)).expect("it is JSON");
        let position = Position { partition: 0, sequence };
        let recorded = Recorded { position, ..event };
        Ok(Stored { recorded, data: data.into(), causation_id: None, trace_parent: None })
    };
    (1..).zip(lives.flatten()).map(stored).collect()
}

fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < LIMIT, "{what}");
        sleep(IDLE_PAUSE);
    }
}

#[test]
fn what_was_folded_when_a_generation_takes_over_a_frozen_one_is_written() {
    let (folder, events) = (tempfile::tempdir().expect("a folder"), events());
    let last = events.len() as u64;
    let info =
        PartitionInfo { last_sequence: last, first_sequence: 1, events: last, created: "then".to_owned() };
    let open = |generation, pace| {
        let store = Store::open_generation(folder.path(), generation).expect("a store");
        Projection::resume(store, &["then".to_owned()], pace).expect("it resumes")
    };
    let frozen = open(1, Pace::LIVE);
    frozen.store().redefine("an older definition").expect("written");
    let views = Views::over(&frozen, folder.path(), &[info]);
    let projection = open(2, Pace::BULK);
    let (work, store) = (Work::Rebuild { swap: true, only: None }, projection.store().clone());
    let job = Job::new(work, Some(store), vec![AtomicU64::new(0)], (last, EVENTS_PER_SECOND), true);
    let job = Arc::new(job);
    let (sink, batches) = mpsc::channel(1);
    sink.try_send(Batch { partition: 0, events, pending: 0, upto: last }).expect("there is room");
    let worker = Worker::building(views.clone(), projection, Arc::clone(&job));
    let building = std::thread::spawn(move || worker.build_to_its_end(batches));

    wait_for("it folds", || job.events.load(Ordering::Relaxed) > 1);
    job.set_state(State::Swapping);
    wait_for("it is ready to be seen", || job.is_presentable.load(Ordering::Acquire));
    let gate = views.hold();
    views.serve(&job, &gate).expect("it serves");
    drop(gate);
    let worker = building.join().expect("no panic").expect("it serves");
    let reached = views.applied(0);
    assert!(reached > 1 && reached < last, "the swap came in between: {reached} of {last}");
    let at = |checkpoint: Option<&crate::store::Checkpoint>| checkpoint.map(|at| at.sequence);
    let stored = worker.projection.store().checkpoint(0).expect("it reads");
    assert_eq!(at(stored.as_ref()), Some(reached), "readers see what is written");
    assert_eq!(at(worker.projection.checkpoints().first()), Some(reached), "and nothing waits to be written");
    drop(sink);
}
