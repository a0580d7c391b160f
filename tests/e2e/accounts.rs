//! Who may do what on the nats-server.

use async_nats::{ConnectOptions, Event};
use nats::accounts::User;
use serde_json::json;
use tokio::sync::mpsc;
use twelve_tests::{Client, LIMIT, Process, Secured, binary, client::order, free_port};

/// From one order of others to the next.
const PACE: std::time::Duration = std::time::Duration::from_millis(100);

/// One of our processes, and how it is called.
pub(crate) async fn run(secured: &Secured, program: &str, user: User, more: &[&str]) -> (Process, Client) {
    let listen = format!("127.0.0.1:{}", free_port());
    let mut arguments = secured.arguments(user);
    arguments.extend(["--listen", &listen].map(ToOwned::to_owned));
    arguments.extend(more.iter().map(ToString::to_string));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (process, client) = (Process::start(program, &arguments), Client::new(&format!("http://{listen}")));
    client.until_ready_or(|| secured.said()).await;
    (process, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_travel_although_each_process_may_do_only_what_it_needs() {
    let secured = Secured::start().await;
    let (_commands, commands) = run(&secured, "command-svc", User::Command, &[]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let [views, others] = ["one", "two"].map(|name| folder.path().join(name).display().to_string());
    let operator_listen = format!("127.0.0.1:{}", free_port());
    let settings = ["--views", &views, "--operator-listen", &operator_listen, "--snapshot-every-s", "0"];
    let (_views, queries) = run(&secured, "query-api", User::Views, &settings).await;
    let operator = Client::new(&format!("http://{operator_listen}"));
    let place = async |body| {
        let placed = commands.post("/orders", &body).await;
        assert_eq!(placed.status, 201, "{placed:?} {}", secured.said());
        let path = format!("/orders/{}?after={}", placed.order_id(), placed.header("log-position"));
        let seen = queries.get(&path).await;
        assert_eq!(seen.status, 200, "{seen:?} {}", secured.said());
        placed.order_id()
    };
    let id = place(order("gentleman")).await;
    queries.until_status(&id, "out_for_delivery").await;
    let canceled = commands.post(&format!("/orders/{id}/cancel"), &json!({})).await;
    assert_eq!(canceled.status, 200, "{canceled:?}");
    // It waits for its payment, with a deadline; and is told of.
    let mut appliance = order("gentleman");
    appliance["flow"] = json!("appliance");
    appliance["store_id"] = json!("main-street");
    appliance.as_object_mut().expect("a body").remove("payment");
    let id = place(appliance).await;
    let paid = json!({ "method": "card", "token": "tok_ok" });
    assert_eq!(commands.post(&format!("/orders/{id}/payment"), &paid).await.status, 200);
    queries.until(&id, "received", |row| row["store"]["status"] == "received").await;
    let taken = operator.post("/admin/views/snapshots", &json!({})).await;
    assert_eq!(taken.status, 200, "{taken:?} {}", secured.said());
    let (_other, other) = run(&secured, "query-api", User::Views, &["--views", &others]).await;
    assert_eq!(other.get("/orders").await.body, queries.get("/orders").await.body);
    assert!(!secured.said().contains("Violation"), "something that is needed is refused: {}", secured.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_archivist_moves_old_orders_with_a_key_of_its_own_and_all_others_read_them() {
    let archives = ["--old-orders", "archive"];
    let secured = Secured::start_with(&archives).await;
    let (_commands, commands) = run(&secured, "command-svc", User::Command, &archives).await;
    let placed = commands.post_with_key("/orders", "once", &order("gentleman")).await;
    assert_eq!(placed.status, 201, "{placed:?}");
    let id = placed.order_id();
    let canceled = commands.post(&format!("/orders/{id}/cancel"), &json!({})).await;
    assert_eq!(canceled.status, 200, "{canceled:?}");
    let mut command = tokio::process::Command::new(binary("twelve"));
    command.args(["archive", "--older-than", "0"]).args(archives).args(secured.arguments(User::Archivist));
    // The newest event of a partition stays in the log, so others order meanwhile.
    let others = async {
        let mut paces = tokio::time::interval(PACE);
        loop {
            paces.tick().await;
            assert_eq!(commands.post("/orders", &order("others")).await.status, 201);
        }
    };
    let moved =
        tokio::select! { moved = command.output() => moved, () = others => unreachable!("they go on") };
    let moved = moved.expect("it runs");
    let told = String::from_utf8_lossy(&moved.stdout);
    assert!(told.contains("1 orders left the log"), "{moved:?} {}", secured.said());
    let again = commands.post_with_key("/orders", "once", &order("gentleman")).await;
    assert_eq!((again.order_id(), again.header("idempotency-replayed")), (id.clone(), "true"), "{again:?}");
    let folder = tempfile::tempdir().expect("a folder");
    let views = folder.path().display().to_string();
    let settings = [&archives[..], &["--views", &views]].concat();
    let (_views, queries) = run(&secured, "query-api", User::Views, &settings).await;
    assert_eq!(queries.get(&format!("/orders/{id}")).await.body["status"], "canceled");
    assert!(!secured.said().contains("Violation"), "something that is needed is refused: {}", secured.said());
}

/// A connection of a user that tells what the server refuses.
struct Watched {
    client: async_nats::Client,
    refused: mpsc::UnboundedReceiver<String>,
}

impl Watched {
    async fn connect(secured: &Secured, user: User) -> Self {
        let seed = std::fs::read_to_string(secured.key(user)).expect("a key");
        let (sink, refused) = mpsc::unbounded_channel();
        let options = ConnectOptions::with_nkey(seed.trim().to_owned())
            .add_root_certificates(secured.ca())
            .event_callback(move |event| {
                if let Event::ServerError(error) = event {
                    sink.send(error.to_string()).unwrap_or_default();
                }
                std::future::ready(())
            });
        Self { client: options.connect(secured.url()).await.expect("connected"), refused }
    }

    /// What the server refuses next.
    async fn refusal(&mut self, what: &str) -> String {
        self.client.flush().await.expect("sent");
        let told = tokio::time::timeout(LIMIT, self.refused.recv()).await;
        told.unwrap_or_else(|_| panic!("{what} is not refused")).expect("connected")
    }
}

/// What this user may not publish.
fn forbidden(user: User) -> Vec<&'static str> {
    let mut forbidden = vec![
        "$JS.API.STREAM.DELETE.ORDERS-0",
        "$JS.API.STREAM.MSG.DELETE.ORDERS-0",
        "$JS.API.STREAM.DELETE.FLOWS",
        "$JS.API.STREAM.PURGE.DEADLINES",
        "due.0.00000000-0000-0000-0000-000000000000",
    ];
    let order = "orders.0.00000000-0000-0000-0000-000000000000";
    let writing = ["deadlines.0.x", "notices.0.x", "twelve.payment.decide", "flows.x.y"];
    let working = ["$JS.API.CONSUMER.MSG.NEXT.ORDERS-0.saga", "$JS.ACK.ORDERS-0.saga.1.1.1.1.1"];
    let making = [
        "$JS.API.STREAM.UPDATE.ORDERS-0",
        "$JS.API.STREAM.CREATE.EVIL",
        "$JS.API.STREAM.SNAPSHOT.ORDERS-0",
        "$JS.API.STREAM.RESTORE.ORDERS-0",
        "$JS.API.STREAM.CREATE.OBJ_TWELVE-VIEWS",
        "$JS.API.CONSUMER.DELETE.ORDERS-0.saga",
        "$JS.API.CONSUMER.CREATE.ORDERS-0",
        "$JS.API.CONSUMER.CREATE.ORDERS-0.saga",
        "$JS.API.CONSUMER.CREATE.OBJ_TWELVE-VIEWS.x.y",
        "$JS.API.CONSUMER.DURABLE.CREATE.ORDERS-0.saga",
        "$JS.API.CONSUMER.PAUSE.ORDERS-0.saga",
    ];
    // The archivist appends the last event of an order, and takes it out of the log.
    if user != User::Archivist {
        forbidden.extend(["$JS.API.STREAM.PURGE.ORDERS-0", "$O.TWELVE-ARCHIVE.C.x"]);
    }
    if !matches!(user, User::Command | User::Archivist) {
        forbidden.push(order);
    }
    if user != User::Command {
        forbidden.extend(writing);
    }
    if user != User::Command {
        forbidden.push(working[1]);
    }
    // The set-up key may do anything to a consumer.
    if !matches!(user, User::Command | User::Setup) {
        forbidden.push(working[0]);
    }
    match user {
        User::Setup => {}
        // The streams of the log, and nothing else.
        User::Nack => forbidden
            .extend(making.into_iter().filter(|call| call.contains("CONSUMER") || call.ends_with("EVIL"))),
        User::Command | User::Views | User::Operator | User::Archivist | User::Inspector => {
            forbidden.extend(making);
        }
    }
    if user != User::Views {
        forbidden.extend(["$O.TWELVE-VIEWS.C.x", "$JS.API.STREAM.PURGE.OBJ_TWELVE-VIEWS"]);
    }
    forbidden
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_does_not_need_the_server_refuses() {
    let secured = Secured::start().await;
    let (_commands, commands) = run(&secured, "command-svc", User::Command, &[]).await;
    assert_eq!(commands.post("/orders", &order("gentleman")).await.status, 201);
    let connection = secured.connect(User::Operator).await.expect("connected");
    let topology = nats::topology::Topology { partitions: twelve_tests::partitions(), ..Default::default() };
    let looked_at = nats::EventLog::look(connection, topology, nats::Durability::Fsync);
    let log = async || {
        let mut told = Vec::new();
        for partition in 0..looked_at.partitions() {
            told.push(looked_at.partition_info(partition).await.expect("described"));
        }
        told
    };
    // The order goes as far as it does by itself.
    let settled = async { while log().await.iter().map(|info| info.events).sum::<u64>() < 6 {} };
    tokio::time::timeout(LIMIT, settled).await.expect("it does");
    let before = log().await;
    for user in User::ALL {
        let mut watched = Watched::connect(&secured, user).await;
        for subject in forbidden(user) {
            watched.client.publish(subject, "{}".into()).await.expect("sent");
            let told = watched.refusal(subject).await;
            assert!(told.contains("Publish") && told.contains(subject), "{user:?} {subject}: {told}");
        }
        let mut listened = vec!["orders.>", ">"];
        // Its inbox is any; it is alone in its account, so there are no answers of others.
        listened.push(if user == User::Nack { "stored.*" } else { "_INBOX.>" });
        if user != User::Command {
            listened.push("twelve.payment.decide");
        }
        for subject in listened {
            let _subscribed = watched.client.subscribe(subject).await.expect("sent");
            let told = watched.refusal(subject).await;
            assert!(told.contains("Subscription") && told.contains(subject), "{user:?} {subject}: {told}");
        }
    }
    assert_eq!(log().await, before, "nothing came of it");
    let stranger = nkeys_of_a_stranger();
    let refused =
        ConnectOptions::with_nkey(stranger).add_root_certificates(secured.ca()).connect(secured.url()).await;
    assert!(refused.is_err(), "a key that nobody knows");
    let nameless = ConnectOptions::new().add_root_certificates(secured.ca()).connect(secured.url()).await;
    assert!(nameless.is_err(), "no key");
    let seed = std::fs::read_to_string(secured.key(User::Views)).expect("a key");
    let unvouched = ConnectOptions::with_nkey(seed.trim().to_owned()).connect(secured.url()).await;
    assert!(unvouched.is_err(), "a server that nobody vouches for");
}

fn nkeys_of_a_stranger() -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let made = std::process::Command::new(binary("twelve"))
        .args(["nats-accounts", "--out"])
        .arg(folder.path())
        .output();
    assert!(made.expect("it runs").status.success());
    let seed = std::fs::read_to_string(folder.path().join("command.nk")).expect("a key");
    seed.trim().to_owned()
}

#[test]
fn no_key_is_made_beside_one_that_does_not_read() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("views.nk"), "no key").expect("written");
    let made = std::process::Command::new(binary("twelve"))
        .args(["nats-accounts", "--out"])
        .arg(folder.path())
        .output();
    let made = made.expect("it runs");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(!made.status.success() && said.contains("views.nk"), "{said}");
    let files = std::fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(files, 1, "what is there is read before anything is made");
}

/// As NACK connects, which has no setting for where it is answered: with the library's own inbox.
#[tokio::test(flavor = "multi_thread")]
async fn a_controller_of_streams_makes_and_changes_them_and_hears_nobody_elses_answers() {
    let secured = Secured::start_bare().await;
    let Watched { client, .. } = Watched::connect(&secured, User::Nack).await;
    let jetstream = async_nats::jetstream::new(client.clone());
    let topology = nats::topology::Topology { partitions: twelve_tests::partitions(), ..Default::default() };
    for declared in topology.streams() {
        let name = declared.name.clone();
        let made = jetstream.create_stream(declared.clone()).await;
        assert!(made.is_ok(), "{name}: {made:?} {}", secured.said());
        let changed = jetstream.update_stream(declared).await;
        assert!(changed.is_ok(), "{name}: {changed:?} {}", secured.said());
        assert_eq!(jetstream.get_stream(&name).await.expect("it is there").cached_info().config.name, name);
    }
    assert!(!secured.said().contains("Violation"), "something that is needed is refused: {}", secured.said());
    // What is made so, the set-up key finds as declared, and completes.
    let set_up = secured.set_up(&[]);
    assert!(set_up.status.success(), "{set_up:?} {}", secured.said());
    let mut heard = client.subscribe("_INBOX.>").await.expect("sent");
    client.flush().await.expect("subscribed");
    let (_commands, commands) = run(&secured, "command-svc", User::Command, &[]).await;
    assert_eq!(commands.post("/orders", &order("gentleman")).await.status, 201);
    client.flush().await.expect("the server is there");
    let told = futures::FutureExt::now_or_never(futures::StreamExt::next(&mut heard));
    assert!(told.is_none(), "{told:?}");
}

#[test]
fn a_controller_of_streams_has_a_key_only_where_it_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = |more: &[&str]| {
        let mut command = std::process::Command::new(binary("twelve"));
        command.args(["nats-accounts", "--out"]).arg(folder.path()).args(more);
        assert!(command.output().expect("it runs").status.success());
        let accounts = std::fs::read_to_string(folder.path().join("accounts.conf")).expect("accounts");
        (folder.path().join("nack.nk").exists(), accounts.contains("TWELVE-NACK"))
    };
    assert_eq!(made(&[]), (false, false));
    assert_eq!(made(&["--nack"]), (true, true));
    // It works with this key from then on.
    assert_eq!(made(&[]), (true, true));
}

/// An inspector sees single events, by the ordinary means.
#[tokio::test(flavor = "multi_thread")]
async fn an_inspector_sees_an_orders_events_and_changes_nothing() {
    let secured = Secured::start().await;
    let (_commands, commands) = run(&secured, "command-svc", User::Command, &[]).await;
    let placed = commands.post("/orders", &order("gentleman")).await;
    let connection = secured.connect(User::Inspector).await.expect("connected");
    let topology = nats::topology::Topology { partitions: twelve_tests::partitions(), ..Default::default() };
    let log = nats::EventLog::open(connection, topology, nats::Durability::Fsync).await.expect("a log");
    let id: domain::OrderId = placed.order_id().parse().expect("an id");
    let story = log.load(id, 0).await.expect("a story");
    assert!(story.len() >= 3);
}
