//! A partition's events as work for exactly one worker: a durable consumer whose pinned group leaves one client active.
//!
//! Work that is not declared done comes again, to this worker or to the next one; whoever takes it copes with repeats.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PriorityPolicy, pull};
use domain::{OrderId, Position, Timestamp};
use futures::{
    StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};

use crate::{
    broker::{Broker, Failure, Handed, Joining, Receipt, Word},
    connection::Connection,
    log::EventLog,
    subject,
    topology::Streams,
};

/// Work that was neither finished nor prolonged for this long is handed out again.
pub const WORK_WAIT: Duration = Duration::from_secs(1);
/// Work that takes longer is prolonged this often.
pub const PROLONG_EVERY: Duration = Duration::from_millis(400);
/// Events of one partition that may be handed out and unfinished at a time; beyond it, new events wait.
pub const UNFINISHED_MAX: i64 = 20_000;
/// A worker that has not asked for work for this long loses its place to the next.
const PIN_TIMEOUT: Duration = Duration::from_secs(3);
pub(crate) const GROUP: &str = "runner";
const REJOIN_PAUSE: Duration = Duration::from_millis(200);

type Messages = BoxStream<'static, Result<Handed, Failure>>;

/// What a worker is to attend to; each is a durable consumer of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum List {
    /// Every event, for the process manager.
    Saga,
    /// Every deadline that comes due, for the process manager.
    Due,
    /// Every notice, for those who tell customers.
    Notices,
}

impl List {
    pub const ALL: [Self; 3] = [Self::Saga, Self::Due, Self::Notices];

    /// As metrics name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Saga => "saga",
            Self::Due => "due",
            Self::Notices => "notices",
        }
    }

    /// The stream that its messages are in.
    pub fn stream(self, partition: u16) -> String {
        match self {
            Self::Saga => subject::stream(partition),
            Self::Due => subject::DEADLINES_STREAM.to_owned(),
            Self::Notices => subject::NOTICES_STREAM.to_owned(),
        }
    }

    pub(crate) fn consumer(self, partition: u16) -> String {
        match self {
            Self::Saga => "saga".to_owned(),
            Self::Due => format!("due-{partition}"),
            Self::Notices => format!("notices-{partition}"),
        }
    }

    /// The durable consumer, whose pinned group leaves one client active.
    pub(crate) fn declared(self, partition: u16) -> pull::Config {
        pull::Config {
            durable_name: Some(self.consumer(partition)),
            description: Some("Twelve: work on this partition's orders, for one worker at a time".into()),
            filter_subject: self.filter(partition),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: WORK_WAIT,
            max_ack_pending: UNFINISHED_MAX,
            headers_only: true,
            priority_policy: PriorityPolicy::PinnedClient,
            priority_groups: vec![GROUP.to_owned()],
            priority_timeout: PIN_TIMEOUT,
            ..pull::Config::default()
        }
    }

    /// What is on the list, of its stream; empty: everything.
    pub fn filter(self, partition: u16) -> String {
        match self {
            Self::Saga => String::new(),
            Self::Due => subject::due_filter(partition),
            Self::Notices => subject::notice_filter(partition),
        }
    }
}

/// The worklist of one partition.
pub struct Worklist<B = Connection> {
    log: EventLog<B>,
    list: List,
    partition: u16,
    /// Whether to ask for the place of the active worker: it was ours a moment ago, or its holder may have died.
    take_over: bool,
    /// `None`: to be joined (anew).
    messages: Option<Messages>,
    /// The joining under way. It is kept here, so that it goes on although whoever waits for work looks elsewhere.
    joining: Option<BoxFuture<'static, Result<Messages, Failure>>>,
}

/// One event that wants attention.
pub struct Work {
    pub order_id: OrderId,
    /// Of the event; a due deadline and a notice have none.
    pub position: Option<Position>,
    /// How often it was handed out, this time included.
    pub deliveries: u32,
    /// Which deadline came due; `None`: it is none, or does not say which.
    pub due: Option<Timestamp>,
    receipt: Box<dyn Receipt>,
}

impl<B: Broker> Worklist<B> {
    /// The work of a partition; it comes once this worker is the active one.
    ///
    /// It asks to be that at once, so that nobody waits for a worker that died. One that lives finishes what it has at
    /// hand.
    pub fn new(log: &EventLog<B>, partition: u16, list: List) -> Self {
        Self { log: log.clone(), list, partition, take_over: true, messages: None, joining: None }
    }

    /// The next piece of work. When the server or the connection fails, the list is joined anew, each list for itself.
    pub async fn next(&mut self) -> Work {
        loop {
            let ended = match self.try_next().await {
                Ok(Some(work)) => {
                    self.take_over = true;
                    return work;
                }
                Ok(None) => "it ended".into(),
                Err(error) => error.to_string(),
            };
            tracing::debug!(partition = self.partition, list = ?self.list, why = ended, "a worklist is joined anew");
            self.messages = None;
            // Another may be the active worker from here on, and tells how far behind it is.
            tell_behind(self.list, self.partition, 0);
            self.joining = Some(self.join(REJOIN_PAUSE));
        }
    }

    /// The work, for ever.
    pub fn stream(self) -> BoxStream<'static, Work> {
        let take = |mut list: Self| async move {
            let work = list.next().await;
            Some((work, list))
        };
        stream::unfold(self, take).boxed()
    }

    async fn try_next(&mut self) -> Result<Option<Work>, Failure> {
        if self.messages.is_none() {
            if self.joining.is_none() {
                self.joining = Some(self.join(Duration::ZERO));
            }
            let Some(joining) = &mut self.joining else { return Ok(None) };
            let joined = joining.await;
            self.joining = None;
            self.messages = Some(joined?);
            self.take_over = false;
        }
        let Some(messages) = &mut self.messages else { return Ok(None) };
        while let Some(message) = messages.next().await {
            if let Some(work) = work(&self.log, (self.list, self.partition), message?).await? {
                return Ok(Some(work));
            }
        }
        Ok(None)
    }

    fn join(&self, pause: Duration) -> BoxFuture<'static, Result<Messages, Failure>> {
        let (broker, list) = (self.log.broker().clone(), self.list);
        let may_make = self.log.topology.streams == Streams::Make;
        let (partition, joining) = (self.partition, Joining { takes_over: self.take_over, may_make });
        Box::pin(async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            broker.join(list, partition, joining).await
        })
    }
}

/// What is to be done about a message; `None` if it is no order's. That one is not handed out again: nothing would ever
/// become of it, and what comes after it would wait.
async fn work<B: Broker>(
    log: &EventLog<B>,
    (list, partition): (List, u16),
    handed: Handed,
) -> Result<Option<Work>, Failure> {
    let Handed { subject, sequence, deliveries, pending, due, receipt } = handed;
    tell_behind(list, partition, pending);
    let Some(order_id) = subject::order_in(&subject, partition, log.partitions()) else {
        tracing::error!(
            partition,
            list = list.name(),
            subject,
            sequence,
            "a message is no order's; it is passed over"
        );
        metrics::counter!("twelve_work_quarantined_total", "list" => list.name()).increment(1);
        receipt.tell(Word::Done).await?;
        return Ok(None);
    };
    let position = (list == List::Saga).then_some(Position { partition, sequence });
    Ok(Some(Work { order_id, position, deliveries, due, receipt }))
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and no log has 2^53 events")]
fn tell_behind(list: List, partition: u16, pending: u64) {
    let (list, partition) = (list.name(), partition.to_string());
    metrics::gauge!("twelve_work_behind_events", "list" => list, "partition" => partition)
        .set(pending as f64);
}

impl Work {
    /// This event needs nothing more.
    pub async fn done(self) -> Result<(), Failure> {
        self.receipt.tell(Word::Done).await
    }

    /// The work waits; it is to be handed out again after `pause`, to whoever is active then.
    pub async fn hand_back(self, pause: Duration) -> Result<(), Failure> {
        self.receipt.tell(Word::Later(pause)).await
    }

    /// The work goes on; it is not to be handed to another yet.
    pub async fn prolong(&self) -> Result<(), Failure> {
        self.receipt.tell(Word::Going).await
    }
}
