//! Who sees what of an order, and who may do what to it: every role, every relation to the order, every way out. The
//! tables are written by hand from what the business wants, and know nothing of how the code decides.

use reqwest::Method;
use serde_json::{Value, json};
use service::grpc::v1::{GetOrderRequest, queries_client::QueriesClient};
use tonic::{Code, Request, transport::Channel};
use twelve_tests::{
    Client, LIMIT,
    issuer::{claims, now},
};

use crate::access::{Protected, meal};

const NAME: &str = "홍길동";
const PHONE: &str = "010-7357-9151";
const MAIL: &str = "gentleman@mail.example";
const LINE: &str = "Baker Street 221B";
const REGION: &str = "mapo";
const ITEM: &str = "삼각김밥";
const METHOD: &str = "card-of-his-wife";

const PEOPLE: [(&str, &str, &str); 9] = [
    ("the customer", "gentleman", "customer"),
    ("another customer", "somebody", "customer"),
    ("the store", "kimbap", "store"),
    ("another store", "pizza", "store"),
    ("the rider", "rider-1", "rider"),
    ("another rider", "rider-2", "rider"),
    ("the delivery team", "team", "delivery"),
    ("marketing", "m", "marketing"),
    ("an operator", "op", "operator"),
];

/// Seen by nobody but the customer and operators: the whole order.
const ALL: &str = "name phone mail line region item method reference";
const NO: &str = "refused";
const MAKES: &str = "name region item";
const BRINGS: &str = "name line region item";
const MAY_PICK_UP: &str = "region";

/// What each of [`PEOPLE`] sees of an order now.
const NOW: [(&str, [&str; 9]); 4] = [
    ("received", [ALL, NO, MAKES, NO, NO, NO, NO, NO, ALL]),
    ("open", [ALL, NO, MAKES, NO, MAY_PICK_UP, MAY_PICK_UP, NO, NO, ALL]),
    ("picked up", [ALL, NO, MAKES, NO, BRINGS, NO, NO, NO, ALL]),
    ("parcel", [ALL, NO, NO, NO, NO, NO, BRINGS, NO, ALL]),
];

/// What each of [`PEOPLE`] sees of a meal as it was, once the rider has picked it up.
const THEN: [(&str, [&str; 9]); 3] = [
    ("received", [ALL, NO, MAKES, NO, NO, NO, NO, NO, ALL]),
    ("open", [ALL, NO, MAKES, NO, MAY_PICK_UP, NO, NO, NO, ALL]),
    ("picked up", [ALL, NO, MAKES, NO, BRINGS, NO, NO, NO, ALL]),
];

/// Who may give a command to a parcel, and to a meal that the rider has picked up.
const MAY: [(&str, &str, &str); 15] = [
    ("cancel", "the customer", "the customer"),
    ("confirm", "the customer", "the customer"),
    ("return", "the customer", "the customer"),
    ("payment", "the customer", "the customer"),
    ("review", "the customer", "the customer"),
    ("store/accept", "", "the store"),
    ("store/reject", "", "the store"),
    ("store/start", "", "the store"),
    ("store/finish", "", "the store"),
    ("delivery/start", "the delivery team", "the rider"),
    ("delivery/complete", "the delivery team", "the rider"),
    ("delivery/cancel", "the delivery team", "the rider"),
    ("return/pickup", "the delivery team", "the rider"),
    ("return/complete", "the delivery team", "the rider"),
    ("resume", "", ""),
];

struct Shop {
    shop: Protected,
    people: Vec<(&'static str, Client, String)>,
}

impl Shop {
    async fn up() -> Self {
        let shop = Protected::up().await;
        let people = PEOPLE.iter().map(|(who, id, role)| {
            let mut claims = claims(id, role);
            claims["email"] = json!(MAIL);
            claims["email_verified"] = json!(true);
            claims["phone_number"] = json!(PHONE);
            claims["phone_number_verified"] = json!(true);
            let token = shop.key.sign(&claims);
            (*who, shop.platform.client.bearing(&token), token)
        });
        let people = people.collect();
        Self { shop, people }
    }

    fn person(&self, wanted: &str) -> &Client {
        &self.people.iter().find(|(who, ..)| *who == wanted).expect("one of them").1
    }

    /// What an operator reads in the order's row.
    async fn row(&self, id: &str) -> Value {
        self.person("an operator").get(&format!("/orders/{id}")).await.body
    }

    async fn act(&self, who: &str, id: &str, what: &str, body: &Value) -> Value {
        let answer = self.person(who).post(&format!("/orders/{id}/{what}"), body).await;
        assert_eq!(answer.status, 200, "{who}: {what}: {answer:?}");
        self.person("an operator").order_after(id, answer.header("log-position")).await
    }

    /// Waits for a fact; answers with the position of the newest event.
    async fn until(&self, id: &str, part: &str, status: &str) -> String {
        let holds = |row: &Value| row[part]["status"] == status;
        let row = self.person("an operator").until(id, status, holds).await;
        row["position"].as_str().expect("a position").to_owned()
    }

    /// A meal that waits for a rider.
    async fn cooked(&self) -> String {
        let id = self.person("the customer").place(&body("food")).await;
        self.until(&id, "store", "received").await;
        for what in ["store/accept", "store/start", "store/finish"] {
            self.act("the store", &id, what, &json!({})).await;
        }
        self.until(&id, "delivery", "listed").await;
        let is_told = |row: &Value| {
            let events = row["timeline"].as_array().expect("events");
            events.iter().filter(|event| event["context"] == "notification").count() >= 4
        };
        self.person("an operator").until(&id, "told of each change", is_told).await;
        id
    }

    async fn parcel(&self) -> String {
        let id = self.person("the customer").place(&body("marketplace")).await;
        self.until(&id, "delivery", "started").await;
        id
    }

    /// What comes out of every way to an order for one caller: the status, and all text of the answer.
    async fn ways(&self, who: &str, id: &str) -> Vec<(&'static str, u16, String)> {
        let (_, client, token) = self.people.iter().find(|(is, ..)| *is == who).expect("one of them");
        let row = self.row(id).await;
        let position = row["position"].as_str().expect("a position");
        let events = row["timeline"].as_array().map_or(0, Vec::len);
        let mut out = Vec::new();
        for (way, path) in [
            ("the order", format!("/orders/{id}")),
            ("its events", format!("/orders/{id}/events")),
            ("as of now", format!("/orders/{id}?as_of={position}")),
            ("as of now, from the views", format!("/orders/{id}?as_of={position}&after={position}")),
        ] {
            let answer = client.get(&path).await;
            out.push((way, answer.status.as_u16(), answer.body.to_string()));
        }
        let cloud = client.request(Method::GET, &format!("/orders/{id}/events"));
        let cloud = client.send(cloud.header("accept", "application/cloudevents-batch+json")).await;
        out.push(("its CloudEvents", cloud.status.as_u16(), cloud.body.to_string()));
        let path = format!("/orders/{id}/live");
        let (status, text) = live(client, &path, None, 1).await;
        out.push(("live", status, text));
        let partition = position.split(':').next().expect("a partition");
        let (status, text) = live(client, &path, Some(&format!("{partition}:0")), events).await;
        out.push(("live, resumed", status, text));
        let (status, text) = self.by_grpc(token, id).await;
        out.push(("gRPC", status, text));
        out
    }

    async fn by_grpc(&self, token: &str, id: &str) -> (u16, String) {
        let channel = Channel::from_shared(self.shop.platform.client.url().to_owned()).expect("an address");
        let channel = channel.timeout(LIMIT).connect().await.expect("connected");
        let mut request = Request::new(GetOrderRequest { order_id: id.to_owned(), after: None });
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("a token"));
        match QueriesClient::new(channel).get_order(request).await {
            Ok(order) => (200, format!("{:?}", order.into_inner())),
            Err(status) if status.code() == Code::PermissionDenied => (403, format!("{status:?}")),
            Err(status) => panic!("{status:?}"),
        }
    }

    async fn assert_seen(&self, when: &str, id: &str, expected: [&str; 9]) {
        let reference = self.row(id).await["payment"]["reference"].as_str().expect("paid").to_owned();
        for ((who, ..), fields) in self.people.iter().zip(expected) {
            for (way, status, text) in self.ways(who, id).await {
                assert_visible(&format!("{when}: {who}, {way}"), status, &text, fields, &reference);
            }
        }
    }
}

/// The first events of a live stream, or why there is none.
async fn live(client: &Client, path: &str, after: Option<&str>, events: usize) -> (u16, String) {
    let probe = client.request(Method::GET, path).send().await.expect("an answer");
    if probe.status() != 200 {
        return (probe.status().as_u16(), probe.text().await.expect("a text"));
    }
    drop(probe);
    let (mut live, mut text) = (client.live(path, after).await, String::new());
    for _ in 0..events {
        let event = live.next().await.expect("an event");
        text.push_str(&event.data.to_string());
    }
    (200, text)
}

/// Exactly these fields are in an answer's text.
fn assert_visible(when: &str, status: u16, text: &str, fields: &str, reference: &str) {
    let wanted = if fields == NO { (403, "") } else { (200, fields) };
    let markers = [
        ("name", NAME),
        ("phone", PHONE),
        ("mail", MAIL),
        ("line", LINE),
        ("region", REGION),
        ("item", ITEM),
        ("method", METHOD),
        ("reference", reference),
    ];
    let seen = markers.iter().filter(|(_, marker)| text.contains(marker)).map(|(field, _)| *field);
    let seen = seen.collect::<Vec<_>>().join(" ");
    assert_eq!((status, seen.as_str()), wanted, "{when}: {text}");
}

fn body(flow: &str) -> Value {
    let mut body = meal("gentleman");
    body["customer"] = json!({ "id": "gentleman", "name": NAME, "phone": PHONE, "email": MAIL });
    body["address"] = json!({ "line": LINE, "region": REGION });
    body["lines"][0]["name"] = json!(ITEM);
    body["payment"]["method"] = json!(METHOD);
    body["flow"] = json!(flow);
    if flow == "marketplace" {
        let fields = body.as_object_mut().expect("a body");
        fields.retain(|name, _| !["store_id", "delivery_type"].contains(&name.as_str()));
    }
    body
}

fn sees(table: &[(&str, [&'static str; 9])], stage: &str) -> [&'static str; 9] {
    table.iter().find(|(is, _)| *is == stage).expect("a stage").1
}

#[tokio::test(flavor = "multi_thread")]
async fn each_party_sees_of_an_order_what_it_needs_by_every_way_and_no_other_sees_anything() {
    let shop = Shop::up().await;
    let id = shop.person("the customer").place(&body("food")).await;
    let mut stages = vec![("received", shop.until(&id, "store", "received").await)];
    shop.assert_seen("received", &id, sees(&NOW, "received")).await;
    for what in ["store/accept", "store/start", "store/finish"] {
        shop.act("the store", &id, what, &json!({})).await;
    }
    stages.push(("open", shop.until(&id, "delivery", "listed").await));
    shop.assert_seen("open", &id, sees(&NOW, "open")).await;
    let taken = shop.act("the rider", &id, "delivery/pickup", &json!({ "rider_id": "rider-1" })).await;
    stages.push(("picked up", taken["position"].as_str().expect("a position").to_owned()));
    shop.assert_seen("picked up", &id, sees(&NOW, "picked up")).await;

    let reference = taken["payment"]["reference"].as_str().expect("paid");
    for (stage, position) in &stages {
        for ((who, client, _), fields) in shop.people.iter().zip(sees(&THEN, stage)) {
            for more in ["", "&wait=10"] {
                let then = client.get(&format!("/orders/{id}?as_of={position}{more}")).await;
                let when = format!("as of {stage}, when it is picked up: {who}{more}");
                assert_visible(&when, then.status.as_u16(), &then.body.to_string(), fields, reference);
            }
        }
    }
    let parcel = shop.parcel().await;
    shop.assert_seen("parcel", &parcel, sees(&NOW, "parcel")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_show_each_role_its_own_orders_without_what_is_not_for_it_now_and_as_of_then() {
    let shop = Shop::up().await;
    let (id, parcel) = (shop.cooked().await, shop.parcel().await);
    let row = shop.row(&id).await;
    let (then, reference) = (row["position"].as_str().expect("one"), row["payment"]["reference"].as_str());
    let reference = reference.expect("paid");
    let partition = then.split(':').next().expect("a partition");
    let resume = format!("{partition}:0");
    let open = shop.person("another rider").get("/deliveries/open").await;
    assert_visible("open deliveries", 200, &open.body.to_string(), MAY_PICK_UP, reference);
    assert!(open.body.to_string().contains(&id));
    shop.act("the rider", &id, "delivery/pickup", &json!({ "rider_id": "rider-1" })).await;
    shop.cooked().await;

    let lists: [(&str, [&str; 9]); 12] = [
        ("/orders", [NO, NO, NO, NO, NO, NO, NO, NO, ALL]),
        ("/payments", [NO, NO, NO, NO, NO, NO, NO, NO, "method reference"]),
        ("/notifications", [NO, NO, NO, NO, NO, NO, NO, NO, "name phone"]),
        ("/sagas", [NO, NO, NO, NO, NO, NO, NO, NO, ""]),
        ("/coupons", [NO, NO, NO, NO, NO, NO, NO, "", ""]),
        ("/deliveries", [NO, NO, NO, NO, NO, NO, "line region", NO, "line region"]),
        ("/deliveries/open", [NO, NO, NO, NO, "region", "region", NO, NO, "line region"]),
        ("/customers/gentleman/orders", ["item", NO, NO, NO, NO, NO, NO, NO, "item"]),
        ("/stores/kimbap/orders", [NO, NO, "item", NO, NO, NO, NO, NO, "item"]),
        ("/riders/rider-1/deliveries", [NO, NO, NO, NO, "", NO, NO, NO, ""]),
        ("/customers/gentleman/orders/live", [PLACED, NO, NO, NO, NO, NO, NO, NO, PLACED]),
        (
            "/stores/kimbap/orders/live",
            [NO, NO, "region item", NO, NO, NO, NO, NO, "name phone line region item"],
        ),
    ];
    for (path, expected) in lists {
        for ((who, client, _), fields) in shop.people.iter().zip(expected) {
            let (status, text) = if path.ends_with("/live") {
                live(client, path, Some(&resume), LIVE_EVENTS).await
            } else {
                let answer = client.get(path).await;
                (answer.status.as_u16(), answer.body.to_string())
            };
            assert_visible(&format!("{path}: {who}"), status, &text, fields, reference);
        }
    }
    for (who, status) in [("another rider", 403), ("the rider", 403), ("an operator", 200)] {
        let was_open = shop.person(who).get(&format!("/deliveries/open?as_of={then}")).await;
        assert_eq!(was_open.status, status, "{was_open:?}");
        assert_eq!(was_open.body.to_string().contains(&id), status == 200, "{who}: {was_open:?}");
    }
    for query in ["/deliveries".to_owned(), format!("/deliveries?order_id={id}")] {
        let of_team = shop.person("the delivery team").get(&query).await.body.to_string();
        assert!(!of_team.contains(&id), "a rider's is not the team's: {of_team}");
    }
    let of_team = shop.person("the delivery team").get(&format!("/deliveries?order_id={parcel}")).await;
    assert!(of_team.body.to_string().contains(LINE), "{of_team:?}");
}

/// What an order's events say from the one on with which it was placed.
const PLACED: &str = "name phone mail line region item";
/// Events of one order from the one on with which the store received it, until a rider has it.
const LIVE_EVENTS: usize = 9;

#[tokio::test(flavor = "multi_thread")]
async fn each_command_is_taken_from_its_party_and_an_operator_and_from_no_other() {
    let shop = Shop::up().await;
    let (meal, parcel) = (shop.cooked().await, shop.parcel().await);
    shop.act("the rider", &meal, "delivery/pickup", &json!({ "rider_id": "rider-1" })).await;
    let operator = shop.person("an operator");
    let before = [operator.event_types(&meal).await, operator.event_types(&parcel).await];
    let give = async |client: &Client, id: &str, what: &str| {
        let body = match what {
            "payment" => json!({ "method": "card", "token": "tok_ok" }),
            "review" => json!({ "rating": 1, "text": "x" }),
            _ => json!({}),
        };
        let path =
            if what == "resume" { format!("/sagas/{id}/resume") } else { format!("/orders/{id}/{what}") };
        client.post(&path, &body).await
    };
    for (what, of_parcel, of_meal) in MAY {
        for (id, may) in [(&parcel, of_parcel), (&meal, of_meal)] {
            for (who, client, _) in &shop.people {
                if *who != may && *who != "an operator" {
                    let answer = give(client, id, what).await;
                    assert_eq!((answer.status.as_u16(), answer.code()), (403, "forbidden"), "{who}: {what}");
                    assert!(!answer.body.to_string().contains(LINE));
                }
            }
        }
    }
    let after = [operator.event_types(&meal).await, operator.event_types(&parcel).await];
    assert_eq!(before, after, "nothing was done");
    for (what, of_parcel, of_meal) in MAY {
        for (id, may) in [(&parcel, of_parcel), (&meal, of_meal)] {
            for who in [may, "an operator"].iter().filter(|who| !who.is_empty()) {
                let answer = give(shop.person(who), id, what).await;
                assert_ne!(answer.status, 403, "{who}: {what}: {answer:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_stream_ends_when_the_order_is_another_riders_and_says_so() {
    let shop = Shop::up().await;
    let id = shop.cooked().await;
    let path = format!("/orders/{id}/live");
    let mut other = shop.person("another rider").live(&path, None).await;
    let mut own = shop.person("the rider").live(&path, None).await;
    for live in [&mut other, &mut own] {
        let snapshot = live.next().await.expect("a snapshot");
        assert!(!snapshot.data.to_string().contains(LINE), "{snapshot:?}");
    }
    shop.act("the rider", &id, "delivery/pickup", &json!({ "rider_id": "rider-1" })).await;
    let mut ended = other.next().await.expect("a last event");
    while ended.name == "change" {
        assert_eq!(ended.data["context"], "notification", "what happened before: {ended:?}");
        ended = other.next().await.expect("a last event");
    }
    assert_eq!((ended.name.as_str(), &ended.data["reason"]), ("ended", &json!("not_permitted")), "{ended:?}");
    assert!(!ended.data.to_string().contains("rider-1"));
    assert!(other.next().await.is_none(), "the stream ends");
    let refused = shop.person("another rider").get(&path).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (403, "forbidden"), "{refused:?}");
    let mut change = own.next().await.expect("a change");
    while change.data["type"] != "DeliveryPickedUp" {
        change = own.next().await.expect("a change");
    }
    assert_eq!(change.data["data"]["rider_id"], "rider-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_stream_of_a_quiet_order_ends_with_its_token_and_resumes_with_a_new_one() {
    let shop = Shop::up().await;
    let parcel = shop.parcel().await;
    let platform = &shop.shop.platform;
    for path in [format!("/orders/{parcel}/live"), "/customers/gentleman/orders/live".to_owned()] {
        let mut claims = claims("gentleman", "customer");
        let expires_at = now() + 2;
        claims["exp"] = json!(expires_at);
        let mut live = platform.client.bearing(&shop.shop.key.sign(&claims)).live(&path, None).await;
        let mut last = live.next().await.expect("a snapshot");
        assert_eq!(last.name, "snapshot");
        while last.name != "ended" {
            last = live.next().await.expect("a last event");
        }
        assert_eq!(last.data["reason"], "token_expired", "{last:?}");
        assert!(now() >= expires_at && live.next().await.is_none(), "{path}");
        let position = last.data["resume_from"].as_str().expect("where to go on").to_owned();
        let mut again = shop.person("the customer").live(&path, Some(&position)).await;
        if path.starts_with("/customers") {
            let next = shop.person("the customer").place(&body("marketplace")).await;
            assert_eq!(again.next().await.expect("a change").data["order_id"], json!(next));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_are_public_and_whose_they_are_is_not() {
    let shop = Shop::up().await;
    let id = shop.cooked().await;
    shop.act("the rider", &id, "delivery/pickup", &json!({ "rider_id": "rider-1" })).await;
    shop.act("the rider", &id, "delivery/complete", &json!({})).await;
    let review = json!({ "rating": 5, "text": "맛있다" });
    let written = shop.person("the customer").post(&format!("/orders/{id}/review"), &review).await;
    assert_eq!(written.status, 201, "{written:?}");
    shop.person("an operator").order_after(&id, written.header("log-position")).await;
    for (who, client, _) in &shop.people {
        let reviews = client.get("/reviews?store_id=kimbap").await;
        let review = &reviews.body["items"][0];
        assert_eq!(review["text"], "맛있다", "{who}: {reviews:?}");
        let is_party = ["the customer", "the store", "the rider", "an operator"].contains(who);
        let text = review.to_string();
        assert_eq!((text.contains(&id), text.contains("gentleman")), (is_party, is_party), "{who}: {text}");
    }
}
