//! A real browser, driven by a script of `tests/browser/`.

use std::{process::Output, time::Duration};

use serde_json::Value;

use crate::{
    tools::{chromium, playwright},
    workspace,
};

/// The longest that a script may take.
const RUN_MAX: Duration = Duration::from_mins(3);

/// Whether there is one; where not, that is said aloud.
pub fn is_here() -> bool {
    chromium().is_some() && playwright().is_some()
}

/// Runs a script with these arguments; answers with the JSON that it printed of what it saw, once it came to its end.
/// `None`, said aloud, where there is no browser. A picture is taken into the file that `TWELVE_PICTURE` names.
pub async fn run(script: &str, arguments: &[&str]) -> Option<Value> {
    let (browser, tools) = (chromium()?, playwright()?);
    let mut command = tokio::process::Command::new("node");
    command.arg(workspace().join("tests/browser").join(script)).arg(&tools).arg(&browser);
    command.args(arguments).args(std::env::var("TWELVE_PICTURE").ok()).kill_on_drop(true);
    let ran = tokio::time::timeout(RUN_MAX, command.output()).await;
    let Output { stdout, stderr, .. } = ran.expect("in time").expect("node runs");
    let said = String::from_utf8_lossy(&[stdout.clone(), stderr].concat()).into_owned();
    let saw: Value = serde_json::from_slice(&stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert!(saw["stopped"].is_null(), "{saw:#}");
    Some(saw)
}
