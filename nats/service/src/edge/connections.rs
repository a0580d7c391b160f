//! All open connections of a listener, and which of them goes when there are too many.

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{
    Door,
    connection::{Connection, Cut, Holding},
};
use crate::origin;

/// At the bound, one in so many connections goes at a time, so that looking for them costs each new one little.
const EVICTED_PART: usize = 64;
/// A peer that is so little behind the least rate is not taken for one that does not read.
const UNREAD_MIN: Duration = Duration::from_secs(1);
/// Bytes of answers that any peer may leave unread for a while, however many others do.
const SMALL_BYTES: usize = 64 * 1024;

/// Bytes of answers that wait for their peers, of one listener.
#[derive(Debug)]
pub(super) struct Unread {
    bytes: AtomicUsize,
    rate_min: u32,
}

impl Unread {
    fn new(rate_min: u32) -> Self {
        Self { bytes: AtomicUsize::new(0), rate_min }
    }

    /// Bytes of an answer that a peer reads in a second, at the least.
    pub(super) const fn rate_min(&self) -> u32 {
        self.rate_min
    }

    pub(super) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        metrics::gauge!("twelve_unread_bytes").increment(in_metric(bytes));
    }

    pub(super) fn remove(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        metrics::gauge!("twelve_unread_bytes").decrement(in_metric(bytes));
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }
}

pub(super) struct Connections {
    pub(super) door: Door,
    most: usize,
    /// Ends all.
    pub(super) cut_all: CancellationToken,
    unread: Arc<Unread>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    ever: u64,
    all: HashMap<u64, Arc<Connection>>,
    each: HashMap<IpAddr, usize>,
}

impl Open {
    fn remove(&mut self, id: u64) -> Option<Arc<Connection>> {
        let connection = self.all.remove(&id)?;
        metrics::gauge!("twelve_connections").decrement(1.0);
        if let Some(address) = connection.address
            && let Some(count) = self.each.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                self.each.remove(&address);
            }
        }
        Some(connection)
    }

    fn of(&self, address: Option<IpAddr>) -> usize {
        address.and_then(|address| self.each.get(&address)).copied().unwrap_or_default()
    }

    /// Ends those that would be missed least, and answers how many went: first who never made a call, then whose
    /// address has most connections, then who has been idle longest. None that a call is worked on for.
    fn evict(&mut self, most: usize, whose: Option<IpAddr>) -> usize {
        let may_go = |connection: &&Arc<Connection>| whose.is_none() || connection.address == whose;
        let ranked = self.all.values().filter(may_go).filter_map(|connection| {
            let (has_called, idle_since) = connection.worth()?;
            Some(((has_called, Reverse(self.of(connection.address)), idle_since), connection.id))
        });
        let mut ranked: Vec<_> = ranked.collect();
        if ranked.len() > most {
            ranked.select_nth_unstable(most);
            ranked.truncate(most);
        }
        for (_, id) in &ranked {
            if let Some(connection) = self.remove(*id) {
                connection.cut.cancel();
                ended(Cut::Crowded);
            }
        }
        ranked.len()
    }
}

/// Counts a connection that we ended.
pub(super) fn ended(why: Cut) {
    metrics::counter!("twelve_connections_cut_total", "why" => why.as_str()).increment(1);
}

impl Connections {
    pub(super) fn new(door: Door, most: usize) -> Self {
        let cut_all = CancellationToken::new();
        let unread = Arc::new(Unread::new(door.settings.unread_bytes_per_second_min));
        Self { door, most, cut_all, unread, open: Mutex::default() }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection of this peer; `None` if there is none, and none can be made. Connections of trusted
    /// proxies, and those from this machine's own address (`is_local`), are many peers', and are counted in all only.
    pub(super) fn admit(&self, peer: SocketAddr, is_local: bool) -> Option<Arc<Connection>> {
        let ip = peer.ip().to_canonical();
        let is_trusted = self.door.trusted.iter().any(|net| net.contains(&ip));
        let address = (!is_trusted && !is_local).then(|| origin::counted(ip));
        let each_max = usize::try_from(self.door.settings.connections_each_max).unwrap_or(usize::MAX);
        let mut open = self.open();
        let refused =
            if open.of(address) >= each_max && open.evict(each_max.div_ceil(EVICTED_PART), address) == 0 {
                Some("each")
            } else if open.all.len() >= self.most && open.evict(self.most.div_ceil(EVICTED_PART), None) == 0 {
                Some("all")
            } else {
                None
            };
        if let Some(bound) = refused {
            drop(open);
            metrics::counter!("twelve_connections_refused_total", "bound" => bound).increment(1);
            return None;
        }
        open.ever += 1;
        let (id, cut) = (open.ever, self.cut_all.child_token());
        let connection = Arc::new(Connection::new(id, address, cut, Arc::clone(&self.unread)));
        open.all.insert(id, Arc::clone(&connection));
        if let Some(address) = address {
            *open.each.entry(address).or_default() += 1;
        }
        metrics::gauge!("twelve_connections").increment(1.0);
        Some(connection)
    }

    /// The connection has ended.
    pub(super) fn forget(&self, connection: &Connection) {
        self.open().remove(connection.id);
    }

    /// Makes room where the system gives no more sockets.
    pub(super) fn make_room(&self) -> usize {
        let mut open = self.open();
        let most = open.all.len().div_ceil(EVICTED_PART);
        open.evict(most, None)
    }

    /// Whether so many bytes of one more answer to this peer may be held. Answers go for it of those who hold at least
    /// as much as this peer would then; who holds most has to wait, so that none is kept out by those who read nothing.
    pub(super) fn has_room_for(&self, bytes: usize, connection: &Connection) -> bool {
        let max = usize::try_from(self.door.settings.unread_bytes_max).unwrap_or(usize::MAX);
        let fits = || self.unread.bytes().saturating_add(bytes) <= max;
        fits() || self.make_room_for(bytes, connection, fits)
    }

    fn make_room_for(&self, bytes: usize, connection: &Connection, fits: impl Fn() -> bool) -> bool {
        let now = Instant::now();
        let open = self.open();
        let all = open.all.values().filter_map(|open| Some((open, open.holding()?)));
        let all: Vec<_> = all.collect();
        let mut of_each: HashMap<Owner, usize> = HashMap::new();
        for (open, holding) in &all {
            *of_each.entry(open.owner()).or_default() += holding.bytes;
        }
        let theirs = |owner: Owner| of_each.get(&owner).copied().unwrap_or_default();
        let (mine, own) = (theirs(connection.owner()).saturating_add(bytes), connection.owner());
        let rank = |(open, holding): (&Arc<Connection>, Holding)| {
            let (owner, late) = (open.owner(), now.duration_since(holding.since));
            let is_meant = owner != own && theirs(owner) >= mine;
            is_meant.then(|| ((late >= UNREAD_MIN, theirs(owner), late), Arc::clone(open)))
        };
        let mut ranked: Vec<_> = all.into_iter().filter_map(rank).collect();
        drop(open);
        ranked.sort_unstable_by_key(|(rank, _)| Reverse(*rank));
        let mut ranked = ranked.into_iter();
        while !fits() {
            match ranked.next() {
                Some((_, open)) => open.give_up_unread(),
                None => return mine <= SMALL_BYTES,
            }
        }
        true
    }
}

/// Whose connections are taken together: those of an address, and each alone of those that are many peers'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    Address(IpAddr),
    Connection(u64),
}

impl Connection {
    fn owner(&self) -> Owner {
        self.address.map_or(Owner::Connection(self.id), Owner::Address)
    }
}

/// A number as a gauge has it; several listeners share one.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and the bounds are small")]
pub(super) fn in_metric(number: usize) -> f64 {
    number as f64
}
