//! Typed ids, and the position of a fact in the log.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

/// The namespace of every id that is derived rather than drawn (`UUIDv5`). Never change it, or repeats go unnoticed.
const DERIVED: Uuid = Uuid::from_u128(0x7c1e_3f0a_12be_5e12_9d2c_0000_0000_0012);

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::try_parse(text).map(Self)
            }
        }
    };
}

uuid_id!(
    /// Names an order everywhere: in the log's subject, in every event, command, log line and span.
    OrderId
);
uuid_id!(
    /// Names one intent. A command that is sent twice carries the same id, so its second arrival is recognised.
    CommandId
);
uuid_id!(
    /// Names one fact.
    EventId
);

impl OrderId {
    /// The id of the order that `caller` places under an idempotency key: the same for every repeat, for ever.
    pub fn from_key(caller: &str, key: &str) -> Self {
        Self(derive(&["order", caller, key]))
    }

    /// Which of `partitions` holds this order: the id's last eight bytes, which are evenly spread in v5 and v7, modulo.
    pub fn partition(self, partitions: u16) -> u16 {
        let tail = self.0.as_u64_pair().1 % u64::from(partitions.max(1));
        u16::try_from(tail).unwrap_or_default()
    }
}

impl CommandId {
    /// The id of the command that `caller` gives on an order under an idempotency key.
    pub fn from_key(caller: &str, order: OrderId, key: &str) -> Self {
        Self(derive(&["command", caller, &order.to_string(), key]))
    }

    /// The id of the saga's `step` in answer to the event `cause`: the same however often the event is delivered.
    pub fn from_step(cause: EventId, step: &str) -> Self {
        Self(derive(&["step", &cause.to_string(), step]))
    }
}

impl EventId {
    /// The id of the one event that `command` leads to in `context`.
    pub fn from_command(command: CommandId, event_type: &str) -> Self {
        Self(derive(&["event", &command.to_string(), event_type]))
    }
}

/// Derives an id from its parts (RFC 9562 §5.5); the parts' lengths are included, so no two lists read alike.
fn derive(parts: &[&str]) -> Uuid {
    let name = parts.iter().fold(String::new(), |name, part| format!("{name}{}:{part}", part.len()));
    Uuid::new_v5(&DERIVED, name.as_bytes())
}

/// A short fingerprint of a command's body, by which a reused idempotency key with another body is noticed.
pub fn fingerprint(body: &[u8]) -> String {
    let (high, _) = Uuid::new_v5(&DERIVED, body).as_u64_pair();
    format!("{high:016x}")
}

/// Between the fingerprint of what a body says and that of how it was written.
const BETWEEN: char = ',';

/// A body's fingerprint by what it says, which is stored, and by how it was written, which was stored once: a repeat of
/// a command from then is still a repeat.
pub fn fingerprints(said: &str, written: &str) -> String {
    format!("{said}{BETWEEN}{written}")
}

/// The fingerprint that is stored.
pub fn stored_fingerprint(given: &str) -> &str {
    given.split(BETWEEN).next().unwrap_or(given)
}

/// Whether a command whose body has these fingerprints is the one that was stored with that.
pub fn is_same_body(stored: Option<&str>, given: Option<&str>) -> bool {
    match (stored, given) {
        (Some(stored), Some(given)) => given.split(BETWEEN).any(|given| given == stored),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// Where an event stands in the log: `partition:sequence`. Sequences start at 1; 0 means "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    pub partition: u16,
    pub sequence: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.sequence)
    }
}

/// A position as answers have it: `2:1842`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PositionText(pub Position);

impl Serialize for PositionText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl JsonSchema for PositionText {
    fn schema_name() -> Cow<'static, str> {
        "Position".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9]{1,5}:[0-9]{1,19}$",
            "description": "Where an event stands in the log: partition:sequence.",
            "examples": ["2:1842"],
        })
    }
}

/// A text that is no `partition:sequence`.
#[derive(Debug, thiserror::Error)]
#[error("a position reads partition:sequence, for example 2:1842; got {0:?}")]
pub struct InvalidPosition(String);

impl FromStr for Position {
    type Err = InvalidPosition;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidPosition(text.chars().take(64).collect());
        let (partition, sequence) = text.trim().split_once(':').ok_or_else(invalid)?;
        let partition = partition.parse().map_err(|_| invalid())?;
        let sequence = sequence.parse().map_err(|_| invalid())?;
        Ok(Self { partition, sequence })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_under_the_same_key_names_the_same_order() {
        assert_eq!(OrderId::from_key("anonymous", "k1"), OrderId::from_key("anonymous", "k1"));
        assert_ne!(OrderId::from_key("anonymous", "k1"), OrderId::from_key("anonymous", "k2"));
        assert_ne!(OrderId::from_key("a", "bc"), OrderId::from_key("ab", "c"));
    }

    #[test]
    fn a_body_is_the_same_by_what_it_says_and_by_how_it_was_written_when_only_that_was_stored() {
        let given = fingerprints("said", "written");
        for (stored, same) in
            [(Some("said"), true), (Some("written"), true), (Some("other"), false), (None, false)]
        {
            assert_eq!(is_same_body(stored, Some(&given)), same, "{stored:?}");
        }
        assert_eq!(stored_fingerprint(&given), "said");
        assert_eq!(stored_fingerprint("of the saga"), "of the saga");
    }

    #[test]
    fn orders_spread_evenly_over_the_partitions() {
        let mut counts = [0_u32; 4];
        for n in 0..4_000 {
            counts[usize::from(OrderId::from_key("spread", &n.to_string()).partition(4))] += 1;
        }
        assert!(counts.iter().all(|count| (900..1_100).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_position_reads_back_as_it_was_written() {
        let position = Position { partition: 3, sequence: 1842 };
        assert_eq!(position.to_string().parse::<Position>().unwrap(), position);
        for wrong in ["", "3", "3:", ":1", "3:-1", "99999:1", "3:1:2"] {
            assert!(wrong.parse::<Position>().is_err(), "{wrong}");
        }
    }
}
