//! `GET /views`: how far each view is, and whether it stands still.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use projector::view::NAMES;
use serde_json::{Map, Value, json};
use service::Problem;

use super::App;
use crate::read::{Read, store_failed};

/// What all views share, because they share a store: positions, lag, generation, bytes.
async fn shared(app: &App) -> Result<Map<String, Value>, Problem> {
    let bytes = app.views.bytes().map_err(|error| store_failed(&error))?;
    let mut partitions = Vec::new();
    for position in app.views.positions() {
        let last = app.log.partition_info(position.partition).await.ok().map(|info| info.last_sequence);
        partitions.push(json!({
            "position": position.to_string(),
            "lag_events": last.map(|last| last.saturating_sub(position.sequence)),
        }));
    }
    let shared = [
        ("generation", json!(app.views.generation())),
        ("partitions", json!(partitions)),
        ("caught_up", json!(app.views.has_caught_up())),
        ("stopped", json!(app.views.health().stopped)),
        ("set_aside", json!(app.views.health().set_aside)),
        ("quarantined", json!(app.views.health().quarantine)),
        ("store_bytes", json!(bytes)),
    ];
    Ok(shared.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn describe(app: &App, name: &str, shared: &Map<String, Value>) -> Result<Value, Problem> {
    let rows = app.views.rows(name).map_err(|error| store_failed(&error))?;
    let mut view = Map::from_iter([("name".to_owned(), json!(name)), ("rows".to_owned(), json!(rows))]);
    view.extend(shared.clone());
    Ok(Value::Object(view))
}

pub(super) async fn list(State(app): State<App>, read: Read) -> Result<Response, Problem> {
    read.finish()?;
    let shared = shared(&app).await?;
    let items: Result<Vec<Value>, Problem> = NAMES.iter().map(|name| describe(&app, name, &shared)).collect();
    Ok(read.answer_page(&app, &items?, None))
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
    let shared = shared(&app).await?;
    Ok(read.answer(&app, &describe(&app, &name, &shared)?, None))
}
