//! `POST /sagas/{id}/resume`: an operator lets a parked order go on.

use axum::response::Response;
use domain::{Command, command::SagaCommand};
use service::Problem;

use super::answer::Call;
use crate::body::nothing;

/// The cause is mended.
pub(super) async fn resume(call: Call) -> Result<Response, Problem> {
    nothing(&call.body.value)?;
    call.perform(Command::Saga(SagaCommand::Resume)).await
}
