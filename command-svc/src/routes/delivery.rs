//! `POST /orders/{id}/delivery/…`: the delivery team.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use domain::{Command, delivery::DeliveryCommand};
use service::Problem;

use super::{
    App,
    answer::{Given, accepted, failed},
    order_id,
};
use crate::body::{Body, nothing};

/// The goods leave.
pub(super) async fn start(
    app: State<App>,
    path: Path<String>,
    given: Given,
    body: Body,
) -> Result<Response, Problem> {
    command(app, path, given, body, DeliveryCommand::Start).await
}

/// The goods arrived.
pub(super) async fn complete(
    app: State<App>,
    path: Path<String>,
    given: Given,
    body: Body,
) -> Result<Response, Problem> {
    command(app, path, given, body, DeliveryCommand::Complete).await
}

async fn command(
    State(app): State<App>,
    Path(id): Path<String>,
    given: Given,
    body: Body,
    command: DeliveryCommand,
) -> Result<Response, Problem> {
    let order_id = order_id(&id)?;
    nothing(&body.value)?;
    let intent = given.intent(order_id, Command::Delivery(command), &body.bytes);
    let executed = app.executor.execute(intent).await.map_err(|error| failed(order_id, &error))?;
    Ok(accepted(app.executor.log(), order_id, &executed, StatusCode::OK))
}
