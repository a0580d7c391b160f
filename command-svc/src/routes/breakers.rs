//! `GET /breakers` and `POST /breakers/{call}`: operators see the circuit breakers of this process, and hold them.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use domain::access::Role;
use serde::Deserialize;
use serde_json::{Value, json};
use service::{Caller, Problem};

use super::App;
use crate::{
    body::Body,
    breaker::{Hold, Shown},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    hold: Option<Hold>,
}

fn permit(caller: &Caller) -> Result<(), Problem> {
    caller.permit(|person| person.is(Role::Operator))
}

pub(super) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Value>, Problem> {
    permit(&caller)?;
    Ok(Json(json!({ "items": app.breakers.show() })))
}

/// `{"hold": "open"}`, `{"hold": "closed"}`, or `{"hold": null}`: it goes by its calls again.
pub(super) async fn hold(
    State(app): State<App>,
    Path(call): Path<String>,
    caller: Caller,
    body: Body,
) -> Result<Json<Shown>, Problem> {
    permit(&caller)?;
    let asked: Asked =
        serde_json::from_value(body.value).map_err(|error| Problem::malformed(error.to_string()))?;
    let missing = || {
        Problem::new(StatusCode::NOT_FOUND, "breaker_not_found", "there is no such breaker in this process")
    };
    app.breakers.hold(&call, asked.hold).map(Json).ok_or_else(missing)
}
