//! `GET /sagas` and `GET /sagas/{order_id}`: where orders stand and why.

use axum::{
    extract::{Path, State},
    response::Response,
};
use projector::view::{View, sagas::Sagas};
use service::Problem;

use super::{App, order_id};
use crate::read::{Read, store_failed};

pub(super) async fn one(
    State(app): State<App>,
    Path(id): Path<String>,
    read: Read,
) -> Result<Response, Problem> {
    read.finish()?;
    let row = app.views.show::<Sagas>(order_id(&id)?).map_err(|error| store_failed(&error))?;
    Ok(read.answer(&app, &row.ok_or_else(Problem::order_not_found)?, None))
}

pub(super) async fn list(State(app): State<App>, mut read: Read) -> Result<Response, Problem> {
    let paging = read.paging()?;
    let (waiting, parked) = (read.take_truth("waiting")?, read.take_truth("parked")?);
    read.finish()?;
    let page = app.views.list::<Sagas>(&[], paging.after.as_deref(), paging.limit, |row| {
        waiting.is_none_or(|wanted| row.is_waiting() == wanted)
            && parked.is_none_or(|wanted| row.is_parked() == wanted)
    });
    let page = page.map_err(|error| store_failed(&error))?;
    Ok(read.answer_page(&app, &page.rows.iter().map(Sagas::show).collect::<Vec<_>>(), page.next.as_deref()))
}
