//! `POST /orders/{id}/review`: the customer is heard, once.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use domain::{Command, review::ReviewCommand};
use service::Problem;

use super::{
    App,
    answer::{Given, accepted, execute},
};
use crate::body::{Body, review};

pub(super) async fn write(
    State(app): State<App>,
    Path(id): Path<String>,
    given: Given,
    body: Body,
) -> Result<Response, Problem> {
    let command = Command::Review(ReviewCommand::Write(review(&body.value)?));
    let (order_id, executed) = execute(&app, &id, &given, &body, command).await?;
    Ok(accepted(app.executor.log(), order_id, &executed, StatusCode::CREATED))
}
