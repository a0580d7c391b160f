//! Events that are appended without a platform, and what is on a log's first partition then.

use std::collections::{BTreeMap, HashMap};

use async_nats::jetstream::{self, consumer::pull::OrderedConfig};
use domain::{CommandId, Event, OrderId, event::PaymentRequested};
use futures::{StreamExt, TryStreamExt};
use nats::NewEvent;
use serde_json::json;
use tokio::time::timeout;

use crate::LIMIT;

/// An event that a command of this name leads to.
pub fn event(order_id: OrderId, command: &str, event: Event) -> NewEvent {
    NewEvent {
        event,
        command_id: CommandId::from_key("test", order_id, command),
        causation_id: None,
        time: nats::now(),
        fingerprint: None,
        trace_parent: None,
    }
}

/// The first event of an order.
pub fn requested(order_id: OrderId, command: &str) -> NewEvent {
    let request: PaymentRequested = serde_json::from_value(json!({
        "flow": { "name": "marketplace", "version": "v" }, "customer_id": "c", "method": "card",
        "amount": { "amount": 1, "currency": "KRW" },
    }))
    .expect("a request");
    event(order_id, command, request.into())
}

/// What is on the first partition.
#[derive(Debug, Default)]
pub struct Stored {
    /// The sequences of each order's events.
    pub sequences: HashMap<OrderId, Vec<u64>>,
    /// The numbers of each batch's messages in order, and whether the last one closes it.
    pub batches: BTreeMap<String, (Vec<u64>, bool)>,
}

impl Stored {
    /// What the server has.
    pub async fn at(url: &str) -> Self {
        let client = async_nats::connect(url).await.expect("connected");
        let mut stream = jetstream::new(client).get_stream("ORDERS-0").await.expect("the partition");
        let count = stream.info().await.expect("described").state.messages;
        let consumer = stream.create_consumer(OrderedConfig::default()).await.expect("a consumer");
        let messages = consumer.messages().await.expect("messages");
        let mut messages = messages.take(usize::try_from(count).expect("so many"));
        let mut stored = Self::default();
        while let Some(message) = timeout(LIMIT, messages.try_next()).await.expect("in time").expect("read") {
            stored.add(&message);
        }
        stored
    }

    fn add(&mut self, message: &jetstream::Message) {
        let order_id = message.subject.strip_prefix("orders.0.").and_then(|id| id.parse().ok());
        let sequence = message.info().expect("described").stream_sequence;
        self.sequences.entry(order_id.expect("an order's")).or_default().push(sequence);
        let text = |name: &str| message.headers.as_ref()?.get(name).map(ToString::to_string);
        let Some(id) = text("Nats-Batch-Id") else { return };
        let (numbers, is_closed) = self.batches.entry(id).or_default();
        numbers.push(text("Nats-Batch-Sequence").and_then(|number| number.parse().ok()).expect("a number"));
        *is_closed = text("Nats-Batch-Commit").is_some();
    }

    /// How many events were written in batches.
    pub fn together(&self) -> usize {
        self.batches.values().map(|(numbers, _)| numbers.len()).sum()
    }

    /// The batches that are there in part.
    pub fn torn(&self) -> Vec<String> {
        let torn = self.batches.iter().filter(|(_, (numbers, is_closed))| {
            !is_closed || !numbers.iter().copied().eq(1..=numbers.len() as u64)
        });
        torn.map(|(id, (numbers, _))| format!("batch {id} is there in part: {numbers:?}")).collect()
    }
}
