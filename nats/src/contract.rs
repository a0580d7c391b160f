//! The log as others read it: each event's JSON Schema, the log as `AsyncAPI` 3.0, events as `CloudEvents`.

use domain::{
    Context, Event, OrderId, Timestamp,
    id::{CommandId, EventId, PositionText},
};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::codec::{self, Stored, written_version};

/// Where the document keeps schemas.
const SCHEMAS: &str = "#/components/schemas";

const PROMISE: &str = concat!(
    "Every fact of every order, in the order in which it was decided. Fields are added, never taken away or given ",
    "another meaning: readers ignore what they do not know. What does not fit that is a new schema version.",
);

/// The name of an event's schema: `OrderPlaced.v1`.
fn named(event_type: &str) -> String {
    format!("{event_type}.v{}", written_version(event_type))
}

/// The log as an `AsyncAPI` 3.0 document: its subjects, who appends what, and every event's headers and data.
pub fn document() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.definitions_path = SCHEMAS[1..].into());
    let mut generator = SchemaGenerator::new(settings);
    let events = Event::schemas(&mut generator);
    let mut schemas: Map<String, Value> = generator.take_definitions(true).into_iter().collect();
    schemas.insert("Headers".to_owned(), codec::headers_schema());
    let (mut messages, mut on_channel) = (Map::new(), Map::new());
    for (event_type, _, schema) in &events {
        schemas.insert(named(event_type), schema.clone().to_value());
        messages.insert((*event_type).to_owned(), message(event_type, schema.get("description")));
        let reference = json!({ "$ref": format!("#/components/messages/{event_type}") });
        on_channel.insert((*event_type).to_owned(), reference);
    }
    json!({
        "asyncapi": "3.0.0",
        "id": "urn:twelve:log",
        "info": {
            "title": "Twelve: the log", "version": env!("CARGO_PKG_VERSION"),
            "description": PROMISE,
            "license": { "name": "Apache-2.0" },
        },
        "defaultContentType": "application/json",
        "servers": {
            "local": { "host": "127.0.0.1:4222", "protocol": "nats", "description": "what `twelve up` starts" },
        },
        "channels": {
            "order": {
                "address": "orders.{partition}.{order_id}",
                "description": "One subject an order, in the stream ORDERS-{partition}.",
                "parameters": {
                    "partition": { "description": "The first half of every position." },
                    "order_id": { "description": "A UUID, hyphenated." },
                },
                "messages": on_channel,
            },
        },
        "operations": operations(&events),
        "components": { "messages": messages, "schemas": schemas },
    })
}

fn message(event_type: &str, description: Option<&Value>) -> Value {
    json!({
        "name": event_type,
        "title": event_type,
        "summary": description,
        "contentType": "application/json",
        "headers": { "$ref": format!("{SCHEMAS}/Headers") },
        "payload": { "$ref": format!("{SCHEMAS}/{}", named(event_type)) },
    })
}

/// What each context appends.
fn operations(events: &[(&'static str, Context, schemars::Schema)]) -> Map<String, Value> {
    let of_context = |context: Context| {
        let own = events.iter().filter(|(_, of, _)| *of == context);
        let messages: Vec<Value> = own
            .map(|(event_type, ..)| json!({ "$ref": format!("#/channels/order/messages/{event_type}") }))
            .collect();
        let name = context.as_str();
        let appends = json!({
            "action": "send", "channel": { "$ref": "#/channels/order" },
            "summary": format!("What the {name} context records."), "messages": messages,
        });
        (name.to_owned(), appends)
    };
    Context::ALL.into_iter().map(of_context).collect()
}

/// A stored event as a `CloudEvent` (1.0, JSON format), with the documented extensions `partitionkey`, `sequence` and
/// `traceparent` and three of ours.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CloudEvent {
    #[schemars(extend("const" = "1.0"))]
    specversion: &'static str,
    id: EventId,
    /// `urn:twelve:` and the context that recorded it.
    source: String,
    /// `twelve.` and the event's type.
    r#type: String,
    subject: OrderId,
    time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    datacontenttype: Option<&'static str>,
    /// `urn:twelve:schema:` and the name of the data's schema in `/asyncapi.json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    dataschema: Option<String>,
    partitionkey: OrderId,
    /// The position's sequence, with as many digits as compare as texts.
    sequence: String,
    logposition: PositionText,
    commandid: CommandId,
    #[serde(skip_serializing_if = "Option::is_none")]
    causationid: Option<EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    /// Absent to readers who see nothing of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Map<String, Value>>")]
    data: Option<Value>,
}

/// The event as a [`CloudEvent`], with as much of its data as its reader sees.
pub fn cloud_event(stored: &Stored, data: Option<Value>) -> CloudEvent {
    let recorded = &stored.recorded;
    let event_type = recorded.event.type_name();
    CloudEvent {
        specversion: "1.0",
        id: recorded.event_id,
        source: format!("urn:twelve:{}", recorded.event.context().as_str()),
        r#type: format!("twelve.{event_type}"),
        subject: recorded.order_id,
        time: recorded.time,
        datacontenttype: data.is_some().then_some("application/json"),
        dataschema: data.is_some().then(|| format!("urn:twelve:schema:{}", named(event_type))),
        partitionkey: recorded.order_id,
        sequence: format!("{:020}", recorded.position.sequence),
        logposition: PositionText(recorded.position),
        commandid: recorded.command_id,
        causationid: stored.causation_id,
        traceparent: stored.trace_parent.clone(),
        data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_type_has_a_schema_and_a_context_that_records_it() {
        let document = document();
        for event_type in Event::TYPES {
            let schema = &document["components"]["schemas"][named(event_type)];
            assert_eq!(schema["type"], "object", "{event_type}");
            assert!(schema["description"].is_string(), "{event_type} says what it means");
            let reference = json!({ "$ref": format!("#/channels/order/messages/{event_type}") });
            let recording = document["operations"].as_object().unwrap().values();
            let by = recording.filter(|by| by["messages"].as_array().unwrap().contains(&reference)).count();
            assert_eq!(by, 1, "{event_type}");
        }
    }
}
