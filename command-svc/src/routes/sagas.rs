//! `POST /sagas/{id}/resume`: an operator lets a parked order go on.

use axum::{
    extract::{Path, State},
    response::Response,
};
use domain::{Command, command::SagaCommand};
use service::Problem;

use super::{
    App,
    answer::{Given, perform},
};
use crate::body::{Body, nothing};

pub(super) async fn resume(
    State(app): State<App>,
    Path(id): Path<String>,
    given: Given,
    body: Body,
) -> Result<Response, Problem> {
    nothing(&body.value)?;
    perform(&app, &id, &given, &body, Command::Saga(SagaCommand::Resume)).await
}
