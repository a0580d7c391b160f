//! The way of every command: load the order's story, decide, append under the guard of what was read; once.

use std::sync::Arc;

use domain::{
    Command, CommandId, EventId, FlowRef, Flows, OrderId, OrderState, Refusal, order::OrderCommand,
    payment::PaymentCommand,
};
use nats::{AppendError, EventLog, LoadError, NewEvent, Stored};
use tokio::sync::Mutex;
use tracing::Instrument;

/// Times a command is decided afresh because another event came first.
const ATTEMPTS_MAX: u32 = 16;
/// Locks that serialise one order's commands in this process; orders share them by their id.
const LOCKS: usize = 4_096;

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
    #[error("the event cannot be appended")]
    Append(#[source] AppendError),
    #[error("other commands on the order came first {ATTEMPTS_MAX} times")]
    Contended,
}

/// Decides commands on the log.
#[derive(Clone)]
pub struct Executor {
    log: EventLog,
    flows: Arc<Flows>,
    locks: Arc<Vec<Mutex<()>>>,
}

impl Executor {
    pub fn new(log: EventLog, flows: Arc<Flows>) -> Self {
        let locks = std::iter::repeat_with(Mutex::default).take(LOCKS).collect();
        Self { log, flows, locks: Arc::new(locks) }
    }

    pub const fn log(&self) -> &EventLog {
        &self.log
    }

    pub fn flows(&self) -> &Flows {
        &self.flows
    }

    /// An order's story.
    pub async fn story(&self, order_id: OrderId) -> Result<Vec<Stored>, LoadError> {
        self.log.load(order_id, 0).await
    }

    /// Executes a command once, however often it is sent.
    pub async fn execute(&self, intent: Intent) -> Result<Executed, ExecuteError> {
        let (name, context) = (intent.command.name(), intent.command.context().as_str());
        let span = tracing::info_span!("command", order_id = %intent.order_id, context, command = name);
        let executed = self.execute_in_turn(&intent).instrument(span.clone()).await;
        let outcome = match &executed {
            Ok(Executed { replayed: true, .. }) => "replayed",
            Ok(Executed { event: Some(_), .. }) => "done",
            Ok(Executed { event: None, .. }) => "already",
            Err(ExecuteError::Refused(_)) => "refused",
            Err(ExecuteError::Moved) => "moved",
            Err(ExecuteError::Load(_) | ExecuteError::Append(_) | ExecuteError::Contended) => "failed",
        };
        metrics::counter!("twelve_commands_total", "command" => name, "outcome" => outcome).increment(1);
        span.in_scope(|| tracing::debug!(outcome));
        executed
    }

    async fn execute_in_turn(&self, intent: &Intent) -> Result<Executed, ExecuteError> {
        let (_, low) = intent.order_id.0.as_u64_pair();
        let lock = usize::try_from(low % LOCKS as u64).unwrap_or_default();
        let _turn = self.locks[lock].lock().await;
        let mut at_least = 0;
        for _ in 0..ATTEMPTS_MAX {
            let story = self.log.load(intent.order_id, at_least).await?;
            if let Some(repeat) = find_repeat(intent, &story)? {
                return Ok(repeat);
            }
            let state = OrderState::replay(story.iter().map(|stored| &stored.recorded));
            let sequence = state.sequence();
            if let Some(expected) = intent.expected
                && expected != sequence
            {
                if expected > sequence && at_least < expected && self.log.reads_may_be_stale() {
                    at_least = expected;
                    continue;
                }
                return Err(ExecuteError::Moved);
            }
            let event = match self.decide(&state, &intent.command) {
                Ok(Some(event)) => event,
                denied => {
                    at_least = self.newest(intent.order_id, sequence).await?;
                    if at_least > sequence {
                        continue;
                    }
                    denied?;
                    return Ok(Executed { event: None, replayed: false, state });
                }
            };
            let new = NewEvent {
                event,
                command_id: intent.command_id,
                causation_id: intent.causation_id,
                time: nats::now(),
                fingerprint: intent.fingerprint.clone(),
                trace_parent: intent.trace_parent.clone(),
            };
            match self.log.append(intent.order_id, sequence, &new).await {
                Ok(stored) => {
                    let state = state.evolve(&stored.recorded);
                    return Ok(Executed { event: Some(stored), replayed: false, state });
                }
                Err(AppendError::Conflict { last }) => at_least = last.unwrap_or(sequence),
                Err(error) => return Err(ExecuteError::Append(error)),
            }
        }
        Err(ExecuteError::Contended)
    }

    /// How far the order's story really goes, when the one that was read ends at `sequence`.
    async fn newest(&self, order_id: OrderId, sequence: u64) -> Result<u64, LoadError> {
        if self.log.reads_may_be_stale() { self.log.last_sequence(order_id).await } else { Ok(sequence) }
    }

    fn decide(&self, state: &OrderState, command: &Command) -> Result<Option<domain::Event>, Refusal> {
        let reference = match (&state.flow, command) {
            (Some(reference), _) => reference,
            (None, command) => names_flow(command).ok_or(Refusal::OrderNotFound)?,
        };
        let flow = self.flows.get(reference).ok_or(Refusal::FlowUnknown)?;
        state.decide(flow, command)
    }
}

/// The flow that a first command brings to an order.
fn names_flow(command: &Command) -> Option<&FlowRef> {
    match command {
        Command::Ordering(OrderCommand::Place(placed)) => Some(&placed.flow),
        Command::Payment(PaymentCommand::Request(request)) => Some(&request.flow),
        Command::Ordering(_)
        | Command::Payment(_)
        | Command::ChargePayment { .. }
        | Command::ReturnPayment
        | Command::Marketing(_)
        | Command::Delivery(_)
        | Command::Saga(_) => None,
    }
}

/// The event that this very command led to before, in the state as it was right after.
fn find_repeat(intent: &Intent, story: &[Stored]) -> Result<Option<Executed>, Refusal> {
    let context = intent.command.context();
    let place = story.iter().position(|stored| {
        stored.recorded.command_id == intent.command_id && stored.recorded.event.context() == context
    });
    let Some(place) = place else { return Ok(None) };
    let stored = &story[place];
    if stored.recorded.fingerprint != intent.fingerprint {
        return Err(Refusal::IdempotencyKeyReused);
    }
    let state = OrderState::replay(story[..=place].iter().map(|stored| &stored.recorded));
    Ok(Some(Executed { event: Some(stored.clone()), replayed: true, state }))
}
