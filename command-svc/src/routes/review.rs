//! `POST /orders/{id}/review`: the customer is heard, once.

use axum::{http::StatusCode, response::Response};
use domain::Command;
use service::Problem;

use super::answer::Call;
use crate::body::review;

/// What the customer thinks of it.
pub(super) async fn write(call: Call) -> Result<Response, Problem> {
    let command = Command::Review(review(&call.body.value)?);
    call.answer(&call.execute(command).await?, StatusCode::CREATED)
}
