//! `GET /breakers` and `POST /breakers/{call}`: operators see the circuit breakers of this process, and hold them.

use axum::{
    Json,
    extract::{Path, State},
};
use domain::access::Role;
use schemars::JsonSchema;
use serde::Serialize;
use service::{Caller, Code, Problem};

use super::App;
use crate::{
    body::{Body, shape::HoldBreaker},
    breaker::Shown,
};

/// The breakers of one process.
#[derive(Serialize, JsonSchema)]
pub(crate) struct BreakerList {
    items: Vec<Shown>,
}

fn permit(caller: &Caller) -> Result<(), Problem> {
    caller.permit(|person| person.is(Role::Operator))
}

pub(super) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<BreakerList>, Problem> {
    permit(&caller)?;
    Ok(Json(BreakerList { items: app.breakers.show() }))
}

/// `{"hold": "open"}`, `{"hold": "closed"}`, or `{"hold": null}`: it goes by its calls again.
pub(super) async fn hold(
    State(app): State<App>,
    Path(call): Path<String>,
    caller: Caller,
    body: Body,
) -> Result<Json<Shown>, Problem> {
    permit(&caller)?;
    let asked: HoldBreaker =
        serde_json::from_value(body.value).map_err(|error| Problem::malformed(error.to_string()))?;
    let missing = || Problem::new(Code::BreakerNotFound, "there is no such breaker in this process");
    app.breakers.hold(&call, asked.hold).map(Json).ok_or_else(missing)
}
