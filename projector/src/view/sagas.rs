//! `sagas`: where each order stands, the step it waits for, and what was parked.

use domain::{Flow, OrderId, Status, Timestamp, event::SagaParked, flow::FlowRef, saga};
use schemars::JsonSchema;
use serde::Serialize;

use crate::rows::Rows;

use super::{
    List, listed, newest_first,
    orders::{self, Orders},
};

pub struct Sagas;

/// Where an order stands.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Saga {
    order_id: OrderId,
    flow: Option<FlowRef>,
    status: Status,
    /// The step that comes next, which may be due later.
    pub waiting_for: Option<String>,
    due: Option<Timestamp>,
    /// Why it waits for an operator, if it does.
    parked: Option<SagaParked>,
    began_at: Option<Timestamp>,
    updated_at: Option<Timestamp>,
}

impl Sagas {
    /// The row with the step that it waits for. Which step that is, the order's flow says, and a flow is no part of
    /// the log; so it is told when the row is read.
    pub fn shown_with(row: &orders::Row, flow: Option<&Flow>) -> Saga {
        let step = flow.and_then(|flow| saga::react(flow, &row.state));
        let waiting_for = step.as_ref().map(|step| step.command.name().to_owned());
        Saga { waiting_for, due: step.and_then(|step| step.not_before), ..Self::shown(row) }
    }

    /// Whether a step was refused for good, or a deadline asks for an operator.
    pub const fn is_parked(row: &orders::Row) -> bool {
        row.state.parked.is_some()
    }
}

/// The orders of [`Sagas`] that are parked: few, and found without looking at all others.
pub struct ParkedSagas;

impl List for ParkedSagas {
    const NAME: &'static str = "parked-sagas";
    const ROWS: Rows = Orders::ROWS;
    type Row = orders::Row;

    fn place(row: &orders::Row) -> Option<Vec<u8>> {
        Sagas::is_parked(row).then(|| newest_first(row.began_at().unwrap_or_default(), row.order_id))
    }

    type Shown = Saga;

    fn shown(row: &orders::Row) -> Saga {
        Sagas::shown(row)
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

    type Shown = Saga;

    fn shown(row: &orders::Row) -> Saga {
        Saga {
            order_id: row.order_id,
            flow: row.state.flow.clone(),
            status: row.state.status(),
            waiting_for: None,
            due: None,
            parked: row.state.parked.clone(),
            began_at: row.began_at(),
            updated_at: row.updated_at(),
        }
    }
}
