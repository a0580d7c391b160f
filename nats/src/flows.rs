//! The flows that orders follow, each version kept for as long as there is a log: an order that was placed under an
//! older version, or by a process that knew a flow of its own, is carried on by any process.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use async_nats::HeaderMap;
use domain::{
    Flow, FlowRef, Flows,
    flow::{Declared, FlowError},
};

use crate::{
    broker::{Broker, Failure, Message, Unpublished},
    connection::Connection,
    log::EventLog,
    subject,
};

/// Why a flow is not at hand.
#[derive(Debug, thiserror::Error)]
pub enum FlowBookError {
    #[error("flow {} ({}) is kept nowhere: it was placed by hands that did not keep it", .0.name, .0.version)]
    Unknown(FlowRef),
    #[error("flow {} ({}) was kept, and does not read", .flow.name, .flow.version)]
    Unreadable { flow: FlowRef, source: FlowError },
    #[error("the log did not answer when it was asked for flow {} ({})", .flow.name, .flow.version)]
    Unavailable { flow: FlowRef, source: Failure },
}

/// The flows a process knows; clones share them.
#[derive(Clone)]
pub struct FlowBook<B = Connection> {
    broker: B,
    offered: Arc<Flows>,
    known: Arc<RwLock<BTreeMap<FlowRef, Arc<Flow>>>>,
}

impl<B: Broker> FlowBook<B> {
    /// Opens the book of a log, for a process that offers some flows.
    pub fn new(log: &EventLog<B>, offered: Flows) -> Self {
        let known = offered.iter().map(|declared| (declared.reference.clone(), Arc::clone(&declared.flow)));
        let known = Arc::new(RwLock::new(known.collect()));
        Self { broker: log.broker().clone(), offered: Arc::new(offered), known }
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
        let message = Message {
            subject: subject::flow(flow),
            headers: HeaderMap::new(),
            body: declared.text.clone().into(),
            expected: Some(0),
        };
        match self.broker.publish(message).await {
            // Kept now, or before: the name holds a hash of the text, so it is the same.
            Ok(_) | Err(Unpublished::Conflict { .. }) => Ok(()),
            Err(error @ (Unpublished::Unanswered(_) | Unpublished::Refused(_))) => {
                Err(FlowBookError::Unavailable { flow: flow.clone(), source: error.into() })
            }
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
        let flow = || reference.clone();
        match self.broker.last(subject::FLOWS_STREAM.to_owned(), subject::flow(reference)).await {
            Ok(Some(kept)) => Ok(String::from_utf8_lossy(&kept.body).into_owned()),
            Ok(None) => Err(FlowBookError::Unknown(flow())),
            Err(source) => Err(FlowBookError::Unavailable { flow: flow(), source }),
        }
    }
}
