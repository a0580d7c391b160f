//! Alerts: each fires when it should and not otherwise, on metrics that there are, and says what to do.

use std::{collections::BTreeSet, process::Command};

use serde_json::json;
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
    // Counted only once they happen, and then they are there.
    let later = ["twelve_refused_total", "twelve_saga_parked_total"];
    for name in words(&rules(), "twelve_") {
        assert!(there.contains(&name) || later.contains(&name.as_str()), "{name} is not measured");
    }
}
