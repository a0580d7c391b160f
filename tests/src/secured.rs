//! A nats-server as it is to be run: TLS, and for each kind of process a key of its own.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use nats::{Connection, Identity, accounts::User, server};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::{LIMIT, Process, binary, free_port, workspace};

/// A secured nats-server; it is killed when the test ends.
pub struct Secured {
    folder: tempfile::TempDir,
    url: String,
    _process: Process,
}

impl Secured {
    /// With a log.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With a log that was set up with these settings besides.
    pub async fn start_with(settings: &[&str]) -> Self {
        let secured = Self::start_bare().await;
        let set_up = secured.set_up(settings);
        assert!(set_up.status.success(), "{set_up:?} {}", secured.said());
        secured
    }

    /// Makes or verifies the log with the set-up key.
    pub fn set_up(&self, settings: &[&str]) -> Output {
        let mut command = Command::new(binary("twelve"));
        command.args(["nats", "setup"]).args(self.arguments(User::Setup)).args(settings);
        command.output().expect("it runs")
    }

    /// Without a log.
    pub async fn start_bare() -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary folder")).await
    }

    /// Without a log, with the keys of another one, as a backup of its folder has them.
    pub async fn start_with_keys_of(other: &Self) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for user in User::ALL {
            let key = other.key(user);
            fs::copy(&key, folder.path().join(key.file_name().expect("a name"))).expect("copied");
        }
        Self::start_in(folder).await
    }

    async fn start_in(folder: tempfile::TempDir) -> Self {
        let made = Command::new(binary("twelve"))
            .args(["nats-accounts", "--nack", "--out"])
            .arg(folder.path())
            .output();
        assert!(made.expect("it runs").status.success());
        certify(folder.path());
        let (port, path) = (free_port(), folder.path().display());
        let configuration = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{path}/js\", sync_interval: always }}\n\
             tls {{ cert_file: \"{path}/server.pem\", key_file: \"{path}/server.key\" }}\n\
             include ./accounts.conf\n"
        );
        let file = folder.path().join("nats-server.conf");
        fs::write(&file, configuration).expect("written");
        let program = server::find_or_install(&workspace().join(".tools")).await.expect("a nats-server");
        let log = fs::File::create(folder.path().join("log")).expect("a file");
        let process = Process::foreign(Command::new(program).arg("-c").arg(&file).stderr(log));
        let secured = Self { url: format!("nats://127.0.0.1:{port}"), folder, _process: process };
        let connected = async {
            while secured.connect(User::Operator).await.is_none() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, connected)
            .await
            .unwrap_or_else(|_| panic!("no server: {}", secured.said()));
        secured
    }

    /// What the server said.
    pub fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The file with this user's key.
    pub fn key(&self, user: User) -> PathBuf {
        self.folder.path().join(format!("{}.nk", user.name()))
    }

    /// The file with the certificate that vouches for the server.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// What one of our processes is given to connect as this user.
    pub fn arguments(&self, user: User) -> Vec<String> {
        let (key, ca) = (self.key(user).display().to_string(), self.ca().display().to_string());
        ["--nats", &self.url, "--nats-nkey", &key, "--nats-ca", &ca].map(ToOwned::to_owned).to_vec()
    }

    pub async fn connect(&self, user: User) -> Option<Connection> {
        let identity = Identity { nats_nkey: Some(self.key(user)), nats_ca: Some(self.ca()) };
        Connection::open_as(&self.url, "test", &identity).await.ok()
    }
}

/// A certificate for a server on this machine and its key, and of whoever vouches for it: `server.pem`, `server.key`
/// and `ca.pem` in this folder.
pub fn certify(folder: &std::path::Path) {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer =
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an issuer");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).expect("parameters");
    let certificate = params.signed_by(&key, &issuer).expect("signed");
    for (name, text) in
        [("ca.pem", issuer.pem()), ("server.pem", certificate.pem()), ("server.key", key.serialize_pem())]
    {
        fs::write(folder.join(name), text).expect("written");
    }
}
