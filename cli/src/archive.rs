//! `twelve archive`: orders that are over leave the log. Interrupted anywhere, the next run goes on.
//!
//! An order's story is closed by a last event, so that it cannot grow; put into the archive and read back; and, once
//! every process knows it to be there, removed from the log.

use std::{sync::Arc, time::Duration};

use clap::Args;
use command_svc::{
    admission::Admission,
    execute::{ExecuteError, Executor, Intent},
    story::Story,
};
use domain::{Command, CommandId, Flows, OrderId, Timestamp, command::SagaCommand, notification};
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::SignedDuration;
use nats::{
    EventLog, FlowBook,
    archive::{Found, KNOWN_AFTER, ORDERS_AN_OBJECT, Whole},
    follow::Batch,
};
use service::process;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::local::LocalSettings;

/// Orders that are looked at, and closed, at a time.
const LOOKED_AT_A_TIME: usize = 32;
/// Room for stories between their being found and closed: not so little that they have to be read again.
const REMEMBERED: usize = 16 * LOOKED_AT_A_TIME;
/// Orders that are removed at a time.
const REMOVED_AT_A_TIME: usize = 8;
const BATCHES_MAX: usize = 64;
/// Who closes orders: their command ids follow from it.
const WHO: &str = "archive";

#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Orders that are over are canceled, expired, rejected, returned, delivered or confirmed, as \
    their flow has it, with everybody told and nobody owed anything. What is archived stays visible: in the views, as \
    of any moment, and to whoever repeats a call. It takes no commands any more (409 order_archived).\n\n\
    The log must have been made for it: --old-orders archive, at its first start and at every process."
)]
pub(crate) struct Settings {
    /// Days since an order's last event
    #[arg(long, value_name = "DAYS", default_value_t = 90)]
    older_than: u32,
    /// Only say how many would be moved
    #[arg(long, conflicts_with = "verify")]
    dry_run: bool,
    /// Read the whole archive, and the log, and say whether anything is missing
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    local: LocalSettings,
}

/// What was found, in orders.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    over: u64,
    /// Of those.
    events: u64,
    younger: u64,
    going_on: u64,
    unreadable: u64,
}

/// An order that was looked at.
enum Looked {
    Over(Whole),
    /// It would be, but nothing is to be changed.
    WouldBe(usize),
    Younger,
    GoingOn,
    Unreadable,
    /// Somebody else moved it.
    Gone,
}

/// A story that is in the archive and has to leave the log.
#[derive(Clone, Copy)]
struct Leaving {
    order_id: OrderId,
    events: usize,
    first: u64,
    sequence: u64,
}

struct Archivist {
    log: EventLog,
    executor: Executor,
    before: Timestamp,
    dry_run: bool,
    looked_at: ProgressBar,
}

pub(crate) async fn run(settings: Settings) -> anyhow::Result<()> {
    let stop = process::stop_on_signal()?;
    let until_stopped = async |log| {
        tokio::select! {
            worked = work(&settings, log) => worked,
            () = stop.cancelled() => {
                println!("stopped; the next run goes on from here");
                Ok(())
            }
        }
    };
    settings.local.on_existing_log("twelve-archive", until_stopped).await
}

async fn work(settings: &Settings, log: EventLog) -> anyhow::Result<()> {
    let archive = log.archive()?;
    if settings.verify {
        return verify(&log).await;
    }
    let old = SignedDuration::from_hours(24 * i64::from(settings.older_than));
    let looked_at = ProgressBar::new_spinner();
    looked_at
        .set_style(ProgressStyle::with_template("{spinner} {pos} orders looked at, {per_sec}, {elapsed}")?);
    let flows = FlowBook::new(&log, Flows::shipped()?);
    let archivist = Archivist {
        executor: Executor::new(log.clone(), flows, Admission::new(Duration::MAX)?, REMEMBERED),
        log: log.clone(),
        before: log.now().checked_sub(old)?,
        dry_run: settings.dry_run,
        looked_at,
    };
    let (mut tally, mut leaving) = (Tally::default(), Vec::new());
    for partition in 0..log.partitions() {
        archivist.close(partition, &mut tally, &mut leaving).await?;
    }
    archivist.looked_at.finish_and_clear();
    let Tally { over, events, younger, going_on, unreadable } = tally;
    println!("{over} orders with {events} events are over; {going_on} are not, {younger} are younger");
    if unreadable > 0 {
        println!("{unreadable} orders have events that this program cannot read; they stay where they are");
    }
    if settings.dry_run || leaving.is_empty() {
        return Ok(());
    }
    println!(
        "all of them are in the archive; they leave the log in {KNOWN_AFTER:?}, when every process knows"
    );
    tokio::time::sleep(KNOWN_AFTER).await;
    // From the front, so that the server can drop whole blocks, and looks through no gaps.
    leaving.sort_unstable_by_key(|leaving| leaving.first);
    let staying = remove(&log, &leaving).await?;
    println!("{} orders left the log", leaving.len() - staying);
    if staying > 0 {
        println!("{staying} are the newest of their partitions, and leave with a later run");
    }
    let objects = archive.objects().await?;
    let orders: usize = objects.iter().map(|(_, about)| about.orders()).sum();
    println!("the archive has {orders} orders in {} objects", objects.len());
    Ok(())
}

impl Archivist {
    /// Closes the partition's orders that are over, and puts them into the archive.
    async fn close(
        &self,
        partition: u16,
        tally: &mut Tally,
        leaving: &mut Vec<Leaving>,
    ) -> anyhow::Result<()> {
        let (sink, mut orders) = mpsc::channel(ORDERS_AN_OBJECT);
        let (log, before) = (self.log.clone(), self.before);
        let finding = tokio::spawn(async move { log.orders_before(partition, before, sink).await });
        let orders = stream::poll_fn(|context| orders.poll_recv(context));
        let looked = orders.map(|found| self.look(found)).buffered(LOOKED_AT_A_TIME);
        let mut looked = looked.try_chunks(ORDERS_AN_OBJECT);
        while let Some(chunk) = looked.next().await {
            let stories = tally.note(chunk.map_err(|stopped| stopped.1)?);
            self.log.archive_whole(partition, &stories).await?;
            leaving.extend(stories.iter().map(|story| Leaving {
                order_id: story.order_id,
                events: story.events(),
                first: story.first(),
                sequence: story.sequence(),
            }));
        }
        drop(looked);
        tally.younger += finding.await??;
        Ok(())
    }

    /// Looks whether an order is over, and closes it.
    async fn look(&self, found: Found) -> anyhow::Result<Looked> {
        self.looked_at.inc(1);
        let order_id = found.order_id;
        let partition = order_id.partition(self.log.partitions());
        let Some(whole) = self.log.up_to_date(found).await? else { return Ok(Looked::Gone) };
        let Ok(events) = whole.stored(partition) else { return Ok(Looked::Unreadable) };
        let story = Arc::new(Story::new(events));
        let state = &story.state;
        if state.is_archived {
            return Ok(Looked::Over(whole));
        }
        if state.newest.is_none_or(|newest| newest.time >= self.before) {
            return Ok(Looked::Younger);
        }
        let Some(reference) = &state.flow else { return Ok(Looked::GoingOn) };
        let flow = self.executor.flows().find(reference).await?;
        let recorded = story.events.iter().map(|stored| &stored.recorded);
        if !state.is_at_its_end(&flow) || !notification::due(&flow, recorded).is_empty() {
            return Ok(Looked::GoingOn);
        }
        if self.dry_run {
            return Ok(Looked::WouldBe(whole.events()));
        }
        self.executor.remember(order_id, &story);
        let intent = Intent {
            order_id,
            command: Command::Saga(SagaCommand::Archive),
            command_id: CommandId::from_key(WHO, order_id, WHO),
            causation_id: None,
            expected: Some(state.sequence()),
            fingerprint: None,
            trace_parent: None,
        };
        let closed = match self.executor.execute(intent).await {
            Ok(executed) => executed.state.sequence(),
            // It was carried on after all.
            Err(ExecuteError::Refused(_) | ExecuteError::Moved) => return Ok(Looked::GoingOn),
            Err(error) => return Err(error.into()),
        };
        let whole = self.log.with_newest(whole, closed).await?;
        Ok(whole.map_or(Looked::Gone, Looked::Over))
    }
}

impl Tally {
    /// Counts what was looked at; answers with what is over.
    fn note(&mut self, looked: Vec<Looked>) -> Vec<Whole> {
        let mut stories = Vec::new();
        for looked in looked {
            match looked {
                Looked::Over(whole) => {
                    self.over += 1;
                    self.events += whole.events() as u64;
                    stories.push(whole);
                }
                Looked::WouldBe(events) => {
                    self.over += 1;
                    self.events += events as u64;
                }
                Looked::Younger => self.younger += 1,
                Looked::GoingOn => self.going_on += 1,
                Looked::Unreadable => self.unreadable += 1,
                Looked::Gone => {}
            }
        }
        stories
    }
}

/// Removes stories from the log; answers with how many stay, because a partition's newest event always does: by it the
/// readers of a partition know how far it goes.
async fn remove(log: &EventLog, leaving: &[Leaving]) -> anyhow::Result<usize> {
    let mut newest = Vec::new();
    for partition in 0..log.partitions() {
        newest.push(log.partition_info(partition).await?.last_sequence);
    }
    let is_newest = |leaving: &Leaving| {
        newest[usize::from(leaving.order_id.partition(log.partitions()))] == leaving.sequence
    };
    let bar = ProgressBar::new(leaving.len() as u64);
    bar.set_style(ProgressStyle::with_template(
        "{wide_bar} {pos}/{len} orders leave, {per_sec}, {eta} left",
    )?);
    let staying = leaving.iter().filter(|leaving| is_newest(leaving)).count();
    let removed = stream::iter(leaving.iter().filter(|leaving| !is_newest(leaving)))
        .map(|leaving| log.remove_archived(leaving.order_id, leaving.events))
        .buffer_unordered(REMOVED_AT_A_TIME)
        .inspect_ok(|()| bar.inc(1));
    removed.try_collect::<()>().await?;
    bar.finish_and_clear();
    Ok(staying)
}

async fn verify(log: &EventLog) -> anyhow::Result<()> {
    let archive = log.archive()?;
    let objects = archive.objects().await?;
    let bar = ProgressBar::new(objects.len() as u64);
    bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} objects, {eta} left")?);
    let (mut orders, mut events) = (0, 0);
    for (name, about) in objects.iter() {
        archive.check(name, about).await?;
        orders += about.orders();
        events += about.events;
        bar.inc(1);
    }
    bar.finish_and_clear();
    println!("{} objects read as they were put: {orders} whole orders, {events} events", objects.len());
    for partition in 0..log.partitions() {
        let last = log.partition_info(partition).await?.last_sequence;
        let found = count(log, partition, last).await;
        anyhow::ensure!(found == last, "partition {partition} has {found} of its {last} events");
        println!("partition {partition}: all {last} events are in the log or in the archive");
    }
    Ok(())
}

/// Events of a partition up to `last`, wherever they are.
async fn count(log: &EventLog, partition: u16, last: u64) -> u64 {
    let (sink, mut batches) = mpsc::channel::<Batch>(BATCHES_MAX);
    let stop = CancellationToken::new();
    let _ends = stop.clone().drop_guard();
    let (following, mut found, mut reached) = (log.clone(), 0, 0);
    tokio::spawn(async move { following.follow(partition, 0, sink, stop).await });
    while reached < last
        && let Some(batch) = batches.recv().await
    {
        found += batch.events.len() as u64;
        reached = batch.upto;
    }
    found
}
