//! Notices: "this order's customer is to be told something", for whoever tells customers.
//!
//! A notice carries no text: what is to be told, the order's story says. So one notice an order is enough, and a later
//! one takes the place of one that still waits.

use async_nats::jetstream::message::PublishMessage;
use domain::OrderId;

use crate::{log::EventLog, subject};

/// Why a notice was not given.
#[derive(Debug, thiserror::Error)]
#[error("the notice for the customer of order {order_id} could not be given")]
pub struct NoticeError {
    pub order_id: OrderId,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl EventLog {
    /// Has the order's customer told what they were not told yet.
    pub async fn give_notice(&self, order_id: OrderId) -> Result<(), NoticeError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| NoticeError { order_id, source };
        let subject = subject::notice(order_id.partition(self.partitions()), order_id);
        let sent = self.connection().jetstream.send_publish(subject, PublishMessage::build()).await;
        sent.map_err(|error| failed(Box::new(error)))?.await.map_err(|error| failed(Box::new(error)))?;
        Ok(())
    }
}
