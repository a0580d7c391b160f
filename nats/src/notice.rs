//! Notices: "this order's customer is to be told something", for whoever tells customers.
//!
//! A notice carries no text: what is to be told, the order's story says. So one notice an order is enough, and a later
//! one takes the place of one that still waits.

use async_nats::HeaderMap;
use bytes::Bytes;
use domain::OrderId;

use crate::{
    broker::{Broker, Message, Unpublished},
    log::EventLog,
    subject,
};

/// Why a notice was not given.
#[derive(Debug, thiserror::Error)]
#[error("the notice for the customer of order {order_id} could not be given")]
pub struct NoticeError {
    pub order_id: OrderId,
    source: Unpublished,
}

impl<B: Broker> EventLog<B> {
    /// Has the order's customer told what they were not told yet.
    pub async fn give_notice(&self, order_id: OrderId) -> Result<(), NoticeError> {
        let subject = subject::notice(order_id.partition(self.partitions()), order_id);
        let message = Message { subject, headers: HeaderMap::new(), body: Bytes::new(), expected: None };
        let given = self.broker.publish(message).await;
        given.map(drop).map_err(|source| NoticeError { order_id, source })
    }
}
