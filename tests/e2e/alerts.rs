//! Alerts and the dashboard: each fires when it should and not otherwise, on metrics that there are, and says why.

use std::{collections::BTreeSet, process::Command};

use serde_json::{Value, json};
use twelve_tests::{Platform, client::order, tools::promtool, workspace};

fn rules() -> String {
    std::fs::read_to_string(workspace().join("deploy/prometheus/rules.yaml")).expect("the rules")
}

/// Words of a text that begin so.
fn words(text: &str, begin: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with(begin)).map(ToOwned::to_owned).collect()
}

#[test]
fn each_alert_fires_when_it_should_and_not_otherwise() {
    let Some(tool) = promtool() else { return };
    let folder = workspace().join("deploy/prometheus");
    for arguments in [["check", "rules", "rules.yaml"], ["test", "rules", "rules_test.yaml"]] {
        let output = Command::new(&tool).args(arguments).current_dir(&folder).output().expect("it runs");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && said.contains("SUCCESS"), "{said}");
    }
}

#[test]
fn each_alert_has_a_test_and_a_runbook() {
    let alerts: BTreeSet<String> = words(&rules(), "Twelve");
    assert!(alerts.len() >= 10);
    let tests =
        std::fs::read_to_string(workspace().join("deploy/prometheus/rules_test.yaml")).expect("tests");
    assert_eq!(words(&tests, "Twelve"), alerts);
    let runbooks = std::fs::read_to_string(workspace().join("docs/runbooks.md")).expect("runbooks");
    for alert in &alerts {
        assert!(runbooks.contains(&format!("## {alert}\n")), "{alert} has no runbook");
        assert!(
            rules().contains(&format!("docs/runbooks.md#{}", alert.to_lowercase())),
            "{alert} names none"
        );
    }
}

/// What each panel of the dashboard shows: its title, and its queries with the range that Grafana puts in.
fn panels() -> Vec<(String, Vec<String>)> {
    let text = std::fs::read_to_string(workspace().join("deploy/grafana/dashboards/twelve.json"));
    let dashboard: Value = serde_json::from_str(&text.expect("the dashboard")).expect("JSON");
    let panels = dashboard["panels"].as_array().cloned().expect("panels");
    let places: BTreeSet<String> = panels.iter().map(|panel| panel["gridPos"].to_string()).collect();
    let ids: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(
        (places.len(), ids.len()),
        (panels.len(), panels.len()),
        "each has a place and an id of its own"
    );
    let shown = panels.iter().filter(|panel| panel["type"] != "row").map(|panel| {
        let title = panel["title"].as_str().expect("a title").to_owned();
        assert!(panel["description"].is_string(), "{title} says what it shows");
        let targets = panel["targets"].as_array().expect("queries").iter();
        let range =
            |query: &Value| query["expr"].as_str().expect("a query").replace("$__rate_interval", "5m");
        (title, targets.map(range).collect())
    });
    shown.collect()
}

#[test]
fn each_query_of_the_dashboard_reads() {
    let Some(tool) = promtool() else { return };
    let queries = panels().into_iter().flat_map(|(_, queries)| queries).enumerate();
    let rules: Vec<Value> = queries
        .map(|(number, query)| json!({ "record": format!("query:{number}"), "expr": query }))
        .collect();
    assert!(rules.len() > 25);
    let check = |rules: &[Value]| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let whole = json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
        std::fs::write(file.path(), whole.to_string()).expect("written");
        Command::new(&tool).args(["check", "rules"]).arg(file.path()).output().expect("it runs")
    };
    let output = check(&rules);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let planted = json!({ "record": "planted", "expr": "sum by (route (twelve_http_requests_total)" });
    assert!(!check(&[planted]).status.success(), "a query that does not read is found");
}

#[tokio::test(flavor = "multi_thread")]
async fn x_15_what_alerts_go_by_is_measured_and_an_open_breaker_and_a_stopped_view_are_seen() {
    let platform = Platform::up_with(&["--breaker-calls", "4", "--breaker-open-ms", "60000"]).await;
    let client = &platform.client;
    let id = client.place(&order("gentleman")).await;
    client.until_status(&id, "out_for_delivery").await;
    client.post("/breakers/marketing", &json!({ "hold": "closed" })).await;
    let mut down = order("gentleman");
    down["payment"]["token"] = json!("tok_down");
    for _ in 0..6 {
        client.post("/orders", &down).await;
    }
    assert_eq!(
        client.metric("twelve_breaker_state{call=\"payment\"}").await,
        Some(2.0),
        "the alert's condition"
    );
    assert_eq!(client.metric("twelve_view_stopped").await, Some(0.0));
    let metrics = client.get("/metrics").await;
    let there = words(metrics.body.as_str().expect("a text"), "twelve_");
    // Some are counted only once they happen; then they are in the sources.
    let is_in_sources = |name: &str| {
        let folders = ["cli", "command-svc", "nats", "projector", "query-api"];
        let arguments = ["grep", "--quiet", "--fixed-strings", &format!("\"{name}\"")].map(ToOwned::to_owned);
        let mut git = Command::new("git");
        git.args(arguments).arg("--").args(folders).current_dir(workspace());
        git.status().expect("git runs").success()
    };
    assert!(is_in_sources("twelve_saga_parked_total") && !is_in_sources("twelve_saga_barked_total"));
    let queries = panels().into_iter().flat_map(|(_, queries)| queries).collect::<Vec<_>>().join("\n");
    for name in words(&rules(), "twelve_").union(&words(&queries, "twelve_")) {
        assert!(there.contains(name) || is_in_sources(name), "{name} is not measured");
    }
}
