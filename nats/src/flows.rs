//! The flows that orders follow, each version kept for as long as there is a log: an order that was placed under an
//! older version, or by a process that knew a flow of its own, is carried on by any process.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use async_nats::jetstream::{self, ErrorCode, message::PublishMessage};
use domain::{
    Flow, FlowRef, Flows,
    flow::{Declared, FlowError},
};

use crate::{connection::Connection, log::EventLog, subject};

/// Why a flow is not at hand.
#[derive(Debug, thiserror::Error)]
pub enum FlowBookError {
    #[error("flow {} ({}) is kept nowhere: it was placed by hands that did not keep it", .0.name, .0.version)]
    Unknown(FlowRef),
    #[error("flow {} ({}) was kept, and does not read", .flow.name, .flow.version)]
    Unreadable { flow: FlowRef, source: FlowError },
    #[error("the log did not answer when it was asked for flow {} ({})", .flow.name, .flow.version)]
    Unavailable { flow: FlowRef, source: Box<dyn std::error::Error + Send + Sync> },
}

/// The flows a process knows; clones share them.
#[derive(Clone)]
pub struct FlowBook {
    connection: Connection,
    offered: Arc<Flows>,
    known: Arc<RwLock<BTreeMap<FlowRef, Arc<Flow>>>>,
}

impl FlowBook {
    /// Opens the book of a log, for a process that offers some flows.
    pub fn new(log: &EventLog, offered: Flows) -> Self {
        let known = offered.iter().map(|declared| (declared.reference.clone(), Arc::clone(&declared.flow)));
        let known = Arc::new(RwLock::new(known.collect()));
        Self { connection: log.connection().clone(), offered: Arc::new(offered), known }
    }

    /// The flows that new orders can follow.
    pub fn offered(&self) -> &Flows {
        &self.offered
    }

    /// Keeps every flow that is offered, so that an order may name it.
    pub async fn keep(&self) -> Result<(), FlowBookError> {
        for declared in self.offered.iter() {
            self.keep_one(declared).await?;
        }
        Ok(())
    }

    async fn keep_one(&self, declared: &Declared) -> Result<(), FlowBookError> {
        let flow = &declared.reference;
        let unavailable = |source: Box<dyn std::error::Error + Send + Sync>| FlowBookError::Unavailable {
            flow: flow.clone(),
            source,
        };
        let message =
            PublishMessage::build().payload(declared.text.clone().into()).expected_last_subject_sequence(0);
        let jetstream = &self.connection.jetstream;
        let sent = jetstream.send_publish(subject::flow(flow), message).await;
        match sent.map_err(|error| unavailable(Box::new(error)))?.await {
            Ok(_) => Ok(()),
            // Kept before: the name holds a hash of the text, so it is the same.
            Err(error) if is_there(&error) => Ok(()),
            Err(error) => Err(unavailable(Box::new(error))),
        }
    }

    /// A flow, from memory or from the log.
    pub async fn find(&self, reference: &FlowRef) -> Result<Arc<Flow>, FlowBookError> {
        if let Some(flow) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(reference) {
            return Ok(Arc::clone(flow));
        }
        let text = self.text(reference).await?;
        let (flow, _) = Flow::parse_stored(&text)
            .map_err(|source| FlowBookError::Unreadable { flow: reference.clone(), source })?;
        let flow = Arc::new(flow);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(reference.clone(), Arc::clone(&flow));
        Ok(flow)
    }

    async fn text(&self, reference: &FlowRef) -> Result<String, FlowBookError> {
        use jetstream::stream::LastRawMessageErrorKind as Kind;
        let flow = || reference.clone();
        let stream = self.connection.jetstream.get_stream_no_info(subject::FLOWS_STREAM).await;
        let stream =
            stream.map_err(|error| FlowBookError::Unavailable { flow: flow(), source: Box::new(error) })?;
        match stream.get_last_raw_message_by_subject(&subject::flow(reference)).await {
            Ok(message) => Ok(String::from_utf8_lossy(&message.payload).into_owned()),
            Err(error) if matches!(error.kind(), Kind::NoMessageFound) => Err(FlowBookError::Unknown(flow())),
            Err(error) => Err(FlowBookError::Unavailable { flow: flow(), source: Box::new(error) }),
        }
    }
}

fn is_there(error: &jetstream::context::PublishError) -> bool {
    use std::error::Error;
    let code = error.source().and_then(|source| source.downcast_ref::<jetstream::Error>());
    code.is_some_and(|error| {
        [ErrorCode::STREAM_WRONG_LAST_SEQUENCE, ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT]
            .contains(&error.error_code())
    })
}
