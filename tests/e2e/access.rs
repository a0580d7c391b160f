//! Who may do what: tokens of an issuer, roles, and whose order it is.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use twelve_tests::{
    Client, LIMIT, Platform, Process, Server, binary,
    client::{Answer, order},
    free_port,
    issuer::{Issuer, Key, claims, now},
    program,
    webhook::Webhook,
};

/// A protected platform, and what tokens are made with.
pub(crate) struct Protected {
    pub(crate) platform: Platform,
    issuer: Issuer,
    pub(crate) key: Key,
}

impl Protected {
    pub(crate) async fn up() -> Self {
        let key = Key::ed25519("first");
        let issuer = Issuer::start(&[&key]).await;
        let settings = ["--auth-jwks", issuer.url(), "--auth-issuer", "test-issuer"];
        let platform = Platform::up_with(&settings).await;
        Self { platform, issuer, key }
    }

    fn as_one(&self, id: &str, role: &str) -> Client {
        self.platform.client.bearing(&self.key.token(id, role))
    }
}

fn said(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.code())
}

pub(crate) fn meal(customer: &str) -> Value {
    let mut body = order(customer);
    body["flow"] = json!("food");
    body["channel"] = json!("web");
    body["store_id"] = json!("kimbap");
    body["delivery_type"] = json!("bicycle");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn x_11_without_a_good_token_every_call_but_the_probes_is_refused_and_the_log_stays_as_it_is() {
    let shop = Protected::up().await;
    let client = &shop.platform.client;
    let forger = Key::ed25519("first");
    let stranger = Key::ed25519("nobody-knows-it");
    let wrong = |change: &dyn Fn(&mut Value)| {
        let mut claims = claims("gentleman", "customer");
        change(&mut claims);
        shop.key.sign(&claims)
    };
    let good = shop.key.token("gentleman", "customer");
    let mut parts: Vec<&str> = good.split('.').collect();
    // {"alg":"none"}
    parts[0] = "eyJhbGciOiJub25lIn0";
    let tokens = [
        ("expired", wrong(&|claims| claims["exp"] = json!(now() - 60))),
        ("of no end", wrong(&|claims| drop(claims.as_object_mut().expect("claims").remove("exp")))),
        ("for somebody else", wrong(&|claims| claims["aud"] = json!("another-shop"))),
        ("for nobody", wrong(&|claims| drop(claims.as_object_mut().expect("claims").remove("aud")))),
        ("from somebody else", wrong(&|claims| claims["iss"] = json!("another-issuer"))),
        ("of no person", wrong(&|claims| claims["sub"] = json!(""))),
        ("not yet good", wrong(&|claims| claims["nbf"] = json!(now() + 600))),
        ("forged", forger.token("gentleman", "operator")),
        ("of an unknown key", stranger.token("gentleman", "operator")),
        ("unsigned", parts.join(".")),
        ("cut", good[..good.len() - 3].to_owned()),
        ("no token", "garbage".to_owned()),
    ];
    for (what, token) in &tokens {
        let bearer = client.bearing(token);
        let placed = bearer.post("/orders", &order("gentleman")).await;
        assert_eq!(said(&placed), (401, "unauthenticated"), "{what}");
        assert!(placed.header("www-authenticate").starts_with("Bearer"), "{what}");
        assert_eq!(said(&bearer.get("/orders").await), (401, "unauthenticated"), "{what}");
    }
    for path in ["/orders", "/orders/1/live", "/customers/gentleman/orders", "/views", "/flows", "/sagas"] {
        assert_eq!(said(&client.get(path).await), (401, "unauthenticated"), "{path}");
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(client.get(path).await.status, 200, "{path}");
    }
    let orders = shop.as_one("op", "operator").get("/orders").await;
    assert_eq!((orders.status.as_u16(), &orders.body["items"]), (200, &json!([])), "nothing was placed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_orders_sees_and_cancels_for_themselves_alone() {
    let shop = Protected::up().await;
    let (mine, other) = (shop.as_one("gentleman", "customer"), shop.as_one("somebody", "customer"));
    let placed = mine.post_with_key("/orders", "same-key", &order("gentleman")).await;
    assert_eq!(placed.status, 201, "{placed:?}");
    let id = placed.order_id();
    mine.order_after(&id, placed.header("log-position")).await;
    mine.until_status(&id, "out_for_delivery").await;

    let in_my_name = other.post("/orders", &order("gentleman")).await;
    assert_eq!(said(&in_my_name), (403, "forbidden"));
    let mut refusals = Vec::new();
    for path in ["", "/events", "/live"] {
        refusals.push(other.get(&format!("/orders/{id}{path}")).await);
    }
    assert_eq!(said(&mine.get("/orders/none").await), (404, "order_not_found"));
    for path in ["/customers/gentleman/orders", "/customers/gentleman/orders/live"] {
        refusals.push(other.get(path).await);
    }
    for act in ["cancel", "payment", "confirm", "return", "review", "delivery/complete", "store/accept"] {
        let body = match act {
            "payment" => json!({ "method": "card", "token": "tok_ok" }),
            "review" => json!({ "rating": 1, "text": "x" }),
            _ => json!({}),
        };
        refusals.push(other.post(&format!("/orders/{id}/{act}"), &body).await);
    }
    for refusal in &refusals {
        assert_eq!(said(refusal), (403, "forbidden"), "{refusal:?}");
        let text = format!("{refusal:?}");
        assert!(!text.contains("gentleman") && !text.contains("out_for_delivery"), "{text}");
    }
    for path in ["/orders", "/payments", "/coupons", "/notifications", "/sagas", "/views", "/deliveries/open"]
    {
        assert_eq!(said(&mine.get(path).await), (403, "forbidden"), "{path}");
    }
    let resumed = mine.post(&format!("/sagas/{id}/resume"), &json!({})).await;
    assert_eq!(said(&resumed), (403, "forbidden"));

    let theirs = other.post_with_key("/orders", "same-key", &order("somebody")).await;
    assert_eq!(theirs.status, 201, "a key is one person's: {theirs:?}");
    assert_ne!(theirs.order_id(), id);
    let as_of = mine.get(&format!("/orders/{id}?as_of={}", placed.header("log-position"))).await;
    assert_eq!(as_of.status, 200, "{as_of:?}");
    let as_of = other.get(&format!("/orders/{id}?as_of={}", placed.header("log-position"))).await;
    assert_eq!(said(&as_of), (403, "forbidden"));
    assert_eq!(mine.get("/customers/gentleman/orders").await.body["items"].as_array().map(Vec::len), Some(1));
    let canceled = mine.post(&format!("/orders/{id}/cancel"), &json!({})).await;
    assert_eq!(canceled.status, 200, "{canceled:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meal_passes_from_its_customer_to_its_store_to_its_rider_and_through_nobody_elses_hands() {
    let shop = Protected::up().await;
    let [customer, store, other_store] = [("gentleman", "customer"), ("kimbap", "store"), ("pizza", "store")]
        .map(|(id, role)| shop.as_one(id, role));
    let [rider, other_rider] = ["rider-1", "rider-2"].map(|id| shop.as_one(id, "rider"));
    let id = customer.place(&meal("gentleman")).await;
    customer.until(&id, "received", |row| row["store"]["status"] == "received").await;
    assert_eq!(store.get("/stores/kimbap/orders").await.body["items"][0]["order_id"], json!(id));
    assert_eq!(store.get(&format!("/orders/{id}")).await.status, 200);
    assert_eq!(said(&other_store.get("/stores/kimbap/orders").await), (403, "forbidden"));
    assert_eq!(said(&other_store.get(&format!("/orders/{id}")).await), (403, "forbidden"));
    assert_eq!(said(&rider.get(&format!("/orders/{id}")).await), (403, "forbidden"), "not open yet");
    let act = async |who: &Client, what: &str, body: Value| {
        let answer = who.post(&format!("/orders/{id}/{what}"), &body).await;
        if answer.status == 200 {
            customer.order_after(&id, answer.header("log-position")).await;
        }
        answer.status.as_u16()
    };
    for what in ["store/accept", "store/start", "store/finish"] {
        for who in [&other_store, &customer, &rider] {
            assert_eq!(act(who, what, json!({})).await, 403, "{what}");
        }
        assert_eq!(act(&store, what, json!({})).await, 200, "{what}");
    }
    customer.until(&id, "listed", |row| row["delivery"]["status"] == "listed").await;
    assert_eq!(rider.get("/deliveries/open").await.body["items"][0]["order_id"], json!(id));
    assert_eq!(other_rider.get(&format!("/orders/{id}")).await.status, 200, "open to every rider");
    let in_anothers_name = json!({ "rider_id": "rider-1" });
    assert_eq!(act(&other_rider, "delivery/pickup", in_anothers_name.clone()).await, 403);
    assert_eq!(act(&rider, "delivery/pickup", in_anothers_name).await, 200);
    assert_eq!(said(&other_rider.get(&format!("/orders/{id}")).await), (403, "forbidden"), "taken");
    assert_eq!(act(&other_rider, "delivery/complete", json!({})).await, 403);
    assert_eq!(act(&rider, "delivery/complete", json!({})).await, 200);
    assert_eq!(said(&other_rider.get("/riders/rider-1/deliveries").await), (403, "forbidden"));
    assert_eq!(rider.get("/riders/rider-1/deliveries").await.body["count"], json!(1));
    assert_eq!(act(&store, "review", json!({ "rating": 5, "text": "우리 집이 최고" })).await, 403);
    let reviewed =
        customer.post(&format!("/orders/{id}/review"), &json!({ "rating": 5, "text": "맛있다" })).await;
    assert_eq!(reviewed.status, 201);
    let marketing = shop.as_one("m", "marketing");
    assert_eq!(marketing.get("/coupons").await.status, 200);
    assert_eq!(said(&marketing.get("/payments").await), (403, "forbidden"));
    assert_eq!(marketing.get("/items/order-counts").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_both_kinds_come_and_go_and_an_issuer_that_is_away_locks_nobody_out() {
    let shop = Protected::up().await;
    let client = &shop.platform.client;
    let old = shop.as_one("gentleman", "customer");
    assert_eq!(old.get("/customers/gentleman/orders").await.status, 200);
    let second = Key::rsa("second");
    shop.issuer.show(&[&second]);
    let new = client.bearing(&second.token("gentleman", "customer"));
    let accepted = async {
        // The issuer is not asked more often than every other second.
        while new.get("/customers/gentleman/orders").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, accepted).await.expect("the new key is found");
    assert_eq!(said(&old.get("/customers/gentleman/orders").await), (401, "unauthenticated"), "withdrawn");
    shop.issuer.fail();
    let third = client.bearing(&Key::rsa("third").token("gentleman", "customer"));
    let looked = async {
        // Asked again, and not answered: nothing says that the token is not good.
        while said(&third.get("/customers/gentleman/orders").await) != (503, "keys_unavailable") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, looked).await.expect("it is asked again");
    assert_eq!(new.get("/customers/gentleman/orders").await.status, 200, "known keys hold");

    let away = Issuer::start(&[]).await;
    away.fail();
    let other = Platform::up_with(&["--auth-jwks", away.url()]).await;
    let early = other.client.bearing(&second.token("op", "operator"));
    let refused = early.get("/orders").await;
    assert_eq!(said(&refused), (503, "keys_unavailable"));
    assert!(refused.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0));
    away.show(&[&second]);
    let accepted = async {
        while early.get("/orders").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, accepted).await.expect("it is asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_server_that_hangs_delays_no_token_whose_key_is_known() {
    let shop = Protected::up().await;
    let good = shop.as_one("gentleman", "customer");
    assert_eq!(good.get("/customers/gentleman/orders").await.status, 200);
    shop.issuer.hang();
    let made_up: Vec<Client> = ["a", "b", "c"]
        .map(|kid| shop.platform.client.bearing(&Key::ed25519(kid).token("gentleman", "customer")))
        .into();
    let asking = async {
        // Longer than the pause between two looks at the keys, so that some of these wait for one.
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            let calls = made_up.iter().map(async |client| client.get("/customers/gentleman/orders").await);
            for refused in join_all(calls).await {
                let said = said(&refused);
                assert!([(401, "unauthenticated"), (503, "keys_unavailable")].contains(&said), "{said:?}");
            }
        }
    };
    let good = async {
        let (until, mut slowest) = (Instant::now() + Duration::from_secs(5), Duration::ZERO);
        while Instant::now() < until {
            let began = Instant::now();
            assert_eq!(good.get("/customers/gentleman/orders").await.status, 200);
            slowest = slowest.max(began.elapsed());
        }
        slowest
    };
    let ((), slowest) = tokio::join!(asking, good);
    assert!(slowest < Duration::from_secs(2), "a known key waits for nobody: {slowest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_asks_for_what_is_not_understood_and_a_key_for_encryption_are_refused() {
    let shop = Protected::up().await;
    let client = &shop.platform.client;
    for extension in ["exp", "b64", "http://example.com/UNDEFINED"] {
        let critical = shop.key.critical(&claims("gentleman", "customer"), extension);
        let refused = client.bearing(&critical).get("/customers/gentleman/orders").await;
        assert_eq!(said(&refused), (401, "unauthenticated"), "{extension}");
    }
    shop.issuer.show_for_encryption(&shop.key);
    let other = Platform::up_with(&["--auth-jwks", shop.issuer.url()]).await;
    let refused = other.client.bearing(&shop.key.token("op", "operator")).get("/orders").await;
    assert_eq!(said(&refused), (401, "unauthenticated"));
}

#[test]
fn nothing_that_others_can_reach_starts_without_knowing_who_may_call() {
    for name in ["command-svc", "query-api"] {
        let output = program(name)
            .args(["--listen", "0.0.0.0:0", "--nats", "nats://127.0.0.1:1"])
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains("--auth-jwks") && said.contains("--unprotected"),
            "{said}"
        );
    }
}

/// What `twelve token` prints.
fn token(data: &str, arguments: &[&str]) -> String {
    let output = Command::new(binary("twelve")).args(["token", "--data", data]).args(arguments).output();
    let output = output.expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_for_development_are_made_by_twelve_itself_and_their_keys_can_be_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().display().to_string();
    let first = token(&data, &["--id", "gentleman", "--role", "customer"]);
    let jwks = folder.path().join("auth/jwks.json").display().to_string();
    let platform = Platform::up_with(&["--auth-jwks", &jwks]).await;
    let customer = platform.client.bearing(&first);
    assert_eq!(customer.get("/customers/gentleman/orders").await.status, 200);
    assert_eq!(said(&customer.get("/orders").await), (403, "forbidden"));
    let rotated = token(&data, &["--id", "op", "--role", "operator,store", "--store", "kimbap", "--rotate"]);
    let operator = platform.client.bearing(&rotated);
    let accepted = async {
        while operator.get("/orders").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, accepted).await.expect("the new key is found");
    let request = customer.request(Method::GET, "/customers/gentleman/orders");
    assert_eq!(customer.send(request).await.status, 200, "the old key holds beside it");
    let keys: Value = serde_json::from_slice(&std::fs::read(&jwks).expect("a key set")).expect("JSON");
    assert!(
        keys["keys"]
            .as_array()
            .is_some_and(|keys| keys.len() == 2 && keys.iter().all(|key| key["d"].is_null()))
    );
    // A set that cannot be published forgets no key.
    let auth = folder.path().join("auth");
    let private = || {
        let files = std::fs::read_dir(&auth).expect("the keys").flatten();
        files.filter(|file| file.path().extension().is_some_and(|ending| ending == "ed25519")).count()
    };
    std::fs::create_dir(auth.join("jwks.new")).expect("in the way");
    let forget = ["token", "--data", &data, "--id", "op", "--role", "operator", "--forget"];
    assert!(!Command::new(binary("twelve")).args(forget).output().expect("it runs").status.success());
    assert_eq!(private(), 2, "both are there");
    std::fs::remove_dir(auth.join("jwks.new")).expect("out of the way");
    token(&data, &["--id", "op", "--role", "operator", "--forget"]);
    assert_eq!(private(), 1);
    let keys: Value = serde_json::from_slice(&std::fs::read(&jwks).expect("a key set")).expect("JSON");
    assert_eq!(keys["keys"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_secrets_nor_what_customers_are_called_is_in_the_log_lines_however_much_is_logged() {
    let key = Key::ed25519("key");
    let issuer = Issuer::start(&[&key]).await;
    let kakao = Webhook::start().await;
    let (server, folder) = (Server::start().await, tempfile::tempdir().expect("a folder"));
    let listen = format!("127.0.0.1:{}", free_port());
    let data = folder.path().join("data").display().to_string();
    let secret = "whsec_c2VjcmV0LW9mLXRoZS13ZWJob29r";
    let settings = ["--auth-jwks", issuer.url(), "--kakao-url", kakao.url(), "--webhook-secret", secret];
    let up = [
        "up",
        "--nats",
        server.url(),
        "--listen",
        &listen,
        "--data",
        &data,
        "--log",
        "debug,async_nats=info",
    ];
    let _platform = Process::start_into("twelve", &[&up[..], &settings].concat(), folder.path());
    let door = Client::new(&format!("http://{listen}"));
    door.until_ready().await;
    let mut verified = claims("customer-77", "customer");
    for (claim, contact) in [("email", "hong@shop.example"), ("phone_number", "010-9876-5432")] {
        verified[claim] = json!(contact);
        verified[format!("{claim}_verified")] = json!(true);
    }
    let bearer = key.sign(&verified);
    let client = door.bearing(&bearer);
    let mut body = meal("customer-77");
    body["flow"] = json!("kitchen");
    body.as_object_mut().expect("a body").remove("delivery_type");
    body["customer"] = json!({ "id": "customer-77", "name": "홍길동", "phone": "010-9876-5432", "email": "hong@shop.example" });
    body["address"] = json!({ "line": "세종대로 110", "region": "jung" });
    body["payment"]["token"] = json!("tok_ok");
    let id = client.place(&body).await;
    kakao.until(1).await;
    body["payment"]["token"] = json!("tok_declined");
    assert_eq!(client.post("/orders", &body).await.status, 402);
    body["customer"]["phone"] = json!(7);
    assert_eq!(client.post("/orders", &body).await.status, 422);
    assert_eq!(client.post(&format!("/orders/{id}/cancel"), &json!({})).await.status, 200);
    let log = std::fs::read_to_string(folder.path().join("stderr")).expect("log lines");
    assert!(log.contains(&id) && log.contains("DEBUG"), "it says what happened to which order");
    for secret in [
        "홍길동",
        "010-9876-5432",
        "hong@shop.example",
        "세종대로",
        "tok_ok",
        "tok_declined",
        &bearer,
        secret,
    ] {
        assert!(
            !log.contains(secret),
            "{secret}: {}",
            log.lines().find(|line| line.contains(secret)).unwrap_or_default()
        );
    }
}
