//! The nats-servers of a cluster as they are shipped, by the NATS project's chart and by `compose.yaml`: what is
//! rendered is run, and nobody joins who is not to.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nats::accounts::User;
use serde_json::Value;
use tempfile::TempDir;
use twelve_tests::{
    LIMIT, Process, binary,
    charts::{Secrets, environment, find, mount, pod, rendered, unknown_mounts},
    free_port,
    manifests::faults,
    secured::certify,
    tools::compose_spec,
    workspace,
};

const LOOK_PAUSE: Duration = Duration::from_millis(50);
const SERVERS: usize = 3;

async fn nats_server() -> PathBuf {
    nats::server::find_or_install(&workspace().join(".tools")).await.expect("a nats-server")
}

/// The secrets that docs/install-kubernetes.md has made, in a folder.
fn secrets(folder: &Path) -> Secrets {
    let made = |name: &'static str| {
        let path = folder.join(name);
        fs::create_dir_all(&path).expect("made");
        (name, path)
    };
    let secrets = BTreeMap::from(["nats-tls", "nats-routes-tls", "nats-routes", "nats-accounts"].map(made));
    for name in ["nats-tls", "nats-routes-tls"] {
        let folder = &secrets[name];
        certify(folder);
        for (ours, theirs) in [("ca.pem", "ca.crt"), ("server.pem", "tls.crt"), ("server.key", "tls.key")] {
            fs::rename(folder.join(ours), folder.join(theirs)).expect("renamed");
        }
    }
    // All digits: what a configuration would take for a number.
    fs::write(secrets["nats-routes"].join("password"), "1234567890").expect("written");
    let mut twelve = Command::new(binary("twelve"));
    let made = twelve.args(["nats-accounts", "--out"]).arg(&secrets["nats-accounts"]).output();
    assert!(made.expect("it runs").status.success());
    secrets
}

/// A server's file and environment, and the ports that it has here.
struct Member {
    file: PathBuf,
    environment: Vec<(String, String)>,
    client: u16,
}

/// The servers' pods, on this machine: other folders and other ports, all else as it is rendered.
fn pods(objects: &[Value], secrets: &Secrets, folder: &Path) -> Vec<Member> {
    let set = find(objects, "StatefulSet", "nats");
    let container = &pod(set)["containers"][0];
    assert_eq!(container["name"], "nats");
    let ports: Vec<[u16; 3]> = (0..SERVERS).map(|_| [free_port(), free_port(), free_port()]).collect();
    let here = |text: String| {
        ports.iter().enumerate().fold(text, |text, (number, [_, route, _])| {
            text.replace(&format!("nats-{number}.nats-headless:6222"), &format!("127.0.0.1:{route}"))
        })
    };
    let member = |(number, [client, route, monitor]): (usize, &[u16; 3])| {
        let name = format!("nats-{number}");
        let root = folder.join(&name);
        mount(objects, set, container, secrets, &root);
        let file = root.join("etc/nats-config/nats.conf");
        let text = fs::read_to_string(&file).expect("a configuration");
        let mut text = here(text)
            .replace("\"port\": 4222", &format!("\"port\": {client}"))
            .replace("\"port\": 6222", &format!("\"port\": {route}"))
            .replace("\"http_port\": 8222", &format!("\"http_port\": {monitor}"));
        for path in ["/etc/", "/data", "/var/"] {
            text = text.replace(&format!("\"{path}"), &format!("\"{}{path}", root.display()));
        }
        fs::write(&file, text).expect("written");
        let environment = environment(container, &name, secrets);
        let environment = environment.into_iter().map(|(name, value)| (name, here(value))).collect();
        Member { file, environment, client: *client }
    };
    ports.iter().enumerate().map(member).collect()
}

async fn is_valid(member: &Member) -> Result<(), String> {
    let mut command = Command::new(nats_server().await);
    command.arg("-t").arg("-c").arg(&member.file).envs(member.environment.iter().cloned());
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}

async fn start(member: &Member) -> Process {
    let log = fs::File::create(member.file.with_extension("log")).expect("a file");
    let mut command = Command::new(nats_server().await);
    command.arg("-c").arg(&member.file).envs(member.environment.iter().cloned()).stderr(log);
    Process::foreign(&mut command)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chart_of_the_nats_project_makes_servers_of_the_values_that_start() {
    let Some(objects) = rendered("nats", "values.yaml") else { return };
    // A template of the chart leaves this empty.
    let mut valid = objects.clone();
    for object in &mut valid {
        if let Some(metadata) = object.pointer_mut("/spec/template/metadata").and_then(Value::as_object_mut) {
            metadata.retain(|_, value| !value.is_null());
        }
    }
    assert_eq!(faults(&valid).expect("a validator"), "");
    let set = find(&objects, "StatefulSet", "nats");
    assert_eq!(unknown_mounts(set), Vec::<String>::new());
    assert_eq!(pod(set)["containers"][0]["image"], "nats:2.15.1-alpine");
    let folder = tempfile::tempdir().expect("a folder");
    let secrets = secrets(folder.path());
    for member in pods(&objects, &secrets, folder.path()) {
        is_valid(&member).await.unwrap_or_else(|said| panic!("{said}"));
        let text = fs::read_to_string(&member.file).expect("a configuration");
        assert!(!text.contains("1234567890"), "a password is in the ConfigMap");
    }
}

#[test]
fn the_chart_of_the_controller_of_streams_gives_it_a_key_and_the_servers_authority() {
    let Some(objects) = rendered("nack", "nack-values.yaml") else { return };
    assert_eq!(faults(&objects).expect("a validator"), "");
    let controller = find(&objects, "Deployment", "nack");
    assert_eq!(unknown_mounts(controller), Vec::<String>::new());
    let arguments = pod(controller)["containers"][0]["args"].to_string();
    for argument in ["--nkey=/etc/jsc-nkey/nack.nk", "--tlsca=/etc/nats/certs/ca.crt", "--control-loop"] {
        assert!(arguments.contains(argument), "{argument}: {arguments}");
    }
    // A certificate of its own would have to be there.
    assert!(!arguments.contains("--tlscert") && !arguments.contains("--tlskey"), "{arguments}");
}

/// What a server brings that wants to join.
struct Stranger<'a> {
    name: &'static str,
    /// Where `tls.crt`, `tls.key` and `ca.crt` are; `None`: it speaks no TLS.
    certificate: Option<&'a Path>,
    /// As an address has it: `user:password@`.
    user: &'a str,
}

/// After so many refusals a server is taken as not let in.
const REFUSALS: usize = 3;

/// Whether a server with accounts of its own making gets a route to that address.
async fn joins(stranger: &Stranger<'_>, cluster: &str, route: &str) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let (client, own_route, monitor) = (free_port(), free_port(), free_port());
    let tls = stranger.certificate.map_or_else(String::new, |at| {
        let at = at.display();
        format!("tls {{ cert_file: \"{at}/tls.crt\", key_file: \"{at}/tls.key\", ca_file: \"{at}/ca.crt\" }}")
    });
    let scheme = if stranger.certificate.is_some() { "tls" } else { "nats" };
    let text = format!(
        "server_name: stranger\nlisten: \"127.0.0.1:{client}\"\nhttp: \"127.0.0.1:{monitor}\"\n\
         accounts {{ SYS {{}}, TWELVE {{ users: [{{ user: x, password: x }}] }} }}\nsystem_account: SYS\n\
         cluster {{ name: {cluster}, listen: \"127.0.0.1:{own_route}\", {tls}\n\
         routes: [\"{scheme}://{}{route}\"] }}\n",
        stranger.user
    );
    let member = Member { file: folder.path().join("stranger.conf"), environment: Vec::new(), client };
    fs::write(&member.file, text).expect("written");
    let _running = start(&member).await;
    let refusals = ["Authorization Violation", "TLS route handshake error", "tls:", "Client Closed"];
    let decided = async {
        loop {
            let routes = reqwest::get(format!("http://127.0.0.1:{monitor}/routez")).await;
            if let Ok(routes) = routes
                && let Ok(routes) = routes.json::<Value>().await
                && routes["routes"].as_array().into_iter().flatten().any(|route| {
                    // Its name is known once the other side has let it in.
                    route["remote_name"].as_str().is_some_and(|name| !name.is_empty())
                })
            {
                return true;
            }
            let log = fs::read_to_string(member.file.with_extension("log")).unwrap_or_default();
            let is_refusal = |line: &&str| refusals.iter().any(|refusal| line.contains(refusal));
            if log.lines().filter(is_refusal).count() >= REFUSALS {
                return false;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    let log = || fs::read_to_string(member.file.with_extension("log")).unwrap_or_default();
    let decided = tokio::time::timeout(LIMIT, decided).await;
    decided.unwrap_or_else(|_| panic!("{}: neither joined nor refused: {}", stranger.name, log()))
}

#[tokio::test(flavor = "multi_thread")]
async fn three_servers_of_the_chart_are_a_cluster_that_no_other_server_joins() {
    let Some(objects) = rendered("nats", "values.yaml") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let secrets = secrets(folder.path());
    let members = pods(&objects, &secrets, folder.path());
    let mut running = Vec::new();
    for member in &members {
        running.push(start(member).await);
    }
    let keys = &secrets["nats-accounts"];
    let urls: Vec<String> =
        members.iter().map(|member| format!("tls://127.0.0.1:{}", member.client)).collect();
    let mut set_up = Command::new(binary("twelve"));
    set_up.args(["nats", "setup", "--replicas", "3", "--nats", &urls.join(","), "--nats-nkey"]);
    set_up.arg(keys.join(format!("{}.nk", User::Setup.name())));
    set_up.arg("--nats-ca").arg(secrets["nats-tls"].join("ca.crt"));
    let made = set_up.output().expect("it runs");
    let said = fs::read_to_string(members[0].file.with_extension("log"));
    assert!(made.status.success(), "{made:?} {said:?}");
    let route = members[0].environment.iter().find(|(name, _)| name == "ROUTE_0").expect("a route");
    let route = route.1.trim_matches('"').rsplit_once('@').expect("a password").1.to_owned();
    let another = TempDir::new().expect("a folder");
    let others = self::secrets(another.path());
    let (ours, theirs) = (secrets["nats-routes-tls"].as_path(), others["nats-routes-tls"].as_path());
    let user = "routes:1234567890@";
    for stranger in [
        Stranger { name: "with nothing", certificate: None, user: "" },
        Stranger { name: "with the password alone", certificate: None, user },
        Stranger { name: "with the certificate alone", certificate: Some(ours), user: "" },
        Stranger { name: "with another authority's certificate", certificate: Some(theirs), user },
        Stranger { name: "with another password", certificate: Some(ours), user: "routes:other@" },
    ] {
        assert!(!joins(&stranger, "nats", &route).await, "a server {} joins", stranger.name);
    }
    // So a server does join that may.
    let member = Stranger { name: "with both", certificate: Some(ours), user };
    assert!(joins(&member, "nats", &route).await);
}

/// The nats-servers of `compose.yaml`, on this machine: other ports and folders, all else as it is.
fn composed(services: &Value, folder: &Path) -> Vec<Member> {
    let ports: Vec<[u16; 3]> = (0..SERVERS).map(|_| [free_port(), free_port(), free_port()]).collect();
    let text = fs::read_to_string(workspace().join("deploy/compose/nats.conf")).expect("a configuration");
    let member = |(number, [client, route, monitor]): (usize, &[u16; 3])| {
        let name = format!("nats-{}", number + 1);
        let service = &services[&name];
        let root = folder.join(&name);
        fs::create_dir_all(root.join("data")).expect("made");
        let text = text
            .replace("0.0.0.0:4222", &format!("127.0.0.1:{client}"))
            .replace("0.0.0.0:6222", &format!("127.0.0.1:{route}"))
            .replace("0.0.0.0:8222", &format!("127.0.0.1:{monitor}"))
            .replace("\"/data\"", &format!("\"{}/data\"", root.display()));
        let file = root.join("nats.conf");
        fs::write(&file, text).expect("written");
        let here = |value: &str| {
            ports.iter().enumerate().fold(value.to_owned(), |value, (number, [_, route, _])| {
                value.replace(&format!("nats-{}:6222", number + 1), &format!("127.0.0.1:{route}"))
            })
        };
        let set = service["environment"].as_object().expect("an environment");
        let mut environment: Vec<(String, String)> =
            set.iter().map(|(name, value)| (name.clone(), here(value.as_str().expect("text")))).collect();
        environment.push(("HOSTNAME".into(), service["hostname"].as_str().expect("a name").into()));
        Member { file, environment, client: *client }
    };
    ports.iter().enumerate().map(member).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_servers_of_the_compose_file_are_a_cluster_that_no_server_without_its_password_joins() {
    let Some(tool) = compose_spec() else { return };
    let mut read = Command::new(tool);
    read.args(["--format", "json"]).arg(workspace().join("compose.yaml")).current_dir(workspace());
    let read = read.output().expect("it runs");
    let services: Value = serde_json::from_slice(&read.stdout).expect("JSON");
    let folder = tempfile::tempdir().expect("a folder");
    let members = composed(&services["services"], folder.path());
    let mut running = Vec::new();
    for member in &members {
        is_valid(member).await.unwrap_or_else(|said| panic!("{said}"));
        running.push(start(member).await);
    }
    let urls: Vec<String> =
        members.iter().map(|member| format!("nats://127.0.0.1:{}", member.client)).collect();
    let mut set_up = Command::new(binary("twelve"));
    set_up.args(["nats", "setup", "--replicas", "3", "--nats", &urls.join(",")]);
    let made = set_up.output().expect("it runs");
    assert!(made.status.success(), "{made:?}");
    let route = members[0].environment.iter().find(|(name, _)| name == "ROUTE_1").expect("a route");
    let (user, route) = route.1.trim_matches('"').rsplit_once('@').expect("a password");
    let without = Stranger { name: "without the password", certificate: None, user: "" };
    assert!(!joins(&without, "twelve", route).await);
    let user = format!("{}@", user.trim_start_matches("nats://"));
    let with = Stranger { name: "with the password", certificate: None, user: &user };
    assert!(joins(&with, "twelve", route).await);
}
