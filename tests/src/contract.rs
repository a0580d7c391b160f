//! Answers held against the contract: what comes must be in it, and nothing else may come.

use serde_json::{Map, Value, json};

use crate::{
    client::{Answer, LiveEvent},
    workspace,
};

/// Headers of ours: where one comes, the contract says so.
const OURS: [&str; 8] = [
    "log-position",
    "durability",
    "idempotency-replayed",
    "location",
    "etag",
    "view-position",
    "view-generation",
    "retry-after",
];

/// One of the committed documents, its objects closed: a field that it does not name is a fault.
pub struct Contract {
    document: Value,
}

impl Contract {
    /// The contract that is committed as `docs/<name>`.
    pub fn committed(name: &str) -> Self {
        let text = std::fs::read_to_string(workspace().join("docs").join(name)).expect("it is committed");
        let mut document: Value = serde_json::from_str(&text).expect("JSON");
        close(&mut document["components"]["schemas"]);
        Self { document }
    }

    /// Every call: its method and its path.
    pub fn calls(&self) -> Vec<(String, String)> {
        let paths = self.document["paths"].as_object().expect("paths");
        let of = |(path, calls): (&String, &Value)| -> Vec<(String, String)> {
            let methods = calls.as_object().expect("methods").keys();
            methods.map(|method| (method.clone(), path.clone())).collect()
        };
        paths.iter().flat_map(of).collect()
    }

    /// Holds an answer against what the call's answers of this status are.
    pub fn hold(&self, method: &str, path: &str, answer: &Answer) {
        let status = answer.status.as_u16();
        let said = || format!("{method} {path}: {answer:?}");
        let described = &self.document["paths"][path][method]["responses"][status.to_string()];
        assert!(described.is_object(), "not in the contract: {}", said());
        let described = self.resolved(described);
        for name in OURS.iter().filter(|name| answer.headers.contains_key(**name)) {
            let of_answer = described["headers"].as_object().expect("headers");
            let header = of_answer.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            let (_, header) = header.unwrap_or_else(|| panic!("{name} is not in the contract: {}", said()));
            let schema = &self.resolved(header)["schema"];
            let text = answer.header(name);
            let value =
                if schema["type"] == "integer" { json!(text.parse::<u64>().ok()) } else { json!(text) };
            self.must_keep(schema, &value, &|| format!("{name}, {}", said()));
        }
        if status == 304 {
            return;
        }
        let kind = answer.header("content-type");
        let schema = &described["content"][kind]["schema"];
        assert!(schema.is_object(), "{kind} is not in the contract: {}", said());
        self.must_keep(schema, &answer.body, &said);
    }

    /// Holds an event of a live stream against the schema of the stream's events.
    pub fn hold_event(&self, path: &str, event: &LiveEvent) {
        let stream = &self.document["paths"][path]["get"]["responses"]["200"]["content"]["text/event-stream"];
        let schema = &stream["schema"]["contentSchema"]["items"];
        let mut value = json!({ "event": event.name, "data": event.data });
        if !event.id.is_empty() {
            value["id"] = json!(event.id);
        }
        self.must_keep(schema, &value, &|| format!("{path}: {event:?}"));
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
            Some(pointer) => self.document.pointer(pointer).expect("it is in the document"),
            None => value,
        }
    }

    fn must_keep(&self, schema: &Value, value: &Value, said: &dyn Fn() -> String) {
        let whole = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "allOf": [schema], "components": self.document["components"],
        });
        let options = jsonschema::options().should_validate_formats(true);
        let validator = options.build(&whole).expect("a schema");
        let faults: Vec<String> = validator
            .iter_errors(value)
            .map(|fault| format!("{} at {}", fault, fault.instance_path()))
            .collect();
        assert!(faults.is_empty(), "{faults:#?}\n{}", said());
    }
}

/// Closes every object whose fields are named.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(close);
            if fields.get("properties").is_some_and(Value::is_object) && is_schema(fields) {
                fields.entry("additionalProperties").or_insert(json!(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn is_schema(fields: &Map<String, Value>) -> bool {
    fields.get("type").is_some_and(|kind| kind == "object" || kind == &json!(["object", "null"]))
}
