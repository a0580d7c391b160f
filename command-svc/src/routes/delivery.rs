//! `POST /orders/{id}/delivery/…` and `/return/…`: riders and the delivery team.

use axum::response::Response;
use domain::{Command, Refusal, delivery::DeliveryCommand};
use service::Problem;

use super::answer::{Call, refused};
use crate::body::{nothing, rider};

/// A rider takes it.
pub(super) async fn pick_up(call: Call) -> Result<Response, Problem> {
    let command = DeliveryCommand::PickUp { rider_id: rider(&call.body.value)? };
    call.perform(Command::Delivery(command)).await
}

/// The goods leave.
pub(super) async fn start(call: Call) -> Result<Response, Problem> {
    nothing(&call.body.value)?;
    call.perform(Command::Delivery(DeliveryCommand::Start)).await
}

/// The goods arrived.
pub(super) async fn complete(call: Call) -> Result<Response, Problem> {
    nothing(&call.body.value)?;
    call.perform(Command::Delivery(DeliveryCommand::Complete)).await
}

/// The goods stay, where the flow lets the delivery decide that; the order is canceled with it.
pub(super) async fn cancel(call: Call) -> Result<Response, Problem> {
    nothing(&call.body.value)?;
    call.permit(|person, order| person.may(&Command::Delivery(DeliveryCommand::Cancel), order)).await?;
    let order_id = call.order_id()?;
    let by_consent = call.app.checkout().is_canceled_by_consent(order_id).await;
    if !by_consent.map_err(|error| call.failed(order_id, &error))? {
        return Err(refused(Refusal::NotInFlow));
    }
    call.perform(Command::Delivery(DeliveryCommand::Cancel)).await
}

/// What the customer gives back is fetched.
pub(super) async fn start_return(call: Call) -> Result<Response, Problem> {
    nothing(&call.body.value)?;
    call.perform(Command::Delivery(DeliveryCommand::StartReturn)).await
}

/// It is back.
pub(super) async fn complete_return(call: Call) -> Result<Response, Problem> {
    nothing(&call.body.value)?;
    call.perform(Command::Delivery(DeliveryCommand::CompleteReturn)).await
}
