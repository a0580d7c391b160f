//! The views as they were: folded anew, from a snapshot or the log's first event up to a position or a time.
//!
//! The cost is that of reading the log so far, so it has a limit; one order is read from its own subject alone.

use std::{collections::BTreeMap, path::Path, time::Duration};

use domain::{OrderId, Position, Timestamp, access::Parties};
use nats::{
    EventLog, LoadError, Stored, Undecodable,
    follow::{Batch, PartitionInfo},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    beside::BATCHES_WAITING_MAX,
    fold::{Pace, Projection, Unreadable},
    generation::{QUERY_GIVES_WAY, REBUILD_GIVES_WAY, be_modest},
    generations,
    node::{Views, partition_infos},
    snapshot,
    store::{Store, StoreError},
    view::{
        View, order_key,
        orders::{self, Orders},
    },
};

/// In a folder of views: what [`build`] makes.
pub const UNTIL: &str = "until";
/// Positions that one moment may name.
const POSITIONS_MAX: usize = 64;
/// A snapshot is from before a time if its newest event is older by this: events may be a little out of order in time.
const CLOCKS_APART_MAX: Duration = Duration::from_mins(1);

/// A moment of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Up to and with these events; other partitions up to the time of the newest of these.
    At(Vec<Position>),
    /// Up to and with the events of this time; each partition ends before its first later one.
    Time(Timestamp),
}

/// A text that names no moment.
#[derive(Debug, thiserror::Error)]
#[error("a moment is positions (2:1842, or 0:17,2:1842) or a time (2026-11-21T12:00:00Z); got {0:?}")]
pub struct InvalidMoment(String);

impl std::str::FromStr for Moment {
    type Err = InvalidMoment;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(time) = text.parse() {
            return Ok(Self::Time(time));
        }
        let positions: Result<Vec<Position>, _> =
            text.split(',').take(POSITIONS_MAX).map(str::parse).collect();
        let sorted = |mut positions: Vec<Position>| {
            positions.sort_unstable();
            positions.dedup();
            Self::At(positions)
        };
        positions.map(sorted).map_err(|_| InvalidMoment(text.chars().take(64).collect()))
    }
}

/// Why the views of a moment are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum AsOfError {
    #[error("there is no event at {0} yet")]
    NotYet(Position),
    #[error(
        "up to there the log has {events} events, and a query folds at most {limit} of them; rebuild the views up to there instead"
    )]
    TooFar { events: u64, limit: u64 },
    #[error("the fold was given up")]
    GivenUp,
    #[error("the log did not answer")]
    Log(#[source] anyhow::Error),
    #[error("an event of the log does not read")]
    Unreadable(#[from] crate::fold::Stopped),
    #[error("the order's events could not be read")]
    Load(#[from] LoadError),
    #[error("the views could not be folded")]
    Store(#[from] StoreError),
}

/// How far one partition is folded.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Sequence(u64),
    Time(Timestamp),
}

impl Cut {
    fn takes(self, event: &Stored) -> bool {
        match self {
            Self::Sequence(last) => event.recorded.position.sequence <= last,
            Self::Time(last) => event.recorded.time <= last,
        }
    }

    /// What does not read has no time, and is taken, so that nothing is skipped.
    fn takes_any(self, event: &Result<Stored, Undecodable>) -> bool {
        match (event, self) {
            (Ok(event), _) => self.takes(event),
            (Err(unreadable), Self::Sequence(last)) => unreadable.position.sequence <= last,
            (Err(_), Self::Time(_)) => true,
        }
    }
}

/// Where each partition is cut.
async fn cuts(log: &EventLog, moment: &Moment) -> Result<Vec<Cut>, AsOfError> {
    let positions = match moment {
        Moment::Time(time) => return Ok(vec![Cut::Time(*time); usize::from(log.partitions())]),
        Moment::At(positions) => positions,
    };
    let (mut named, mut newest) = (BTreeMap::new(), Timestamp::MIN);
    for position in positions {
        if position.partition >= log.partitions() {
            return Err(AsOfError::NotYet(*position));
        }
        named.insert(position.partition, position.sequence);
        if position.sequence > 0 {
            let time = log.time_of(*position).await.map_err(|error| AsOfError::Log(error.into()))?;
            newest = newest.max(time.ok_or(AsOfError::NotYet(*position))?);
        }
    }
    let cut =
        |partition| named.get(&partition).map_or(Cut::Time(newest), |sequence| Cut::Sequence(*sequence));
    Ok((0..log.partitions()).map(cut).collect())
}

/// The views of a moment.
#[derive(Clone)]
pub struct Folded {
    pub views: Views,
    /// They are those of every time before this one and not before their own, too, where a time was asked for.
    until: Timestamp,
}

impl Folded {
    /// Whether the views, which are those of `own`, are those of `moment`, too.
    pub fn are_of(&self, own: &Moment, moment: &Moment) -> bool {
        match (own, moment) {
            (Moment::Time(own), Moment::Time(asked)) => asked == own || (asked > own && *asked < self.until),
            (Moment::At(_), _) | (_, Moment::At(_)) => own == moment,
        }
    }
}

/// Folds all views up to a moment, in a passing store beside those of `now`; at most `events_max` events.
pub async fn views(
    log: &EventLog,
    now: &Views,
    moment: &Moment,
    events_max: u64,
) -> Result<Folded, AsOfError> {
    let began = log.now();
    let cuts = cuts(log, moment).await?;
    let infos = partition_infos(log).await.map_err(AsOfError::Log)?;
    let store = Store::passing(now.directory())?;
    begin(log, now.directory(), &store, &cuts, &infos).await;
    let limits = (now.unreadable(), events_max);
    let (projection, next) = fold(log, store, &cuts, &infos, limits, |_| Duration::ZERO).await?;
    // What is appended after the end that was read may be a little older than when it was read.
    let ended = began.checked_sub(CLOCKS_APART_MAX).unwrap_or(Timestamp::MIN);
    let until = next.into_iter().map(|next| next.unwrap_or(ended)).min().unwrap_or(ended);
    Ok(Folded { views: Views::over(&projection, now.directory(), &infos), until })
}

/// As [`views`], on a thread that gives way to all others; given up when the caller does. The caller's `turn` is given
/// back once the thread is done, which may be a while after it was given up.
pub async fn views_quietly(
    log: &EventLog,
    now: &Views,
    moment: &Moment,
    events_max: u64,
    turn: impl Send + 'static,
) -> Result<Folded, AsOfError> {
    let (done, folded) = oneshot::channel();
    let over = CancellationToken::new();
    let _given_up = over.clone().drop_guard();
    let (log, now, moment) = (log.clone(), now.clone(), moment.clone());
    let thread = std::thread::Builder::new().name("as-of".into()).spawn(move || {
        be_modest(QUERY_GIVES_WAY);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let folded = runtime.map_err(|error| AsOfError::Log(error.into())).and_then(|runtime| {
            let folding = over.run_until_cancelled(views(&log, &now, &moment, events_max));
            runtime.block_on(folding).unwrap_or(Err(AsOfError::GivenUp))
        });
        drop(turn);
        // The caller may be gone.
        drop(done.send(folded));
    });
    thread.map_err(|error| AsOfError::Log(error.into()))?;
    folded.await.unwrap_or(Err(AsOfError::GivenUp))
}

/// Folds all views from the first event up to a moment into the folder [`UNTIL`] of `directory`, which nobody serves;
/// what was there goes. `told` hears of each batch's events, and of how many there are at most; it says how long to
/// rest.
pub async fn build(
    log: &EventLog,
    directory: &Path,
    moment: &Moment,
    told: impl Fn(u64, u64) -> Duration,
) -> Result<Store, AsOfError> {
    let cuts = cuts(log, moment).await?;
    let infos = partition_infos(log).await.map_err(AsOfError::Log)?;
    let at_most = cuts.iter().zip(&infos).map(|(cut, info)| match cut {
        Cut::Sequence(last) => info.last_sequence.min(*last),
        Cut::Time(_) => info.last_sequence,
    });
    let total = at_most.sum();
    let limits = (Unreadable::Stop, u64::MAX);
    let store = generations::afresh(&directory.join(UNTIL))?;
    let (projection, _) = fold(log, store, &cuts, &infos, limits, |events| told(events, total)).await?;
    projection.store().flush()?;
    Ok(projection.store().clone())
}

/// As [`build`], on threads that give way to all others, and over a connection of its own; false if `over` came first.
pub(crate) fn build_quietly(
    log: &EventLog,
    directory: &Path,
    moment: &Moment,
    over: &CancellationToken,
    told: impl Fn(u64, u64) -> Duration,
) -> anyhow::Result<bool> {
    be_modest(REBUILD_GIVES_WAY);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let log = log.another("twelve-rebuild").await?;
        let built = over.run_until_cancelled(build(&log, directory, moment, told)).await.transpose();
        log.connection().close().await;
        Ok(built?.is_some())
    })
}

/// Folds; answers with the time of each partition's first event that is not folded, where its end was not reached.
async fn fold(
    log: &EventLog,
    store: Store,
    cuts: &[Cut],
    infos: &[PartitionInfo],
    (unreadable, events_max): (Unreadable, u64),
    told: impl Fn(u64) -> Duration,
) -> Result<(Projection, Vec<Option<Timestamp>>), AsOfError> {
    let created: Vec<String> = infos.iter().map(|info| info.created.clone()).collect();
    let mut projection = Projection::resume(store, &created, Pace::BULK)?;
    projection.set_unreadable(unreadable);
    let (sink, mut batches) = mpsc::channel::<Batch>(BATCHES_WAITING_MAX);
    let reading = CancellationToken::new();
    let _ends = reading.clone().drop_guard();
    let mut followers = JoinSet::new();
    let mut open: BTreeMap<u16, (u64, DropGuard)> = BTreeMap::new();
    for ((partition, info), from) in (0..).zip(infos).zip(projection.checkpoints()) {
        if info.last_sequence > from.sequence {
            // Each ends when its partition is folded: what lies behind the cut is not read.
            let (log, sink, reading, after) =
                (log.clone(), sink.clone(), reading.child_token(), from.sequence);
            open.insert(partition, (info.last_sequence, reading.clone().drop_guard()));
            followers.spawn(async move { log.follow(partition, after, sink, reading).await });
        }
    }
    drop(sink);
    let (mut events, mut next) = (0, vec![None; infos.len()]);
    while !open.is_empty() {
        let Some(mut batch) = batches.recv().await else { break };
        let Some(last) = open.get(&batch.partition).map(|(last, _)| *last) else { continue };
        let cut = cuts.get(usize::from(batch.partition)).copied().unwrap_or(Cut::Sequence(0));
        let (before, read) = (batch.events.len(), batch.upto);
        let beyond = batch.events.iter().position(|event| !cut.takes_any(event));
        if let (Some(Ok(first)), Some(next)) =
            (beyond.and_then(|beyond| batch.events.get(beyond)), next.get_mut(usize::from(batch.partition)))
        {
            *next = Some(first.recorded.time);
        }
        batch.events.truncate(beyond.unwrap_or(before));
        batch.upto = match (beyond, cut) {
            (Some(_), _) => 0,
            (None, Cut::Sequence(last)) => batch.upto.min(last),
            (None, Cut::Time(_)) => batch.upto,
        };
        let partition = batch.partition;
        let taken = batch.events.len() as u64;
        events += taken;
        if events > events_max {
            return Err(AsOfError::TooFar {
                events: open.values().map(|(last, _)| last).sum(),
                limit: events_max,
            });
        }
        tokio::task::block_in_place(|| projection.fold(batch).map(drop))?;
        // A rest of no length would cost a tick of the timer.
        let rest = told(taken);
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
        if let Some(stopped) = projection.stopped().values().next() {
            return Err(stopped.clone().into());
        }
        let is_cut = matches!(cut, Cut::Sequence(at) if read >= at);
        if beyond.is_some() || is_cut || read >= last {
            open.remove(&partition);
        }
        if projection.is_commit_due() {
            projection.commit()?;
        }
    }
    projection.commit()?;
    projection.finish()?;
    Ok((projection, next))
}

/// Fills the store with the newest snapshot from before the cuts. Without one, the fold begins with the first event.
async fn begin(log: &EventLog, directory: &Path, store: &Store, cuts: &[Cut], infos: &[PartitionInfo]) {
    let began = async {
        for (name, about) in snapshot::list(log, infos).await? {
            let is_before = |(cut, to): (&Cut, &u64)| match cut {
                Cut::Sequence(last) => to <= last,
                Cut::Time(last) => {
                    about.newest.checked_add(CLOCKS_APART_MAX).is_ok_and(|newest| newest <= *last)
                }
            };
            if cuts.iter().zip(&about.to).all(is_before) {
                return snapshot::restore(log, (&name, &about), directory, store).await;
            }
        }
        Ok(())
    };
    if let Err(error) = began.await {
        tracing::warn!(error = %nats::causes(&error), "no snapshot helps; the views of a moment are folded from the first event");
    }
}

/// One order as readers saw it, from its own events, and whose it is now; `None` if they saw none.
pub async fn order(
    log: &EventLog,
    order_id: OrderId,
    moment: &Moment,
) -> Result<Option<(orders::Row, Parties)>, AsOfError> {
    let cuts = cuts(log, moment).await?;
    let partition = order_id.partition(log.partitions());
    let cut = cuts.get(usize::from(partition)).copied().unwrap_or(Cut::Sequence(0));
    let story = log.load(order_id, 0).await?;
    let key = order_key(order_id);
    let mut row = None;
    for event in story.iter().take_while(|event| cut.takes(event)) {
        row = Orders::apply(&key, row, event);
    }
    let now = Parties::of(story.iter().map(|stored| &stored.recorded.event));
    Ok(row.filter(orders::Row::is_visible).map(|row| (row, now)))
}
