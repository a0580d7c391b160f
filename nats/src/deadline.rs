//! Deadlines: a message that the server delivers at a given time, whichever of our processes live until then.
//!
//! One order waits for one thing, so it has at most one deadline set: a later one takes its place. What comes due is
//! merely a reason to look at the order again; whether anything is to be done, its story says. It says which deadline
//! it is, so that one which the server's clock has reached is told from one that is still to be set.

use async_nats::{
    HeaderMap,
    header::{NATS_SCHEDULE, NATS_SCHEDULE_TARGET},
};
use bytes::Bytes;
use domain::{OrderId, Timestamp};

use crate::{
    broker::{Broker, Message, Unpublished},
    header::Header,
    log::EventLog,
    subject,
};

/// Which deadline a message is for; the server hands it on with what it delivers.
static DUE: Header = Header::new("Due");

/// The deadline that a delivered message is for; `None`: it does not say.
pub fn due_in(headers: &HeaderMap) -> Option<Timestamp> {
    headers.get(DUE.name()).and_then(|due| due.as_str().parse().ok())
}

/// Why a deadline was not set.
#[derive(Debug, thiserror::Error)]
#[error("the deadline of order {order_id} at {due} could not be set")]
pub struct DeadlineError {
    pub order_id: OrderId,
    pub due: Timestamp,
    source: Unpublished,
}

impl<B: Broker> EventLog<B> {
    /// Has the order looked at again at `due`, to the second, or a little later.
    pub async fn set_deadline(&self, order_id: OrderId, due: Timestamp) -> Result<(), DeadlineError> {
        let partition = order_id.partition(self.partitions());
        let mut headers = HeaderMap::new();
        headers.insert(NATS_SCHEDULE, format!("@at {due}"));
        headers.insert(NATS_SCHEDULE_TARGET, subject::due(partition, order_id));
        headers.insert(DUE.name(), due.to_string());
        let subject = subject::deadline(partition, order_id);
        let message = Message { subject, headers, body: Bytes::new(), expected: None };
        let set = self.broker.publish(message).await;
        set.map(drop).map_err(|source| DeadlineError { order_id, due, source })
    }
}
