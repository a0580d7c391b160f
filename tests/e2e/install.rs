//! How Twelve is installed into a cluster: what the page says, what it names, and what is for operators of others.

use std::{collections::BTreeSet, path::PathBuf, process::Command};

use serde_json::Value;
use twelve_tests::{
    charts::{find, pod, rendered},
    manifests::{faults, faults_by_definition, faults_elsewhere, objects, render},
    workspace,
};

use crate::manifests::workloads;

/// The secrets and config maps that a pod, or an object that makes them, names.
fn names(object: &Value, found: &mut BTreeSet<String>) {
    for key in ["secretName", "secretRef", "secretKeyRef", "configMapRef", "configMap", "secret"] {
        let named = &object[key];
        let name = named.as_str().or_else(|| named["name"].as_str()).or_else(|| named["secretName"].as_str());
        found.extend(name.map(str::to_owned));
    }
    match object {
        Value::Object(fields) => fields.values().for_each(|field| names(field, found)),
        Value::Array(items) => items.iter().for_each(|item| names(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_secret_that_a_pod_waits_for_is_told_of_and_made_by_the_page_of_the_installation() {
    let Some(mut all) = render("base").and_then(|text| objects(&text)) else { return };
    all.extend(rendered("nats", "values.yaml").unwrap_or_default());
    all.extend(rendered("nack", "nack-values.yaml").unwrap_or_default());
    let made = |object: &&Value| object["kind"] == "ConfigMap";
    let made: Vec<String> =
        all.iter().filter(made).map(|map| map["metadata"]["name"].as_str().expect("a name").into()).collect();
    let mut named = BTreeSet::new();
    for workload in workloads(&all) {
        names(workload, &mut named);
    }
    assert!(named.contains("twelve-nats-views") && named.contains("nats-ca"), "{named:?}");
    let page = std::fs::read_to_string(workspace().join("docs/install-kubernetes.md"));
    let page = page.expect("a page");
    for name in named.iter().filter(|name| !made.contains(name)) {
        assert!(page.contains(&format!("`{name}`")), "the page does not tell of {name}");
    }
}

#[test]
fn the_overlay_that_the_page_of_the_installation_shows_is_rendered_as_it_says() {
    let page = std::fs::read_to_string(workspace().join("docs/install-kubernetes.md"));
    let page = page.expect("a page");
    let shown = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an overlay");
    let (_folder, copy) = copied();
    let overlay = copy.join("overlays/shop");
    std::fs::create_dir_all(&overlay).expect("made");
    std::fs::write(overlay.join("kustomization.yaml"), shown).expect("written");
    let Some(rendered) = render(overlay.to_str().expect("a path")).and_then(|text| objects(&text)) else {
        return;
    };
    assert_eq!(faults(&rendered).expect("a validator"), "");
    assert_eq!(faults_elsewhere(&rendered), Vec::<String>::new());
    for workload in workloads(&rendered) {
        let image = pod(workload)["containers"][0]["image"].as_str().expect("an image");
        assert!(image.starts_with("registry.shop.example/twelve@sha256:"), "{image}");
        // The setting of the overlay, beside those of the base.
        let named = &pod(workload)["containers"][0]["envFrom"][0]["configMapRef"]["name"];
        let settings = &find(&rendered, "ConfigMap", named.as_str().expect("a name"))["data"];
        assert_eq!(settings["TWELVE_TRUSTED_PROXIES"], "10.244.0.0/16");
        assert_eq!(settings["TWELVE_PARTITIONS"], "4");
    }
    assert_eq!(find(&rendered, "HTTPRoute", "twelve")["spec"]["hostnames"][0], "api.shop.example");
    assert_eq!(find(&rendered, "GRPCRoute", "twelve")["spec"]["hostnames"][0], "grpc.shop.example");
}

/// A copy of the manifests, to change one.
pub(crate) fn copied() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("kubernetes");
    let from = workspace().join("deploy/kubernetes");
    let copied = Command::new("cp").arg("-r").arg(from).arg(&copy).status();
    assert!(copied.is_ok_and(|status| status.success()));
    (folder, copy)
}

#[test]
fn what_is_for_operators_of_others_is_as_they_define_it_and_planted_mistakes_are_found() {
    let read = |path: &str| {
        std::fs::read_to_string(workspace().join("deploy/kubernetes").join(path)).expect("a file")
    };
    for (text, right, wrong) in [
        (render("monitoring"), "podMetricsEndpoints:", "podMetricEndpoints:"),
        (Some(read("examples/cert-manager.yaml")), "dnsNames:", "dnsName:"),
        (Some(read("examples/external-secrets.yaml")), "secretStoreRef:", "secretStore:"),
        (Some(read("examples/gateway.yaml")), "protocol: HTTPS", "protocl: HTTPS"),
    ] {
        let Some(text) = text else { return };
        let Some(all) = objects(&text) else { return };
        let Some(found) = faults_by_definition(&all) else { return };
        assert_eq!(found, Vec::<String>::new());
        assert!(text.contains(right), "{right}");
        let planted = objects(&text.replace(right, wrong)).expect("as before");
        assert_ne!(faults_by_definition(&planted).expect("as before"), Vec::<String>::new(), "{wrong}");
    }
    for path in ["namespaces.yaml", "nats/network.yaml"] {
        let Some(all) = objects(&read(path)) else { return };
        assert_eq!(faults(&all).expect("a validator"), "", "{path}");
    }
}

#[test]
fn the_alerts_of_the_operator_are_those_of_the_file() {
    let file = workspace().join("deploy/prometheus/rules.yaml");
    let Some(file) = objects(&std::fs::read_to_string(file).expect("rules")) else { return };
    let Some(rendered) = render("monitoring").and_then(|text| objects(&text)) else { return };
    assert!(
        find(&rendered, "PrometheusRule", "twelve")["spec"]["groups"] == file[0]["groups"],
        "copy deploy/prometheus/rules.yaml into deploy/kubernetes/monitoring/rules.yaml, two columns further in"
    );
    // What a Service is found by, and what it calls its port.
    let Some(base) = render("base").and_then(|text| objects(&text)) else { return };
    for name in ["commands", "views"] {
        let service = find(&base, "Service", name);
        assert_eq!(service["metadata"]["labels"]["app"], name);
        assert_eq!(service["spec"]["ports"][0]["name"], "http");
    }
}
