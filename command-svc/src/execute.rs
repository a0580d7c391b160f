//! The way of every command: load the order's story, decide, append under the guard of what was read; once.

use std::{sync::Arc, time::Instant};

use domain::{
    Command, CommandId, EventId, OrderId, OrderState, Refusal,
    id::{is_same_body, stored_fingerprint},
};
use nats::{
    AppendError, Broker, Connection, EventLog, FlowBook, FlowBookError, LoadError, NewEvent, Stored,
    log::Appended,
};
use tokio::sync::Mutex;
use tracing::{Instrument, Span, field::Empty};

use crate::{
    admission::Admission,
    story::{Recent, Story},
};

/// Times a command is decided afresh because another event came first.
const ATTEMPTS_MAX: u32 = 16;
/// Events after which an order takes no more commands of callers, but to cancel it: room is left for its saga to undo
/// it, far below what can be read at all ([`nats::log::EVENTS_PER_ORDER_MAX`]).
pub const EVENTS_BEFORE_REFUSAL_MAX: usize = 1_000;
/// Orders that a process is made for to work on at a time: so many have a lock and a place of their own, more share
/// them by their ids.
pub const ORDERS_AT_HAND: usize = 4_096;

/// A command on one order, and where it comes from.
#[derive(Clone, Debug)]
pub struct Intent {
    pub order_id: OrderId,
    pub command: Command,
    pub command_id: CommandId,
    pub causation_id: Option<EventId>,
    /// The command holds only for the story that ends at this sequence.
    pub expected: Option<u64>,
    /// Of the caller's body, if the caller gave an idempotency key.
    pub fingerprint: Option<String>,
    pub trace_parent: Option<String>,
}

/// What a command led to.
#[derive(Debug)]
pub struct Executed {
    /// The event; `None` if the fact held already by another command.
    pub event: Option<Stored>,
    /// The event was there before: this is a repeat.
    pub replayed: bool,
    /// The order's state right after the event, or as it was found.
    pub state: OrderState,
}

/// Why a command led to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    #[error("refused")]
    Refused(#[from] Refusal),
    /// The story does not end where the command expects it to.
    #[error("the order's story moved on")]
    Moved,
    #[error("the order's story cannot be read")]
    Load(#[from] LoadError),
    #[error("the order's flow is not at hand")]
    Flow(#[from] FlowBookError),
    #[error("the event cannot be appended")]
    Append(#[source] AppendError),
    #[error("other commands on the order came first {ATTEMPTS_MAX} times")]
    Contended,
}

impl ExecuteError {
    /// Whether the log was not there for it: a read or an append got no good answer.
    pub const fn is_the_logs(&self) -> bool {
        match self {
            Self::Load(LoadError::Unavailable(_) | LoadError::Refused { .. } | LoadError::Archive(_))
            | Self::Flow(FlowBookError::Unavailable { .. })
            | Self::Append(_) => true,
            Self::Load(LoadError::Undecodable(_) | LoadError::TooLong(_))
            | Self::Flow(FlowBookError::Unknown(_) | FlowBookError::Unreadable { .. })
            | Self::Refused(_)
            | Self::Moved
            | Self::Contended => false,
        }
    }
}

/// What trying a command on a story led to.
enum Attempt {
    Done(Executed),
    /// Nothing is to be appended, if the story is all there is.
    Denied(Result<Executed, ExecuteError>),
    /// The story goes on, at least up to this sequence.
    Conflict(u64),
}

/// Decides commands on the log.
#[derive(Clone)]
pub struct Executor<B = Connection> {
    log: EventLog<B>,
    flows: FlowBook<B>,
    turns: Arc<Vec<Mutex<()>>>,
    recent: Arc<Recent>,
    admission: Admission,
}

impl<B: Broker> Executor<B> {
    /// Decides for about so many orders at a time, most often [`ORDERS_AT_HAND`].
    pub fn new(log: EventLog<B>, flows: FlowBook<B>, admission: Admission, orders: usize) -> Self {
        // One after the other, an order's commands do not get into each other's way.
        let turns = std::iter::repeat_with(Mutex::default).take(orders.max(1)).collect();
        Self { log, flows, turns: Arc::new(turns), recent: Arc::new(Recent::new(orders)), admission }
    }

    /// How many commands of callers are taken at a time.
    pub const fn admission(&self) -> &Admission {
        &self.admission
    }

    pub const fn log(&self) -> &EventLog<B> {
        &self.log
    }

    pub const fn flows(&self) -> &FlowBook<B> {
        &self.flows
    }

    /// An order's story up to at least `at_least`, from memory if it is there.
    pub async fn story(&self, order_id: OrderId, at_least: u64) -> Result<Arc<Story>, LoadError> {
        match self.recent.get(order_id) {
            Some(story) if story.sequence() >= at_least => Ok(story),
            Some(_) | None => self.read(order_id, at_least).await,
        }
    }

    /// An order's story as the log has it now.
    pub async fn read(&self, order_id: OrderId, at_least: u64) -> Result<Arc<Story>, LoadError> {
        let story = Arc::new(Story::new(self.log.load(order_id, at_least).await?));
        self.recent.put(order_id, &story);
        Ok(story)
    }

    /// An order's whole story as the log has it now, also where a replica that is behind may answer.
    pub async fn read_whole(&self, order_id: OrderId) -> Result<Arc<Story>, LoadError> {
        let newest = self.newest(order_id, 0).await?;
        self.read(order_id, newest).await
    }

    /// Whether the log has an event of this very command.
    pub async fn has_begun(&self, intent: &Intent) -> Result<bool, LoadError> {
        let is_of =
            |story: &Story| story.events.iter().any(|stored| stored.recorded.command_id == intent.command_id);
        Ok(is_of(&*self.story(intent.order_id, 0).await?) || is_of(&*self.read_whole(intent.order_id).await?))
    }

    /// Spares the reading of a story that was read by other means a moment ago.
    pub fn remember(&self, order_id: OrderId, story: &Arc<Story>) {
        self.recent.put(order_id, story);
    }

    /// Executes a command once, however often it is sent.
    pub async fn execute(&self, intent: Intent) -> Result<Executed, ExecuteError> {
        let (name, context) = (intent.command.name(), intent.command.context().as_str());
        let trace = intent.trace_parent.as_deref().and_then(|parent| parent.get(3..35));
        let is_first = Span::current().is_none();
        let span = tracing::info_span!(
            "command", order_id = %intent.order_id, context, command = name, trace, otel.name = Empty,
        );
        if nats::trace::is_on() {
            span.record("otel.name", format!("{context} {name}"));
            nats::trace::go_on(&span, intent.trace_parent.as_deref().filter(|_| is_first));
        }
        let began = Instant::now();
        let executed = self.execute_in_turn(&intent).instrument(span.clone()).await;
        if executed.as_ref().is_ok_and(|executed| executed.event.is_some() && !executed.replayed) {
            self.admission.was_stored(began.elapsed());
        }
        let outcome = match &executed {
            Ok(Executed { replayed: true, .. }) => "replayed",
            Ok(Executed { event: Some(_), .. }) => "done",
            Ok(Executed { event: None, .. }) => "already",
            Err(ExecuteError::Refused(_)) => "refused",
            Err(ExecuteError::Moved) => "moved",
            Err(
                ExecuteError::Load(_)
                | ExecuteError::Flow(_)
                | ExecuteError::Append(_)
                | ExecuteError::Contended,
            ) => "failed",
        };
        metrics::counter!("twelve_commands_total", "command" => name, "outcome" => outcome).increment(1);
        span.in_scope(|| tracing::debug!(outcome));
        executed
    }

    async fn execute_in_turn(&self, intent: &Intent) -> Result<Executed, ExecuteError> {
        let order_id = intent.order_id;
        let (_, low) = order_id.0.as_u64_pair();
        let turn = usize::try_from(low % self.turns.len() as u64).unwrap_or_default();
        let _turn = self.turns[turn].lock().await;
        let _under_way = self.log.under_way(order_id);
        // A remembered story is good enough to decide on, and not to deny on. So is the empty one, for a first command.
        let (mut story, mut is_whole) = match self.recent.get(order_id) {
            Some(story) => (story, false),
            None if intent.command.names_flow().is_some() => (Arc::default(), false),
            None => (self.read(order_id, 0).await?, true),
        };
        let began_at = story.sequence();
        for _ in 0..ATTEMPTS_MAX {
            let at_least = match self.attempt(intent, &story).await? {
                Attempt::Done(executed) => return Ok(executed),
                Attempt::Denied(_) if !is_whole => story.sequence(),
                Attempt::Denied(denial) => match self.newest(order_id, story.sequence()).await? {
                    newest if newest == story.sequence() => return denial,
                    newest => newest,
                },
                Attempt::Conflict(last) => last,
            };
            (story, is_whole) = (self.read(order_id, at_least).await?, true);
        }
        if is_whole && story.sequence() == began_at {
            // Replicas refuse a write while another of the order is in flight; without a majority it stays so.
            let why = "a write of the order is in flight and does not end";
            return Err(ExecuteError::Append(AppendError::Unavailable(why.into())));
        }
        Err(ExecuteError::Contended)
    }

    async fn attempt(&self, intent: &Intent, story: &Arc<Story>) -> Result<Attempt, ExecuteError> {
        if let Some(repeat) = find_repeat(intent, story)? {
            return Ok(Attempt::Done(repeat));
        }
        let sequence = story.sequence();
        if intent.expected.is_some_and(|expected| expected != sequence) {
            return Ok(Attempt::Denied(Err(ExecuteError::Moved)));
        }
        let event = match self.decide(&story.state, &intent.command).await? {
            Ok(Some(_))
                if story.events.len() >= EVENTS_BEFORE_REFUSAL_MAX && !is_taken_at_the_limit(intent) =>
            {
                return Ok(Attempt::Denied(Err(Refusal::OrderTooLong.into())));
            }
            Ok(Some(event)) => event,
            Ok(None) => {
                let state = story.state.clone();
                return Ok(Attempt::Denied(Ok(Executed { event: None, replayed: false, state })));
            }
            Err(refusal) => return Ok(Attempt::Denied(Err(refusal.into()))),
        };
        let new = NewEvent {
            event,
            command_id: intent.command_id,
            causation_id: intent.causation_id,
            time: self.log.now(),
            fingerprint: intent.fingerprint.as_deref().map(|given| stored_fingerprint(given).to_owned()),
            trace_parent: nats::trace::current().or_else(|| intent.trace_parent.clone()),
        };
        let (stored, story) = match self.log.append(intent.order_id, sequence, &new).await {
            Ok(Appended::New(stored)) => {
                let story = Arc::new(story.with(stored.clone()));
                self.recent.put(intent.order_id, &story);
                (stored, story)
            }
            Ok(Appended::Found(stored)) => {
                let story = self.read(intent.order_id, stored.recorded.position.sequence).await?;
                (stored, story)
            }
            Err(AppendError::Conflict { last }) => return Ok(Attempt::Conflict(last.unwrap_or(sequence))),
            Err(AppendError::Unsettled(error)) => return Err(error.into()),
            Err(error @ (AppendError::Unavailable(_) | AppendError::Encoding(_))) => {
                return Err(ExecuteError::Append(error));
            }
        };
        let state = story.state_after(&stored.recorded);
        Ok(Attempt::Done(Executed { event: Some(stored), replayed: false, state }))
    }

    /// How far the order's story really goes, when the one that was read ends at `sequence`.
    async fn newest(&self, order_id: OrderId, sequence: u64) -> Result<u64, LoadError> {
        if self.log.reads_may_be_stale() { self.log.last_sequence(order_id).await } else { Ok(sequence) }
    }

    async fn decide(
        &self,
        state: &OrderState,
        command: &Command,
    ) -> Result<Result<Option<domain::Event>, Refusal>, FlowBookError> {
        let Some(reference) = state.flow.as_ref().or_else(|| command.names_flow()) else {
            return Ok(Err(Refusal::OrderNotFound));
        };
        let flow = self.flows.find(reference).await?;
        Ok(state.decide(&flow, command))
    }
}

/// Whether a command is taken of an order that has too many events already: one that brings it to its end, or records
/// what another command led to.
fn is_taken_at_the_limit(intent: &Intent) -> bool {
    intent.causation_id.is_some() || intent.command.ends_order()
}

/// The event that this very command led to before, in the state as it was right after.
fn find_repeat(intent: &Intent, story: &Story) -> Result<Option<Executed>, Refusal> {
    let context = intent.command.context();
    let repeat = story.events.iter().find(|stored| {
        stored.recorded.command_id == intent.command_id && stored.recorded.event.context() == context
    });
    let Some(stored) = repeat else { return Ok(None) };
    if !is_same_body(stored.recorded.fingerprint.as_deref(), intent.fingerprint.as_deref()) {
        return Err(Refusal::IdempotencyKeyReused);
    }
    let state = story.state_after(&stored.recorded);
    Ok(Some(Executed { event: Some(stored.clone()), replayed: true, state }))
}
