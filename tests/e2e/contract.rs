//! The contract: `docs/openapi.json` says what is served, no less and no more, and the services keep to it.

use std::{collections::BTreeSet, process::Output};

use serde_json::Value;
use twelve_tests::{Platform, binary, browser, client::order, tools::schemathesis, workspace};

/// Cases that are made up for each call, besides those that cover its parameters.
const CASES: &str = "10";

fn committed() -> Value {
    let text = std::fs::read_to_string(workspace().join("docs/openapi.json")).expect("it is committed");
    serde_json::from_str(&text).expect("JSON")
}

fn paths(document: &Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().expect("paths");
    let methods = |calls: &Value| calls.as_object().expect("methods").keys().cloned().collect::<Vec<_>>();
    paths
        .iter()
        .flat_map(|(path, calls)| methods(calls).into_iter().map(move |method| (path.clone(), method)))
        .collect()
}

#[tokio::test]
async fn x_10_the_committed_contract_is_the_one_that_is_served() {
    let output = tokio::process::Command::new(binary("twelve")).arg("openapi").output().await;
    let output = output.expect("it runs");
    let served: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(
        served == committed(),
        "the contract has changed: if that is right, run `cargo twelve openapi > docs/openapi.json`"
    );
}

#[test]
fn every_route_is_in_the_contract_and_nothing_else_is() {
    let mut routes = BTreeSet::new();
    for file in ["command-svc/src/routes.rs", "query-api/src/routes.rs"] {
        let text = std::fs::read_to_string(workspace().join(file)).expect("the routes");
        for (_, rest) in text.match_indices(".route(\"").map(|(at, begin)| (at, &text[at + begin.len()..])) {
            let (path, handler) = rest.split_once("\", ").expect("a path and a handler");
            let (method, _) = handler.split_once('(').expect("a method");
            routes.insert((path.to_owned(), method.to_owned()));
        }
    }
    assert_eq!(routes, paths(&committed()));
}

#[test]
fn every_call_says_what_any_call_may_meet() {
    let document = committed();
    let calls = document["paths"].as_object().expect("paths").values();
    for call in calls.flat_map(|calls| calls.as_object().expect("calls").values()) {
        for status in ["405", "408", "421", "500", "503"] {
            assert!(call["responses"][status].is_object(), "{}: {status}", call["operationId"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_made_up_call_finds_a_fault_of_ours_or_an_answer_that_is_not_in_the_contract() {
    let Some(tool) = schemathesis() else { return };
    let platform = Platform::up_with(&["--as-of-events-max", "100000"]).await;
    platform.client.place(&order("gentleman")).await;
    assert_eq!(platform.client.get("/openapi.json").await.body, committed());
    let checks =
        "no_fault_of_ours,status_code_conformance,content_type_conformance,response_schema_conformance";
    let mut command = tokio::process::Command::new("python3");
    command.env("PYTHONPATH", &tool).env("SCHEMATHESIS_HOOKS", workspace().join("tests/contract/hooks.py"));
    command.args(["-m", "schemathesis.cli", "run", &format!("{}/openapi.json", platform.client.url())]);
    command.args(["--exclude-path-regex", "live$", "-n", CASES, "--seed", "12", "--checks", checks]);
    // One worker: two that parse Python at a time make Python 3.11 fail ("recursion depth mismatch").
    command.args(["--phases", "examples,coverage,fuzzing,stateful", "--mode", "all", "--workers", "1"]);
    command.args(["--request-timeout", "20"]);
    command.args(["--suppress-health-check", "all", "--generation-database", "none", "--no-color"]);
    command.current_dir(platform.data.path()).kill_on_drop(true);
    let run = tokio::time::timeout(std::time::Duration::from_mins(10), command.output()).await;
    let Output { status, stdout, stderr } = run.expect("in time").expect("it runs");
    let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    assert!(status.success() && said.contains("passed"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_problem_names_a_page_that_says_what_its_code_means() {
    let platform = Platform::up().await;
    let client = &platform.client;
    let refused = client.get("/orders/nothing").await;
    let page = client.get(refused.body["type"].as_str().expect("a reference")).await;
    assert_eq!(page.status, 200, "{page:?}");
    let said = page.body.as_str().unwrap_or_default();
    assert!(said.contains("order_not_found") && said.contains("there is no such order"), "{said}");
    let codes = committed()["components"]["schemas"]["ProblemCode"]["enum"].clone();
    let codes: Vec<String> = serde_json::from_value(codes).expect("codes");
    for code in codes {
        assert_eq!(client.get(&format!("/problems/{code}")).await.status, 200, "{code}");
    }
    assert_eq!(client.get("/problems/no_such_code").await.code(), "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_made_from_the_reference_in_a_browser_and_no_other_host_is_asked() {
    let platform = Platform::up().await;
    let id = platform.client.place(&order("gentleman")).await;
    let Some(saw) = browser::run("docs.mjs", &[platform.client.url(), &id]).await else { return };
    assert_eq!(saw["faults"], serde_json::json!([]), "{saw:#}");
    assert_eq!(saw["status"], "200", "{saw:#}");
    assert!(saw["answer"].as_str().is_some_and(|answer| answer.contains(&id)), "{saw:#}");
    let plain = platform.client.get("/docs/swagger-ui.css").await;
    assert!(
        plain.body.as_str().is_some_and(|style| style.contains(".swagger-ui")),
        "unpacked for who asks so"
    );
}
