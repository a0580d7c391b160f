//! `POST /orders/{id}/store/…`: the store.

use axum::{
    extract::{Path, State},
    response::Response,
};
use domain::{Command, store::StoreCommand};
use service::Problem;

use super::{
    App,
    answer::{Given, perform},
};
use crate::body::{Body, nothing, reason};

/// The store will make it.
pub(super) async fn accept(
    State(app): State<App>,
    Path(id): Path<String>,
    given: Given,
    body: Body,
) -> Result<Response, Problem> {
    nothing(&body.value)?;
    perform(&app, &id, &given, &body, Command::Store(StoreCommand::Accept)).await
}

/// The store will not make it.
pub(super) async fn reject(
    State(app): State<App>,
    Path(id): Path<String>,
    given: Given,
    body: Body,
) -> Result<Response, Problem> {
    let command = StoreCommand::Reject { reason: reason(&body.value)? };
    perform(&app, &id, &given, &body, Command::Store(command)).await
}

/// Cooking, or packing, begins.
pub(super) async fn start(
    State(app): State<App>,
    Path(id): Path<String>,
    given: Given,
    body: Body,
) -> Result<Response, Problem> {
    nothing(&body.value)?;
    perform(&app, &id, &given, &body, Command::Store(StoreCommand::Start)).await
}

/// Cooked, or packed.
pub(super) async fn finish(
    State(app): State<App>,
    Path(id): Path<String>,
    given: Given,
    body: Body,
) -> Result<Response, Problem> {
    nothing(&body.value)?;
    perform(&app, &id, &given, &body, Command::Store(StoreCommand::Finish)).await
}
