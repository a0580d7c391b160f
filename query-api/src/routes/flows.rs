//! `GET /flows`: how orders travel, as data.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, PoisonError},
};

use axum::{
    extract::{Path, State},
    response::Response,
};
use domain::{explore::explore, flow::Declared};
use service::{Code, Problem};

use super::App;
use crate::{answers::DeclaredFlow, read::Read};

/// The diagrams drawn so far, by flow version: drawing one walks the whole flow.
static DRAWN: LazyLock<Mutex<HashMap<String, String>>> = LazyLock::new(Mutex::default);

fn diagram(declared: &Declared) -> String {
    let mut drawn = DRAWN.lock().unwrap_or_else(PoisonError::into_inner);
    let draw = || explore(&declared.flow, &declared.reference).diagram();
    drawn.entry(declared.reference.version.clone()).or_insert_with(draw).clone()
}

async fn describe(declared: Declared) -> DeclaredFlow {
    let drawing = declared.clone();
    let diagram = tokio::task::spawn_blocking(move || diagram(&drawing)).await.unwrap_or_default();
    DeclaredFlow {
        name: declared.reference.name,
        version: declared.reference.version,
        flow: (*declared.flow).clone(),
        diagram,
    }
}

pub(super) async fn list(State(app): State<App>, read: Read) -> Result<Response, Problem> {
    read.finish()?;
    let mut items = Vec::new();
    for declared in app.flows.offered().iter().cloned() {
        items.push(describe(declared).await);
    }
    Ok(read.answer_page(&app, &items, None))
}

pub(super) async fn one(
    State(app): State<App>,
    Path(name): Path<String>,
    read: Read,
) -> Result<Response, Problem> {
    read.finish()?;
    let missing = || Problem::new(Code::FlowNotFound, "there is no such flow");
    let declared = app.flows.offered().newest(&name).cloned().ok_or_else(missing)?;
    Ok(read.answer(&app, &describe(declared).await, None))
}
