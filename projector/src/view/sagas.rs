//! `sagas`: where each order stands, the step it waits for, and what was parked.

use domain::{Flow, OrderId, OrderState, Timestamp, saga};
use nats::Stored;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{View, newest_first, order_key};

pub struct Sagas;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub state: OrderState,
    order_id: OrderId,
    began_at: Timestamp,
    updated_at: Timestamp,
}

impl Row {
    /// Whether a step was refused for good, or a deadline asks for an operator.
    pub const fn is_parked(&self) -> bool {
        self.state.parked.is_some()
    }

    /// The row with the step that it waits for. Which step that is, the order's flow says, and a flow is no part of
    /// the log; so it is told when the row is read.
    pub fn show_with(&self, flow: Option<&Flow>) -> Value {
        let step = flow.and_then(|flow| saga::react(flow, &self.state));
        let mut shown = Sagas::show(self);
        shown["waiting_for"] = json!(step.as_ref().map(|step| step.command.name()));
        shown["due"] = json!(step.and_then(|step| step.not_before));
        shown
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
        Some(Row { order_id: recorded.order_id, state, began_at, updated_at: recorded.time })
    }

    fn place(row: &Row) -> Option<Vec<u8>> {
        Some(newest_first(row.began_at, row.order_id))
    }

    fn show(row: &Row) -> Value {
        json!({
            "order_id": row.order_id,
            "flow": row.state.flow,
            "status": row.state.status(),
            "waiting_for": null,
            "due": null,
            "parked": row.state.parked,
            "began_at": row.began_at,
            "updated_at": row.updated_at,
        })
    }
}
