//! The image: built from the shipped Dockerfile and run as a cluster runs it, where this machine has what that takes.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use twelve_tests::{
    Client, LIMIT, Process, Server, binary, client::order, free_port, processes::signal, workspace,
};

const BASE: &str = "localhost/twelve-test-base:local";
const IMAGE: &str = "localhost/twelve-test:local";
const END_MAX: Duration = Duration::from_secs(5);

fn run(program: &str, arguments: &[&str], folder: &Path) -> Output {
    let output = Command::new(program).args(arguments).current_dir(folder).output().expect("it runs");
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn said(program: &str, arguments: &[&str], folder: &Path) -> String {
    String::from_utf8_lossy(&run(program, arguments, folder).stdout).trim().to_owned()
}

/// What of an image's making is not on this machine.
fn missing() -> Option<&'static str> {
    let works = |tool: &&str| {
        Command::new(tool)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    ["buildah", "mmdebstrap", "runc"].into_iter().find(|tool| !works(tool))
}

/// Builds the image in `folder` on what Debian has of the base that is shipped; answers with its files.
fn build(folder: &Path) -> String {
    let buildah =
        |arguments: &[&str]| said("buildah", &[&["--storage-driver", "vfs"], arguments].concat(), folder);
    let parts = "--include=libc6,libgcc-s1,ca-certificates,base-files,netbase";
    run("mmdebstrap", &["--variant=extract", parts, "bookworm", "base"], folder);
    // Unlike the shipped base it holds no bundle of certificates: who calls nobody by https needs none.
    let container = buildah(&["from", "scratch"]);
    buildah(&["add", &container, "base", "/"]);
    buildah(&["commit", "--rm", &container, BASE]);
    fs::create_dir_all(folder.join("target/release")).expect("made");
    fs::copy(binary("twelve"), folder.join("target/release/twelve")).expect("copied");
    let file = workspace().join("deploy/Dockerfile").display().to_string();
    let base = format!("BASE={BASE}");
    buildah(&["bud", "--isolation", "chroot", "--build-arg", &base, "-f", &file, "-t", IMAGE, "."]);
    let container = buildah(&["from", IMAGE]);
    let files = buildah(&["mount", &container]);
    run("cp", &["-a", &files, "rootfs"], folder);
    buildah(&["umount", &container]);
    buildah(&["rm", &container]);
    buildah(&["rmi", "--force", IMAGE, BASE]);
    folder.join("rootfs").display().to_string()
}

/// A container's configuration: read-only, nobody's user, the machine's own network.
fn configure(folder: &Path, arguments: &[&str]) {
    run("runc", &["spec"], folder);
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).expect("a configuration")).expect("JSON");
    config["process"]["args"] = json!(arguments);
    config["process"]["terminal"] = json!(false);
    config["process"]["user"] = json!({ "uid": 10_001, "gid": 10_001 });
    config["process"]["capabilities"] = json!({});
    config["root"]["readonly"] = json!(true);
    let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
    namespaces.retain(|namespace| namespace["type"] != "network");
    fs::write(path, config.to_string()).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_runs_as_nobody_on_a_root_that_cannot_be_written_and_ends_when_it_is_told_to() {
    if let Some(tool) = missing() {
        eprintln!("SKIPPED: no image is built without {tool}");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    build(folder.path());
    let server = Server::start().await;
    let listen = format!("127.0.0.1:{}", free_port());
    configure(
        folder.path(),
        &["/twelve", "command-svc", "--nats", server.url(), "--durability", "fsync", "--listen", &listen],
    );
    let name = format!("twelve-test-{}", std::process::id());
    let mut command = Command::new("runc");
    command.args(["run", &name]).current_dir(folder.path());
    command.stderr(fs::File::create(folder.path().join("said")).expect("a file"));
    let container = Process::foreign(&mut command);
    let client = Client::new(&format!("http://{listen}"));
    client.until_ready_or(|| fs::read_to_string(folder.path().join("said")).unwrap_or_default()).await;
    assert_eq!(client.post("/orders", &order("gentleman")).await.status, 201);
    let state: Value =
        serde_json::from_slice(&run("runc", &["state", &name], folder.path()).stdout).expect("JSON");
    let pid = state["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a process");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    assert!(status.contains("Uid:\t10001\t10001"), "{status}");
    let asked = Instant::now();
    signal("TERM", pid);
    container.wait();
    assert!(asked.elapsed() < END_MAX.min(LIMIT), "it took {:?}", asked.elapsed());
}
