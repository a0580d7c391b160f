//! A partition's events as work for exactly one worker: a durable consumer whose pinned group leaves one client active.
//!
//! Work that is not declared done comes again, to this worker or to the next one; whoever takes it copes with repeats.

use std::time::Duration;

use async_nats::jetstream::{
    AckKind, Message,
    consumer::{AckPolicy, DeliverPolicy, PriorityPolicy, pull},
};
use domain::{OrderId, Position};
use futures::{StreamExt, future::BoxFuture};

use crate::{log::EventLog, subject};

/// Work that was neither finished nor prolonged for this long is handed out again.
pub const WORK_WAIT: Duration = Duration::from_secs(1);
/// Work that takes longer is prolonged this often.
pub const PROLONG_EVERY: Duration = Duration::from_millis(400);
/// Events of one partition that may be handed out and unfinished at a time; beyond it, new events wait.
pub const UNFINISHED_MAX: i64 = 20_000;
/// A worker that has not asked for work for this long loses its place to the next.
const PIN_TIMEOUT: Duration = Duration::from_secs(3);
const PULL_EXPIRES: Duration = Duration::from_secs(1);
const PULL_HEARTBEAT: Duration = Duration::from_millis(500);
const PULL_MESSAGES_MAX: usize = 500;
const REJOIN_PAUSE: Duration = Duration::from_millis(200);
const GROUP: &str = "runner";

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a worker is to attend to; each is a durable consumer of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// Every event, for the process manager.
    Saga,
    /// Every deadline that comes due, for the process manager.
    Due,
    /// Every notice, for those who tell customers.
    Notices,
}

impl List {
    const fn name(self) -> &'static str {
        match self {
            Self::Saga => "saga",
            Self::Due => "due",
            Self::Notices => "notices",
        }
    }

    pub(crate) fn stream(self, partition: u16) -> String {
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
}

/// The worklist of one partition.
pub struct Worklist {
    log: EventLog,
    list: List,
    partition: u16,
    /// Whether to ask for the place of the active worker: it was ours a moment ago, or its holder may have died.
    take_over: bool,
    /// `None`: to be joined (anew).
    messages: Option<pull::Stream>,
    /// The joining under way. It is kept here, so that it goes on although whoever waits for work looks elsewhere.
    joining: Option<BoxFuture<'static, Result<pull::Stream, Failure>>>,
}

/// One event that wants attention.
pub struct Work {
    pub order_id: OrderId,
    /// Of the event; a due deadline and a notice have none.
    pub position: Option<Position>,
    /// How often it was handed out, this time included.
    pub deliveries: u32,
    message: Message,
}

impl Worklist {
    /// The work of a partition; it comes once this worker is the active one.
    ///
    /// It asks to be that at once, so that nobody waits for a worker that died. One that lives finishes what it has at
    /// hand.
    pub fn new(log: &EventLog, partition: u16, list: List) -> Self {
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
            let joining = join(self.log.clone(), self.partition, self.list, self.take_over);
            self.joining = Some(Box::pin(async move {
                tokio::time::sleep(REJOIN_PAUSE).await;
                joining.await
            }));
        }
    }

    async fn try_next(&mut self) -> Result<Option<Work>, Failure> {
        if self.messages.is_none() {
            let joining = self.joining.get_or_insert_with(|| {
                Box::pin(join(self.log.clone(), self.partition, self.list, self.take_over))
            });
            let joined = joining.await;
            self.joining = None;
            self.messages = Some(joined?);
            self.take_over = false;
        }
        let Some(messages) = &mut self.messages else { return Ok(None) };
        match messages.next().await {
            Some(message) => self.work(message?).map(Some),
            None => Ok(None),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and no log has 2^53 events")]
    fn tell_behind(&self, pending: u64) {
        let (list, partition) = (self.list.name(), self.partition.to_string());
        metrics::gauge!("twelve_work_behind_events", "list" => list, "partition" => partition)
            .set(pending as f64);
    }

    fn work(&self, message: Message) -> Result<Work, Failure> {
        let (sequence, deliveries, pending) =
            message.info().map(|info| (info.stream_sequence, u32::try_from(info.delivered), info.pending))?;
        self.tell_behind(pending);
        let (_, order_id) = subject::parse_order(&message.subject)
            .ok_or_else(|| format!("{} is no order's subject", message.subject))?;
        let position = (self.list == List::Saga).then_some(Position { partition: self.partition, sequence });
        Ok(Work { order_id, position, deliveries: deliveries.unwrap_or(1), message })
    }
}

/// Joins the group of workers of a partition, making the consumer if it is absent.
async fn join(log: EventLog, partition: u16, list: List, take_over: bool) -> Result<pull::Stream, Failure> {
    let stream = log.connection.jetstream.get_stream_no_info(list.stream(partition)).await?;
    let name = &list.consumer(partition);
    let filter_subject = match list {
        List::Saga => String::new(),
        List::Due => subject::due_filter(partition),
        List::Notices => subject::notice_filter(partition),
    };
    let config = pull::Config {
        durable_name: Some(name.clone()),
        description: Some("Twelve: work on this partition's orders, for one worker at a time".into()),
        filter_subject,
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: WORK_WAIT,
        max_ack_pending: UNFINISHED_MAX,
        headers_only: true,
        priority_policy: PriorityPolicy::PinnedClient,
        priority_groups: vec![GROUP.to_owned()],
        priority_timeout: PIN_TIMEOUT,
        ..pull::Config::default()
    };
    let consumer = stream.get_or_create_consumer(name, config).await?;
    if take_over && let Err(error) = stream.unpin_consumer(name, GROUP).await {
        tracing::debug!(partition, %error, "nobody had the place");
    }
    let messages = consumer
        .stream()
        .group(GROUP)
        .max_messages_per_batch(PULL_MESSAGES_MAX)
        .expires(PULL_EXPIRES)
        .heartbeat(PULL_HEARTBEAT)
        .messages()
        .await?;
    Ok(messages)
}

impl Work {
    /// This event needs nothing more.
    pub async fn done(self) -> Result<(), Failure> {
        self.message.ack().await
    }

    /// The work waits; it is to be handed out again after `pause`, to whoever is active then.
    pub async fn hand_back(self, pause: Duration) -> Result<(), Failure> {
        self.message.ack_with(AckKind::Nak(Some(pause))).await
    }

    /// The work goes on; it is not to be handed to another yet.
    pub async fn prolong(&self) -> Result<(), Failure> {
        self.message.ack_with(AckKind::Progress).await
    }
}
