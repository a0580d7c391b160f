//! What a cluster is given: it validates, and its settings are settings.

use std::process::Command;

use serde_json::Value;
use twelve_tests::{
    Client, Process, Server, binary,
    client::order,
    free_port,
    manifests::{faults, faults_elsewhere, objects, render},
    program,
};

const ALL: [&str; 5] = ["base", "overlays/hpa-15", "overlays/hpa-50", "overlays/keda", "overlays/nack"];

#[test]
fn every_manifest_validates_and_planted_mistakes_are_found() {
    for name in ALL {
        let Some(text) = render(name) else { return };
        let Some(rendered) = objects(&text) else { return };
        assert_eq!(faults(&rendered).expect("a validator"), "", "{name}");
        assert_eq!(faults_elsewhere(&rendered), Vec::<String>::new(), "{name}");
    }
    let base = render("base").expect("as before");
    for (right, wrong) in [
        ("maxUnavailable: 0", "maxUnavailble: 0"),
        ("failureThreshold: 900", "failureThreshold: many"),
        ("minReplicas: 2", "minReplica: 2"),
    ] {
        assert!(base.contains(right), "{right}");
        let planted = objects(&base.replace(right, wrong)).expect("a reader");
        assert_ne!(faults(&planted).expect("a validator"), "", "{wrong} is not found");
    }
}

#[test]
fn commands_scale_as_the_replaced_systems_did() {
    for (name, percent, least, most) in [("hpa-15", 15, 1, 10), ("hpa-50", 50, 1, 3)] {
        let Some(rendered) = render(&format!("overlays/{name}")).and_then(|text| objects(&text)) else {
            return;
        };
        let is_it = |object: &&Value| {
            object["kind"] == "HorizontalPodAutoscaler" && object["metadata"]["name"] == "commands"
        };
        let spec = &rendered.iter().find(is_it).expect("an autoscaler")["spec"];
        assert_eq!(spec["metrics"][0]["resource"]["target"]["averageUtilization"], percent);
        assert_eq!((&spec["minReplicas"], &spec["maxReplicas"]), (&least.into(), &most.into()));
    }
}

#[test]
fn planted_mistakes_in_resources_of_others_are_found() {
    for (name, right, wrong) in [
        ("base", "replaceFullPath: /docs", "replaceFullPth: /docs"),
        ("overlays/keda", "cooldownPeriod: 120", "cooldwnPeriod: 120"),
        ("overlays/nack", "denyPurge: true", "denyPurg: true"),
        ("overlays/nack", "retention: limits", "retention: for-ever"),
    ] {
        let Some(text) = render(name) else { return };
        assert!(text.contains(right), "{right}");
        let Some(planted) = objects(&text.replace(right, wrong)) else { return };
        assert_ne!(faults_elsewhere(&planted), Vec::<String>::new(), "{wrong} is not found");
    }
}

/// A resource of a stream as the controller makes it of the server: the same under the server's own names.
fn as_the_controller_makes_it(resource: &Value) -> Value {
    let names = [
        ("replicas", "num_replicas"),
        ("duplicateWindow", "duplicate_window"),
        ("maxBytes", "max_bytes"),
        ("maxMsgSize", "max_msg_size"),
        ("maxMsgsPerSubject", "max_msgs_per_subject"),
        ("denyDelete", "deny_delete"),
        ("denyPurge", "deny_purge"),
        ("allowDirect", "allow_direct"),
        ("allowAtomicPublish", "allow_atomic"),
        ("allowMsgSchedules", "allow_msg_schedules"),
        ("allowMsgTtl", "allow_msg_ttl"),
        ("allowRollup", "allow_rollup_hdrs"),
        ("maxAge", "max_age"),
    ];
    let mut stream = serde_json::Map::new();
    for (name, value) in resource["spec"].as_object().expect("a spec") {
        let known =
            names.iter().find(|(theirs, _)| theirs == name).map_or(name.as_str(), |(_, server)| server);
        let value = match name.as_str() {
            "duplicateWindow" => serde_json::json!(1_000_000_000),
            "maxAge" => {
                let seconds = value.as_str().and_then(|age| age.strip_suffix('s')?.parse::<u64>().ok());
                serde_json::json!(seconds.expect("seconds") * 1_000_000_000)
            }
            "republish" => serde_json::json!({ "src": value["source"], "dest": value["destination"] }),
            // Here is one server only.
            "replicas" => serde_json::json!(1),
            "preventDelete" => continue,
            _ => value.clone(),
        };
        stream.insert(known.to_owned(), value);
    }
    Value::Object(stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn services_verify_the_streams_that_the_cluster_declares_and_make_none() {
    let printed = Command::new(binary("twelve")).args(["streams", "--replicas", "3"]).output();
    let printed = String::from_utf8(printed.expect("it runs").stdout).expect("a text");
    let folder = twelve_tests::workspace().join("deploy/kubernetes/overlays/nack");
    let committed = std::fs::read_to_string(folder.join("streams.yaml")).expect("the streams");
    assert!(
        printed == committed,
        "run `cargo twelve streams --replicas 3 > deploy/kubernetes/overlays/nack/streams.yaml`"
    );
    let Some(resources) = objects(&committed) else { return };
    let server = Server::start().await;
    let start = || {
        let listen = format!("127.0.0.1:{}", free_port());
        let arguments =
            ["--nats", server.url(), "--listen", &listen, "--partitions", "4", "--streams", "verify"];
        (Process::start("command-svc", &arguments), Client::new(&format!("http://{listen}")))
    };
    let (too_early, _) = start();
    assert!(!too_early.wait(), "without its streams it does not start");
    let client = async_nats::connect(server.url()).await.expect("connected");
    for resource in &resources {
        let stream = as_the_controller_makes_it(resource);
        let subject = format!("$JS.API.STREAM.CREATE.{}", stream["name"].as_str().expect("a name"));
        let answer = client.request(subject, stream.to_string().into()).await.expect("an answer");
        let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
        assert!(answer["error"].is_null(), "{answer}");
    }
    // The work queues are no resources of that controller.
    let set_up = Command::new(binary("twelve")).args(["nats", "setup", "--nats", server.url()]).output();
    assert!(set_up.as_ref().is_ok_and(|output| output.status.success()), "{set_up:?}");
    let (_service, shop) = start();
    shop.until_ready().await;
    assert_eq!(shop.post("/orders", &order("gentleman")).await.status, 201);
}

#[test]
fn workers_scale_on_every_worklist_of_every_partition() {
    let Some(rendered) = render("overlays/keda").and_then(|text| objects(&text)) else { return };
    let scaled = rendered.iter().find(|object| object["kind"] == "ScaledObject").expect("the workers");
    let triggers = scaled["spec"]["triggers"].as_array().cloned().expect("triggers");
    let mut lists: Vec<String> = triggers
        .iter()
        .map(|trigger| &trigger["metadata"])
        .filter_map(|list| Some(format!("{}/{}", list["stream"].as_str()?, list["consumer"].as_str()?)))
        .collect();
    lists.sort();
    let of = |partition: u16| [format!("NOTICES/notices-{partition}"), format!("ORDERS-{partition}/saga")];
    let mut wanted: Vec<String> = (0..4).flat_map(of).collect();
    wanted.sort();
    assert_eq!(lists, wanted);
}

#[test]
fn the_values_of_the_charts_read_and_name_the_server_that_is_tested() {
    let folder = twelve_tests::workspace().join("deploy/kubernetes/nats");
    for (file, chart) in [("values.yaml", "config"), ("nack-values.yaml", "jetstream")] {
        let text = std::fs::read_to_string(folder.join(file)).expect("values");
        let Some(values) = objects(&text) else { return };
        assert!(values[0][chart].is_object(), "{file}");
    }
    let values = std::fs::read_to_string(folder.join("values.yaml")).expect("values");
    assert!(values.contains("tag: 2.15.1-alpine") && values.contains("replicas: 3"));
    let compose = std::fs::read_to_string(twelve_tests::workspace().join("compose.yaml")).expect("compose");
    assert!(compose.contains("image: nats:2.15.1-alpine"));
}

/// The settings of the base.
fn settings() -> Option<Vec<(String, String)>> {
    let rendered = objects(&render("base")?)?;
    let map = rendered.iter().find(|object| object["kind"] == "ConfigMap").expect("settings");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    Some(
        map["data"]
            .as_object()
            .expect("data")
            .iter()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn x_16_each_key_of_the_config_map_is_a_setting_and_another_value_changes_what_a_service_does() {
    let Some(mut settings) = settings() else { return };
    let help = |name: &str| {
        let output = program(name).arg("--help").output().expect("it runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let known = help("command-svc") + &help("query-api");
    for (name, _) in &settings {
        let shown = [format!("{name}="), format!("env: {name}]")];
        assert!(shown.iter().any(|shown| known.contains(shown)), "{name} is no setting");
    }
    let server = Server::start().await;
    let here = [("TWELVE_NATS", server.url()), ("TWELVE_REPLICAS", "1"), ("TWELVE_DURABILITY", "fsync")];
    for (name, value) in &mut settings {
        if let Some((_, here)) = here.iter().find(|(key, _)| key == name) {
            *value = (*here).to_owned();
        }
    }
    // This test brings no issuer; loopback is open then.
    settings.retain(|(name, _)| name != "TWELVE_AUTH_JWKS");
    let refused = async |settings: &[(String, String)]| {
        let listen = format!("127.0.0.1:{}", free_port());
        let _service = Process::start_with("command-svc", &["--listen", &listen], settings);
        let client = Client::new(&format!("http://{listen}"));
        client.until_ready().await;
        let body = order("gentleman");
        let answers = futures::future::join_all((0..30).map(|_| client.post("/orders", &body))).await;
        answers.iter().filter(|answer| answer.status == 429).count()
    };
    assert_eq!(refused(&settings).await, 0, "sixty at once are allowed");
    settings.retain(|(name, _)| name != "TWELVE_CALLS_AT_ONCE");
    settings.push(("TWELVE_CALLS_AT_ONCE".into(), "2".into()));
    settings.retain(|(name, _)| name != "TWELVE_CALLS_PER_SECOND");
    settings.push(("TWELVE_CALLS_PER_SECOND".into(), "1".into()));
    assert!(refused(&settings).await > 20);
}
