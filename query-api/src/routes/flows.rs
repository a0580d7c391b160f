//! `GET /flows`: how orders travel, as data.

use axum::{
    extract::{Path, State},
    response::Response,
};
use domain::{Flows, flow::Declared};
use service::{Code, Problem};

use super::App;
use crate::{answers::DeclaredFlow, read::Read};

fn describe(flows: &Flows, declared: &Declared) -> DeclaredFlow {
    DeclaredFlow {
        name: declared.reference.name.clone(),
        version: declared.reference.version.clone(),
        flow: (*declared.flow).clone(),
        diagram: flows.diagram(&declared.reference).as_deref().unwrap_or_default().to_owned(),
    }
}

pub(super) async fn list(State(app): State<App>, read: Read) -> Result<Response, Problem> {
    read.finish()?;
    let flows = app.flows.offered();
    let items: Vec<DeclaredFlow> = flows.iter().map(|declared| describe(flows, declared)).collect();
    Ok(read.answer_page(&app, &items, None))
}

pub(super) async fn one(
    State(app): State<App>,
    Path(name): Path<String>,
    read: Read,
) -> Result<Response, Problem> {
    read.finish()?;
    let missing = || Problem::new(Code::FlowNotFound, "there is no such flow");
    let declared = app.flows.offered().newest(&name).ok_or_else(missing)?;
    Ok(read.answer(&app, &describe(app.flows.offered(), declared), None))
}
