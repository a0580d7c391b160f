//! The operator's port: a contract of its own, and a token where the services ask for one.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use twelve_tests::{
    Client, Node, Process, Server, binary,
    contract::Contract,
    free_port,
    issuer::{Issuer, Key},
    workspace,
};

fn committed() -> Value {
    let text = std::fs::read_to_string(workspace().join("docs/openapi-operator.json")).expect("committed");
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test]
async fn the_operators_calls_have_a_contract_of_their_own() {
    let output =
        tokio::process::Command::new(binary("twelve")).args(["openapi", "--operator"]).output().await;
    let printed: Value = serde_json::from_slice(&output.expect("it runs").stdout).expect("JSON");
    assert!(
        printed == committed(),
        "the contract has changed: if that is right, run `cargo twelve openapi --operator > docs/openapi-operator.json`"
    );
    let routes = std::fs::read_to_string(workspace().join("query-api/src/operator.rs")).expect("the routes");
    let mut served = BTreeSet::new();
    for (_, rest) in routes.match_indices(".route(\"").map(|(at, begin)| (at, &routes[at + begin.len()..])) {
        let (path, handlers) = rest.split_once("\", ").expect("a path and handlers");
        let handlers = handlers.lines().next().expect("on one line");
        for method in ["get", "post"] {
            if handlers.contains(&format!("{method}(")) {
                served.insert((method.to_owned(), path.to_owned()));
            }
        }
    }
    let described: BTreeSet<_> = Contract::committed("openapi-operator.json").calls().into_iter().collect();
    assert_eq!(described, served);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_on_the_operators_port_are_as_its_contract_has_them() {
    let contract = Contract::committed("openapi-operator.json");
    let mut node = Node::new(2, &[]).await;
    node.start().await;
    let operator = &node.operator;
    let ask = async |method: Method, path: &str, body: Value| {
        let answer = operator.send(operator.request(method.clone(), path).json(&body)).await;
        contract.hold(&method.as_str().to_lowercase(), path, &answer);
        answer.status.as_u16()
    };
    let (get, post) = (Method::GET, Method::POST);
    let rebuild = "/admin/views/rebuild";
    assert_eq!(ask(get.clone(), rebuild, Value::Null).await, 404);
    assert_eq!(ask(post.clone(), rebuild, json!({ "view": "none" })).await, 400);
    assert_eq!(ask(post.clone(), rebuild, json!({})).await, 202);
    assert_eq!(
        ask(post.clone(), "/admin/views/rebuild/pace", json!({ "events_per_second_max": 5 })).await,
        200
    );
    let mut live = operator.live("/admin/views/rebuild/live", None).await;
    contract.hold_event("/admin/views/rebuild/live", &live.next().await.expect("progress"));
    assert_eq!(operator.get("/openapi.json").await.body, committed());
    assert_eq!(operator.get("/docs").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_port_asks_for_an_operators_token_and_is_told_at_the_start() {
    let key = Key::ed25519("key");
    let issuer = Issuer::start(&[&key]).await;
    let server = Server::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let [listen, operator] = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    let data = folder.path().join("data").display().to_string();
    let settings = ["up", "--nats", server.url(), "--data", &data, "--durability", "fsync"];
    let doors = ["--listen", &listen, "--operator-listen", &operator, "--auth-jwks", issuer.url()];
    let _process = Process::start_into("twelve", &[&settings[..], &doors[..]].concat(), folder.path());
    Client::new(&format!("http://{listen}")).until_ready().await;
    let client = Client::new(&format!("http://{operator}"));
    let path = "/admin/views/snapshots";
    let refused = client.get(path).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (401, "unauthenticated"));
    assert_eq!(client.bearing(&key.token("rider-1", "rider")).get(path).await.status, 403);
    assert_eq!(client.bearing(&key.token("ops", "operator")).get(path).await.status, 200);
    let said = std::fs::read_to_string(folder.path().join("stdout")).expect("what it said");
    assert!(said.contains(&format!("http://{operator}")), "{said}");
    let status = async |token: Option<&str>| {
        let mut views = tokio::process::Command::new(binary("twelve"));
        views.args(["views", "snapshots", "--data", &data]).env_remove("TWELVE_TOKEN_FILE");
        if let Some(token) = token {
            let file = folder.path().join("token");
            std::fs::write(&file, token).expect("written");
            views.arg("--token-file").arg(file);
        }
        views.output().await.expect("it runs").status.success()
    };
    assert!(!status(None).await && status(Some(&key.token("ops", "operator"))).await);
}
