//! Logs with a past: whole lives of orders of all flows, decided by the domain itself.

use domain::{Flows, Timestamp, history};
use nats::{Connection, Durability, EventLog, bench, topology::Topology};

use crate::Server;

/// Orders under way at a time.
const OPEN_ORDERS: usize = 100;
/// The first order's moment: 2026-01-01.
const BEGAN_S: i64 = 1_767_225_600;

/// The log of a server.
pub async fn log(server: &Server, partitions: u16) -> EventLog {
    log_like(server, Topology { partitions, ..Topology::default() }).await
}

/// The log of a server, as it is declared.
pub async fn log_like(server: &Server, topology: Topology) -> EventLog {
    let connection = Connection::open(server.url(), "test-history").await.expect("a connection");
    EventLog::open(connection, topology, Durability::Memory).await.expect("a log")
}

/// Appends the lives of the orders of these numbers; answers with how many events that were.
pub async fn append(log: &EventLog, orders: impl IntoIterator<Item = u64>) -> u64 {
    let flows = Flows::shipped().expect("they read");
    let flows: Vec<_> = flows.iter().cloned().collect();
    let lives = orders.into_iter().map(move |number| {
        let began = BEGAN_S + i64::try_from(number).expect("small");
        let declared = &flows[usize::try_from(number).expect("small") % flows.len()];
        history::life(declared, number, Timestamp::from_second(began).expect("a moment"))
    });
    bench::load(log, lives, OPEN_ORDERS, |_| {}).await.expect("appended")
}
