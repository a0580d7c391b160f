//! What a key can do by the *contents* of the calls that it is allowed: a permission is on a call's subject only.

use std::collections::BTreeMap;

use async_nats::{Client, ConnectOptions, HeaderMap, Subscriber};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use nats::accounts::User;
use serde_json::{Value, json};
use twelve_tests::{Process, Secured, client::order, partitions};
use uuid::Uuid;

use crate::accounts::run;

/// Another key's own subject, on which it is answered.
fn inbox_of(secured: &Secured, user: User) -> String {
    let seed = std::fs::read_to_string(secured.key(user)).expect("a key");
    let public = nkeys::KeyPair::from_seed(seed.trim()).expect("a key").public_key();
    format!("_INBOX.{public}.victim")
}

async fn connect(secured: &Secured, user: User) -> Client {
    let seed = std::fs::read_to_string(secured.key(user)).expect("a key");
    let inbox = inbox_of(secured, user).replace(".victim", "");
    let options = ConnectOptions::with_nkey(seed.trim().to_owned())
        .custom_inbox_prefix(inbox)
        .add_root_certificates(secured.ca());
    options.connect(secured.url()).await.expect("connected")
}

async fn ask(client: &Client, call: &str, body: Value) -> Value {
    let answer = client.request(format!("$JS.API.{call}"), body.to_string().into()).await;
    serde_json::from_slice(&answer.expect("an answer").payload).expect("JSON")
}

/// Every stream there is: its settings, its work queues' settings, and what it holds.
async fn everything(setup: &Client) -> BTreeMap<String, (Value, Value, Value)> {
    let listed = ask(setup, "STREAM.LIST", json!({})).await;
    let mut all = BTreeMap::new();
    for stream in listed["streams"].as_array().expect("streams") {
        let name = stream["config"]["name"].as_str().expect("a name").to_owned();
        let consumers = ask(setup, &format!("CONSUMER.LIST.{name}"), json!({})).await;
        let consumers = consumers["consumers"].as_array().into_iter().flatten();
        let consumers: Vec<Value> = consumers.map(|consumer| consumer["config"].clone()).collect();
        let holds =
            json!([stream["state"]["first_seq"], stream["state"]["last_seq"], stream["state"]["messages"]]);
        all.insert(name, (stream["config"].clone(), json!(consumers), holds));
    }
    all
}

/// Bodies that do harm where they are heeded.
fn hostile_bodies(order_id: &str, hostile: &[String]) -> Vec<Value> {
    let mine = format!("orders.0.{order_id}");
    let mut bodies = vec![
        json!({ "last_by_subj": mine }),
        json!({ "seq": 1 }),
        json!({ "seq": 1, "batch": 50, "next_by_subj": ">" }),
        json!({ "batch": 5, "multi_last": [">"] }),
        json!({ "filter": ">", "keep": 0 }),
        json!({ "name": "ORDERS-0", "subjects": ["orders.0.*"], "max_msgs": 2, "discard": "old", "storage": "file" }),
        json!({ "name": "OBJ_EVIL", "subjects": ["_INBOX.>"] }),
        json!({ "name": "OBJ_EVIL", "subjects": ["twelve.*.decide"] }),
        json!({ "name": "EVIL", "mirror": { "name": "ORDERS-0" } }),
        json!({ "name": "EVIL", "sources": [{ "name": "ORDERS-0" }] }),
        json!({ "name": "OBJ_TWELVE-VIEWS", "subjects": ["$O.TWELVE-VIEWS.C.>", "$O.TWELVE-VIEWS.M.>"],
            "republish": { "src": ">", "dest": "orders.>" }, "allow_rollup_hdrs": true, "allow_direct": true }),
    ];
    bodies.extend(hostile.iter().map(|subject| {
        json!({ "stream_name": "ORDERS-0", "config": { "deliver_subject": subject, "ack_policy": "none" } })
    }));
    bodies
}

/// A call that a permission allows, for each of these streams.
fn calls(allowed: &str, order_id: &str) -> Vec<String> {
    let streams = ["ORDERS-0", "DEADLINES", "FLOWS", "OBJ_TWELVE-VIEWS"];
    let begin = allowed.replace("INFO.*.*", "INFO.ORDERS-0.saga");
    if begin.ends_with("DIRECT.GET.*.>") {
        return vec![begin.replace("*.>", &format!("ORDERS-0.orders.0.{order_id}"))];
    }
    if begin.contains('*') {
        return streams.map(|stream| begin.replacen('*', stream, 1)).to_vec();
    }
    vec![begin.replace('>', "C.evil")]
}

/// What this key writes by its nature, and may shorten.
fn writes(user: User, stream: &str) -> bool {
    match user {
        // Who appends events is in the account of the log, and so may have answers stored there.
        User::Setup | User::Command | User::Nack => true,
        User::Views => stream == "OBJ_TWELVE-VIEWS",
        User::Archivist => stream.starts_with("ORDERS-") || stream == "OBJ_TWELVE-ARCHIVE",
        User::Operator | User::Inspector => false,
    }
}

/// A forged approval of a payment, as its headers.
fn forged() -> HeaderMap {
    let mut headers = HeaderMap::new();
    let id = Uuid::new_v4().to_string();
    for (name, value) in [
        ("Event-Type", "PaymentApproved"),
        ("Context", "payment"),
        ("Event-Id", &id),
        ("Command-Id", &id),
        ("Schema-Version", "1"),
        ("Time", "2026-11-21T03:52:04Z"),
    ] {
        headers.insert(name, value);
    }
    headers
}

/// Everything that this key is allowed, and what it is not, with contents that do harm, asked to be answered where it
/// does harm.
async fn attack(client: &Client, user: User, order_id: &str, hostile: &[String]) {
    let forbidden = [
        "$JS.API.STREAM.CREATE.EVIL",
        "$JS.API.STREAM.CREATE.OBJ_EVIL",
        "$JS.API.STREAM.UPDATE.ORDERS-0",
        "$JS.API.STREAM.UPDATE.OBJ_TWELVE-VIEWS",
        "$JS.API.CONSUMER.CREATE.ORDERS-0",
        "$JS.API.CONSUMER.CREATE.ORDERS-0.evil",
        "$JS.API.CONSUMER.CREATE.OBJ_TWELVE-VIEWS",
        "$JS.API.CONSUMER.DURABLE.CREATE.ORDERS-0.evil",
    ];
    // What it writes by its nature is no attack.
    let is_own = |subject: &str| {
        ["orders.", "deadlines.", "notices.", "flows.", "twelve.", "$JS.ACK.", "$JS.API.STREAM.PURGE."]
            .iter()
            .any(|begin| subject.starts_with(begin))
            || subject.contains(".MSG.NEXT.")
            || subject.contains(".UNPIN.")
    };
    let allowed = user.publishes(partitions());
    let allowed =
        allowed.iter().filter(|subject| !is_own(subject)).flat_map(|allowed| calls(allowed, order_id));
    for call in allowed.chain(forbidden.map(str::to_owned)) {
        for body in hostile_bodies(order_id, hostile) {
            let body = Bytes::from(body.to_string());
            for reply in hostile {
                let sent = client.publish_with_reply_and_headers(
                    call.clone(),
                    reply.clone(),
                    forged(),
                    body.clone(),
                );
                sent.await.expect("sent");
            }
        }
        // The server is not to drop any of them.
        client.request("$JS.API.INFO", Bytes::new()).await.expect("the server is there");
    }
}

/// The subjects that must not be reached: orders' events, others' work, others' answers.
fn targets(secured: &Secured, attacker: User, order_id: &str) -> Vec<String> {
    let mut hostile = vec![
        format!("orders.0.{order_id}"),
        format!("orders.1.{}", Uuid::new_v4()),
        format!("due.0.{order_id}"),
        format!("notices.0.{order_id}"),
        "flows.evil.1".to_owned(),
        "twelve.payment.decide".to_owned(),
        "$O.TWELVE-ARCHIVE.C.evil".to_owned(),
        "stored.0".to_owned(),
    ];
    let others = User::ALL.into_iter().filter(|user| *user != attacker);
    hostile.extend(others.map(|user| inbox_of(secured, user)));
    hostile
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_but_the_set_up_key_changes_the_log_forges_overhears_or_shortens_whatever_its_calls_contain() {
    let secured = Secured::start_with(&["--old-orders", "archive"]).await;
    let started = run(&secured, "command-svc", User::Command, &["--old-orders", "archive"]).await;
    let (service, commands): (Process, _) = started;
    let placed = commands.post("/orders", &order("gentleman")).await;
    assert_eq!(placed.status, 201, "{placed:?}");
    let order_id = placed.order_id();
    // Its work would change the queues meanwhile.
    drop(service);
    let setup = connect(&secured, User::Setup).await;
    let mut victims: Vec<(User, Client, Subscriber)> = Vec::new();
    for user in User::ALL {
        let client = connect(&secured, user).await;
        let heard = client.subscribe(inbox_of(&secured, user)).await.expect("subscribed");
        client.flush().await.expect("subscribed");
        victims.push((user, client, heard));
    }
    let decides = connect(&secured, User::Command).await;
    let mut commanded = decides.subscribe("twelve.payment.decide").await.expect("subscribed");
    decides.flush().await.expect("subscribed");
    for user in [User::Inspector, User::Operator, User::Views, User::Archivist, User::Command] {
        let before = everything(&setup).await;
        let attacker = connect(&secured, user).await;
        attack(&attacker, user, &order_id, &targets(&secured, user, &order_id)).await;
        // Each call was answered, or will never be: this one comes behind them all.
        attacker.request("$JS.API.INFO", Bytes::new()).await.expect("the server is there");
        let after = everything(&setup).await;
        assert!(before.keys().eq(after.keys()), "{user:?} made or removed a stream: {:?}", after.keys());
        for (name, (settings, queues, holds)) in &before {
            let (settings_now, queues_now, holds_now) = &after[name];
            assert_eq!(settings, settings_now, "{user:?} changed {name}");
            assert_eq!(queues, queues_now, "{user:?} changed the consumers of {name}");
            assert!(
                writes(user, name) || holds == holds_now,
                "{user:?} wrote into {name}: {holds} {holds_now}"
            );
        }
        for (victim, client, heard) in &mut victims {
            client.flush().await.expect("the server is there");
            // Whoever makes the log and whoever answers others are in one account.
            let same = *victim == User::Setup && user == User::Command;
            let told = heard.next().now_or_never();
            assert!(same || told.is_none(), "{user:?} reached the answers of {victim:?}: {told:?}");
        }
        decides.flush().await.expect("the server is there");
        let told = commanded.next().now_or_never();
        assert!(user == User::Command || told.is_none(), "{user:?} gave a command: {told:?}");
    }
}
