//! Power cuts of a single server that syncs before it answers, in the middle of groups: what was acknowledged is there,
//! where it was said to be, and of each batch all or nothing. With one that does not sync, a loss is seen.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, fs,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{HeaderMap, jetstream::consumer::pull::OrderedConfig};
use domain::{CommandId, OrderId, event::PaymentRequested};
use futures::{StreamExt, TryStreamExt};
use nats::{Connection, Durability, EventLog, NewEvent, server, topology::Topology};
use serde_json::json;
use simulation::chance::Chance;
use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use twelve_tests::{LIMIT, Process, free_port, processes::signal, workspace};

use crate::hosts::Hosts;

/// Callers at a time, each with one new order after the other.
const CALLERS: u64 = 256;
/// The power goes at a moment within this time.
const UNTIL_CUT: Duration = Duration::from_millis(400);
/// From then on, everything is under way.
const UNDER_WAY: Duration = Duration::from_millis(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What came of power cuts.
#[derive(Default)]
pub(crate) struct Cuts {
    count: u64,
    acknowledged: usize,
    batches: usize,
    in_batches: usize,
    /// The longest that anybody waited for an answer after the server was started again.
    back: Duration,
    pub(crate) violations: Vec<String>,
}

/// A server on a host with a disk of its own.
struct Single {
    program: PathBuf,
    /// It ends before its host does.
    process: Option<Process>,
    hosts: Hosts,
    port: u16,
    sync: &'static str,
    folder: TempDir,
}

impl Single {
    async fn start(is_synced: bool) -> Self {
        let program = server::find_or_install(&workspace().join(".tools")).await.expect("a nats-server");
        let sync = if is_synced { "always" } else { "\"2m\"" };
        let folder = tempfile::tempdir().expect("a folder");
        let mut single =
            Self { program, process: None, hosts: Hosts::new(1), port: free_port(), sync, folder };
        single.run();
        single
    }

    fn url(&self) -> String {
        format!("nats://{}:{}", self.hosts.all[0].address, self.port)
    }

    fn run(&mut self) {
        let (host, port, sync) = (&self.hosts.all[0], self.port, self.sync);
        let (address, disk) = (&host.address, host.folder.display());
        let configuration = format!(
            "listen: \"{address}:{port}\"\n\
             jetstream {{ store_dir: \"{disk}/js\", sync_interval: {sync}, max_file_store: 100GB }}\n"
        );
        let file = self.folder.path().join("single.conf");
        fs::write(&file, configuration).expect("written");
        self.process =
            Some(Process::foreign(host.command(&self.program).arg("-c").arg(&file).stderr(Stdio::null())));
    }

    async fn log(&self) -> EventLog {
        let until = Instant::now() + LIMIT;
        let connection = loop {
            match Connection::open(&self.url(), "cuts").await {
                Ok(connection) => break connection,
                Err(error) => assert!(Instant::now() < until, "the server does not answer: {error}"),
            }
            sleep(LOOK_EVERY).await;
        };
        let topology = Topology { partitions: 1, ..Topology::default() };
        EventLog::open(connection, topology, Durability::Fsync).await.expect("the log")
    }

    /// Everything stops at once; what was not on the disk is gone. Then it is started again.
    fn lose_power(&mut self) {
        signal("STOP", self.process.as_ref().expect("it runs").id());
        self.hosts.all[0].remember_disk();
        drop(self.process.take());
        self.hosts.all[0].lose_power();
        self.run();
    }
}

/// What callers were told: of each order, where its event is.
type Told = Arc<Mutex<HashMap<OrderId, u64>>>;

fn placed(order_id: OrderId) -> NewEvent {
    let request: PaymentRequested = serde_json::from_value(json!({
        "flow": { "name": "marketplace", "version": "v" }, "customer_id": "c", "method": "card",
        "amount": { "amount": 1, "currency": "KRW" },
    }))
    .expect("a request");
    NewEvent {
        event: request.into(),
        command_id: CommandId::from_key("cuts", order_id, "request"),
        causation_id: None,
        time: nats::now(),
        fingerprint: None,
        trace_parent: None,
    }
}

/// Appends one new order after the other, until it is over.
async fn call(log: EventLog, name: String, told: Told, is_over: Arc<AtomicBool>) {
    for number in 0_u64.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let order_id = OrderId::from_key("cuts", &format!("{name}-{number}"));
        match log.append(order_id, 0, &placed(order_id)).await {
            Ok(appended) => {
                let sequence = appended.into_stored().recorded.position.sequence;
                told.lock().unwrap_or_else(PoisonError::into_inner).insert(order_id, sequence);
            }
            // While there is no connection it fails at once.
            Err(_) => sleep(LOOK_EVERY).await,
        }
    }
}

/// Cuts the power so many times; nothing, where no disk can be made.
pub(crate) async fn run(cuts: u64, chance: &Chance, is_synced: bool) -> Option<Cuts> {
    let mut single = Single::start(is_synced).await;
    if !single.hosts.has_disks() {
        return None;
    }
    let log = single.log().await;
    // Where nothing syncs, there is at least a log to begin with.
    single.hosts.all[0].write_back();
    let (told, mut back) = (Told::default(), Duration::ZERO);
    for cut in 0..cuts {
        let (mut callers, is_over) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
        for caller in 0..CALLERS {
            let (told, is_over) = (Arc::clone(&told), Arc::clone(&is_over));
            callers.spawn(call(log.clone(), format!("{cut}-{caller}"), told, is_over));
        }
        // At another moment each time.
        sleep(UNDER_WAY + chance.while_up_to(UNTIL_CUT)).await;
        is_over.store(true, Ordering::Relaxed);
        single.lose_power();
        let began = Instant::now();
        // Whoever had no answer asks again, and finds what was stored.
        timeout(LIMIT, callers.join_all()).await.expect("everybody is answered");
        back = back.max(began.elapsed());
    }
    // Nobody may have waited until it answers.
    drop(single.log().await);
    let told = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Some(Cuts { count: cuts, back, ..judge(&told, &single.url()).await })
}

/// Holds what is in the log against what was told.
async fn judge(told: &HashMap<OrderId, u64>, url: &str) -> Cuts {
    let client = async_nats::connect(url).await.expect("connected");
    let mut stream = async_nats::jetstream::new(client).get_stream("ORDERS-0").await.expect("the partition");
    let count = stream.info().await.expect("described").state.messages;
    let mut found: HashMap<String, Vec<u64>> = HashMap::new();
    let mut batches: BTreeMap<String, (Vec<u64>, bool)> = BTreeMap::new();
    let consumer = stream.create_consumer(OrderedConfig::default()).await.expect("a consumer");
    let mut messages =
        consumer.messages().await.expect("messages").take(usize::try_from(count).expect("so many"));
    while let Some(message) = timeout(LIMIT, messages.try_next()).await.expect("in time").expect("readable") {
        let sequence = message.info().expect("described").stream_sequence;
        found.entry(message.subject.to_string()).or_default().push(sequence);
        let headers = message.headers.clone().unwrap_or_else(HeaderMap::new);
        let text = |name: &str| headers.get(name).map(ToString::to_string);
        let Some(id) = text("Nats-Batch-Id") else { continue };
        let (numbers, is_closed) = batches.entry(id).or_default();
        numbers.push(text("Nats-Batch-Sequence").and_then(|number| number.parse().ok()).expect("a number"));
        *is_closed = text("Nats-Batch-Commit").is_some();
    }
    let lost = told.iter().filter_map(|(order_id, sequence)| {
        let there = found.get(&format!("orders.0.{order_id}"));
        (there != Some(&vec![*sequence]))
            .then(|| format!("order {order_id} was acknowledged at {sequence}, and is at {there:?}"))
    });
    let torn = batches.iter().filter_map(|(id, (numbers, is_closed))| {
        let is_whole = *is_closed && numbers.iter().copied().eq(1..=numbers.len() as u64);
        (!is_whole).then(|| format!("batch {id} is there in part: {numbers:?}"))
    });
    let in_batches = batches.values().map(|(numbers, _)| numbers.len()).sum();
    let violations = lost.chain(torn).collect();
    let (acknowledged, batches) = (told.len(), batches.len());
    Cuts { acknowledged, batches, in_batches, violations, ..Cuts::default() }
}

impl fmt::Display for Cuts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, acknowledged, batches, in_batches, back, violations } = self;
        write!(
            f,
            "{count} power cuts of one server, {CALLERS} callers: {acknowledged} events acknowledged; {batches} batches \
             of {in_batches} events; everybody answered {back:.1?} after the start at most; lost, moved or in part: {}",
            violations.len()
        )
    }
}
