//! `sagas`: where each order stands, the step it waits for, and what was parked.

use domain::{Flow, saga};
use serde_json::{Value, json};

use crate::rows::Rows;

use super::{
    List, listed,
    orders::{self, Orders},
};

pub struct Sagas;

impl Sagas {
    /// The row with the step that it waits for. Which step that is, the order's flow says, and a flow is no part of
    /// the log; so it is told when the row is read.
    pub fn show_with(row: &orders::Row, flow: Option<&Flow>) -> Value {
        let step = flow.and_then(|flow| saga::react(flow, &row.state));
        let mut shown = Self::show(row);
        shown["waiting_for"] = json!(step.as_ref().map(|step| step.command.name()));
        shown["due"] = json!(step.and_then(|step| step.not_before));
        shown
    }

    /// Whether a step was refused for good, or a deadline asks for an operator.
    pub const fn is_parked(row: &orders::Row) -> bool {
        row.state.parked.is_some()
    }
}

impl List for Sagas {
    const NAME: &'static str = "sagas";
    const ROWS: Rows = Orders::ROWS;
    const IS_ROWS: bool = true;
    type Row = orders::Row;

    fn place(_: &orders::Row) -> Option<Vec<u8>> {
        Some(listed())
    }

    fn show(row: &orders::Row) -> Value {
        json!({
            "order_id": row.order_id,
            "flow": row.state.flow,
            "status": row.state.status(),
            "waiting_for": null,
            "due": null,
            "parked": row.state.parked,
            "began_at": row.began_at(),
            "updated_at": row.updated_at(),
        })
    }
}
