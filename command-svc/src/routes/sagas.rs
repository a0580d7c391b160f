//! `POST /sagas/{id}/resume`: an operator lets a parked order go on.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use domain::{Command, command::SagaCommand};
use service::Problem;

use super::{
    App,
    answer::{Given, accepted, failed},
    order_id,
};
use crate::body::{Body, nothing};

pub(super) async fn resume(
    State(app): State<App>,
    Path(id): Path<String>,
    given: Given,
    body: Body,
) -> Result<Response, Problem> {
    let order_id = order_id(&id)?;
    nothing(&body.value)?;
    let intent = given.intent(order_id, Command::Saga(SagaCommand::Resume), &body.bytes);
    let executed = app.executor.execute(intent).await.map_err(|error| failed(order_id, &error))?;
    Ok(accepted(app.executor.log(), order_id, &executed, StatusCode::OK))
}
