//! Programs on clients that tools made from the contract: each places an order, reads, follows and cancels it, and
//! reads an amount that 32 bits do not hold.

use std::{
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use serde_json::{Value, json};
use twelve_tests::{
    Platform,
    tools::{java_client, python_client, typescript_client},
    workspace,
};

/// The longest that a tool may take on a machine that does other things, too.
const TOOL_MAX: Duration = Duration::from_mins(5);

async fn run(command: &mut tokio::process::Command) -> String {
    let run = tokio::time::timeout(TOOL_MAX, command.kill_on_drop(true).output());
    let Output { status, stdout, stderr } = run.await.expect("in time").expect("it runs");
    let said = String::from_utf8_lossy(&stdout).into_owned();
    assert!(status.success(), "{said}{}", String::from_utf8_lossy(&stderr));
    said
}

fn contract() -> PathBuf {
    workspace().join("docs/openapi.json")
}

fn program(name: &str) -> PathBuf {
    workspace().join("tests/clients").join(name)
}

/// What a program saw of its order.
fn must_have_seen(said: &str) {
    let saw: Value = said.lines().last().and_then(|line| serde_json::from_str(line).ok()).expect("JSON");
    assert_eq!(saw["amount"], json!(5_000_000_000_i64), "{saw}");
    assert_eq!((&saw["payment"], &saw["status"]), (&json!("approved"), &json!("canceled")), "{saw}");
    assert_eq!(saw["followed"], saw["order_id"], "{saw}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_in_typescript_compiles_strictly_and_places_reads_follows_and_cancels_an_order() {
    let Some(tools) = typescript_client() else { return };
    let modules = tools.join("node_modules");
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    std::os::unix::fs::symlink(&modules, at("node_modules")).expect("a link");
    std::fs::write(at("package.json"), r#"{"type":"module"}"#).expect("written");
    std::fs::copy(program("shop.ts"), at("shop.ts")).expect("copied");
    let node = |script: &str| {
        let mut command = tokio::process::Command::new("node");
        command.arg(modules.join(script)).current_dir(folder.path());
        command
    };
    run(node("openapi-typescript/bin/cli.js").arg(contract()).arg("-o").arg(at("twelve.d.ts"))).await;
    let checks = ["--strict", "--noUncheckedIndexedAccess", "--exactOptionalPropertyTypes"];
    let target = ["--module", "nodenext", "--target", "es2022", "--lib", "es2022,dom,dom.iterable"];
    run(node("typescript/bin/tsc").args(checks).args(target).args(["--outDir", "out", "shop.ts"])).await;
    let platform = Platform::up().await;
    let mut shop = tokio::process::Command::new("node");
    shop.arg(at("out/shop.js")).arg(platform.client.url()).current_dir(folder.path());
    must_have_seen(&run(&mut shop).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_in_python_places_reads_follows_and_cancels_an_order() {
    let Some(tools) = python_client() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let python = |path: &[&Path]| {
        let mut command = tokio::process::Command::new("python3");
        command.env("PYTHONPATH", std::env::join_paths(path).expect("a path")).current_dir(folder.path());
        command
    };
    let client = folder.path().join("twelve");
    let mut make = python(&[&tools]);
    make.args(["-m", "openapi_python_client", "generate", "--meta", "none", "--path"]).arg(contract());
    let said = run(make.arg("--output-path").arg(&client)).await;
    assert!(!said.contains("WARNING parsing") && !said.contains("Unable"), "calls are missing: {said}");
    let platform = Platform::up().await;
    let mut shop = python(&[folder.path(), &tools]);
    must_have_seen(&run(shop.arg(program("shop.py")).arg(platform.client.url())).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_in_java_compiles_and_places_reads_follows_and_cancels_an_order() {
    let Some(tools) = java_client() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let jars: Vec<PathBuf> =
        std::fs::read_dir(&tools).expect("the tools").flatten().map(|entry| entry.path()).collect();
    let is_maker = |jar: &PathBuf| jar.to_string_lossy().contains("openapi-generator-cli");
    let maker = jars.iter().find(|jar| is_maker(jar)).expect("the maker of clients");
    let mut make = tokio::process::Command::new("java");
    make.arg("-jar").arg(maker).args(["generate", "-g", "java", "--library", "native", "-i"]).arg(contract());
    make.args(["--additional-properties", "openApiNullable=false,useJakartaEe=true"]);
    run(make.arg("-o").arg(folder.path().join("client"))).await;
    let classes = folder.path().join("classes");
    let stands_on = jars.iter().filter(|jar| !is_maker(jar)).chain([&classes]);
    let path = std::env::join_paths(stands_on).expect("a path");
    let sources = folder.path().join("sources");
    let written: Vec<String> = java_files(&folder.path().join("client/src/main/java"));
    std::fs::write(&sources, written.join("\n")).expect("written");
    let mut compile = tokio::process::Command::new("javac");
    compile.args(["-nowarn", "-proc:none", "-encoding", "UTF-8", "-cp"]).arg(&path).arg("-d").arg(&classes);
    run(compile.arg(format!("@{}", sources.display())).arg(program("Shop.java"))).await;
    let platform = Platform::up().await;
    let mut shop = tokio::process::Command::new("java");
    shop.arg("-cp").arg(&path).arg("Shop").arg(platform.client.url());
    must_have_seen(&run(&mut shop).await);
}

fn java_files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("what was made").flatten().map(|entry| entry.path());
    entries
        .flat_map(|path| match path.extension() {
            Some(kind) if kind == "java" => vec![path.display().to_string()],
            Some(_) => Vec::new(),
            None => java_files(&path),
        })
        .collect()
}
