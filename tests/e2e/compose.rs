//! `compose.yaml`: it is what the specification of compose files says, and what it names is there.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;
use twelve_tests::{binary, tools::compose_spec, workspace};

/// The file as its specification's own reader resolves it; what it says, if it does not.
fn read(path: &std::path::Path) -> Option<Result<Value, String>> {
    let tool = compose_spec()?;
    let output = Command::new(tool).args(["--format", "json"]).arg(path).current_dir(workspace()).output();
    let output = output.expect("it runs");
    if !output.status.success() {
        return Some(Err(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Some(serde_json::from_slice(&output.stdout).map_err(|error| error.to_string()))
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn the_compose_file_is_valid_and_what_it_names_is_there() {
    let path = workspace().join("compose.yaml");
    let Some(read_as) = read(&path) else { return };
    let services = read_as.expect("it is valid")["services"].clone();
    let services = services.as_object().expect("services");
    let wanted = [
        "nats-1",
        "nats-2",
        "nats-3",
        "command-svc",
        "workers",
        "query-api",
        "gateway",
        "prometheus",
        "grafana",
    ];
    assert_eq!(services.keys().map(String::as_str).collect::<BTreeSet<_>>(), BTreeSet::from(wanted));
    for (name, service) in services {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume["source"].as_str().expect("a source");
            assert!(volume["type"] != "bind" || std::path::Path::new(source).exists(), "{name}: {source}");
        }
        let entrypoint = texts(&service["entrypoint"]);
        let Some((path, which)) = entrypoint.split_first() else { continue };
        let program = binary(path.trim_start_matches('/'));
        let output = Command::new(program).args(which).arg("--help").output().expect("it runs");
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        for flag in texts(&service["command"]).iter().filter(|argument| argument.starts_with("--")) {
            assert!(
                help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n")),
                "{name}: {flag}"
            );
        }
        for setting in service["environment"].as_object().expect("settings").keys() {
            // The value of one that may have a password is not shown.
            let shown = [format!("{setting}="), format!("env: {setting}]")];
            assert!(shown.iter().any(|shown| help.contains(shown)), "{name}: {setting}");
        }
    }
    let prometheus = std::fs::read_to_string(workspace().join("deploy/compose/prometheus.yaml"));
    for target in ["command-svc:8081", "workers:8081", "query-api:8082"] {
        assert!(prometheus.as_ref().is_ok_and(|text| text.contains(target)), "{target} is measured");
    }
}

#[test]
fn a_planted_mistake_in_the_compose_file_is_found() {
    let text = std::fs::read_to_string(workspace().join("compose.yaml")).expect("the file");
    for (right, wrong) in
        [("read_only: true", "read_onyl: true"), ("stop_grace_period: 10s", "stop_grace_period: [10s]")]
    {
        assert!(text.contains(right), "{right}");
        let file = workspace().join(format!("target/compose-{}.yaml", uuid::Uuid::new_v4()));
        std::fs::write(&file, text.replace(right, wrong)).expect("written");
        let read_as = read(&file);
        std::fs::remove_file(&file).expect("removed");
        let Some(read_as) = read_as else { return };
        assert!(read_as.is_err(), "{wrong} is not found");
    }
}
