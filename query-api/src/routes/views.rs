//! `GET /views`: how far each view is, and whether it stands still.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use projector::view::NAMES;
use serde_json::{Value, json};
use service::Problem;

use super::App;
use crate::read::{Read, store_failed};

/// One view. All share a store, so position, generation and bytes are the store's.
async fn describe(app: &App, name: &str) -> Result<Value, Problem> {
    let bytes = app.views.bytes().map_err(|error| store_failed(&error))?;
    let mut positions = Vec::new();
    for position in app.views.positions() {
        let last = app.log.partition_info(position.partition).await.ok().map(|info| info.last_sequence);
        positions.push(json!({
            "position": position.to_string(),
            "lag_events": last.map(|last| last.saturating_sub(position.sequence)),
        }));
    }
    let stopped = app.views.health().stopped;
    Ok(json!({
        "name": name,
        "rows": app.views.rows(name).map_err(|error| store_failed(&error))?,
        "generation": app.views.generation(),
        "partitions": positions,
        "caught_up": app.views.has_caught_up(),
        "stopped": stopped,
        "store_bytes": bytes,
    }))
}

pub(super) async fn list(State(app): State<App>, read: Read) -> Result<Response, Problem> {
    read.finish()?;
    let mut items = Vec::new();
    for name in NAMES {
        items.push(describe(&app, name).await?);
    }
    Ok(read.answer_page(&app, &items, None))
}

pub(super) async fn one(
    State(app): State<App>,
    Path(name): Path<String>,
    read: Read,
) -> Result<Response, Problem> {
    read.finish()?;
    if !NAMES.contains(&name.as_str()) {
        let detail = format!("there is no such view; there are: {}", NAMES.join(", "));
        return Err(Problem::new(StatusCode::NOT_FOUND, "view_not_found", detail));
    }
    Ok(read.answer(&app, &describe(&app, &name).await?, None))
}
