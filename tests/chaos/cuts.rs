//! Power cuts of a single server that syncs before it answers, in the middle of groups: what was acknowledged is there,
//! where it was said to be, and of each batch all or nothing. With one that does not sync, a loss is seen.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use domain::OrderId;
use nats::{Connection, Durability, EventLog, topology::Topology};
use simulation::chance::Chance;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use twelve_tests::{
    LIMIT,
    log::{Stored, requested},
};

use crate::servers::Servers;

/// Callers at a time, each with one new order after the other.
const CALLERS: u64 = 256;
/// The power goes at a moment within this time.
const UNTIL_CUT: Duration = Duration::from_millis(400);
/// From then on, everything is under way.
const UNDER_WAY: Duration = Duration::from_millis(60);
/// Before a caller who was refused tries again.
const PAUSE: Duration = Duration::from_millis(20);

/// What came of power cuts.
pub(crate) struct Cuts {
    count: u64,
    acknowledged: usize,
    batches: usize,
    in_batches: usize,
    /// The longest that anybody waited for an answer after the server was started again.
    back: Duration,
    pub(crate) violations: Vec<String>,
}

/// What callers were told: of each order, where its event is.
type Told = Arc<Mutex<HashMap<OrderId, u64>>>;

/// Appends one new order after the other, until it is over.
async fn call(log: EventLog, name: String, told: Told, is_over: Arc<AtomicBool>) {
    for number in 0_u64.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let order_id = OrderId::from_key("cuts", &format!("{name}-{number}"));
        match log.append(order_id, 0, &requested(order_id, "request")).await {
            Ok(appended) => {
                let sequence = appended.into_stored().recorded.position.sequence;
                told.lock().unwrap_or_else(PoisonError::into_inner).insert(order_id, sequence);
            }
            // While there is no connection it fails at once.
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Cuts the power so many times; nothing, where no disk can be made.
pub(crate) async fn run(cuts: u64, chance: &Chance, sync_interval: &'static str) -> Option<Cuts> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut servers = Servers::start(1, sync_interval, folder.path()).await;
    if !servers.hosts.has_disks() {
        return None;
    }
    let connection = Connection::open(&servers.url(), "cuts").await.expect("the server answers");
    let topology = Topology { partitions: 1, ..Topology::default() };
    let log = EventLog::open(connection, topology, Durability::Fsync).await.expect("the log");
    // Where nothing syncs, there is at least a log to begin with.
    servers.hosts.all[0].write_back();
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
        servers.cut_power(&[0]);
        let began = Instant::now();
        // Whoever had no answer asks again, and finds what was stored.
        timeout(LIMIT, callers.join_all()).await.expect("everybody is answered");
        back = back.max(began.elapsed());
    }
    // Nobody may have waited until it answers.
    servers.until_ready().await;
    let told = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let stored = Stored::at(&servers.url()).await;
    let lost = told.iter().filter_map(|(order_id, sequence)| {
        let there = stored.sequences.get(order_id);
        (there != Some(&vec![*sequence]))
            .then(|| format!("order {order_id} was acknowledged at {sequence}, and is at {there:?}"))
    });
    let (batches, in_batches) = (stored.batches.len(), stored.together());
    let violations = lost.chain(stored.torn()).collect();
    Some(Cuts { count: cuts, acknowledged: told.len(), batches, in_batches, back, violations })
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
