//! The manifests that are shipped, rendered as a cluster would get them.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io::Write,
    process::{Command, Output, Stdio},
};

use kcr_gateway_networking_k8s_io::v1::{grpcroutes::GrpcRoute, httproutes::HttpRoute};
use kcr_jetstream_nats_io::v1beta2::streams::Stream;
use kcr_keda_sh::v1alpha1::scaledobjects::ScaledObject;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    tools::{definitions, kubernetes_validate},
    workspace,
};

/// Kinds that are not the cluster's own, and are held against types instead of schemas.
const ELSEWHERE: [&str; 3] = ["gateway.networking.k8s.io/", "keda.sh/", "jetstream.nats.io/"];

/// A kustomization (`base`, `overlays/…`) as text; `None`, said aloud, where there is no `kubectl`.
pub fn render(name: &str) -> Option<String> {
    let folder = workspace().join("deploy/kubernetes").join(name);
    match Command::new("kubectl").arg("kustomize").arg(folder).output() {
        Ok(output) => {
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8(output.stdout).expect("text"))
        }
        Err(error) => {
            eprintln!("SKIPPED: no kubectl: {error}");
            None
        }
    }
}

/// The objects of a text; `None`, said aloud, where nothing reads YAML.
pub fn objects(text: &str) -> Option<Vec<Value>> {
    // Definitions of others are megabytes: the loader in C, where there is one, reads them in a moment.
    let script = "import sys, json, yaml\nloader = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)\nprint(json.dumps([d for d in yaml.load_all(sys.stdin, Loader=loader) if d]))";
    let output = python(&["-c", script], text)?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).expect("JSON"))
}

/// The faults of the objects that are the cluster's own, by their schemas, closed ones: empty if there is none.
pub fn faults(objects: &[Value]) -> Option<String> {
    let script = "import sys, json, kubernetes_validate as kv\nfor d in json.load(sys.stdin):\n  try: kv.validate(d, '1.34', strict=True)\n  except Exception as e: print(d['kind'], d['metadata']['name'], str(e)[:300])";
    let is_ours = |object: &&Value| {
        let version = object["apiVersion"].as_str().unwrap_or_default();
        !ELSEWHERE.iter().any(|group| version.starts_with(group))
    };
    let ours: Vec<&Value> = objects.iter().filter(is_ours).collect();
    let output = python(&["-c", script], &serde_json::to_string(&ours).expect("JSON"))?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("text"))
}

/// The faults of the objects that are not the cluster's own: what their types do not take, and fields that are lost in
/// them, because there are none of that name.
pub fn faults_elsewhere(objects: &[Value]) -> Vec<String> {
    let mut faults = Vec::new();
    for object in objects {
        let version = object["apiVersion"].as_str().unwrap_or_default();
        if !ELSEWHERE.iter().any(|group| version.starts_with(group)) {
            continue;
        }
        let name = format!("{} {}", object["kind"], object["metadata"]["name"]);
        let back = match object["kind"].as_str().unwrap_or_default() {
            "HTTPRoute" => there_and_back::<HttpRoute>(object),
            "GRPCRoute" => there_and_back::<GrpcRoute>(object),
            "ScaledObject" => there_and_back::<ScaledObject>(object),
            "Stream" => there_and_back::<Stream>(object),
            _ => Err("there is no type for it".to_owned()),
        };
        match back {
            Ok(back) => lost(object, &back, &name, &mut faults),
            Err(fault) => faults.push(format!("{name}: {fault}")),
        }
    }
    faults
}

/// The faults of objects whose kinds others define, by the definitions that are published, closed ones. `None`, said
/// aloud, where these are not to be had.
pub fn faults_by_definition(objects: &[Value]) -> Option<Vec<String>> {
    let mut faults = Vec::new();
    let mut read = BTreeMap::new();
    for object in objects {
        let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
        let (version, kind) = (text("apiVersion"), text("kind"));
        let (group, version) = version.split_once('/').expect("a group and a version");
        let file = definitions(group)?.join(format!("{group}_{}s.yaml", kind.to_lowercase()));
        if let Entry::Vacant(place) = read.entry(file.clone()) {
            let defined = std::fs::read_to_string(&file);
            let defined = defined.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            place.insert(self::objects(&defined)?);
        }
        let defined = &read[&file];
        let versions = defined[0]["spec"]["versions"].as_array().expect("versions");
        let name = format!("{kind} {}", object["metadata"]["name"]);
        let Some(version) = versions.iter().find(|known| known["name"] == version) else {
            faults.push(format!("{name}: there is no version {version} of it"));
            continue;
        };
        let mut schema = version["schema"]["openAPIV3Schema"].clone();
        close(&mut schema);
        let schema = jsonschema::validator_for(&schema).expect("a schema");
        faults.extend(schema.iter_errors(object).map(|error| format!("{name}: {error}")));
    }
    Some(faults)
}

/// Lets a schema take no fields but those that it names: the API server drops others, without a word.
fn close(schema: &mut Value) {
    let is_open = schema["x-kubernetes-preserve-unknown-fields"] == true;
    let Value::Object(fields) = schema else { return };
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(close);
        if !is_open && !fields.contains_key("additionalProperties") {
            fields.insert("additionalProperties".to_owned(), false.into());
        }
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(inner) {
            close(inner);
        }
    }
}

fn there_and_back<T: Serialize + DeserializeOwned>(object: &Value) -> Result<Value, String> {
    let typed: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    serde_json::to_value(typed).map_err(|error| error.to_string())
}

/// Notes what is in one and not in the other.
fn lost(object: &Value, back: &Value, path: &str, faults: &mut Vec<String>) {
    match object {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                match back.get(name) {
                    Some(back) => lost(value, back, &path, faults),
                    None => faults.push(format!("{path} is no field")),
                }
            }
        }
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                lost(item, &back[number], &format!("{path}[{number}]"), faults);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn python(arguments: &[&str], input: &str) -> Option<Output> {
    let library = kubernetes_validate()?;
    let mut child = Command::new("python3")
        .args(arguments)
        .env("PYTHONPATH", library)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python runs");
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("written");
    Some(child.wait_with_output().expect("it ended"))
}
