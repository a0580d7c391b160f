//! What a cluster is given: it validates, and its settings are settings.

use std::process::Command;

use serde_json::{Value, json};
use twelve_tests::{
    Client, LIMIT, Node, Process, Server, binary,
    charts::{find, pod, unknown_mounts},
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
        ("base", "replaceFullPath: /not", "replaceFullPth: /not"),
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
            "duplicateWindow" => json!(1_000_000_000),
            "maxAge" => {
                let seconds = value.as_str().and_then(|age| age.strip_suffix('s')?.parse::<u64>().ok());
                json!(seconds.expect("seconds") * 1_000_000_000)
            }
            "republish" => json!({ "src": value["source"], "dest": value["destination"] }),
            // Here is one server only.
            "replicas" => json!(1),
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
    let (mut too_early, waiting) = start();
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
    // It was started before its streams were there, and has waited.
    waiting.until_ready().await;
    assert!(too_early.is_running());
    assert_eq!(waiting.post("/orders", &order("gentleman")).await.status, 201);
}

/// The workloads of a kustomization whose pods have a key.
pub(crate) fn workloads(objects: &[Value]) -> Vec<&Value> {
    let kinds = ["Deployment", "StatefulSet", "Job"];
    objects.iter().filter(|object| kinds.iter().any(|kind| object["kind"] == *kind)).collect()
}

#[test]
fn each_process_can_read_its_own_key_and_has_no_other() {
    let Some(rendered) = render("base").and_then(|text| objects(&text)) else { return };
    let mut keys = Vec::new();
    for workload in workloads(&rendered) {
        let name = workload["metadata"]["name"].as_str().expect("a name");
        let pod = pod(workload);
        let volumes = pod["volumes"].as_array().expect("volumes");
        let [volume] = volumes.as_slice() else { panic!("{name}: {volumes:?}") };
        let projected = &volume["projected"];
        // The kubelet leaves the files to root; what makes them readable is the group, and its bit.
        let (group, mode) = (&pod["securityContext"]["fsGroup"], projected["defaultMode"].as_u64());
        assert_eq!((group, mode), (&pod["securityContext"]["runAsGroup"], Some(0o440)), "{name}");
        let sources = projected["sources"].as_array().expect("sources");
        let secrets: Vec<&Value> =
            sources.iter().map(|source| &source["secret"]).filter(|secret| secret.is_object()).collect();
        let [secret] = secrets.as_slice() else { panic!("{name} has {} secrets", secrets.len()) };
        let items = secret["items"].as_array().expect("some of its keys only");
        let [item] = items.as_slice() else { panic!("{name}: {items:?}") };
        let container = &pod["containers"][0];
        let set = container["env"].as_array().into_iter().flatten();
        let mut key = set.filter(|entry| entry["name"] == "TWELVE_NATS_NKEY");
        let path = key.next().expect("a key")["value"].as_str().expect("a path");
        let mounted = container["volumeMounts"].as_array().into_iter().flatten();
        let folder = mounted.clone().find(|mount| mount["name"] == volume["name"]).expect("it is mounted");
        let (folder, file) = (folder["mountPath"].as_str(), item["path"].as_str().expect("a file"));
        assert_eq!(format!("{}/{file}", folder.expect("a folder")), path, "{name}");
        assert_eq!(unknown_mounts(workload), Vec::<String>::new());
        keys.push((name.to_owned(), secret["name"].as_str().expect("a name").to_owned(), file.to_owned()));
    }
    keys.sort();
    let wanted = [
        ("commands", "twelve-nats-command", "command.nk"),
        ("nats-setup", "twelve-nats-setup", "setup.nk"),
        ("views", "twelve-nats-views", "views.nk"),
        ("workers", "twelve-nats-command", "command.nk"),
    ];
    assert_eq!(keys, wanted.map(|(name, secret, file)| (name.into(), secret.into(), file.into())));
}

#[test]
fn routes_of_different_kinds_share_no_host() {
    let Some(rendered) = render("base").and_then(|text| objects(&text)) else { return };
    let hosts = |kind: &str| -> Vec<String> {
        let routes = rendered.iter().filter(|object| object["kind"] == kind);
        let hosts =
            routes.flat_map(|route| route["spec"]["hostnames"].as_array().cloned().unwrap_or_default());
        hosts.filter_map(|host| Some(host.as_str()?.to_owned())).collect()
    };
    let (rest, grpc) = (hosts("HTTPRoute"), hosts("GRPCRoute"));
    assert!(!rest.is_empty() && !grpc.is_empty(), "a route without a host is for all of them");
    assert!(rest.iter().all(|host| !grpc.contains(host)), "{rest:?} {grpc:?}");
}

#[test]
fn no_more_workers_are_started_than_there_are_partitions() {
    let Some(settings) = settings() else { return };
    let partitions =
        settings.iter().find(|(name, _)| name == "TWELVE_PARTITIONS").expect("a number").1.clone();
    for (overlay, kind, most) in [
        ("base", "HorizontalPodAutoscaler", "maxReplicas"),
        ("overlays/keda", "ScaledObject", "maxReplicaCount"),
    ] {
        let Some(rendered) = render(overlay).and_then(|text| objects(&text)) else { return };
        assert_eq!(find(&rendered, kind, "workers")["spec"][most].to_string(), partitions, "{overlay}");
        let scalers = rendered.iter().filter(|object| {
            object["metadata"]["name"] == "workers"
                && ["HorizontalPodAutoscaler", "ScaledObject"].iter().any(|kind| object["kind"] == *kind)
        });
        assert_eq!(scalers.count(), 1, "{overlay}: one thing says how many");
    }
}

#[test]
fn a_changed_setting_changes_the_pods_that_have_it() {
    let (_folder, copy) = crate::install::copied();
    let base = copy.join("base");
    let pods = || {
        let rendered = objects(&render(base.to_str().expect("a path"))?)?;
        Some(workloads(&rendered).into_iter().map(|workload| pod(workload).clone()).collect::<Vec<_>>())
    };
    let Some(before) = pods() else { return };
    assert_eq!(pods().expect("as before"), before);
    let file = base.join("settings.env");
    let text = std::fs::read_to_string(&file).expect("settings");
    std::fs::write(&file, text.replace("TWELVE_CALLS_AT_ONCE=60", "TWELVE_CALLS_AT_ONCE=61"))
        .expect("written");
    let after = pods().expect("as before");
    assert!(
        before.iter().zip(&after).all(|(before, after)| before != after),
        "a pod goes on with the old one"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_view_nodes_cannot_read_takes_none_of_them_out_of_service() {
    let Some(settings) = settings() else { return };
    let unreadable = settings.into_iter().find(|(name, _)| name == "TWELVE_UNREADABLE").expect("a setting").1;
    let mut node = Node::new(1, &["--unreadable", &unreadable]).await;
    node.start().await;
    let client = async_nats::connect(node.server.url()).await.expect("connected");
    let id = domain::OrderId(uuid::Uuid::now_v7());
    let mut headers = async_nats::HeaderMap::new();
    for (name, value) in [("Event-Type", "OrderTeleported"), ("Schema-Version", "1")] {
        headers.insert(name, value);
    }
    let subject = nats::subject::order(0, id);
    let jetstream = async_nats::jetstream::new(client);
    let stored = jetstream.publish_with_headers(subject, headers, "{}".into()).await;
    stored.expect("sent").await.expect("stored");
    let aside = async {
        while node.client.get("/views/orders").await.body["set_aside"] == json!([]) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, aside).await.expect("it is seen");
    let ready = node.client.get("/readyz").await;
    assert_eq!(ready.status, 200, "{ready:?}");
    // Where the front door sends what is not for the outside.
    for answer in [
        node.client.get("/not-for-the-outside").await,
        node.client.post("/not-for-the-outside", &json!({})).await,
    ] {
        assert_eq!(answer.status, 404, "{answer:?}");
    }
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
