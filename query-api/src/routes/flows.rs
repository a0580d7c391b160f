//! `GET /flows`: how orders travel, as data.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use serde_json::{Value, json};
use service::Problem;

use super::App;
use crate::read::Read;

fn describe(app: &App, name: &str) -> Option<Value> {
    let (reference, flow) = app.flows.newest(name)?;
    let diagram = domain::explore::explore(flow, reference).diagram();
    Some(json!({ "name": reference.name, "version": reference.version, "flow": **flow, "diagram": diagram }))
}

pub(super) async fn list(State(app): State<App>, read: Read) -> Result<Response, Problem> {
    read.finish()?;
    let items: Vec<Value> = app.flows.names().filter_map(|name| describe(&app, name)).collect();
    Ok(read.answer_page(&app, &items, None))
}

pub(super) async fn one(
    State(app): State<App>,
    Path(name): Path<String>,
    read: Read,
) -> Result<Response, Problem> {
    read.finish()?;
    let missing = || Problem::new(StatusCode::NOT_FOUND, "flow_not_found", "there is no such flow");
    Ok(read.answer(&app, &describe(&app, &name).ok_or_else(missing)?, None))
}
