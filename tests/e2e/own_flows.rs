//! Flows of the user's own: loaded from a folder, checked before they run, and kept for the orders that follow them.

use serde_json::{Value, json};
use twelve_tests::{
    Platform, Services,
    client::order,
    flows::{changed, folder},
    processes::binary,
};

fn mine(customer: &str) -> Value {
    let mut body = order(customer);
    body["flow"] = json!("mine");
    body
}

fn with(flows: &tempfile::TempDir) -> [String; 2] {
    ["--flows".into(), flows.path().display().to_string()]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_of_ones_own_is_loaded_without_recompiling_and_an_order_keeps_its_name_and_version() {
    let name = (r#"name = "marketplace""#, r#"name = "mine""#);
    let flows = folder(&[("mine", changed("marketplace", &[name]))]);
    let [flag, path] = with(&flows);
    let mut platform = Platform::up_with(&[&flag, &path]).await;
    let shown = platform.client.get("/flows/mine").await.body;
    assert_eq!(shown["flow"]["coupon"]["coupon_id"], "COUPON1");
    let old = platform.client.place(&mine("a")).await;
    let row = platform.client.until_status(&old, "out_for_delivery").await;
    assert_eq!((&row["flow"], &row["flow_version"]), (&json!("mine"), &shown["version"]));

    platform.stop().await;
    let coupon = (r#"coupon_id = "COUPON1""#, r#"coupon_id = "COUPON2""#);
    let undo = (r#"["coupon", "delivery", "payment"]"#, r#"["payment", "coupon", "delivery"]"#);
    std::fs::write(flows.path().join("mine.toml"), changed("marketplace", &[name, coupon, undo]))
        .expect("written");
    platform.start().await;
    let new = platform.client.place(&mine("a")).await;
    let row = platform.client.until_status(&new, "out_for_delivery").await;
    assert_eq!(row["coupon"]["coupon_id"], "COUPON2");
    assert_ne!(row["flow_version"], shown["version"]);
    for (id, undone) in [
        (&old, ["CouponCanceled", "DeliveryCanceled", "PaymentCanceled"]),
        (&new, ["PaymentCanceled", "CouponCanceled", "DeliveryCanceled"]),
    ] {
        platform.client.post(&format!("/orders/{id}/cancel"), &json!({})).await;
        platform.client.until_status(id, "canceled").await;
        let events = platform.client.event_types(id).await;
        assert_eq!(
            events[7..10],
            undone,
            "each order is undone as the version says that it was placed under"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_was_never_given_a_flow_carries_its_orders_on_all_the_same() {
    let flows =
        folder(&[("mine", changed("marketplace", &[(r#"name = "marketplace""#, r#"name = "mine""#)]))]);
    let [flag, path] = with(&flows);
    let mut services = Services::new(&[]).await;
    let orders = services.start("ordering", &[&flag, &path]).await;
    let queries = services.start_views(&[]).await;
    services.start("payment", &[]).await;
    let placed = orders.post("/orders", &mine("a")).await;
    assert_eq!(placed.status, 201, "{placed:?}");
    services.start("saga", &[]).await;
    services.start("delivery,marketing,store", &[]).await;
    queries.until_status(&placed.order_id(), "out_for_delivery").await;
    let saga = queries.get(&format!("/sagas/{}", placed.order_id())).await.body;
    assert_eq!((&saga["flow"]["name"], &saga["waiting_for"]), (&json!("mine"), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_breaks_a_rule_starts_nothing_without_an_explicit_flag() {
    let broken =
        changed("marketplace", &[(r#", "payment"]"#, "]"), (r#"name = "marketplace""#, r#"name = "mine""#)]);
    let flows = folder(&[("broken", broken)]);
    let [flag, path] = with(&flows);
    let output =
        std::process::Command::new(binary("twelve")).args(["up", &flag, &path]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    for told in [
        "broken.toml: broken rule: an order that is over keeps nothing",
        "nothing is started",
        "OrderExpired",
    ] {
        assert!(said.contains(told), "{told}: {said}");
    }
    let platform = Platform::up_with(&[&flag, &path, "--allow-broken-flows"]).await;
    platform.client.place(&mine("a")).await;

    let torn = folder(&[("torn", "name = \"torn\"\nchannels = [".into())]);
    let [flag, path] = with(&torn);
    let arguments = ["up", &flag, &path, "--allow-broken-flows"];
    let output = std::process::Command::new(binary("twelve")).args(arguments).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("torn.toml is refused") && said.contains("line 2"),
        "{said}"
    );
}

#[test]
fn two_files_of_one_name_start_nothing_and_both_are_named() {
    let twins = folder(&[("first", mine_of("kitchen")), ("second", mine_of("food"))]);
    let path = twins.path().display().to_string();
    for arguments in [&["up", "--flows", &path][..], &["flow", "list", "--flows", &path]] {
        let output = std::process::Command::new(binary("twelve")).args(arguments).output();
        let output = output.expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let names = ["first.toml", "second.toml", "\"mine\""];
        assert!(!output.status.success() && names.iter().all(|name| said.contains(name)), "{said}");
    }
    let output = std::process::Command::new(binary("twelve"))
        .args(["flow", "list", "--flows"])
        .arg(folder(&[("kitchen", twelve_tests::flows::shipped("kitchen"))]).path())
        .output()
        .expect("it runs");
    assert!(output.status.success(), "one may take the place of a shipped one");
}

/// A shipped flow under the name `mine`.
fn mine_of(shipped: &str) -> String {
    changed(shipped, &[(&format!("name = \"{shipped}\""), "name = \"mine\"")])
}
