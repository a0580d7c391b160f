//! The saga at work: one active worker a partition, one task an order, many orders at once.
//!
//! The runner's order is written once, in [`Runner::advance`]: load, react, send, until nothing is left to do; then
//! acknowledge. It may be killed anywhere in between: the work comes again, the story says what was done, and each
//! command holds only for the story it was derived from.

mod park;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{
    Flow, OrderId, OrderState, Timestamp, notification,
    saga::{self, Step},
};
use futures::{StreamExt, stream};
use nats::{
    Broker, Connection, LoadError,
    ask::{Answer, Ask},
    notice::NoticeError,
    worklist::{List, PROLONG_EVERY, Work, Worklist},
};
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{calls::Calls, execute::Executor, story::Story};

/// Commands that one process's sagas have under way at a time.
const SENDS_MAX: usize = 256;
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Pauses up to this long are waited here, where news of the order interrupts them. Longer ones the server waits for
/// us, through any crash: the work is handed back, or, for a deadline of the order, a message is scheduled.
const HOLD_MAX: Duration = Duration::from_millis(300);
/// Settled orders that are remembered, so that the echo of their own events costs no read.
const SETTLED_MAX: usize = 50_000;
/// A deadline that comes due early, by this process's clock, is looked at again so often: a clock may be set right.
const EARLY_PAUSE_MAX: Duration = Duration::from_secs(30);
const REJOIN_PAUSE: Duration = Duration::from_millis(200);
/// Answers "already so" in a row for a step that the story still asks for: then the two disagree for good.
const ALREADY_MAX: u32 = 3;

/// Runs sagas.
#[derive(Clone)]
pub struct Runner<B = Connection> {
    pub executor: Executor<B>,
    pub calls: Calls,
    pub retry_pause_max: Duration,
    pub sends: Arc<Semaphore>,
}

/// An order that a task is working on.
struct Active {
    /// What came in since the task began.
    queued: Vec<Work>,
    news: Arc<Notify>,
}

/// How a task left an order.
struct Left {
    order_id: OrderId,
    /// Nothing is to be done up to this sequence; `None` if the order still wants something.
    settled: Option<u64>,
    /// Work that is not acknowledged yet.
    unfinished: Vec<Work>,
}

/// What one step of an order led to.
enum Taken {
    /// The order asks for none, up to this sequence.
    Nothing(u64),
    One,
    /// The step is due then, if nothing happens before; the story was seen up to this sequence.
    NotYet(Timestamp, u64),
    NotNow {
        step: &'static str,
        why: String,
    },
}

/// How the wait for a deadline went.
enum Waited {
    /// The order changed meanwhile.
    Interrupted,
    Due,
    /// A message will come when it is due.
    Scheduled,
    /// The message that says so is here already, so long before it is due by our clock: the server's goes before it.
    Early(Duration),
    NotScheduled,
}

/// What one look at an order led to.
enum Advanced {
    Settled(u64),
    /// News came during a pause.
    Interrupted,
    /// Nothing can be done for so long.
    Later(Duration),
}

/// The slots of one process's sagas.
pub fn sends() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(SENDS_MAX))
}

impl<B: Broker> Runner<B> {
    /// Works on one partition until `stop`.
    pub async fn run(self, partition: u16, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let list = |list| Worklist::new(self.executor.log(), partition, list);
            // An acknowledgement that cannot be sent does not keep the process from ending.
            let work = Box::pin(self.work(partition, list(List::Saga), list(List::Due), &stop));
            stop.run_until_cancelled(work).await;
            tokio::select! { biased; () = stop.cancelled() => {}, () = tokio::time::sleep(REJOIN_PAUSE) => {} }
        }
    }

    async fn work(&self, partition: u16, events: Worklist<B>, due: Worklist<B>, stop: &CancellationToken) {
        let mut active: HashMap<OrderId, Active> = HashMap::new();
        let mut settled: HashMap<OrderId, u64> = HashMap::new();
        let mut tasks: JoinSet<Left> = JoinSet::new();
        let mut works = stream::select(events.stream(), due.stream());
        let waiting = metrics::gauge!("twelve_saga_orders_active", "partition" => partition.to_string());
        loop {
            waiting.set(u32::try_from(active.len()).unwrap_or(u32::MAX));
            tokio::select! {
                biased;
                // Dropped tasks were not acknowledged; their work comes again.
                () = stop.cancelled() => return,
                Some(joined) = tasks.join_next() => match joined {
                    Ok(left) => self.resume(left, &mut active, &mut settled, &mut tasks),
                    Err(error) => {
                        tracing::error!(partition, %error, "a saga task failed; the worklist is joined anew");
                        return;
                    }
                },
                Some(work) = works.next() => self.take(work, &mut active, &settled, &mut tasks).await,
            }
        }
    }

    async fn take(
        &self,
        work: Work,
        active: &mut HashMap<OrderId, Active>,
        settled: &HashMap<OrderId, u64>,
        tasks: &mut JoinSet<Left>,
    ) {
        let order_id = work.order_id;
        if let Some(busy) = active.get_mut(&order_id) {
            busy.queued.push(work);
            busy.news.notify_one();
        } else if work.position.zip(settled.get(&order_id)).is_some_and(|(at, until)| at.sequence <= *until) {
            finish(vec![work]).await;
        } else {
            self.start(order_id, vec![work], active, tasks);
        }
    }

    fn resume(
        &self,
        left: Left,
        active: &mut HashMap<OrderId, Active>,
        settled: &mut HashMap<OrderId, u64>,
        tasks: &mut JoinSet<Left>,
    ) {
        let mut works = left.unfinished;
        if let Some(was) = active.remove(&left.order_id) {
            works.extend(was.queued);
        }
        if let Some(sequence) = left.settled {
            if settled.len() >= SETTLED_MAX {
                settled.clear();
            }
            settled.insert(left.order_id, sequence);
        }
        if !works.is_empty() {
            self.start(left.order_id, works, active, tasks);
        }
    }

    fn start(
        &self,
        order_id: OrderId,
        works: Vec<Work>,
        active: &mut HashMap<OrderId, Active>,
        tasks: &mut JoinSet<Left>,
    ) {
        let news = Arc::new(Notify::new());
        active.insert(order_id, Active { queued: Vec::new(), news: Arc::clone(&news) });
        let runner = self.clone();
        let span = tracing::info_span!(target: "saga", "saga", %order_id);
        // Boxed, as what is large is copied often on its way to the scheduler.
        tasks.spawn(Box::pin(async move { runner.attend(order_id, works, &news).await }).instrument(span));
    }

    /// Brings an order as far as it goes, keeping its work from being handed to another meanwhile.
    async fn attend(self, order_id: OrderId, works: Vec<Work>, news: &Notify) -> Left {
        let mut prolong = tokio::time::interval(PROLONG_EVERY);
        prolong.tick().await;
        let positions = works.iter().filter_map(|work| work.position);
        let newest = positions.map(|position| position.sequence).max();
        // A deadline that comes due does not say how far the story went since it was set.
        let deadlines = works.iter().filter(|work| work.position.is_none());
        // What an older program set does not say for when.
        let reached = deadlines.map(|work| work.due.unwrap_or(Timestamp::MAX)).max();
        let newest = newest.filter(|_| reached.is_none());
        let tries = works.iter().map(|work| work.deliveries.saturating_sub(1)).max().unwrap_or_default();
        let advancing = self.advance(order_id, (newest, reached), tries, news);
        tokio::pin!(advancing);
        let advanced = loop {
            tokio::select! {
                biased;
                advanced = &mut advancing => break advanced,
                _ = prolong.tick() => for work in &works {
                    if let Err(error) = work.prolong().await {
                        tracing::debug!(%error, "work was not prolonged; it may come again");
                    }
                },
            }
        };
        match advanced {
            Advanced::Interrupted => Left { order_id, settled: None, unfinished: works },
            Advanced::Later(pause) => {
                hand_back(works, pause).await;
                Left { order_id, settled: None, unfinished: Vec::new() }
            }
            Advanced::Settled(sequence) => {
                let is_seen =
                    |work: &Work| work.position.is_none_or(|position| position.sequence <= sequence);
                let (seen, unfinished) = works.into_iter().partition(is_seen);
                finish(seen).await;
                Left { order_id, settled: Some(sequence), unfinished }
            }
        }
    }

    /// Load, react, send, again, until the order waits for a person or is at its end. The story goes at least up to
    /// `newest`, or as far as the log says; `tries` were made before. `reached`: the latest deadline of the order that
    /// came due.
    async fn advance(
        &self,
        order_id: OrderId,
        (mut newest, mut reached): (Option<u64>, Option<Timestamp>),
        mut tries: u32,
        news: &Notify,
    ) -> Advanced {
        let mut already = 0;
        loop {
            let pause = match self.take_step(order_id, &mut newest, &mut already).await {
                Taken::Nothing(sequence) => return Advanced::Settled(sequence),
                Taken::One => {
                    // Whatever comes next is not what came due.
                    (tries, reached) = (0, None);
                    continue;
                }
                Taken::NotYet(due, sequence) => match self.wait_until(order_id, (due, reached), news).await {
                    Waited::Scheduled => return Advanced::Settled(sequence),
                    Waited::Interrupted => return Advanced::Interrupted,
                    Waited::Due => continue,
                    Waited::Early(left) => return Advanced::Later(left.min(EARLY_PAUSE_MAX)),
                    Waited::NotScheduled => self.pause(order_id, tries),
                },
                Taken::NotNow { step, why } => {
                    let pause = self.pause(order_id, tries);
                    tries = tries.saturating_add(1);
                    tracing::info!(step, why, tries, ?pause, "waiting to try again");
                    metrics::counter!("twelve_saga_retries_total", "step" => step).increment(1);
                    pause
                }
            };
            tokio::select! {
                biased;
                () = news.notified() => return Advanced::Interrupted,
                () = tokio::time::sleep(pause.min(HOLD_MAX)) => if pause > HOLD_MAX {
                    return Advanced::Later(pause.saturating_sub(HOLD_MAX));
                },
            }
        }
    }

    /// Waits for a deadline: here if it is near, else the server wakes us. It did so already if that deadline, or a
    /// later one, was `reached`: set again, it would come due at once, by the server's clock.
    async fn wait_until(
        &self,
        order_id: OrderId,
        (due, reached): (Timestamp, Option<Timestamp>),
        news: &Notify,
    ) -> Waited {
        let left = time_left(due, self.executor.log().now()).unwrap_or_default();
        tokio::select! {
            biased;
            () = news.notified() => return Waited::Interrupted,
            () = tokio::time::sleep(left.min(HOLD_MAX)) => {}
        }
        if left <= HOLD_MAX {
            return Waited::Due;
        }
        if reached.is_some_and(|reached| reached >= due) {
            metrics::counter!("twelve_deadlines_early_total").increment(1);
            return Waited::Early(left);
        }
        match self.executor.log().set_deadline(order_id, due).await {
            Ok(()) => {
                metrics::counter!("twelve_deadlines_set_total").increment(1);
                Waited::Scheduled
            }
            Err(error) => {
                tracing::warn!(error = %nats::causes(&error), "trying again");
                Waited::NotScheduled
            }
        }
    }

    async fn take_step(&self, order_id: OrderId, newest: &mut Option<u64>, already: &mut u32) -> Taken {
        let story = match self.story(order_id, *newest).await {
            Ok(story) => story,
            Err(LoadError::TooLong(_)) => return self.park_unread(order_id).await,
            Err(error) => return Taken::NotNow { step: "load", why: nats::causes(&error) },
        };
        let Some(reference) = &story.state.flow else { return Taken::Nothing(story.sequence()) };
        let flow = match self.executor.flows().find(reference).await {
            Ok(flow) => flow,
            Err(error) => return Taken::NotNow { step: "react", why: nats::causes(&error) },
        };
        let state = &story.state;
        let step = saga::react(&flow, state);
        let now = self.executor.log().now();
        let due = step.as_ref().and_then(|step| step.not_before).filter(|due| time_left(*due, now).is_some());
        let step = match (step, due) {
            (Some(step), None) => step,
            // The order rests for now: the moment to have its customer told.
            (rest, _) => {
                if let Err(error) = self.give_notice(order_id, &flow, &story).await {
                    return Taken::NotNow { step: "give_notice", why: nats::causes(&error) };
                }
                return match (rest, due) {
                    (Some(_), Some(due)) => Taken::NotYet(due, state.sequence()),
                    (Some(_) | None, _) => Taken::Nothing(state.sequence()),
                };
            }
        };
        let name = step.command.name();
        // The step goes on in the trace of what it answers to.
        let trace_parent = story.events.last().and_then(|stored| stored.trace_parent.clone());
        let span = nats::trace::span(
            trace_parent.as_deref(),
            || tracing::info_span!("step", %order_id, otel.name = format!("saga {name}")),
        );
        match self.send(order_id, state, step, trace_parent).instrument(span).await {
            // Either way the story goes on, beyond what was acted on.
            Ok(Answer::Done(_) | Answer::Moved) => (*already, *newest) = (0, Some(state.sequence() + 1)),
            Ok(Answer::Already) if *already < ALREADY_MAX => *already += 1,
            Ok(Answer::Already) => self.park(order_id, state, name, "already", "it is so already").await,
            Ok(Answer::Refused(why)) => {
                self.park(order_id, state, name, why.code(), &why.to_string()).await;
            }
            Ok(Answer::Unavailable(why) | Answer::LogUnavailable(why)) => {
                return self.not_now(order_id, &flow, &story, name, why).await;
            }
            Err(error) => {
                return self.not_now(order_id, &flow, &story, name, nats::causes(&error)).await;
            }
        }
        Taken::One
    }

    async fn story(&self, order_id: OrderId, newest: Option<u64>) -> Result<Arc<Story>, LoadError> {
        let at_least = match newest {
            Some(newest) => newest,
            None => self.executor.log().last_sequence(order_id).await?,
        };
        self.executor.story(order_id, at_least).await
    }

    /// A step has to wait; the customer need not.
    async fn not_now(
        &self,
        order_id: OrderId,
        flow: &Flow,
        story: &Story,
        step: &'static str,
        why: String,
    ) -> Taken {
        if let Err(error) = self.give_notice(order_id, flow, story).await {
            tracing::debug!(error = %nats::causes(&error), "given with the next try");
        }
        Taken::NotNow { step, why }
    }

    /// Gives notice if the customer was not told of everything yet.
    async fn give_notice(&self, order_id: OrderId, flow: &Flow, story: &Story) -> Result<(), NoticeError> {
        let events = story.events.iter().map(|stored| &stored.recorded);
        if flow.notify.is_none() || notification::due(flow, events).is_empty() {
            return Ok(());
        }
        self.executor.log().give_notice(order_id).await
    }

    async fn send(
        &self,
        order_id: OrderId,
        state: &OrderState,
        step: Step,
        trace_parent: Option<String>,
    ) -> Result<Answer, crate::calls::CallError> {
        let ask = Ask {
            order_id,
            command: step.command,
            command_id: step.command_id,
            causation_id: state.newest.map(|newest| newest.event_id),
            expected: Some(state.sequence()),
            fingerprint: None,
            trace_parent,
        };
        let name = ask.command.name();
        tracing::debug!(step = name, "sending");
        let _slot = self.sends.acquire().await;
        let started = Instant::now();
        let answer = self.calls.call(ask).await;
        metrics::histogram!("twelve_saga_step_seconds", "step" => name)
            .record(started.elapsed().as_secs_f64());
        answer
    }

    /// How long to wait before the next try: longer each time.
    fn pause(&self, order_id: OrderId, tries: u32) -> Duration {
        let doubled = RETRY_PAUSE_MIN.saturating_mul(1_u32.checked_shl(tries.min(16)).unwrap_or(u32::MAX));
        // Orders that failed together do not come back together: up to half of the pause depends on the order's id.
        let spread = 50 + u32::try_from(order_id.0.as_u128() % 51).unwrap_or_default();
        doubled.min(self.retry_pause_max) * spread / 100
    }
}

/// How long it is until `due`; `None` once it is past.
fn time_left(due: Timestamp, now: Timestamp) -> Option<Duration> {
    let left = Duration::try_from(due.duration_since(now)).ok()?;
    (!left.is_zero()).then_some(left)
}

async fn hand_back(works: Vec<Work>, pause: Duration) {
    for work in works {
        if let Err(error) = work.hand_back(pause).await {
            tracing::debug!(%error, "work was not handed back; it comes again by itself");
        }
    }
}

async fn finish(works: Vec<Work>) {
    for work in works {
        if let Err(error) = work.done().await {
            tracing::debug!(%error, "an acknowledgement was lost; the work comes again and finds nothing to do");
        }
    }
}
