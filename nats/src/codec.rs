//! An event as a message: type, ids and time in short headers, the data as JSON in the body.
//!
//! Headers are stored for ever, so there are few and they are short. Old shapes are lifted in [`lift`], nowhere else.

use async_nats::{HeaderMap, HeaderValue};
use bytes::Bytes;
use domain::{CommandId, Event, EventId, OrderId, Position, Recorded, Timestamp};

use crate::{header::Header, subject};

static EVENT_TYPE: Header = Header::new("Event-Type");
static CONTEXT: Header = Header::new("Context");
static EVENT_ID: Header = Header::new("Event-Id");
static SCHEMA_VERSION: Header = Header::new("Schema-Version");
pub(crate) static TIME: Header = Header::new("Time");
static COMMAND_ID: Header = Header::new("Command-Id");
static CAUSATION_ID: Header = Header::new("Causation-Id");
static FINGERPRINT: Header = Header::new("Fingerprint");
pub(crate) static TRACE_PARENT: Header = Header::new("traceparent");

/// The version of an event type's data that this program writes. Each type has its own, so that while two versions of
/// the program run, only what really changed is not read by the older one.
pub(crate) const fn written_version(_event_type: &str) -> u32 {
    1
}

/// A message of the log that this program cannot read as an event.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the message at {position} does not read as an event: {reason}")]
pub struct Undecodable {
    pub position: Position,
    pub subject: String,
    /// The order whose subject it is on, if it is one's.
    pub order_id: Option<OrderId>,
    pub reason: String,
}

/// An event together with what the log stored for it.
#[derive(Clone, Debug)]
pub struct Stored {
    pub recorded: Recorded,
    /// The event's data, as JSON text.
    pub data: Bytes,
    /// The event that led to it, if one did.
    pub causation_id: Option<EventId>,
    /// The trace in which it was decided.
    pub trace_parent: Option<String>,
}

/// An event that is about to be appended.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub event: Event,
    pub command_id: CommandId,
    pub causation_id: Option<EventId>,
    pub time: Timestamp,
    pub fingerprint: Option<String>,
    /// A W3C trace context, already checked to be one.
    pub trace_parent: Option<String>,
}

impl NewEvent {
    /// The id that the event will have: derived from its command, so a repeat has the same.
    pub fn event_id(&self) -> EventId {
        EventId::from_command(self.command_id, self.event.type_name())
    }
}

/// Writes an event, whose id this is, as a message.
pub(crate) fn encode(new: &NewEvent, event_id: EventId) -> Result<(HeaderMap, Bytes), serde_json::Error> {
    let mut headers = HeaderMap::new();
    headers.insert(EVENT_TYPE.name(), new.event.type_name());
    headers.insert(CONTEXT.name(), new.event.context().as_str());
    headers.insert(EVENT_ID.name(), event_id.to_string());
    headers.insert(SCHEMA_VERSION.name(), written_version(new.event.type_name()).to_string());
    headers.insert(TIME.name(), new.time.to_string());
    headers.insert(COMMAND_ID.name(), new.command_id.to_string());
    if let Some(cause) = new.causation_id {
        headers.insert(CAUSATION_ID.name(), cause.to_string());
    }
    if let Some(fingerprint) = &new.fingerprint {
        headers.insert(FINGERPRINT.name(), fingerprint.as_str());
    }
    if let Some(trace_parent) = &new.trace_parent {
        headers.insert(TRACE_PARENT.name(), trace_parent.as_str());
    }
    let mut body = Vec::with_capacity(256);
    new.event.serialize_data(&mut serde_json::Serializer::new(&mut body))?;
    Ok((headers, body.into()))
}

/// Reads a message of the log at `position` on `subject_name`.
pub fn decode(
    subject_name: &str,
    position: Position,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Stored, Undecodable> {
    let order_id = subject::parse_order(subject_name).map(|(_, order_id)| order_id);
    read(subject_name, order_id, position, headers, body)
}

/// As [`decode`], in a log of so many partitions: what is on the subject of another partition's order is no order's.
pub(crate) fn decode_in(
    partitions: u16,
    subject_name: &str,
    position: Position,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Stored, Undecodable> {
    let order_id = subject::order_in(subject_name, position.partition, partitions);
    read(subject_name, order_id, position, headers, body)
}

fn read(
    subject_name: &str,
    order_id: Option<OrderId>,
    position: Position,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Stored, Undecodable> {
    let unreadable =
        |reason: String| Undecodable { position, subject: subject_name.to_owned(), order_id, reason };
    let header =
        |name: &Header| headers.get(name.name()).map(HeaderValue::as_str).ok_or_else(|| missing(name.text));
    let read = || -> Result<Stored, String> {
        let order_id = order_id.ok_or_else(|| "its subject is no order's of this partition".to_owned())?;
        let schema: u32 = parse(&SCHEMA_VERSION, header(&SCHEMA_VERSION)?)?;
        let (event_type, data) = lift(schema, header(&EVENT_TYPE)?, body)?;
        let event = Event::deserialize_data(event_type, &mut serde_json::Deserializer::from_slice(&data))
            .ok_or_else(|| format!("no event type is called {event_type}"))?
            .map_err(|error| format!("{event_type}: {error}"))?;
        let recorded = Recorded {
            order_id,
            position,
            event_id: parse(&EVENT_ID, header(&EVENT_ID)?)?,
            time: parse(&TIME, header(&TIME)?)?,
            command_id: parse(&COMMAND_ID, header(&COMMAND_ID)?)?,
            fingerprint: header(&FINGERPRINT).ok().map(ToOwned::to_owned),
            event,
        };
        let causation_id = header(&CAUSATION_ID).ok().map(|id| parse(&CAUSATION_ID, id)).transpose()?;
        let trace_parent = header(&TRACE_PARENT).ok().map(ToOwned::to_owned);
        Ok(Stored { recorded, data, causation_id, trace_parent })
    };
    read().map_err(unreadable)
}

/// What the headers of an event hold, as JSON Schema.
pub(crate) fn headers_schema() -> serde_json::Value {
    use serde_json::json;
    let uuid = |what: &str| json!({ "type": "string", "format": "uuid", "description": what });
    let text = |what: &str| json!({ "type": "string", "description": what });
    json!({
        "type": "object",
        "required": [EVENT_TYPE.text, CONTEXT.text, EVENT_ID.text, SCHEMA_VERSION.text, TIME.text, COMMAND_ID.text],
        "properties": {
            EVENT_TYPE.text: text("The event's type."),
            CONTEXT.text: text("The context that recorded it."),
            EVENT_ID.text: uuid("The event's id, derived from its command."),
            SCHEMA_VERSION.text: text("The version of the data's schema."),
            TIME.text: json!({ "type": "string", "format": "date-time", "description": "When it was decided." }),
            COMMAND_ID.text: uuid("The command that led to it."),
            CAUSATION_ID.text: uuid("The event that led to the command, if one did."),
            FINGERPRINT.text: text("Of the caller's body, if the command came with an idempotency key."),
            TRACE_PARENT.text: text("The W3C trace context in which it was decided."),
        },
    })
}

/// Brings a message of an older schema version into today's shape; the one place that knows old shapes.
fn lift(schema: u32, event_type: &str, body: Bytes) -> Result<(&str, Bytes), String> {
    let read_up_to = written_version(event_type);
    match schema {
        1 => Ok((event_type, body)),
        other => {
            Err(format!("{event_type} has schema version {other}, and this program reads up to {read_up_to}"))
        }
    }
}

fn missing(name: &str) -> String {
    format!("the header {name} is missing")
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(name: &Header, value: &str) -> Result<T, String> {
    value.parse().map_err(|error| format!("the header {} reads {value:?}: {error}", name.text))
}

#[cfg(test)]
mod tests {
    use domain::event::CouponIssued;

    use super::*;

    fn issued() -> NewEvent {
        NewEvent {
            event: CouponIssued { coupon_id: "COUPON1".into(), kind: "할인".into() }.into(),
            command_id: CommandId::from_step(EventId(uuid::Uuid::nil()), "issue_coupon"),
            causation_id: Some(EventId(uuid::Uuid::nil())),
            time: Timestamp::UNIX_EPOCH,
            fingerprint: None,
            trace_parent: None,
        }
    }

    #[test]
    fn an_event_reads_back_as_it_was_written_korean_and_all() {
        let new = issued();
        let order_id = OrderId::from_key("t", "1");
        let position = Position { partition: 1, sequence: 7 };
        let (headers, body) = encode(&new, new.event_id()).unwrap();
        let stored = decode(&subject::order(1, order_id), position, &headers, body).unwrap();
        assert_eq!(stored.recorded.event, new.event);
        assert_eq!(stored.recorded.event_id, new.event_id());
        assert_eq!(stored.causation_id, new.causation_id);
        assert_eq!((stored.recorded.order_id, stored.recorded.position), (order_id, position));
    }

    #[test]
    fn a_message_that_is_no_event_says_why() {
        let position = Position { partition: 0, sequence: 1 };
        let subject = subject::order(0, OrderId::from_key("t", "1"));
        let (headers, body) = encode(&issued(), issued().event_id()).unwrap();
        let with = |name: &Header, value: &str| {
            let mut changed = headers.clone();
            changed.insert(name.name(), value);
            decode(&subject, position, &changed, body.clone()).unwrap_err().reason
        };
        assert!(with(&EVENT_TYPE, "CouponEaten").contains("CouponEaten"));
        assert!(with(&SCHEMA_VERSION, "9").contains("schema version 9"));
        assert!(with(&EVENT_ID, "x").contains(EVENT_ID.text));
        let torn = decode(&subject, position, &headers, body.slice(..5)).unwrap_err();
        assert!(torn.reason.contains("CouponIssued"), "{torn}");
        assert!(decode("elsewhere", position, &headers, body.clone()).is_err());
    }
}
