//! Work queues that are never empty.
//!
//! nats-server 2.15.1 does not know any more, after a power cut, how far a stream went that was empty. Where that
//! befalls all replicas of a stream, each waits to be told by another, and it has no leader again (ADR 24). So in each
//! work queue lies a message that nobody is ever handed.

use async_nats::HeaderMap;
use bytes::Bytes;

use crate::{
    broker::{Broker, Failure, Message, Unpublished},
    log::EventLog,
    subject,
};

impl<B: Broker> EventLog<B> {
    /// Leaves a message in each work queue, where there is none yet.
    pub async fn keep_queues(&self) -> Result<(), Failure> {
        for subject in subject::KEEPERS {
            let (headers, body) = (HeaderMap::new(), Bytes::new());
            let message = Message { subject: subject.into(), headers, body, expected: Some(0) };
            match self.broker.publish(message).await {
                Ok(_) | Err(Unpublished::Conflict { .. }) => {}
                Err(error @ (Unpublished::Unanswered(_) | Unpublished::Refused(_))) => {
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }
}
