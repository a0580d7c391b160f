//! One nats-server at a time on a data folder: two on the same JetStream store lose acknowledged events.
//!
//! The server itself holds the lock: the locked file is its standard input, so the lock lasts exactly as long as its
//! process, whichever process started it, and by whichever path the folder is reached (flock(2): the lock belongs to
//! the open file, which a child inherits).

use std::{
    fs::{File, TryLockError},
    path::Path,
    process::Stdio,
};

use super::{ServerError, announcements};

/// The right to start a server on a folder.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Takes the lock; `None` while a server holds it, or another process is about to start one.
    pub(super) fn try_take(directory: &Path) -> Result<Option<Self>, ServerError> {
        let path = directory.join("lock");
        let failed = |source| ServerError::Write { path: path.clone(), source };
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.map_err(failed)?;
        match file.try_lock() {
            // One that a build before the lock started holds none.
            Ok(()) if announcements(directory).iter().any(|server| is_server_of(server.pid, directory)) => {
                Ok(None)
            }
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Gives the lock to the server that is started with this as its standard input.
    pub(super) fn into_stdin(self) -> Stdio {
        self.0.into()
    }
}

/// Whether this process is a nats-server on this folder, as far as the system tells: its number may be another's by
/// now.
fn is_server_of(pid: u32, directory: &Path) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).into_owned();
    let config = line.split('\0').map(Path::new).find(|argument| argument.ends_with("nats-server.conf"));
    let of = config.and_then(|config| config.parent()?.canonicalize().ok());
    of.is_some_and(|of| of == directory)
}
