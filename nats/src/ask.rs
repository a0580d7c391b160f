//! Commands between services: a request to the context that decides, and its answer.
//!
//! Every context is a NATS service (`nats service ls` lists them); its replicas share the requests as a queue group.

use std::{future::Future, sync::Arc, time::Duration};

use async_nats::{
    Client, HeaderMap, Message, Request, Subscriber,
    client::RequestErrorKind,
    service::{self, ServiceExt},
};
use bytes::Bytes;
use domain::{Command, CommandId, Context, Event, EventId, OrderId, Position, Recorded, Refusal, Timestamp};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    broker::Failure,
    codec::{Stored, TRACE_PARENT},
    connection::Connection,
    here::Asked,
    subject, trace,
};

/// Requests one context of one process works on at a time; more wait in the server's and the client's buffers.
const IN_FLIGHT_MAX: usize = 1_024;
/// How long requests that are on their way are waited for when a context stops.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// How long commands that were taken may go on after that: their askers have long given up.
const FINISH_MAX: Duration = Duration::from_secs(5);
/// Messages that are still taken once the stop came: more than can be on their way.
const LAST_TAKEN: u64 = 256;
/// Messages of no meaning that are sent at once, and how often, to get there; replicas share them.
const FILLED_AT_ONCE: u32 = 64;
const FILL_EVERY: Duration = Duration::from_millis(2);

/// A command for the context that decides about it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ask {
    pub order_id: OrderId,
    pub command: Command,
    pub command_id: CommandId,
    /// The event that the command answers to.
    #[serde(default)]
    pub causation_id: Option<EventId>,
    /// The command holds only for the story that ends at this sequence.
    #[serde(default)]
    pub expected: Option<u64>,
    #[serde(default)]
    pub fingerprint: Option<String>,
    #[serde(default)]
    pub trace_parent: Option<String>,
}

impl Ask {
    /// Whether the answer waits for the payment provider.
    pub const fn waits_for_provider(&self) -> bool {
        matches!(
            self.command,
            Command::ChargePayment { .. } | Command::SettlePayment | Command::ReturnPayment
        )
    }
}

/// What became of a command.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// This event says it; it may have been there already, from an earlier try.
    Done(Box<StoredEvent>),
    /// The fact holds already, by another command.
    Already,
    Refused(Refusal),
    /// The order's story is not the expected one any more.
    Moved,
    /// Not now; the same command may be sent again.
    Unavailable(String),
    /// Not now, and not by the context's fault: the log does not answer it. Who does not know this answer takes it for
    /// one that does not read, which is a reason to send the command again, too.
    LogUnavailable(String),
}

/// A stored event on its way between services.
#[derive(Debug, Serialize, Deserialize)]
pub struct StoredEvent {
    order_id: OrderId,
    position: Position,
    event_id: EventId,
    time: Timestamp,
    command_id: CommandId,
    fingerprint: Option<String>,
    #[serde(rename = "type")]
    event_type: String,
    data: Box<RawValue>,
}

impl StoredEvent {
    /// Wraps what the log stored.
    pub fn wrap(stored: &Stored) -> Result<Self, serde_json::Error> {
        let recorded = &stored.recorded;
        Ok(Self {
            order_id: recorded.order_id,
            position: recorded.position,
            event_id: recorded.event_id,
            time: recorded.time,
            command_id: recorded.command_id,
            fingerprint: recorded.fingerprint.clone(),
            event_type: recorded.event.type_name().to_owned(),
            data: serde_json::from_slice(&stored.data)?,
        })
    }

    /// The event as the domain knows it.
    pub fn unwrap(self) -> Result<Recorded, AskError> {
        let reader = &mut serde_json::Deserializer::from_str(self.data.get());
        let event = Event::deserialize_data(&self.event_type, reader)
            .ok_or_else(|| AskError::Unreadable(format!("unknown event type {}", self.event_type)))?
            .map_err(|error| AskError::Unreadable(error.to_string()))?;
        Ok(Recorded {
            order_id: self.order_id,
            position: self.position,
            event_id: self.event_id,
            time: self.time,
            command_id: self.command_id,
            fingerprint: self.fingerprint,
            event,
        })
    }
}

/// Why a command got no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no {} service is running", .0.as_str())]
    NobodyThere(Context),
    #[error("the {} service did not answer in time", .0.as_str())]
    TimedOut(Context),
    #[error("the request could not be sent")]
    Unsent(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer does not read: {0}")]
    Unreadable(String),
}

impl Connection {
    /// Sends a command to its context, by way of the server or, where it is in this process, without; and waits at most
    /// `limit` for the answer.
    pub async fn ask(&self, ask: &Ask, limit: Duration) -> Result<Answer, AskError> {
        let context = ask.command.context();
        let span = trace::span(None, || {
            let name = format!("ask {}", context.as_str());
            tracing::info_span!("ask", otel.name = name, otel.kind = "client", messaging.system = "nats")
        });
        self.ask_within(ask, limit).instrument(span).await
    }

    async fn ask_within(&self, ask: &Ask, limit: Duration) -> Result<Answer, AskError> {
        let context = ask.command.context();
        let trace_parent = trace::current().or_else(|| ask.trace_parent.clone());
        let same = || Ask { trace_parent: trace_parent.clone(), ..ask.clone() };
        if let Some(answered) = self.shared.here.hand_over(context, same) {
            return match timeout(limit, answered).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(_)) => Err(AskError::NobodyThere(context)),
                Err(_) => Err(AskError::TimedOut(context)),
            };
        }
        let payload = serde_json::to_vec(ask).map_err(|error| AskError::Unsent(Box::new(error)))?;
        let mut request = Request::new().payload(payload.into()).timeout(Some(limit));
        if let Some(trace_parent) = trace_parent {
            let mut headers = HeaderMap::new();
            headers.insert(TRACE_PARENT.name(), trace_parent.as_str());
            request = request.headers(headers);
        }
        let answer = self.shared.client.send_request(subject::commands(context), request).await;
        let message = answer.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => AskError::NobodyThere(context),
            RequestErrorKind::TimedOut => AskError::TimedOut(context),
            RequestErrorKind::InvalidSubject
            | RequestErrorKind::MaxPayloadExceeded
            | RequestErrorKind::Other => AskError::Unsent(Box::new(error)),
        })?;
        serde_json::from_slice(&message.payload).map_err(|error| AskError::Unreadable(error.to_string()))
    }

    /// Offers to decide a context's commands: from when this returns, the server hands them here, and so do those who
    /// ask by this connection.
    pub async fn offer(&self, context: Context) -> Result<Offer, Failure> {
        let service = self
            .shared
            .client
            .service_builder()
            .description(format!("Twelve: decides about commands of the {} context", context.as_str()))
            .queue_group(context.as_str())
            .start(format!("twelve-{}", context.as_str()), env!("CARGO_PKG_VERSION"))
            .await?;
        // A subscription of our own, because the library's endpoints drop what is on its way when they stop.
        let (subject, group) = (subject::commands(context), context.as_str().to_owned());
        let requests = self.shared.client.queue_subscribe(subject.clone(), group).await?;
        self.shared.client.flush().await?;
        let asked = self.shared.here.offer(context, IN_FLIGHT_MAX);
        Ok(Offer { service, requests, asked, subject, client: self.shared.client.clone() })
    }
}

/// A context's commands, on their way here.
pub struct Offer {
    service: service::Service,
    requests: Subscriber,
    /// From this process.
    asked: mpsc::Receiver<Asked>,
    subject: String,
    client: Client,
}

impl Offer {
    /// Answers the commands until `stop`, and then those that the server has handed over already; none is lost.
    ///
    /// What is on its way to a subscription that is given up is dropped, and the library's own way to drain one gives
    /// it up before all has come. So the server is told how many more messages are taken, which both sides count alike,
    /// and the subscription is filled up with messages of no meaning, until that many have come.
    pub async fn serve<F, A>(mut self, stop: CancellationToken, decide: F) -> Result<(), Failure>
    where
        F: Fn(Ask) -> A + Send + Sync + 'static,
        A: Future<Output = Answer> + Send + 'static,
    {
        let decide = Arc::new(decide);
        let slots = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        let mut at_hand = JoinSet::new();
        // Until then, requests that are on their way are waited for; set once the stop came.
        let mut until: Option<Instant> = None;
        let mut received = 0;
        let mut filling = tokio::time::interval(FILL_EVERY);
        loop {
            let over = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            let request = tokio::select! {
                () = stop.cancelled(), if until.is_none() => {
                    self.asked.close();
                    until = Some(Instant::now() + DRAIN_MAX);
                    // While the server is away, whatever is sent to it waits, and nothing is handed over.
                    let limited = self.requests.unsubscribe_after(received + LAST_TAKEN);
                    match timeout(DRAIN_MAX, limited).await {
                        Ok(limited) => limited?,
                        Err(_) => break,
                    }
                    continue;
                }
                // While the server is away, this would take all the room of what waits to be sent, and whoever else
                // has to send something before they end would wait for the server.
                _ = filling.tick(), if until.is_some() && self.is_connected() => {
                    for _ in 0..FILLED_AT_ONCE {
                        let filled = self.client.publish(self.subject.clone(), Bytes::new());
                        match timeout(FILL_EVERY, filled).await {
                            Ok(filled) => filled?,
                            Err(_) => break,
                        }
                    }
                    continue;
                }
                // The server is away, or it would have said that there are no more.
                () = over => break,
                Some(_) = at_hand.join_next(), if !at_hand.is_empty() => continue,
                Some(asked) = self.asked.recv() => {
                    at_hand.spawn(Box::pin(tell(asked, slot(&slots).await?, Arc::clone(&decide))));
                    continue;
                }
                request = self.requests.next() => match request { Some(request) => request, None => break },
            };
            received += 1;
            let (slot, client, decide) = (slot(&slots).await?, self.client.clone(), Arc::clone(&decide));
            at_hand.spawn(Box::pin(async move {
                respond(&client, request, &*decide).await;
                drop(slot);
            }));
        }
        self.asked.close();
        while let Some(asked) = self.asked.recv().await {
            at_hand.spawn(Box::pin(tell(asked, slot(&slots).await?, Arc::clone(&decide))));
        }
        let finished = async {
            while at_hand.join_next().await.is_some() {}
            self.service.stop().await
        };
        let Ok(stopped) = timeout(FINISH_MAX, finished).await else {
            tracing::warn!(context = self.subject, "commands were under way {FINISH_MAX:?} after the stop");
            return Ok(());
        };
        stopped
    }

    fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }
}

async fn slot(slots: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Failure> {
    Ok(Arc::clone(slots).acquire_owned().await?)
}

/// Answers who asked in this process; who waits no more asks again.
async fn tell<F, A>(asked: Asked, slot: OwnedSemaphorePermit, decide: Arc<F>)
where
    F: Fn(Ask) -> A,
    A: Future<Output = Answer>,
{
    drop(asked.answer.send(answer(asked.ask, &*decide).await));
    drop(slot);
}

async fn answer<F, A>(ask: Ask, decide: &F) -> Answer
where
    F: Fn(Ask) -> A,
    A: Future<Output = Answer>,
{
    let span = trace::span(ask.trace_parent.as_deref(), || {
        let name = format!("answer {}", ask.command.context().as_str());
        tracing::info_span!("answer", otel.name = name, otel.kind = "server", messaging.system = "nats")
    });
    decide(ask).instrument(span).await
}

async fn respond<F, A>(client: &Client, request: Message, decide: &F)
where
    F: Fn(Ask) -> A,
    A: Future<Output = Answer>,
{
    // Nobody waits for an answer: a message of no meaning.
    let Some(reply) = request.reply else { return };
    let trace_parent =
        request.headers.as_ref().and_then(|headers| Some(headers.get(TRACE_PARENT.name())?.to_string()));
    let answer = match serde_json::from_slice::<Ask>(&request.payload) {
        Ok(ask) => {
            let trace_parent = trace_parent.or_else(|| ask.trace_parent.clone());
            answer(Ask { trace_parent, ..ask }, decide).await
        }
        Err(error) => Answer::Unavailable(format!("the request does not read: {error}")),
    };
    let sent = match serde_json::to_vec(&answer) {
        Ok(answer) => client.publish(reply, answer.into()).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = sent {
        tracing::warn!(error, "an answer could not be sent; the asker will ask again");
    }
}
