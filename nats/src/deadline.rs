//! Deadlines: a message that the server delivers at a given time, whichever of our processes live until then.
//!
//! One order waits for one thing, so it has at most one deadline set: a later one takes its place. What comes due is
//! merely a reason to look at the order again; whether anything is to be done, its story says.

use async_nats::{
    header::{NATS_SCHEDULE, NATS_SCHEDULE_TARGET},
    jetstream::message::PublishMessage,
};
use domain::{OrderId, Timestamp};

use crate::{connection::Connection, log::EventLog, subject};

/// Why a deadline was not set.
#[derive(Debug, thiserror::Error)]
#[error("the deadline of order {order_id} at {due} could not be set")]
pub struct DeadlineError {
    pub order_id: OrderId,
    pub due: Timestamp,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl EventLog {
    /// Has the order looked at again at `due`, to the second, or a little later.
    pub async fn set_deadline(&self, order_id: OrderId, due: Timestamp) -> Result<(), DeadlineError> {
        let failed = |source| DeadlineError { order_id, due, source };
        schedule(self.connection(), self.partitions(), order_id, due).await.map_err(failed)
    }
}

async fn schedule(
    connection: &Connection,
    partitions: u16,
    order_id: OrderId,
    due: Timestamp,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let partition = order_id.partition(partitions);
    let message = PublishMessage::build()
        .header(NATS_SCHEDULE, format!("@at {due}").as_str())
        .header(NATS_SCHEDULE_TARGET, subject::due(partition, order_id).as_str());
    let sent = connection.jetstream.send_publish(subject::deadline(partition, order_id), message).await?;
    sent.await?;
    Ok(())
}
