//! JSON Schemas of what is served, from the types that are served.

use schemars::{
    JsonSchema, Schema, SchemaGenerator,
    generate::{Contract, SchemaSettings},
};
use serde_json::{Map, Value, json};

/// Where the document keeps schemas.
const SCHEMAS: &str = "/components/schemas";
/// Formats of the types that we count with, as those name them who read documents: others' integers have 32 bits unless
/// the format says otherwise.
const FORMATS: [(&str, &str); 8] = [
    ("uint8", "int32"),
    ("uint16", "int32"),
    ("uint32", "int64"),
    ("uint64", "int64"),
    ("uint", "int64"),
    ("int8", "int32"),
    ("int16", "int32"),
    ("int", "int64"),
];

/// The schemas that a document's operations name; each type is described once.
pub struct Schemas {
    answers: SchemaGenerator,
    bodies: SchemaGenerator,
}

impl Default for Schemas {
    fn default() -> Self {
        let generator = |contract| {
            let settings = SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = SCHEMAS.into();
                settings.contract = contract;
            });
            SchemaGenerator::new(settings)
        };
        Self { answers: generator(Contract::Serialize), bodies: generator(Contract::Deserialize) }
    }
}

impl Schemas {
    /// The schema of what we write.
    pub fn answer<T: JsonSchema>(&mut self) -> Value {
        tidied(self.answers.subschema_for::<T>())
    }

    /// The schema of what callers write.
    pub fn body<T: JsonSchema>(&mut self) -> Value {
        tidied(self.bodies.subschema_for::<T>())
    }

    /// All that have names.
    pub fn named(mut self) -> Map<String, Value> {
        let answers = self.answers.take_definitions(true);
        let bodies = self.bodies.take_definitions(true);
        let mut named = Map::new();
        for (name, mut schema) in bodies {
            tidy(&mut schema);
            named.insert(name, schema);
        }
        for (name, mut schema) in answers {
            tidy(&mut schema);
            open(&mut schema);
            named.insert(name, schema);
        }
        named.sort_keys();
        named
    }
}

fn tidied(schema: Schema) -> Value {
    let mut schema = schema.to_value();
    tidy(&mut schema);
    schema
}

/// Says the same so that makers of clients read it: integers' formats, and an enum that documents its values as an
/// enum.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(tidy);
            if let Some(format) = fields.get_mut("format") {
                let known = FORMATS.iter().find(|(ours, _)| *format == *ours);
                if let Some((_, theirs)) = known {
                    *format = json!(theirs);
                }
            }
            one_enum(fields);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Answers may have more fields one day, and those that they have are all written.
fn open(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("additionalProperties") == Some(&Value::Bool(false)) {
                fields.remove("additionalProperties");
            }
            if fields.get("type").is_some() || fields.contains_key("$ref") || fields.contains_key("anyOf") {
                fields.remove("default");
            }
            fields.values_mut().for_each(open);
        }
        Value::Array(items) => items.iter_mut().for_each(open),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// `oneOf` of nothing but texts becomes one `enum`, which says what each means.
fn one_enum(fields: &mut Map<String, Value>) {
    let Some(choices) = fields.get("oneOf").and_then(Value::as_array) else { return };
    let (mut values, mut said) = (Vec::new(), Vec::new());
    for choice in choices {
        if choice["type"] != "string" {
            return;
        }
        let Some(fixed) = choice.get("const").map(std::slice::from_ref) else {
            let Some(listed) = choice["enum"].as_array() else { return };
            values.extend(listed.iter().cloned());
            continue;
        };
        if let (Some(value), Some(what)) = (fixed[0].as_str(), choice["description"].as_str()) {
            said.push(format!("`{value}`: {what}"));
        }
        values.extend(fixed.iter().cloned());
    }
    fields.remove("oneOf");
    let before = fields.get("description").and_then(Value::as_str).map(ToOwned::to_owned);
    let described: Vec<String> = before.into_iter().chain(said).collect();
    if !described.is_empty() {
        fields.insert("description".into(), json!(described.join("\n\n")));
    }
    fields.insert("type".into(), json!("string"));
    fields.insert("enum".into(), Value::Array(values));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What it is.
    #[derive(JsonSchema)]
    #[serde(rename_all = "snake_case")]
    #[expect(dead_code, reason = "only its schema is asked for")]
    enum Kind {
        Plain,
        /// With a word on it.
        Explained,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is asked for")]
    struct Thing {
        kind: Kind,
        many: Option<u64>,
        few: u16,
    }

    #[test]
    fn makers_of_clients_find_one_enum_and_integers_that_are_long_enough() {
        let mut schemas = Schemas::default();
        assert_eq!(schemas.answer::<Thing>(), json!({ "$ref": "#/components/schemas/Thing" }));
        let named = schemas.named();
        assert_eq!(named["Kind"]["enum"], json!(["plain", "explained"]));
        assert!(named["Kind"].get("oneOf").is_none() && named["Kind"]["description"].is_string());
        let format = |name: &str| named["Thing"]["properties"][name]["format"].clone();
        assert_eq!((format("many"), format("few")), (json!("int64"), json!("int32")));
    }
}
