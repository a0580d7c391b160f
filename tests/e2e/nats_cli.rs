//! The log as a person sees it with the ordinary `nats` CLI: every command of `nats/README.md`, run for real.

use std::process::Command;

use twelve_tests::{Platform, client::order, tools::nats_cli, workspace};

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_readme_show_the_log_readably() {
    let Some(cli) = nats_cli() else { return };
    let platform = Platform::up().await;
    let placed = platform.client.post("/orders", &order("gentleman")).await;
    platform.client.order_after(&placed.order_id(), placed.header("log-position")).await;
    platform.client.until_status(&placed.order_id(), "out_for_delivery").await;
    let (partition, _) = placed.header("log-position").split_once(':').expect("a position");
    let readme = std::fs::read_to_string(workspace().join("nats/README.md")).expect("the README");
    let commands: Vec<String> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("$ nats "))
        .map(|command| command.replace("ORDER ", &format!("{} ", placed.order_id())))
        .map(|command| command.replace("orders.1.", &format!("orders.{partition}.")))
        .map(|command| command.replace("ORDERS-1", &format!("ORDERS-{partition}")))
        .collect();
    let last = format!("ORDERS-{}", twelve_tests::partitions() - 1);
    let shown = [&last, "홍길동", "OrderPlaced", "│ 6 ", "saga", r#""COUPON1""#];
    assert_eq!(commands.len(), shown.len());
    for (command, expected) in commands.iter().zip(shown) {
        let arguments = command.split(" > ").next().expect("a command").split(' ');
        let output = Command::new(&cli).args(["--server", platform.server.url()]).args(arguments).output();
        let output = output.expect("the CLI runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains(expected), "nats {command}:\n{said}{error}");
    }
}
