//! `POST /orders/{id}/store/…`: the store.

use axum::response::Response;
use domain::{Command, store::StoreCommand};
use service::Problem;

use super::answer::Call;
use crate::body::{nothing, reason};

/// The store will make it.
pub(super) async fn accept(call: Call) -> Result<Response, Problem> {
    nothing(&call.body.value)?;
    call.perform(Command::Store(StoreCommand::Accept)).await
}

/// The store will not make it.
pub(super) async fn reject(call: Call) -> Result<Response, Problem> {
    let command = StoreCommand::Reject { reason: reason(&call.body.value)? };
    call.perform(Command::Store(command)).await
}

/// Cooking, or packing, begins.
pub(super) async fn start(call: Call) -> Result<Response, Problem> {
    nothing(&call.body.value)?;
    call.perform(Command::Store(StoreCommand::Start)).await
}

/// Cooked, or packed.
pub(super) async fn finish(call: Call) -> Result<Response, Problem> {
    nothing(&call.body.value)?;
    call.perform(Command::Store(StoreCommand::Finish)).await
}
