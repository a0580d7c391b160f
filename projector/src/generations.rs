//! The generations in a folder of views: a directory each, and a note of which one serves.

use std::path::{Path, PathBuf};

use crate::store::{Store, StoreError};

const CURRENT: &str = "current";
/// Names the generation that served before, to which a rollback goes back.
pub(crate) const PREVIOUS: &str = "previous";
/// What the names of directories begin with that nobody comes back to.
const PASSING: &str = "passing-";

/// A directory that goes when it is dropped; what a crash leaves of it, the next start removes.
pub(crate) struct Passing(PathBuf);

impl Passing {
    pub(crate) fn new(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(format!("{PASSING}{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&path)
            .map_err(|source| StoreError::Directory { path: path.clone(), source })?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, "a passing directory stays on disk");
        }
    }
}

/// Where a generation is kept.
pub(crate) fn path(directory: &Path, generation: u32) -> PathBuf {
    directory.join(format!("generation-{generation:06}"))
}

/// The number of the serving generation.
pub fn current(directory: &Path) -> Result<Option<u32>, StoreError> {
    let path = directory.join(CURRENT);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::Directory { path, source }),
    }
}

/// Makes a generation the serving one, atomically; a process that serves already keeps its own until it restarts.
pub fn make_current(directory: &Path, generation: u32) -> Result<(), StoreError> {
    let path = directory.join(CURRENT);
    let next = directory.join("current.next");
    let written = std::fs::write(&next, generation.to_string()).and_then(|()| std::fs::rename(&next, &path));
    written.map_err(|source| StoreError::Directory { path, source })
}

/// Makes a generation that was built while no node ran the serving one; a rollback goes back to the one before.
pub fn supersede(directory: &Path, generation: u32) -> Result<(), StoreError> {
    if let Some(before) = current(directory)? {
        let path = directory.join(PREVIOUS);
        std::fs::write(&path, before.to_string()).map_err(|source| StoreError::Directory { path, source })?;
    }
    make_current(directory, generation)
}

/// The first generation of a folder that has nothing else in it.
pub(crate) fn afresh(directory: &Path) -> Result<Store, StoreError> {
    if let Err(source) = std::fs::remove_dir_all(directory)
        && source.kind() != std::io::ErrorKind::NotFound
    {
        return Err(StoreError::Directory { path: directory.to_owned(), source });
    }
    std::fs::create_dir_all(directory)
        .map_err(|source| StoreError::Directory { path: directory.to_owned(), source })?;
    Store::open(directory)
}

/// Removes the passing directories that a crash left.
pub(crate) fn remove_passing(directory: &Path) -> Result<(), StoreError> {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PASSING) {
            let path = entry.path();
            std::fs::remove_dir_all(&path).map_err(|source| StoreError::Directory { path, source })?;
        }
    }
    Ok(())
}

/// Removes a generation that nobody serves or builds.
pub fn remove(directory: &Path, generation: u32) -> Result<(), StoreError> {
    let path = path(directory, generation);
    std::fs::remove_dir_all(&path).map_err(|source| StoreError::Directory { path, source })
}

/// The generations there are, ascending.
pub fn all(directory: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let numbers =
        entries.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("generation-")?.parse().ok());
    let mut numbers: Vec<u32> = numbers.collect();
    numbers.sort_unstable();
    numbers
}

/// The highest generation there is, serving or not; 0 if there is none.
pub fn newest(directory: &Path) -> u32 {
    all(directory).last().copied().unwrap_or(0)
}
