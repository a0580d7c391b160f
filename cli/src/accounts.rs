//! `twelve nats-accounts`: a key for each kind of process, and what the nats-server lets each of them do.

use std::{
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use nats::{
    accounts::{self, User},
    topology::{PARTITIONS_DEFAULT, PARTITIONS_MAX},
};
use nkeys::KeyPair;

const CONFIGURATION: &str = "accounts.conf";

#[derive(Args, Clone, Debug)]
#[command(after_help = "Then, in the server's configuration:  include ./accounts.conf\n\
    and each process with its own key:         twelve command-svc --nats-nkey nats-keys/command.nk …")]
pub(crate) struct Settings {
    /// Where the keys are kept; those that are there stay as they are
    #[arg(long, value_name = "DIR", default_value = "nats-keys")]
    out: PathBuf,
    /// Partitions of the log
    #[arg(long, env = "TWELVE_PARTITIONS", value_name = "N", default_value_t = PARTITIONS_DEFAULT,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(PARTITIONS_MAX)))]
    partitions: u16,
    /// Make a key for NACK, too: the controller of the NATS project for Kubernetes, where it makes the streams
    #[arg(long)]
    nack: bool,
}

/// Makes the keys that are missing, and writes the server's part again.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    let folder = &settings.out;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path_of = |user: User| folder.join(format!("{}.nk", user.name()));
    let named = |path: &Path| format!("the key {}", path.display());
    // All that are there, before any is made.
    let mut found = Vec::new();
    for user in User::ALL {
        let path = path_of(user);
        // A key that was made is let in for as long as its file is there.
        if user == User::Nack && !settings.nack && !path.exists() {
            continue;
        }
        found.push((user, read(&path).with_context(|| named(&path))?));
    }
    let mut users = Vec::new();
    for (user, public) in found {
        let path = path_of(user);
        let public = public.map_or_else(|| make(&path).with_context(|| named(&path)), Ok)?;
        println!("{:<10} {public}  {}", user.name(), path.display());
        users.push((user, public));
    }
    // Whole or not at all: the server may be reading it.
    let (path, made) = (folder.join(CONFIGURATION), folder.join(format!("{CONFIGURATION}.new")));
    let failed = || format!("cannot write {}", path.display());
    fs::write(&made, accounts::configuration(&users, settings.partitions)).with_context(failed)?;
    // The server may run as another user; the keys stay private.
    fs::set_permissions(&made, fs::Permissions::from_mode(0o644))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    fs::rename(&made, &path).with_context(failed)?;
    println!("server     include {}", path.display());
    Ok(())
}

/// The public part of the key in this file; `None` if there is none.
fn read(path: &Path) -> anyhow::Result<Option<String>> {
    if !path.exists() {
        return Ok(None);
    }
    Ok(Some(KeyPair::from_seed(fs::read_to_string(path)?.trim())?.public_key()))
}

/// Makes a key; its public part.
fn make(path: &Path) -> anyhow::Result<String> {
    let pair = KeyPair::new_user();
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{}", pair.seed()?)?;
    Ok(pair.public_key())
}
