//! Charts of others with the values that are shipped: rendered by Helm's own engine, and what a container of theirs
//! finds, as a kubelet would give it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    manifests::objects,
    tools::{chart_renderer, nats_charts},
    workspace,
};

/// What a chart of the NATS project makes of a file of values in `deploy/kubernetes/nats`, as a release of the chart's
/// name in namespace `nats`. `None`, said aloud, where there is no chart or nothing that renders it.
pub fn rendered(chart: &str, values: &str) -> Option<Vec<Value>> {
    let (renderer, charts) = (chart_renderer()?, nats_charts()?);
    let values = workspace().join("deploy/kubernetes/nats").join(values);
    let mut command = Command::new(renderer);
    command.arg(charts.join("helm/charts").join(chart)).arg(values).args([chart, "nats"]);
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{chart}: {}", String::from_utf8_lossy(&output.stderr));
    objects(&String::from_utf8(output.stdout).expect("text"))
}

/// The object of this kind and name.
pub fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let is_it = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
    objects.iter().find(is_it).unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// The template of the pods of a workload.
pub fn pod(workload: &Value) -> &Value {
    &workload["spec"]["template"]["spec"]
}

/// The mounts of volumes that a workload does not have. The API server refuses it then; no schema says so.
pub fn unknown_mounts(workload: &Value) -> Vec<String> {
    let names = |list: &Value, path: &str| -> Vec<String> {
        let items = list.as_array().into_iter().flatten();
        items.filter_map(|item| Some(item.pointer(path)?.as_str()?.to_owned())).collect()
    };
    let mut volumes = names(&pod(workload)["volumes"], "/name");
    volumes.extend(names(&workload["spec"]["volumeClaimTemplates"], "/metadata/name"));
    let containers = pod(workload)["containers"].as_array().into_iter().flatten();
    let mounts = containers.flat_map(|container| names(&container["volumeMounts"], "/name"));
    mounts.filter(|mount| !volumes.contains(mount)).collect()
}

/// Secrets by their names: a folder each, with a file for each key.
pub type Secrets = BTreeMap<&'static str, PathBuf>;

/// Makes the files that a container finds, below `root` instead of `/`.
pub fn mount(objects: &[Value], workload: &Value, container: &Value, secrets: &Secrets, root: &Path) {
    let volumes = pod(workload)["volumes"].as_array().expect("volumes");
    for mount in container["volumeMounts"].as_array().expect("mounts") {
        let path = mount["mountPath"].as_str().expect("a path").trim_start_matches('/');
        let folder = root.join(path);
        fs::create_dir_all(&folder).expect("made");
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]);
        let Some(volume) = volume else { continue };
        if let Some(name) = volume["configMap"]["name"].as_str() {
            for (file, text) in find(objects, "ConfigMap", name)["data"].as_object().expect("data") {
                fs::write(folder.join(file), text.as_str().expect("text")).expect("written");
            }
        }
        if let Some(name) = volume["secret"]["secretName"].as_str() {
            let secret = secrets.get(name).unwrap_or_else(|| panic!("no page tells of a secret {name}"));
            for file in fs::read_dir(secret).expect("a folder").map(|file| file.expect("a file").path()) {
                fs::copy(&file, folder.join(file.file_name().expect("a name"))).expect("copied");
            }
        }
    }
}

/// The environment of a container of this pod, `$(NAME)` of what comes before expanded.
pub fn environment(container: &Value, pod: &str, secrets: &Secrets) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for entry in container["env"].as_array().expect("an environment") {
        let name = entry["name"].as_str().expect("a name").to_owned();
        let of_secret = &entry["valueFrom"]["secretKeyRef"];
        let mut value = if let Some(secret) = of_secret["name"].as_str() {
            let folder = secrets.get(secret).unwrap_or_else(|| panic!("no page tells of a secret {secret}"));
            let key = of_secret["key"].as_str().expect("a key");
            fs::read_to_string(folder.join(key)).unwrap_or_else(|error| panic!("{secret}/{key}: {error}"))
        } else if entry["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name" {
            pod.to_owned()
        } else {
            entry["value"].as_str().unwrap_or_else(|| panic!("{entry}")).to_owned()
        };
        for (before, is) in &all {
            value = value.replace(&format!("$({before})"), is);
        }
        all.push((name, value));
    }
    all
}
