//! A rolling update under load, as the manifests have it: replicas behind the real nginx, probes and pauses as written.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;
use twelve_tests::{
    Client, Gateway, LIMIT, Process, Server,
    client::order,
    free_port,
    manifests::{objects, render},
    processes::signal,
};

const REPLICAS: usize = 2;
/// One call of each kind in this time.
const CALL_EVERY: Duration = Duration::from_millis(20);
/// A process that is asked to end does so within this time.
const END_MAX: Duration = Duration::from_secs(5);

/// What the manifests say of a kind of pod.
#[derive(Clone)]
struct Written {
    ready_path: String,
    ready_every: Duration,
    pause: Duration,
    live_path: String,
    live_every: Duration,
    live_timeout: Duration,
    live_failures: u64,
}

fn written(name: &str, rendered: &[Value]) -> Written {
    let is_it = |object: &&Value| {
        object["metadata"]["name"] == name
            && ["Deployment", "StatefulSet"].iter().any(|kind| object["kind"] == *kind)
    };
    let pod = &rendered.iter().find(is_it).expect("it is there")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let seconds = |value: &Value| Duration::from_secs(value.as_u64().expect("seconds"));
    let pause = seconds(&container["lifecycle"]["preStop"]["sleep"]["seconds"]);
    let grace = seconds(&pod["terminationGracePeriodSeconds"]);
    assert!(grace > pause + END_MAX, "{name} is killed before it has ended");
    let (probe, live) = (&container["readinessProbe"], &container["livenessProbe"]);
    Written {
        ready_path: probe["httpGet"]["path"].as_str().expect("a path").to_owned(),
        ready_every: seconds(&probe["periodSeconds"]),
        pause,
        live_path: live["httpGet"]["path"].as_str().expect("a path").to_owned(),
        live_every: seconds(&live["periodSeconds"]),
        live_timeout: seconds(&live["timeoutSeconds"]),
        live_failures: live["failureThreshold"].as_u64().expect("a number"),
    }
}

/// A running replica.
struct Pod {
    process: Process,
    client: Client,
    _folder: Option<TempDir>,
}

impl Pod {
    fn start(kind: &str, server: &Server) -> Self {
        let listen = format!("127.0.0.1:{}", free_port());
        let client = Client::new(&format!("http://{listen}"));
        let mut arguments = vec!["--nats", server.url(), "--durability", "fsync", "--listen", &listen];
        if kind == "commands" {
            return Self { process: Process::start("command-svc", &arguments), client, _folder: None };
        }
        let folder = tempfile::tempdir().expect("a folder");
        let views = folder.path().display().to_string();
        arguments.extend(["--views", &views, "--snapshot-every-s", "0"]);
        Self { process: Process::start("query-api", &arguments), client, _folder: Some(folder) }
    }

    /// Waits until its readiness probe, asked as often as written, says that it is ready.
    async fn until_ready(&self, written: &Written) {
        let asking = async {
            loop {
                let asked = self.client.try_send(self.client.request(Method::GET, &written.ready_path)).await;
                if asked.is_some_and(|answer| answer.status == 200) {
                    return;
                }
                tokio::time::sleep(written.ready_every).await;
            }
        };
        tokio::time::timeout(LIMIT, asking).await.expect("it becomes ready");
    }
}

/// Callers who place and read, steadily, and count what fails.
struct Load {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU32>,
    failures: Arc<AtomicU32>,
    first: Arc<std::sync::Mutex<Option<String>>>,
    callers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(door: &Client) -> Self {
        let load = Self {
            stop: Arc::default(),
            calls: Arc::default(),
            failures: Arc::default(),
            first: Arc::default(),
            callers: Vec::new(),
        };
        let callers = ["place", "read", "list"].map(|what| {
            // A door that is told of other servers ends idle connections; who takes one at that moment must try again.
            let (door, stop, calls) =
                (door.without_keep_alive(), Arc::clone(&load.stop), Arc::clone(&load.calls));
            let (failures, first) = (Arc::clone(&load.failures), Arc::clone(&load.first));
            tokio::spawn(async move {
                let body = order("gentleman");
                let mut every = tokio::time::interval(CALL_EVERY);
                while !stop.load(Ordering::Acquire) {
                    every.tick().await;
                    let request = match what {
                        "place" => door.request(Method::POST, "/orders").json(&body),
                        "read" => door.request(Method::GET, "/customers/gentleman/orders?limit=5"),
                        _ => door.request(Method::GET, "/orders?limit=5"),
                    };
                    let answer = door.try_send(request).await;
                    calls.fetch_add(1, Ordering::AcqRel);
                    if !answer.as_ref().is_some_and(|answer| answer.status.is_success()) {
                        failures.fetch_add(1, Ordering::AcqRel);
                        first.lock().expect("no panic").get_or_insert(format!("{what}: {answer:?}"));
                    }
                }
            })
        });
        Self { callers: callers.into(), ..load }
    }

    /// Calls, failures, and the first of those.
    async fn end(self) -> (u32, u32, Option<String>) {
        self.stop.store(true, Ordering::Release);
        for caller in self.callers {
            caller.await.expect("no panic");
        }
        let first = self.first.lock().expect("no panic").take();
        (self.calls.load(Ordering::Acquire), self.failures.load(Ordering::Acquire), first)
    }
}

/// The replicas of one kind.
struct Replicas {
    kind: &'static str,
    pods: Vec<Pod>,
    written: Written,
}

impl Replicas {
    async fn start(kind: &'static str, server: &Server, rendered: &[Value]) -> Self {
        let (written, mut pods) = (written(kind, rendered), Vec::new());
        for _ in 0..REPLICAS {
            let pod = Pod::start(kind, server);
            pod.until_ready(&written).await;
            pods.push(pod);
        }
        Self { kind, pods, written }
    }
}

/// The replicas of both kinds, and the door before them.
struct Deployment {
    server: Server,
    replicas: [Replicas; 2],
    door: Gateway,
}

impl Deployment {
    async fn up() -> Option<Self> {
        let rendered = objects(&render("base")?)?;
        let server = Server::start().await;
        let commands = Replicas::start("commands", &server, &rendered).await;
        let replicas = [commands, Replicas::start("views", &server, &rendered).await];
        let [commands, queries] = clients(&replicas);
        let door = Gateway::start_changeable(&commands, &queries).await?;
        Some(Self { server, replicas, door })
    }

    fn tell_the_door(&self) {
        let [commands, queries] = clients(&self.replicas);
        self.door.change(&commands, &queries);
    }

    /// Replaces each replica by a new one, which takes calls once it is ready, before the old one is asked to end.
    async fn roll(&mut self) {
        for kind in 0..self.replicas.len() {
            for replica in 0..REPLICAS {
                let of_kind = &mut self.replicas[kind];
                let written = of_kind.written.clone();
                let new = Pod::start(of_kind.kind, &self.server);
                new.until_ready(&written).await;
                let old = std::mem::replace(&mut of_kind.pods[replica], new);
                self.tell_the_door();
                // The pause before SIGTERM, as it is written.
                tokio::time::sleep(written.pause).await;
                let took = old.process.terminate().await;
                assert!(took < END_MAX, "it took {took:?} to end");
            }
        }
    }

    /// As without probes and pauses: a new replica takes calls as it starts, the old one is ended at once.
    async fn roll_carelessly(&mut self) {
        for kind in 0..self.replicas.len() {
            for replica in 0..REPLICAS {
                let of_kind = &mut self.replicas[kind];
                let new = Pod::start(of_kind.kind, &self.server);
                let old = std::mem::replace(&mut of_kind.pods[replica], new);
                self.tell_the_door();
                old.process.terminate().await;
            }
        }
    }
}

fn clients(replicas: &[Replicas; 2]) -> [Vec<&Client>; 2] {
    replicas.each_ref().map(|of_kind| of_kind.pods.iter().map(|pod| &pod.client).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn x_6_a_rolling_update_under_load_fails_no_call_and_without_probes_and_pauses_it_does() {
    let Some(mut deployment) = Deployment::up().await else { return };
    let load = Load::start(&deployment.door.client);
    let started = Instant::now();
    deployment.roll().await;
    let (calls, failures, first) = load.end().await;
    assert_eq!(failures, 0, "of {calls} calls in {:?}; the first: {first:?}", started.elapsed());
    assert!(calls > 200, "there was load: {calls}");
    let load = Load::start(&deployment.door.client);
    deployment.roll_carelessly().await;
    let (calls, failures, _) = load.end().await;
    assert!(failures > 0, "of {calls} calls none failed, so this rehearsal shows nothing");
}

/// Asks the liveness probe as it is written, until it has failed as often as it may.
async fn until_dead(client: &Client, written: &Written) {
    let mut failures = 0;
    let mut every = tokio::time::interval(written.live_every);
    while failures < written.live_failures {
        every.tick().await;
        let asking = client.try_send(client.request(Method::GET, &written.live_path));
        let answer = tokio::time::timeout(written.live_timeout, asking).await.ok().flatten();
        failures = if answer.is_some_and(|answer| answer.status == 200) { 0 } else { failures + 1 };
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn x_7_a_service_that_hangs_is_found_by_its_liveness_probe_and_after_its_restart_nothing_is_lost() {
    let Some(rendered) = render("base").and_then(|text| objects(&text)) else { return };
    let (of_commands, of_views) = (written("commands", &rendered), written("views", &rendered));
    let server = Server::start().await;
    let (pod, views) = (Pod::start("commands", &server), Pod::start("views", &server));
    pod.until_ready(&of_commands).await;
    views.until_ready(&of_views).await;
    let body = order("gentleman");
    let keys: Vec<String> = (0..20).map(|number| format!("hangs-{number}")).collect();
    let placing = keys.iter().map(|key| {
        let request = pod.client.request(Method::POST, "/orders").header("Idempotency-Key", key);
        pod.client.try_send(request.json(&body))
    });
    let placing = futures::future::join_all(placing);
    let hanging = async {
        signal("STOP", pod.process.id());
        until_dead(&pod.client, &of_commands).await;
    };
    tokio::select! { _ = placing => panic!("it hangs"), () = hanging => {} }
    pod.process.kill();
    let new = Pod::start("commands", &server);
    new.until_ready(&of_commands).await;
    for key in &keys {
        let placed = new.client.post_with_key("/orders", key, &body).await;
        assert_eq!(placed.status, 201, "{placed:?}");
        views.client.order_after(&placed.order_id(), placed.header("log-position")).await;
        views.client.until_status(&placed.order_id(), "out_for_delivery").await;
        assert_eq!(views.client.event_types(&placed.order_id()).await.len(), 6, "{key}: whole, and once");
    }
    let all = views.client.get("/orders?limit=200").await;
    assert_eq!(all.body["items"].as_array().map(Vec::len), Some(keys.len()));
}
