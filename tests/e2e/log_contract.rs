//! What others may rely on who read the log: each event's schema in each version, the log as `AsyncAPI`, events as
//! `CloudEvents`; and the documents by the tools of their makers.

use std::{collections::BTreeSet, path::PathBuf, process::Output};

use jsonschema::Validator;
use serde_json::{Value, json};
use twelve_tests::{
    Platform, binary,
    client::order,
    tools::{asyncapi_parser, redocly, spectral},
    workspace,
};

fn committed() -> Value {
    let text = std::fs::read_to_string(workspace().join("docs/asyncapi.json")).expect("it is committed");
    serde_json::from_str(&text).expect("JSON")
}

/// What checks data against one of the document's schemas.
fn validator(document: &Value, name: &str) -> Validator {
    let schemas = &document["components"]["schemas"];
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$ref": format!("#/components/schemas/{name}"),
        "components": { "schemas": schemas },
    });
    assert!(schemas[name].is_object(), "there is no schema {name}");
    jsonschema::options().should_validate_formats(true).build(&schema).expect("a schema")
}

/// Every event that was ever released, in every version: `OrderPlaced.v1`, and its data.
fn released() -> Vec<(String, Value)> {
    let folder: PathBuf = workspace().join("domain/tests/stored_events");
    let files = std::fs::read_dir(folder).expect("the events").flatten();
    let read = |path: PathBuf| {
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
        let text = std::fs::read_to_string(path).expect("a text");
        (name, serde_json::from_str(&text).expect("JSON"))
    };
    files.map(|file| read(file.path())).collect()
}

async fn run(command: &mut tokio::process::Command) -> (bool, String) {
    let run = tokio::time::timeout(std::time::Duration::from_mins(3), command.kill_on_drop(true).output());
    let Output { status, stdout, stderr } = run.await.expect("in time").expect("it runs");
    (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

#[tokio::test]
async fn x_10_the_committed_contract_of_the_log_is_the_one_that_is_kept() {
    let (_, printed) = run(tokio::process::Command::new(binary("twelve")).arg("asyncapi")).await;
    let kept: Value = serde_json::from_str(&printed).expect("JSON");
    assert!(
        kept == committed(),
        "an event's shape has changed. If it was never released, or a field came that may be missing, run \
         `cargo twelve asyncapi > docs/asyncapi.json`; otherwise it is a new schema version, see CONTRIBUTING.md"
    );
}

#[test]
fn every_event_that_was_ever_released_keeps_to_the_schema_of_its_version() {
    let document = committed();
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    let named: BTreeSet<String> = schemas.keys().filter(|name| name.contains(".v")).cloned().collect();
    let released = released();
    assert_eq!(released.iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>(), named);
    for (name, data) in released {
        let faults: Vec<String> =
            validator(&document, &name).iter_errors(&data).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{name}: {faults:?}");
    }
}

#[test]
fn a_field_that_is_taken_away_renamed_or_of_another_type_does_not_keep_to_the_schema() {
    let document = committed();
    let mut broken = 0;
    for (name, data) in released() {
        let validator = validator(&document, &name);
        let required = document["components"]["schemas"][&name]["required"].clone();
        for field in required.as_array().into_iter().flatten().filter_map(Value::as_str) {
            let mut without = data.clone();
            let value = without.as_object_mut().and_then(|data| data.remove(field)).expect("it is there");
            assert!(!validator.is_valid(&without), "{name} without {field}");
            let mut renamed = without.clone();
            renamed[format!("{field}_")] = value;
            assert!(!validator.is_valid(&renamed), "{name} with {field} under another name");
            let mut retyped = data.clone();
            retyped[field] = json!([[]]);
            assert!(!validator.is_valid(&retyped), "{name} with {field} of another type");
            broken += 1;
        }
        let mut grown = data.clone();
        grown["a_field_of_tomorrow"] = json!(1);
        assert!(validator.is_valid(&grown), "{name} may grow");
    }
    assert!(broken > 30, "{broken} fields were broken");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_services_store_keeps_to_the_schemas_headers_and_all() {
    let platform = Platform::up().await;
    let placed = platform.client.post("/orders", &order("gentleman")).await;
    let id = placed.order_id();
    platform.client.order_after(&id, placed.header("log-position")).await;
    platform.client.until_status(&id, "out_for_delivery").await;
    let (partition, _) = placed.header("log-position").split_once(':').expect("a position");
    let client = async_nats::connect(platform.server.url()).await.expect("connected");
    let log = async_nats::jetstream::new(client).get_stream(format!("ORDERS-{partition}")).await;
    let (log, document) = (log.expect("the partition"), committed());
    for sequence in 1..=6 {
        let message = log.get_raw_message(sequence).await.expect("an event");
        let values = message.headers.iter().filter_map(|(name, values)| Some((name, values.first()?)));
        let headers: Value = values.map(|(name, value)| (name.to_string(), json!(value.as_str()))).collect();
        let data: Value = serde_json::from_slice(&message.payload).expect("JSON");
        let text = |name: &str| headers[name].as_str().unwrap_or_default().to_owned();
        let name = format!("{}.v{}", text("Event-Type"), text("Schema-Version"));
        assert!(validator(&document, "Headers").is_valid(&headers), "{headers}");
        assert!(validator(&document, &name).is_valid(&data), "{name}: {data}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orders_events_are_cloud_events_for_who_asks_for_them() {
    let platform = Platform::up().await;
    let id = platform.client.place(&order("gentleman")).await;
    platform.client.until_status(&id, "out_for_delivery").await;
    let asked = platform.client.request(reqwest::Method::GET, &format!("/orders/{id}/events"));
    let answer = platform.client.send(asked.header("accept", "application/cloudevents-batch+json")).await;
    assert_eq!(answer.header("content-type"), "application/cloudevents-batch+json");
    let events = answer.body.as_array().cloned().expect("a batch");
    let types: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(types[..2], ["twelve.PaymentRequested", "twelve.PaymentApproved"], "{types:?}");
    let required = json!({
        "type": "object",
        "required": ["id", "source", "specversion", "type"],
        "properties": {
            "id": { "type": "string", "minLength": 1 }, "source": { "type": "string", "format": "uri-reference" },
            "specversion": { "const": "1.0" }, "type": { "type": "string", "minLength": 1 },
            "subject": { "const": id }, "time": { "type": "string", "format": "date-time" },
            "dataschema": { "type": "string", "format": "uri" }, "data": { "type": "object" },
        },
        "propertyNames": { "pattern": "^[a-z0-9]{1,20}$" },
    });
    let valid = jsonschema::options().should_validate_formats(true).build(&required).expect("a schema");
    for event in &events {
        assert!(valid.is_valid(event), "{event:#}");
        for (name, value) in event.as_object().expect("an object") {
            assert!(name == "data" || value.is_string(), "{name} is an attribute, and so a text");
        }
        let schema = event["dataschema"].as_str().and_then(|name| name.strip_prefix("urn:twelve:schema:"));
        assert!(validator(&committed(), schema.expect("of ours")).is_valid(&event["data"]), "{event:#}");
    }
    let sequences: Vec<&str> = events.iter().filter_map(|event| event["sequence"].as_str()).collect();
    assert!(sequences.is_sorted(), "{sequences:?}");
    assert_eq!(events[1]["causationid"], events[0]["id"], "the order's cause is told");
}

#[tokio::test]
async fn the_makers_of_openapi_and_asyncapi_tools_find_no_fault_in_our_documents() {
    for document in ["docs/openapi.json", "docs/openapi-operator.json"] {
        let Some(tools) = redocly() else { break };
        let mut lint = tokio::process::Command::new(tools.join("node_modules/.bin/redocly"));
        lint.env("REDOCLY_TELEMETRY", "off").env("REDOCLY_SUPPRESS_UPDATE_NOTICE", "true");
        lint.args(["lint", "--extends", "recommended"]).arg(workspace().join(document));
        let (is_fine, said) = run(&mut lint).await;
        assert!(is_fine && !said.to_lowercase().contains("warning #"), "{said}");
    }
    for document in ["docs/openapi.json", "docs/openapi-operator.json"] {
        let Some(tools) = spectral() else { break };
        let mut lint = tokio::process::Command::new(tools.join("node_modules/.bin/spectral"));
        lint.args(["lint", "--fail-severity", "hint", "-r"])
            .arg(workspace().join("tests/contract/spectral.yaml"));
        let (is_fine, said) = run(lint.arg(workspace().join(document))).await;
        assert!(is_fine, "{said}");
    }
    let Some(tools) = asyncapi_parser() else { return };
    let parse = |document: PathBuf| {
        let mut node = tokio::process::Command::new("node");
        node.arg(workspace().join("tests/contract/asyncapi.mjs")).arg(&tools).arg(document);
        node
    };
    let (is_fine, said) = run(&mut parse(workspace().join("docs/asyncapi.json"))).await;
    assert!(is_fine, "{said}");
    let mut wrong = committed();
    wrong["operations"]["payment"]["action"] = json!("sing");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), wrong.to_string()).expect("written");
    let (is_fine, said) = run(&mut parse(file.path().to_owned())).await;
    assert!(!is_fine && said.contains("action"), "a planted fault is found: {said}");
}

/// Tells the story of an order again, as another order's, as a program of another version would have written it.
async fn told_again(platform: &Platform, first: &str, edit: impl Fn(&mut Value)) -> String {
    let place = |id: &str| {
        let id: domain::OrderId = id.parse().expect("an id");
        let partition = id.partition(twelve_tests::partitions());
        (format!("ORDERS-{partition}"), format!("orders.{partition}.{id}"))
    };
    let client = async_nats::connect(platform.server.url()).await.expect("connected");
    let jetstream = async_nats::jetstream::new(client);
    let (stream, subject) = place(first);
    let log = jetstream.get_stream(stream).await.expect("the partition");
    let id = uuid::Uuid::new_v4().to_string();
    let (mut sequence, mut last) = (1, 0);
    for _ in 0..3 {
        let message = log.get_first_raw_message_by_subject(&subject, sequence).await.expect("one of three");
        sequence = message.sequence + 1;
        let mut data: Value = serde_json::from_slice(&message.payload).expect("JSON");
        edit(&mut data);
        let mut headers = message.headers.clone();
        headers.insert("Event-Id", uuid::Uuid::new_v4().to_string());
        headers.insert("Command-Id", uuid::Uuid::new_v4().to_string());
        headers.insert("Of-Tomorrow", "a header that nobody knows yet");
        headers.insert("Nats-Expected-Last-Subject-Sequence", last.to_string());
        let publish = jetstream.publish_with_headers(place(&id).1, headers, data.to_string().into());
        last = publish.await.expect("sent").await.expect("stored").sequence;
    }
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn x_6_while_versions_are_mixed_each_carries_on_the_orders_that_the_other_wrote() {
    let platform = Platform::up().await;
    let mut body = order("gentleman");
    body["customer"]["phone"] = json!("010-0000-0000");
    let first = platform.client.place(&body).await;
    platform.client.until_status(&first, "out_for_delivery").await;
    let grow = |data: &mut Value| {
        data["of_tomorrow"] = json!({ "gift_wrap": true });
        if let Some(lines) = data["lines"].as_array_mut() {
            for line in lines {
                line["weight_g"] = json!(900);
            }
        }
    };
    let shrink = |data: &mut Value| {
        if let Some(customer) = data.get_mut("customer").and_then(Value::as_object_mut) {
            customer.retain(|name, _| ["id", "name"].contains(&name.as_str()));
        }
    };
    let tomorrow = told_again(&platform, &first, grow).await;
    let yesterday = told_again(&platform, &first, shrink).await;
    for id in [&tomorrow, &yesterday] {
        platform.client.until_status(id, "out_for_delivery").await;
        assert_eq!(platform.client.event_types(id).await, platform.client.event_types(&first).await);
        let canceled = platform.client.post(&format!("/orders/{id}/cancel"), &json!({})).await;
        assert_eq!(canceled.status, 200, "{canceled:?}");
        platform.client.until_status(id, "canceled").await;
    }
    let events = platform.client.get(&format!("/orders/{tomorrow}/events")).await.body;
    let placed =
        events["items"].as_array().and_then(|items| items.iter().find(|item| item["type"] == "OrderPlaced"));
    assert_eq!(
        placed.expect("placed")["data"]["of_tomorrow"]["gift_wrap"],
        true,
        "and nothing is lost of it"
    );
}
