//! Back-up and restore as docs/backup.md has it: of a running platform, by the `nats` CLI, to another machine.

use std::{
    path::Path,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use nats::accounts::User;
use serde_json::{Value, json};
use twelve_tests::{
    Client, Platform, Secured, Server, binary,
    client::order,
    flows::{changed, folder},
    partitions,
    tools::nats_cli,
    webhook::Webhook,
};

use crate::{accounts::run, archive};

/// What is in a back-up and is made anew from the log: work queues, and snapshots of views.
const NOT_RESTORED: [&str; 3] = ["DEADLINES", "NOTICES", "OBJ_TWELVE-VIEWS"];

fn nats(cli: &Path, server: &Server, arguments: &[&str]) {
    let ran = Command::new(cli).args(["--server", server.url(), "account"]).args(arguments).output();
    let Output { status, stdout, stderr } = ran.expect("it runs");
    let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    assert!(status.success(), "nats account {arguments:?}: {said}");
}

/// Places orders one after the other until it is told to stop; answers with each key and its first answer.
async fn keep_ordering(client: Client, name: String, stop: Arc<AtomicBool>) -> Vec<(String, Value)> {
    let mut answers = Vec::new();
    while !stop.load(Ordering::Acquire) {
        let key = format!("{name}-{}", answers.len());
        let answer = client.place_at_last(&order("busy"), &key).await;
        answers.push((key, answer.body));
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_back_up_of_a_busy_platform_restored_elsewhere_has_every_order_up_to_its_position() {
    let Some(cli) = nats_cli() else { return };
    let kakao = Webhook::start().await;
    let flows = folder(&[("appliance", changed("appliance", &[("after_s = 86400,", "after_s = 5,")]))]);
    let settings = ["--flows", &flows.path().display().to_string(), "--kakao-url", kakao.url()];
    let mut lost = Platform::up_with(&settings).await;
    let before = acknowledged_before(&lost).await;
    let told = kakao.received().len();
    let stop = Arc::new(AtomicBool::new(false));
    let busy: Vec<_> = (0..4)
        .map(|caller| {
            tokio::spawn(keep_ordering(lost.client.clone(), format!("busy-{caller}"), stop.clone()))
        })
        .collect();
    // They are under way: one of them stands.
    lost.client.place(&order("gentleman")).await;
    let kept = tempfile::tempdir().expect("a folder");
    let backup = kept.path().join("backup").display().to_string();
    nats(&cli, &lost.server, &["backup", &backup, "--no-consumers", "--force"]);
    stop.store(true, Ordering::Release);
    let mut meanwhile = Vec::new();
    for caller in busy {
        meanwhile.extend(caller.await.expect("it ended"));
    }
    lost.kill();
    lost.server.kill();

    let server = Server::start().await;
    for stream in NOT_RESTORED {
        // A platform that took no snapshot of its views has none.
        drop(std::fs::remove_dir_all(kept.path().join("backup").join(stream)));
    }
    nats(&cli, &server, &["restore", &backup]);
    let restored = Platform::up_on(server, &settings).await;
    let client = &restored.client;
    for (key, body, answer) in &before {
        let again = client.post_with_key("/orders", key, body).await;
        assert_eq!((again.status.as_u16(), &again.body), (201, answer), "{key}");
    }
    // What was ordered meanwhile is there whole, or not at all: its key then makes a new order.
    let mut count = 0;
    for (key, answer) in &meanwhile {
        let row = client.get(&format!("/orders/{}", answer["order_id"].as_str().expect("an id"))).await;
        if row.status == 200 {
            count += 1;
            let again = client.post_with_key("/orders", key, &order("busy")).await;
            assert_eq!(&again.body, answer, "{key}");
        }
    }
    println!("{count} of {} orders placed around the back-up are in it", meanwhile.len());
    goes_on(client, &before, &kakao, told).await;
    let data = restored.data.path().display().to_string();
    for arguments in
        [["views", "verify", "--data", &data], ["doctor", "--nats", restored.server.url(), "--json"]]
    {
        let output = Command::new(binary("twelve")).args(arguments).output().expect("it runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

/// What the `nats` CLI is given to connect with the set-up key.
fn with_set_up_key(secured: &Secured) -> Vec<String> {
    let seed = std::fs::read_to_string(secured.key(User::Setup)).expect("a key");
    let public = nkeys::KeyPair::from_seed(seed.trim()).expect("a seed").public_key();
    let (key, ca) = (secured.key(User::Setup).display().to_string(), secured.ca().display().to_string());
    let inbox = format!("_INBOX.{public}");
    ["--server", secured.url(), "--nkey", &key, "--tlsca", &ca, "--inbox-prefix", &inbox]
        .map(ToOwned::to_owned)
        .to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_keys_is_backed_up_and_restored_with_the_set_up_key_and_the_keys_that_were_kept() {
    let Some(cli) = nats_cli() else { return };
    let ask = |secured: &Secured, arguments: &[&str]| {
        let mut command = Command::new(&cli);
        command.args(with_set_up_key(secured)).arg("account").args(arguments);
        let Output { status, stdout, stderr } = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
        assert!(status.success(), "nats account {arguments:?}: {said} {}", secured.said());
    };
    let lost = Secured::start().await;
    let (process, commands) = run(&lost, "command-svc", User::Command, &[]).await;
    let first = commands.place_at_last(&order("gentleman"), "first").await;
    let kept = tempfile::tempdir().expect("a folder");
    let backup = kept.path().join("backup").display().to_string();
    ask(&lost, &["backup", &backup, "--no-consumers", "--force"]);
    process.kill();

    let secured = Secured::start_with_keys_of(&lost).await;
    drop(lost);
    for stream in NOT_RESTORED {
        drop(std::fs::remove_dir_all(kept.path().join("backup").join(stream)));
    }
    ask(&secured, &["restore", &backup]);
    let set_up = secured.set_up(&[]);
    assert!(set_up.status.success(), "{set_up:?} {}", secured.said());
    let (_commands, commands) = run(&secured, "command-svc", User::Command, &[]).await;
    let again = commands.post_with_key("/orders", "first", &order("gentleman")).await;
    assert_eq!((again.status.as_u16(), again.body), (201, first.body), "{}", secured.said());
    assert!(!secured.said().contains("Violation"), "something that is needed is refused: {}", secured.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_back_up_has_its_archived_orders_and_the_ledger_of_the_lost_log_is_refused_by_name() {
    let Some(cli) = nats_cli() else { return };
    let kept = tempfile::tempdir().expect("a folder");
    let (archives, ledger) =
        (["--old-orders", "archive"], format!("sqlite:{}/ledger.db", kept.path().display()));
    let mut lost = Platform::up_with(&[&archives[..], &["--ledger", &ledger]].concat()).await;
    let eaten = archive::eaten(&lost.client).await;
    let canceled = lost.client.place(&order("gentleman")).await;
    lost.client.until_status(&canceled, "out_for_delivery").await;
    lost.client.post(&format!("/orders/{canceled}/cancel"), &json!({})).await;
    lost.client.until_status(&canceled, "canceled").await;
    archive::archive_while_others_order(&lost).await;
    let events = lost.client.get(&format!("/orders/{eaten}/events")).await.body;
    let backup = kept.path().join("backup").display().to_string();
    nats(&cli, &lost.server, &["backup", &backup, "--no-consumers", "--force"]);
    lost.client.place(&order("gentleman")).await;
    lost.stop().await;
    lost.server.kill();

    let server = Server::start().await;
    for stream in NOT_RESTORED {
        drop(std::fs::remove_dir_all(kept.path().join("backup").join(stream)));
    }
    nats(&cli, &server, &["restore", &backup]);
    let restored = Platform::up_on(server, &archives).await;
    assert_eq!(restored.client.get(&format!("/orders/{eaten}/events")).await.body, events);
    let again = restored.client.post_with_key("/orders", "the-meal", &archive::meal()).await;
    assert_eq!((again.status.as_u16(), again.order_id()), (201, eaten), "{again:?}");
    let verified = archive::said(&archive::archive(&restored.server, partitions(), &["--verify"]));
    assert!(verified.contains("2 whole orders"), "{verified}");
    let mut books = Command::new(binary("twelve"));
    books.args(["ledger", "verify", "--ledger", &ledger, "--nats", restored.server.url()]).args(archives);
    let refused = books.output().expect("it runs");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("folded from another log"), "{said}");
}

/// Orders that wait for somebody, for a deadline, and one that is over: each key, body and first answer.
async fn acknowledged_before(platform: &Platform) -> Vec<(String, Value, Value)> {
    let client = &platform.client;
    let mut placed = Vec::new();
    for (key, flow) in [("leaving", "marketplace"), ("unpaid", "appliance"), ("cooking", "kitchen")] {
        let mut body = order("gentleman");
        (body["flow"], body["channel"]) = (json!(flow), json!("web"));
        if flow != "marketplace" {
            body["store_id"] = json!("s");
        }
        if flow == "appliance" {
            body.as_object_mut().expect("a body").remove("payment");
        }
        let answer = client.place_at_last(&body, key).await;
        client.order_after(&answer.order_id(), answer.header("log-position")).await;
        placed.push((key.to_owned(), body, answer.body));
    }
    client.until_status(&id(&placed, "leaving"), "out_for_delivery").await;
    client
        .until(&id(&placed, "cooking"), "told", |row| {
            row["timeline"].to_string().contains("NotificationSent")
        })
        .await;
    placed
}

/// After the restore: deadlines are set again, what was told is not told again, and people go on.
async fn goes_on(client: &Client, before: &[(String, Value, Value)], kakao: &Webhook, told: usize) {
    client.until_status(&id(before, "unpaid"), "expired").await;
    assert_eq!(kakao.received().len(), told, "nothing is told twice");
    for (key, act) in [("leaving", "delivery/complete"), ("cooking", "store/accept")] {
        let answer = client.post(&format!("/orders/{}/{act}", id(before, key)), &json!({})).await;
        assert_eq!(answer.status, 200, "{key}: {answer:?}");
    }
    client.until_status(&id(before, "leaving"), "delivered").await;
    client.until_status(&id(before, "cooking"), "accepted").await;
    client.place(&order("gentleman")).await;
}

fn id(placed: &[(String, Value, Value)], key: &str) -> String {
    let (_, _, answer) = placed.iter().find(|(name, ..)| name == key).expect("it was placed");
    answer["order_id"].as_str().expect("an id").to_owned()
}
