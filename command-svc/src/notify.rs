//! Tells customers what changed: the saga's runner gives notice of an order, and one worker a partition tells what its
//! story says was not told yet, apart from the saga, so that a service which is down or slow delays no order.
//!
//! A change is told once however often its notice is handed out, because what was told is in the order's story. Only a
//! crash between the sending and that record sends again, under the same id.

mod message;
mod recipients;
mod post;

use std::{sync::Arc, time::Duration};

use domain::{
    Command, CommandId, OrderId,
    event::{NotificationFailed, NotificationSent, OrderPlaced},
    notification::{self, Notice, NotificationCommand, NotifyRule},
};
use nats::{
    Broker, Connection, LoadError,
    worklist::{List, PROLONG_EVERY, Work, Worklist},
};
use tokio::{
    sync::{Mutex, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

pub use message::Message;
pub use post::{Carrier, Post, PostError};

use crate::execute::{ExecuteError, Executor, Intent};

/// Messages of one process that are on their way out at a time.
const SENDS_MAX: usize = 64;
/// Locks that keep one order's messages in order; orders share them by their id.
const TURNS: usize = 1_024;
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(500);

/// Tells customers.
#[derive(Clone)]
pub struct Notifier<B = Connection> {
    executor: Executor<B>,
    carrier: Arc<dyn Carrier>,
    /// A change that could not be told for so long is not told any more.
    within: Duration,
    retry_pause_max: Duration,
    sends: Arc<Semaphore>,
    turns: Arc<Vec<Mutex<()>>>,
}

/// Why a customer was not told yet.
struct Untold {
    why: String,
    /// The receiver asked for so long a pause at least.
    not_before: Duration,
}

impl From<String> for Untold {
    fn from(why: String) -> Self {
        Self { why, not_before: Duration::ZERO }
    }
}

/// How one notice was dealt with.
enum Told {
    Done,
    Later(Duration),
}

impl<B: Broker> Notifier<B> {
    pub fn new(
        executor: Executor<B>,
        carrier: Arc<dyn Carrier>,
        within: Duration,
        retry_pause_max: Duration,
    ) -> Self {
        let turns = std::iter::repeat_with(Mutex::default).take(TURNS).collect();
        let sends = Arc::new(Semaphore::new(SENDS_MAX));
        Self { executor, carrier, within, retry_pause_max, sends, turns: Arc::new(turns) }
    }

    /// Works on one partition until `stop`.
    pub async fn run(self, partition: u16, stop: CancellationToken) {
        let mut list = Worklist::new(self.executor.log(), partition, List::Notices);
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                // Dropped tasks were not acknowledged; their work comes again.
                () = stop.cancelled() => return,
                Some(joined) = tasks.join_next() => if let Err(error) = joined {
                    tracing::error!(%error, "a message was not dealt with; it comes again");
                },
                work = list.next() => {
                    let notifier = self.clone();
                    tasks.spawn(Box::pin(notifier.attend(work)));
                }
            }
        }
    }

    /// Deals with one notice, keeping it from being handed to another meanwhile.
    async fn attend(self, work: Work) {
        let mut prolong = tokio::time::interval(PROLONG_EVERY);
        prolong.tick().await;
        let told = {
            let telling = self.tell(&work);
            tokio::pin!(telling);
            loop {
                tokio::select! {
                    biased;
                    told = &mut telling => break told,
                    _ = prolong.tick() => if let Err(error) = work.prolong().await {
                        tracing::debug!(%error, "a message was not prolonged; it may come again");
                    },
                }
            }
        };
        let left = match told {
            Told::Done => work.done().await,
            Told::Later(pause) => work.hand_back(pause).await,
        };
        if let Err(error) = left {
            tracing::debug!(%error, "an acknowledgement was lost; the notice comes again and finds nothing to do");
        }
    }

    async fn tell(&self, work: &Work) -> Told {
        let order_id = work.order_id;
        let turn = usize::try_from(order_id.0.as_u64_pair().1 % TURNS as u64).unwrap_or_default();
        let _turn = self.turns[turn].lock().await;
        match self.try_to_tell(work).await {
            Ok(()) => Told::Done,
            Err(Untold { why, not_before }) => {
                let pause = self.pause(work.deliveries).max(not_before);
                metrics::counter!("twelve_notification_retries_total").increment(1);
                tracing::info!(%order_id, why, tries = work.deliveries, ?pause, "a message waits to be tried again");
                Told::Later(pause)
            }
        }
    }

    /// Tells all that waits to be told, oldest first.
    async fn try_to_tell(&self, work: &Work) -> Result<(), Untold> {
        // The notice is done with once nothing is left to tell.
        let story = match self.executor.read_whole(work.order_id).await {
            Ok(story) => story,
            // It would be so at every try; the saga parks the order.
            Err(error @ LoadError::TooLong(_)) => {
                tracing::error!(%error, "its customer is told of no more changes");
                return Ok(());
            }
            Err(error) => return Err(nats::causes(&error).into()),
        };
        let Some(reference) = &story.state.flow else { return Ok(()) };
        let flow = self.executor.flows().find(reference).await.map_err(|error| nats::causes(&error))?;
        let Some(rule) = &flow.notify else { return Ok(()) };
        let due = notification::due(&flow, story.events.iter().map(|stored| &stored.recorded));
        for notice in due {
            let about = story.events.iter().find(|stored| stored.recorded.event_id == notice.about);
            let trace_parent = about.and_then(|stored| stored.trace_parent.as_deref());
            let span = nats::trace::span(
                trace_parent,
                || tracing::info_span!("tell", order_id = %work.order_id, otel.name = format!("tell {}", rule.medium.as_str())),
            );
            self.tell_one(work, rule, &notice, story.placed()).instrument(span).await?;
        }
        Ok(())
    }

    async fn tell_one(
        &self,
        work: &Work,
        rule: &NotifyRule,
        notice: &Notice,
        placed: Option<&OrderPlaced>,
    ) -> Result<(), Untold> {
        let message = placed.and_then(|placed| message::write(rule, notice, work.order_id, placed));
        let Some(message) = message else {
            let why = "the customer left nothing to be reached by";
            return Ok(self.give_up(work, rule, notice, None, why).await?);
        };
        let to = Some(message.to.clone());
        let tried = self.send(work, notice, message).await;
        let late = self.executor.log().now().duration_since(notice.since).unsigned_abs() > self.within;
        match tried {
            Ok(()) => Ok(()),
            Err(PostError::Never(why)) => Ok(self.give_up(work, rule, notice, to, &why).await?),
            Err(error) if late => Ok(self.give_up(work, rule, notice, to, &error.to_string()).await?),
            Err(error) => {
                let not_before =
                    if let PostError::NotBefore(_, pause) = &error { *pause } else { Duration::ZERO };
                Err(Untold { why: error.to_string(), not_before })
            }
        }
    }

    async fn send(&self, work: &Work, notice: &Notice, message: Message) -> Result<(), PostError> {
        let _slot = self.sends.acquire().await;
        let medium = message.medium;
        let reference = self.carrier.send(message.clone()).await?;
        let sent = NotificationSent {
            about: notice.about,
            status: notice.status,
            medium,
            language: message.language,
            to: message.to,
            text: message.text,
            reference,
        };
        let outcome = if sent.is_recorded_only() { "recorded" } else { "sent" };
        metrics::counter!("twelve_notifications_total", "medium" => medium.as_str(), "outcome" => outcome)
            .increment(1);
        let record = NotificationCommand::RecordSent(Box::new(sent));
        self.record(work.order_id, notice, record)
            .await
            .map_err(|error| PostError::NotNow(nats::causes(&error)))
    }

    async fn give_up(
        &self,
        work: &Work,
        rule: &NotifyRule,
        notice: &Notice,
        to: Option<String>,
        reason: &str,
    ) -> Result<(), String> {
        let (medium, order_id) = (rule.medium, work.order_id);
        tracing::warn!(%order_id, medium = medium.as_str(), reason, "a customer is not told of a change");
        metrics::counter!("twelve_notifications_total", "medium" => medium.as_str(), "outcome" => "failed")
            .increment(1);
        let failed = NotificationFailed {
            about: notice.about,
            status: notice.status,
            medium,
            to,
            tries: work.deliveries,
            reason: reason.to_owned(),
        };
        let record = NotificationCommand::RecordFailed(Box::new(failed));
        self.record(order_id, notice, record).await.map_err(|error| nats::causes(&error))
    }

    async fn record(
        &self,
        order_id: OrderId,
        notice: &Notice,
        record: NotificationCommand,
    ) -> Result<(), ExecuteError> {
        let command = Command::Notification(record);
        let intent = Intent {
            order_id,
            command_id: CommandId::from_step(notice.about, command.name()),
            command,
            causation_id: Some(notice.about),
            expected: None,
            fingerprint: None,
            trace_parent: nats::trace::current(),
        };
        self.executor.execute(intent).await.map(drop)
    }

    /// How long to wait before the next try: longer each time.
    fn pause(&self, deliveries: u32) -> Duration {
        let doublings = deliveries.saturating_sub(1).min(16);
        RETRY_PAUSE_MIN.saturating_mul(1 << doublings).min(self.retry_pause_max)
    }
}
