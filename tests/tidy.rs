//! House rules that a machine can check.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use twelve_tests::workspace;

const LINE_CHARS_MAX: usize = 120;
const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 480;
/// What the pure domain may stand on.
const DOMAIN_MAY_USE: [&str; 8] =
    ["iso_currency", "jiff", "schemars", "serde", "thiserror", "toml", "unicode-properties", "uuid"];

fn tracked_files() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(workspace())
        .output()
        .expect("git runs");
    String::from_utf8_lossy(&listed.stdout)
        .lines()
        .map(|line| workspace().join(line))
        .filter(|path| path.exists())
        .collect()
}

fn rust_files() -> Vec<(PathBuf, String)> {
    let is_rust = |path: &Path| path.extension().is_some_and(|extension| extension == "rs");
    let files = tracked_files().into_iter().filter(|path| is_rust(path));
    files.map(|path| (path.clone(), std::fs::read_to_string(path).expect("a text"))).collect()
}

fn manifest(member: &str) -> toml_lite::Dependencies {
    toml_lite::dependencies(
        &std::fs::read_to_string(workspace().join(member).join("Cargo.toml")).expect("a manifest"),
    )
}

/// As much of a manifest as these rules need.
mod toml_lite {
    pub(crate) type Dependencies = Vec<String>;

    pub(crate) fn dependencies(manifest: &str) -> Dependencies {
        let section = manifest.split("\n[dependencies]\n").nth(1).unwrap_or_default();
        let section = section.split("\n[").next().unwrap_or_default();
        section.lines().filter_map(|line| Some(line.split_once([' ', '.'])?.0.to_owned())).collect()
    }
}

#[test]
fn the_domain_stands_on_nothing_that_could_do_io() {
    assert_eq!(manifest("domain"), DOMAIN_MAY_USE);
}

#[test]
fn crates_depend_on_each_other_only_downwards() {
    let allowed: [(&str, &[&str]); 7] = [
        ("domain", &[]),
        ("nats", &["domain"]),
        ("nats/service", &["domain", "nats"]),
        ("command-svc", &["domain", "nats", "service"]),
        ("projector", &["domain", "nats", "service"]),
        ("projector/ledger", &["domain", "nats"]),
        ("query-api", &["domain", "nats", "projector", "service"]),
    ];
    let ours = ["domain", "nats", "service", "command-svc", "projector", "ledger", "query-api", "twelve"];
    for (member, may) in allowed {
        let uses: Vec<String> =
            manifest(member).into_iter().filter(|name| ours.contains(&name.as_str())).collect();
        assert!(
            uses.iter().all(|name| may.contains(&name.as_str())),
            "{member} uses {uses:?}, and may use {may:?}"
        );
    }
}

#[test]
fn only_the_nats_crate_knows_jetstream_and_only_the_projector_knows_sled() {
    for member in
        ["domain", "nats/service", "command-svc", "projector", "projector/ledger", "query-api", "cli"]
    {
        let uses = manifest(member);
        assert!(!uses.contains(&"async-nats".to_owned()), "{member} uses async-nats");
        assert!(member == "projector" || !uses.contains(&"sled".to_owned()), "{member} uses sled");
    }
}

#[test]
fn every_view_is_on_the_list() {
    let list = std::fs::read_to_string(workspace().join("projector/src/view.rs")).expect("the list");
    for entry in std::fs::read_dir(workspace().join("projector/src/view")).expect("the views").flatten() {
        let name = entry.path().file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
        assert!(list.matches(&format!("{name}::")).count() >= 1, "{name} is not on the list");
    }
}

#[test]
fn files_functions_and_lines_stay_short_and_modules_have_names() {
    for (path, text) in rust_files() {
        let shown = path.strip_prefix(workspace()).expect("ours").display().to_string();
        assert!(!shown.ends_with("/mod.rs"), "{shown}: name the module's file after the module");
        assert!(text.lines().count() <= FILE_LINES_MAX, "{shown} is long: is there a missing noun?");
        assert!(text.starts_with("//!"), "{shown} does not say what it is");
        let mut function: Option<(usize, String)> = None;
        for (number, line) in (1..).zip(text.lines()) {
            assert!(
                line.chars().count() <= LINE_CHARS_MAX || line.contains('"'),
                "{shown}:{number} is too wide"
            );
            let indent = line.len() - line.trim_start().len();
            if line.contains("fn ") && line.trim_end().ends_with('{') {
                function = Some((number, " ".repeat(indent) + "}"));
            } else if let Some((start, end)) = &function
                && line == end
            {
                assert!(number - start <= FUNCTION_LINES_MAX, "{shown}:{start} is a long function");
                function = None;
            }
        }
    }
}

#[test]
fn nothing_is_left_over() {
    for (path, text) in rust_files() {
        if path.ends_with("tidy.rs") {
            continue;
        }
        for word in ["FIXME", "XXX", "todo!(", "dbg!("] {
            assert!(!text.contains(word), "{} contains {word}", path.display());
        }
    }
}

#[test]
fn the_list_of_scenarios_and_the_tests_are_in_step() {
    let list = std::fs::read_to_string(workspace().join("tests/SCENARIOS.md")).expect("the list");
    let listed: BTreeSet<(&str, &str)> = list
        .lines()
        .filter_map(|line| {
            let mut cells = line.split('`');
            Some((cells.nth(1)?, cells.nth(1)?)).filter(|_| line.starts_with("| "))
        })
        .collect();
    let mut there = BTreeSet::new();
    let files: Vec<(PathBuf, String)> =
        rust_files().into_iter().filter(|(path, _)| path.to_string_lossy().contains("/tests/e2e/")).collect();
    for (path, text) in &files {
        let file = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let tests = text
            .lines()
            .filter_map(|line| line.strip_prefix("async fn ")?.split_once('(').map(|(name, _)| name));
        let is_scenario = |name: &&str| {
            let rest = name.strip_prefix("a00").or(name.strip_prefix("x_"));
            rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        };
        there.extend(tests.filter(is_scenario).map(|name| (name, file)));
    }
    assert!(there.len() > 30, "{there:?}");
    assert_eq!(listed, there);
}

#[test]
fn every_decision_record_says_its_status() {
    let records = std::fs::read_dir(workspace().join("docs/adr")).expect("the records");
    let mut count = 0;
    for record in records.flatten() {
        let text = std::fs::read_to_string(record.path()).expect("a text");
        assert!(text.contains("\nStatus: "), "{} has no status", record.path().display());
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn every_metric_has_a_help_text() {
    let catalog = std::fs::read_to_string(workspace().join("nats/service/src/catalog.rs")).expect("it");
    let is_ours = |path: &Path| !path.starts_with(workspace().join("tests"));
    for (path, text) in rust_files().into_iter().filter(|(path, _)| is_ours(path)) {
        for macro_name in ["counter!(", "gauge!(", "histogram!("] {
            for part in text.split(macro_name).skip(1) {
                let Some(name) = part.trim_start().strip_prefix('"') else { continue };
                let name = name.split('"').next().unwrap_or_default();
                let shown = path.display();
                assert!(catalog.contains(&format!("\"{name}\",")), "{shown}: {name} is not in the catalog");
            }
        }
    }
}
