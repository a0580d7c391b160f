//! Orders whose saga waits for an operator: a step was refused for good, or the order cannot be read.

use domain::{
    Command, CommandId, Event, OrderId, OrderState, Refusal,
    command::SagaCommand,
    event::{SagaEvent, SagaParked},
};
use nats::{Broker, NewEvent};

use super::{RETRY_PAUSE_MIN, Runner, Taken};
use crate::execute::Intent;

impl<B: Broker> Runner<B> {
    /// Sets an order aside for an operator: a step was refused for good.
    pub(super) async fn park(
        &self,
        order_id: OrderId,
        state: &OrderState,
        step: &str,
        code: &str,
        detail: &str,
    ) {
        tracing::error!(%order_id, step, code, detail, "the saga is parked; correct the cause, then resume it");
        metrics::counter!("twelve_saga_parked_total", "step" => step.to_owned()).increment(1);
        let Some(newest) = state.newest else { return };
        let park = SagaCommand::Park { step: step.into(), code: code.into(), detail: detail.into() };
        let intent = Intent {
            order_id,
            command: Command::Saga(park),
            command_id: CommandId::from_step(newest.event_id, "park"),
            causation_id: Some(newest.event_id),
            expected: Some(state.sequence()),
            fingerprint: None,
            trace_parent: None,
        };
        if let Err(error) = self.executor.execute(intent).await {
            tracing::warn!(%order_id, error = %nats::causes(&error), "not parked yet; the step is tried again");
            tokio::time::sleep(RETRY_PAUSE_MIN).await;
        }
    }

    /// Parks an order that has more events than can be read, without reading it: it would be so at every try.
    pub(super) async fn park_unread(&self, order_id: OrderId) -> Taken {
        let not_now = |why| Taken::NotNow { step: "load", why };
        let newest = match self.executor.log().newest_event(order_id).await {
            Ok(Some(newest)) => newest.recorded,
            Ok(None) => return Taken::Nothing(0),
            Err(error) => return not_now(nats::causes(&error)),
        };
        let sequence = newest.position.sequence;
        if matches!(newest.event, Event::Saga(SagaEvent::SagaParked(_))) {
            return Taken::Nothing(sequence);
        }
        let (why, detail) = (Refusal::OrderTooLong.code(), "it has more events than can be read");
        tracing::error!(%order_id, detail, "the saga is parked");
        metrics::counter!("twelve_saga_parked_total", "step" => "load").increment(1);
        let parked = SagaParked { step: "load".into(), code: why.into(), detail: detail.into() };
        let new = NewEvent {
            event: parked.into(),
            command_id: CommandId::from_step(newest.event_id, "park"),
            causation_id: Some(newest.event_id),
            time: self.executor.log().now(),
            fingerprint: None,
            trace_parent: None,
        };
        match self.executor.log().append(order_id, sequence, &new).await {
            Ok(_) => Taken::One,
            Err(error) => not_now(nats::causes(&error)),
        }
    }
}
