//! `GET /sagas` and `GET /sagas/{order_id}`: where orders stand and why.

use axum::{
    extract::{Path, State},
    response::Response,
};
use projector::{
    Page,
    view::{
        order_key,
        orders::Row,
        sagas::{ParkedSagas, Saga, Sagas},
    },
};
use service::{Caller, Problem};

use super::{App, order_id};
use crate::read::{Read, store_failed};

/// Rows that one page looks at, wanted or not, before it ends short.
const LOOKED_AT_MAX: usize = 2_000;

async fn show(app: &App, row: &Row) -> Saga {
    let flow = match &row.state.flow {
        Some(reference) => {
            app.flows.find(reference).await.map_err(|error| tracing::warn!(%error, "no step is told")).ok()
        }
        None => None,
    };
    Sagas::shown_with(row, flow.as_deref())
}

pub(super) async fn one(
    State(app): State<App>,
    Path(id): Path<String>,
    read: Read,
) -> Result<Response, Problem> {
    read.finish()?;
    let row = app.views.row::<Sagas>(&order_key(order_id(&id)?)).map_err(|error| store_failed(&error))?;
    let row = row.ok_or_else(Problem::order_not_found)?;
    Ok(read.answer(&app, &show(&app, &row).await, None))
}

pub(super) async fn list(State(app): State<App>, mut read: Read) -> Result<Response, Problem> {
    let paging = read.paging()?;
    let (waiting, parked) = (read.take_truth("waiting")?, read.take_truth("parked")?);
    read.finish()?;
    let (mut items, mut after, mut looked_at) = (Vec::new(), paging.after, 0);
    loop {
        let bounds = (paging.limit - items.len(), LOOKED_AT_MAX - looked_at);
        let page = some(&app, &read.caller, parked, after.as_deref(), bounds).await?;
        looked_at += page.looked_at;
        for row in &page.rows {
            let shown = show(&app, row).await;
            if waiting.is_none_or(|wanted| shown.waiting_for.is_some() == wanted) {
                items.push(shown);
            }
        }
        after = page.next;
        if after.is_none() || items.len() >= paging.limit || looked_at >= LOOKED_AT_MAX {
            break;
        }
    }
    Ok(read.answer_page(&app, &items, after.as_deref()))
}

/// Rows, of how many at most, and looked at how many at most.
struct Part {
    rows: Vec<Row>,
    next: Option<Vec<u8>>,
    looked_at: usize,
}

async fn some(
    app: &App,
    caller: &Caller,
    parked: Option<bool>,
    after: Option<&[u8]>,
    bounds: (usize, usize),
) -> Result<Part, Problem> {
    if parked == Some(true) {
        let page = app.list_within::<ParkedSagas>(caller, &[], after, bounds, |_| true).await?;
        let Page { rows, next, looked_at } = page.released();
        return Ok(Part { rows, next, looked_at });
    }
    let wanted = |row: &Row| parked.is_none() || !Sagas::is_parked(row);
    let page = app.list_within::<Sagas>(caller, &[], after, bounds, wanted).await?;
    let Page { rows, next, looked_at } = page.released();
    Ok(Part { rows, next, looked_at })
}
