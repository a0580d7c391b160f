//! Logs with a past: whole lives of orders of all flows, decided by the domain itself.

use domain::{CommandId, EventId, Flows, OrderId, Timestamp, event::SagaParked, history};
use nats::{Connection, Durability, EventLog, bench, topology::Topology};

use crate::Server;

/// Orders under way at a time.
const OPEN_ORDERS: usize = 100;
/// The first order's moment: 2026-01-01.
const BEGAN_S: i64 = 1_767_225_600;

/// Enough for the order to be placed.
const EVENTS_BEFORE_PARKED: usize = 3;

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

/// Appends an order of this number that was parked before it came far.
pub async fn append_parked(log: &EventLog, number: u64) -> OrderId {
    let flows = Flows::shipped().expect("they read");
    let declared = flows.iter().next().expect("one");
    let began = Timestamp::from_second(BEGAN_S + i64::try_from(number).expect("small")).expect("a moment");
    let mut life = history::life(declared, number, began);
    life.truncate(EVENTS_BEFORE_PARKED);
    let mut parked = life.last().cloned().expect("it began");
    let order_id = parked.order_id;
    parked.position.sequence += 1;
    parked.command_id = CommandId::from_key("history", order_id, "parked");
    let (step, code, detail) = ("issue_coupon".into(), "coupon_canceled".into(), String::new());
    parked.event = SagaParked { step, code, detail }.into();
    parked.event_id = EventId::from_command(parked.command_id, parked.event.type_name());
    life.push(parked);
    bench::load(log, std::iter::once(life), OPEN_ORDERS, |_| {}).await.expect("appended");
    order_id
}
