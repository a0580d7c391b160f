//! `POST /orders/{id}/delivery/…`: riders and the delivery team.

use axum::{
    extract::{Path, State},
    response::Response,
};
use domain::{Command, delivery::DeliveryCommand};
use service::Problem;

use super::{
    App,
    answer::{Given, perform},
};
use crate::body::{Body, nothing, rider};

/// A rider takes it.
pub(super) async fn pick_up(
    State(app): State<App>,
    Path(id): Path<String>,
    given: Given,
    body: Body,
) -> Result<Response, Problem> {
    let command = DeliveryCommand::PickUp { rider_id: rider(&body.value)? };
    perform(&app, &id, &given, &body, Command::Delivery(command)).await
}

/// The goods leave.
pub(super) async fn start(
    State(app): State<App>,
    Path(id): Path<String>,
    given: Given,
    body: Body,
) -> Result<Response, Problem> {
    nothing(&body.value)?;
    perform(&app, &id, &given, &body, Command::Delivery(DeliveryCommand::Start)).await
}

/// The goods arrived.
pub(super) async fn complete(
    State(app): State<App>,
    Path(id): Path<String>,
    given: Given,
    body: Body,
) -> Result<Response, Problem> {
    nothing(&body.value)?;
    perform(&app, &id, &given, &body, Command::Delivery(DeliveryCommand::Complete)).await
}

/// What the customer gives back is fetched.
pub(super) async fn start_return(
    State(app): State<App>,
    Path(id): Path<String>,
    given: Given,
    body: Body,
) -> Result<Response, Problem> {
    nothing(&body.value)?;
    perform(&app, &id, &given, &body, Command::Delivery(DeliveryCommand::StartReturn)).await
}

/// It is back.
pub(super) async fn complete_return(
    State(app): State<App>,
    Path(id): Path<String>,
    given: Given,
    body: Body,
) -> Result<Response, Problem> {
    nothing(&body.value)?;
    perform(&app, &id, &given, &body, Command::Delivery(DeliveryCommand::CompleteReturn)).await
}
