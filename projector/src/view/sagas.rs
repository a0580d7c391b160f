//! `sagas`: where each order stands, the step it waits for, and what was parked.

use std::sync::LazyLock;

use domain::{Flows, OrderId, OrderState, Timestamp, saga};
use nats::Stored;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{View, newest_first, order_key};

/// The flows by which the next step is told. Without them no row could name one, and the rest still holds.
static FLOWS: LazyLock<Option<Flows>> = LazyLock::new(|| Flows::shipped().ok());

pub struct Sagas;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    order_id: OrderId,
    state: OrderState,
    waiting_for: Option<String>,
    due: Option<Timestamp>,
    began_at: Timestamp,
    updated_at: Timestamp,
}

impl Row {
    /// Whether the saga has a step to take.
    pub const fn is_waiting(&self) -> bool {
        self.waiting_for.is_some()
    }

    /// Whether a step was refused for good.
    pub const fn is_parked(&self) -> bool {
        self.state.parked.is_some()
    }
}

impl View for Sagas {
    const NAME: &'static str = "sagas";
    type Row = Row;

    fn keys(event: &Stored) -> Vec<Vec<u8>> {
        vec![order_key(event.recorded.order_id)]
    }

    fn apply(_: &[u8], row: Option<Row>, event: &Stored) -> Option<Row> {
        let recorded = &event.recorded;
        let (before, began_at) = match row {
            Some(row) => (row.state, row.began_at),
            None => (OrderState::default(), recorded.time),
        };
        let state = before.evolve(recorded);
        let flow = state.flow.as_ref().and_then(|flow| FLOWS.as_ref()?.get(flow));
        let step = flow.and_then(|flow| saga::react(flow, &state));
        Some(Row {
            order_id: recorded.order_id,
            waiting_for: step.as_ref().map(|step| step.command.name().to_owned()),
            due: step.and_then(|step| step.not_before),
            state,
            began_at,
            updated_at: recorded.time,
        })
    }

    fn place(row: &Row) -> Option<Vec<u8>> {
        Some(newest_first(row.began_at, row.order_id))
    }

    fn show(row: &Row) -> Value {
        json!({
            "order_id": row.order_id,
            "flow": row.state.flow,
            "status": row.state.status(),
            "waiting_for": row.waiting_for,
            "due": row.due,
            "parked": row.state.parked,
            "began_at": row.began_at,
            "updated_at": row.updated_at,
        })
    }
}
