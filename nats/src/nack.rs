//! The streams as resources of NACK, the controller of the NATS project for Kubernetes: where they are declared so, the
//! services verify them only (`--streams verify`).

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use serde_json::{Map, Value, json};

use crate::topology::Topology;

const KIND: (&str, &str) = ("jetstream.nats.io/v1beta2", "Stream");

/// Each stream of the log as a resource.
pub fn streams(topology: &Topology) -> Vec<Value> {
    topology.streams().iter().map(resource).collect()
}

fn resource(stream: &Config) -> Value {
    let mut spec = Map::new();
    let mut say = |name: &str, value: Value| spec.insert(name.to_owned(), value);
    say("name", json!(stream.name));
    say("description", json!(stream.description));
    say("subjects", json!(stream.subjects));
    say(
        "storage",
        json!(match stream.storage {
            StorageType::File => "file",
            StorageType::Memory => "memory",
        }),
    );
    say(
        "retention",
        json!(match stream.retention {
            RetentionPolicy::Limits => "limits",
            RetentionPolicy::Interest => "interest",
            RetentionPolicy::WorkQueue => "workqueue",
        }),
    );
    say(
        "discard",
        json!(match stream.discard {
            DiscardPolicy::New => "new",
            DiscardPolicy::Old => "old",
        }),
    );
    say("replicas", json!(stream.num_replicas));
    say("duplicateWindow", json!(format!("{}s", stream.duplicate_window.as_secs())));
    if stream.max_bytes > 0 {
        say("maxBytes", json!(stream.max_bytes));
    }
    if stream.max_message_size > 0 {
        say("maxMsgSize", json!(stream.max_message_size));
    }
    if stream.max_messages_per_subject > 0 {
        say("maxMsgsPerSubject", json!(stream.max_messages_per_subject));
    }
    if !stream.max_age.is_zero() {
        say("maxAge", json!(format!("{}s", stream.max_age.as_secs())));
    }
    if stream.compression.is_some() {
        say("compression", json!("s2"));
    }
    if let Some(republish) = &stream.republish {
        // The resource knows no signal without the body; one with it means the same.
        say("republish", json!({ "source": republish.source, "destination": republish.destination }));
    }
    for (name, is_on) in [
        ("denyDelete", stream.deny_delete),
        ("denyPurge", stream.deny_purge),
        ("allowDirect", stream.allow_direct),
        ("allowAtomicPublish", stream.allow_atomic_publish),
        ("allowMsgSchedules", stream.allow_message_schedules),
        ("allowMsgTtl", stream.allow_message_ttl),
        ("allowRollup", stream.allow_rollup),
    ] {
        if is_on {
            say(name, json!(true));
        }
    }
    if !stream.metadata.is_empty() {
        say("metadata", json!(stream.metadata));
    }
    // Whoever deletes the resource does not mean the orders.
    say("preventDelete", json!(true));
    let (version, kind) = KIND;
    let name = stream.name.to_lowercase().replace('_', "-");
    json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name }, "spec": spec })
}

/// The resources as YAML, a line for each field.
pub fn yaml(resources: &[Value]) -> String {
    let document = |resource: &Value| {
        let spec = resource["spec"].as_object().into_iter().flatten();
        let fields: Vec<String> = spec.map(|(name, value)| format!("  {name}: {value}\n")).collect();
        let (version, kind, name) =
            (&resource["apiVersion"], &resource["kind"], &resource["metadata"]["name"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        format!(
            "apiVersion: {}\nkind: {}\nmetadata: {{ name: {} }}\nspec:\n{}",
            text(version),
            text(kind),
            text(name),
            fields.concat()
        )
    };
    resources.iter().map(document).collect::<Vec<_>>().join("---\n")
}
