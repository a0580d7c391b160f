//! Flows of a user's own, made from shipped ones.

use tempfile::TempDir;

use crate::workspace;

/// The text of a shipped flow.
pub fn shipped(name: &str) -> String {
    let path = workspace().join(format!("domain/src/flow/{name}.toml"));
    std::fs::read_to_string(path).expect("a shipped flow")
}

/// A shipped flow with changes, each of which must apply.
pub fn changed(name: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(shipped(name), |text, (was, is)| {
        assert!(text.contains(was), "{name} has no {was:?}");
        text.replace(was, is)
    })
}

/// A folder of flow files.
pub fn folder(files: &[(&str, String)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        std::fs::write(folder.path().join(format!("{name}.toml")), text).expect("written");
    }
    folder
}
