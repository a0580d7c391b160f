//! Hosts in one machine: a network namespace and a small disk each, where the machine lets us make them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

const DISK_MEGABYTES: u64 = 512;

/// A host: where its programs run, and where they keep their files.
pub(crate) struct Host {
    pub(crate) address: String,
    namespace: Option<String>,
    /// The folder of its disk.
    pub(crate) folder: PathBuf,
    image: Option<PathBuf>,
}

/// The hosts, and the network between them.
pub(crate) struct Hosts {
    pub(crate) all: Vec<Host>,
    bridge: Option<String>,
    files: TempDir,
}

fn run(program: &str, arguments: &[&str]) -> Result<Output, String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{program} {}: {said}", arguments.join(" ")))
}

fn ip(line: &str) -> Result<Output, String> {
    run("ip", &line.split(' ').collect::<Vec<_>>())
}

impl Hosts {
    pub(crate) fn new(count: usize) -> Self {
        let files = tempfile::tempdir().expect("a temporary folder");
        let mut hosts = Self { all: Vec::new(), bridge: None, files };
        let number = std::process::id() % 250;
        let name = format!("twelve{number}");
        let subnet = format!("10.213.{number}");
        match ip(&format!("link add {name} type bridge")) {
            Ok(_) => {
                hosts.bridge = Some(name.clone());
                let up = ip(&format!("addr add {subnet}.1/24 dev {name}"));
                up.and_then(|_| ip(&format!("link set {name} up"))).expect("the bridge works");
            }
            Err(why) => eprintln!("SKIPPED: no network of our own, and so no partitions: {why}"),
        }
        for host in 0..count {
            let namespace = hosts.bridge.as_ref().map(|_| format!("{name}-{host}"));
            let address = match &namespace {
                Some(namespace) => {
                    let address = format!("{subnet}.{}", 10 + host);
                    connect(&name, namespace, &address).expect("a host on the network");
                    address
                }
                None => "127.0.0.1".to_owned(),
            };
            let folder = hosts.files.path().join(format!("disk{host}"));
            std::fs::create_dir(&folder).expect("a folder");
            let image = hosts.files.path().join(format!("disk{host}.image"));
            let mounted = make_disk(&image).and_then(|()| mount(&image, &folder));
            if let (0, Err(why)) = (host, &mounted) {
                eprintln!("SKIPPED: no disks of our own, and so no full ones and no power cuts: {why}");
            }
            hosts.all.push(Host { address, namespace, folder, image: mounted.ok().map(|()| image) });
        }
        hosts
    }

    /// Whether hosts can be cut off from each other.
    pub(crate) const fn has_network(&self) -> bool {
        self.bridge.is_some()
    }

    /// Whether hosts have disks that can be filled, slowed and cut off.
    pub(crate) fn has_disks(&self) -> bool {
        self.all.iter().all(|host| host.image.is_some())
    }
}

fn connect(bridge: &str, namespace: &str, address: &str) -> Result<(), String> {
    let inside = |line: &str| ip(&format!("-n {namespace} {line}"));
    ip(&format!("netns add {namespace}"))?;
    ip(&format!("link add {namespace} type veth peer name eth0 netns {namespace}"))?;
    ip(&format!("link set {namespace} master {bridge} up"))?;
    inside(&format!("addr add {address}/24 dev eth0"))?;
    inside("link set eth0 up")?;
    inside("link set lo up")?;
    Ok(())
}

fn make_disk(image: &Path) -> Result<(), String> {
    let file = std::fs::File::create(image).map_err(|error| error.to_string())?;
    file.set_len(DISK_MEGABYTES * 1024 * 1024).map_err(|error| error.to_string())?;
    run("mkfs.ext4", &["-q", "-F", &image.display().to_string()]).map(drop)
}

fn mount(image: &Path, folder: &Path) -> Result<(), String> {
    let (image, folder) = (image.display().to_string(), folder.display().to_string());
    run("mount", &["-o", "loop", &image, &folder]).map(drop)
}

impl Host {
    /// A command that will run on this host.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let Some(namespace) = &self.namespace else { return Command::new(program) };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(program);
        command
    }

    /// Cuts the host off from others, or connects it again.
    pub(crate) fn cut_off(&self, from: &[&str], is_cut: bool) {
        let Some(namespace) = &self.namespace else { return };
        let verb = if is_cut { "add" } else { "del" };
        for address in from {
            ip(&format!("-n {namespace} route {verb} blackhole {address}/32")).expect("the route is set");
        }
    }

    /// Fills the disk to the last byte, or makes room again.
    pub(crate) fn fill(&self, is_full: bool) {
        let ballast = self.folder.join("ballast");
        if is_full {
            // It fills what there is, and then fails.
            let (input, output) = ("if=/dev/zero".to_owned(), format!("of={}", ballast.display()));
            drop(run("dd", &[&input, &output, "bs=1M"]));
        } else {
            std::fs::remove_file(ballast).expect("the ballast goes");
        }
    }

    /// Lets nothing be written, or lets it be written again.
    pub(crate) fn halt_disk(&self, is_halted: bool) {
        let how = if is_halted { "-f" } else { "-u" };
        run("fsfreeze", &[how, &self.folder.display().to_string()]).expect("the disk heeds");
    }

    /// Brings to the disk what the system still has in memory.
    pub(crate) fn write_back(&self) {
        run("sync", &["-f", &self.folder.display().to_string()]).expect("the disk is written");
    }

    /// Keeps what is on the disk itself at this moment, without what the system still has in memory.
    pub(crate) fn remember_disk(&self) {
        let image = self.image.as_ref().expect("a disk").display().to_string();
        run("cp", &["--sparse=always", &image, &format!("{image}.cut")]).expect("the disk is copied");
    }

    /// The disk comes back as it was remembered; whatever was written since is gone.
    pub(crate) fn lose_power(&self) {
        let image = self.image.as_ref().expect("a disk");
        run("umount", &[&self.folder.display().to_string()]).expect("the disk lets go");
        std::fs::rename(format!("{}.cut", image.display()), image).expect("the disk is put back");
        mount(image, &self.folder).expect("the disk comes back");
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in &self.all {
            if host.image.is_some() {
                drop(run("umount", &["-l", &host.folder.display().to_string()]));
            }
            if let Some(namespace) = &host.namespace {
                drop(ip(&format!("link del {namespace}")));
                drop(ip(&format!("netns del {namespace}")));
            }
        }
        if let Some(bridge) = &self.bridge {
            drop(ip(&format!("link del {bridge}")));
        }
    }
}
