//! What the commands' side asks of the server, as a port: a nats-server behind a [`Connection`], or the simulator's.
//!
//! Above it are the rules of Twelve (guards, repeats, groups, retries), below it what a server does. So the simulator
//! runs the same code as a process, and the same properties are held against both.

use std::{fmt, future::Future, pin::pin, time::Duration};

use async_nats::{
    HeaderMap, Request,
    jetstream::{self, AckKind, ErrorCode, consumer::pull, context::PublishError, message::PublishMessage},
};
use bytes::Bytes;
use domain::Timestamp;
use futures::{Stream, StreamExt, future::BoxFuture, stream::BoxStream};
use serde::Deserialize;
use tokio::time::timeout;
use uuid::Uuid;

use crate::{
    ask::{Answer, Ask, AskError},
    connection::{Connection, SERVER_TIMEOUT},
    deadline, direct,
    header::Header,
    log::LoadError,
    subject,
    worklist::{GROUP, List},
};

const PULL_EXPIRES: Duration = Duration::from_secs(1);
const PULL_HEARTBEAT: Duration = Duration::from_millis(500);
const PULL_MESSAGES_MAX: usize = 500;

static BATCH_ID: Header = Header::new("Nats-Batch-Id");
static BATCH_SEQUENCE: Header = Header::new("Nats-Batch-Sequence");
static BATCH_COMMIT: Header = Header::new("Nats-Batch-Commit");
static EXPECTED: Header = Header::new("Nats-Expected-Last-Subject-Sequence");

/// What went wrong, where nobody decides by it.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A message that is to be stored.
#[derive(Clone, Debug)]
pub struct Message {
    pub subject: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The sequence of the subject's last message (0: it has none), without which the message is not to be stored.
    pub expected: Option<u64>,
}

/// Why a message is not known to be stored.
#[derive(Debug, thiserror::Error)]
pub enum Unpublished {
    /// The guard does not hold; some answers name the true last sequence of the subject.
    #[error("the subject's last sequence is another")]
    Conflict { last: Option<u64> },
    /// It may have been stored all the same.
    #[error("no acknowledgement came")]
    Unanswered(#[source] Failure),
    #[error("the server did not take it")]
    Refused(#[source] Failure),
}

/// A stored message.
#[derive(Clone, Debug)]
pub struct Raw {
    pub sequence: u64,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Messages of one subject, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub messages: Vec<Raw>,
    /// Where to go on, if there are more.
    pub next: Option<u64>,
}

/// What a worker tells the server about a message that it was handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It needs nothing more.
    Done,
    /// It is still worked on, and not to be handed to another yet.
    Going,
    /// It is to be handed out again, after so long.
    Later(Duration),
}

/// A message as a worker is handed it.
pub struct Handed {
    pub subject: String,
    pub sequence: u64,
    /// How often it was handed out, this time included.
    pub deliveries: u32,
    /// Messages that wait behind it.
    pub pending: u64,
    /// The deadline that it is for, if it is for one and says so.
    pub due: Option<Timestamp>,
    pub receipt: Box<dyn Receipt>,
}

/// How a worker joins a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joining {
    /// It asks to be at once the one who is handed the messages.
    pub takes_over: bool,
    /// It makes the list if that is missing, because the log is declared so.
    pub may_make: bool,
}

/// The way back for a word about a message that was handed out.
pub trait Receipt: Send + Sync {
    fn tell(&self, word: Word) -> BoxFuture<'_, Result<(), Failure>>;
}

/// A log's server, as one process sees it; clones share the connection. Every call ends within [`SERVER_TIMEOUT`] or
/// the limit that it is given.
pub trait Broker: Clone + Send + Sync + 'static {
    /// The moment by this process's clock.
    fn now(&self) -> Timestamp;

    fn is_connected(&self) -> bool;

    /// How often the connection was made.
    fn connects(&self) -> u64 {
        0
    }

    /// Stores a message under its guard and answers with its sequence.
    fn publish(&self, message: Message) -> impl Future<Output = Result<u64, Unpublished>> + Send;

    /// Stores messages of different subjects of one stream, all or none, each under its guard, once there are no
    /// more; answers with the sequence of the first, or, whatever happened, with nothing.
    fn publish_together(
        &self,
        messages: impl Stream<Item = Message> + Send,
    ) -> impl Future<Output = Option<u64>> + Send;

    /// A subject's messages from a sequence on. A replica may answer, and be behind.
    fn read(
        &self,
        partition: u16,
        subject: String,
        from: u64,
    ) -> impl Future<Output = Result<Page, LoadError>> + Send;

    /// A subject's last message, as the stream's leader knows it.
    fn last(
        &self,
        stream: String,
        subject: String,
    ) -> impl Future<Output = Result<Option<Raw>, Failure>> + Send;

    /// Sends a command to its context and waits at most `limit` for the answer.
    fn ask(&self, ask: &Ask, limit: Duration) -> impl Future<Output = Result<Answer, AskError>> + Send;

    /// Joins the workers of a partition's list, of whom one at a time is handed the messages. Where the list is
    /// missing, that is an error, unless it may be made.
    fn join(
        &self,
        list: List,
        partition: u16,
        joining: Joining,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<Handed, Failure>>, Failure>> + Send;
}

impl Broker for Connection {
    fn now(&self) -> Timestamp {
        crate::now()
    }

    fn is_connected(&self) -> bool {
        Self::is_connected(self)
    }

    fn connects(&self) -> u64 {
        *self.shared.connects.borrow()
    }

    async fn publish(&self, message: Message) -> Result<u64, Unpublished> {
        let Message { subject, headers, body, expected } = message;
        let mut publish = PublishMessage::build().payload(body).headers(headers);
        if let Some(expected) = expected {
            publish = publish.expected_last_subject_sequence(expected);
        }
        let sent = self.shared.jetstream.send_publish(subject, publish).await.map_err(unpublished)?;
        match self.answered(sent.into_future()).await {
            Some(acknowledged) => Ok(acknowledged.map_err(unpublished)?.sequence),
            None => Err(Unpublished::Unanswered("the connection was made anew".into())),
        }
    }

    /// Each is sent as it comes, but for the last that came: it may have to say that it is the last.
    async fn publish_together(&self, messages: impl Stream<Item = Message> + Send) -> Option<u64> {
        // Kept in the log for ever, and so short; it only tells batches apart that are under way at the same time.
        let id = Uuid::new_v4().simple().to_string();
        let (mut count, mut newest) = (0_u64, None);
        let mut messages = pin!(messages);
        while let Some(Message { subject, mut headers, body, expected }) = messages.next().await {
            if let Some((subject, headers, body)) = newest.take() {
                self.shared.client.publish_with_headers(subject, headers, body).await.ok()?;
            }
            count += 1;
            if let Some(expected) = expected {
                headers.insert(EXPECTED.name(), expected.to_string());
            }
            headers.insert(BATCH_ID.name(), &id[..8]);
            headers.insert(BATCH_SEQUENCE.name(), count.to_string());
            newest = Some((subject, headers, body));
        }
        let (subject, mut headers, body) = newest?;
        headers.insert(BATCH_COMMIT.name(), "1");
        let request = Request::new().headers(headers).payload(body).timeout(Some(SERVER_TIMEOUT));
        let answer = self.answered(self.shared.client.send_request(subject, request)).await?.ok()?;
        let Committed { seq, count: stored } = serde_json::from_slice(&answer.payload).ok()?;
        (stored? == count).then(|| seq.map(|last| last + 1 - count)).flatten()
    }

    async fn read(&self, partition: u16, subject: String, from: u64) -> Result<Page, LoadError> {
        match self.answered(read(self, partition, &subject, from)).await {
            Some(page) => page,
            None => read(self, partition, &subject, from).await,
        }
    }

    async fn last(&self, stream: String, subject: String) -> Result<Option<Raw>, Failure> {
        use jetstream::stream::LastRawMessageErrorKind as Kind;
        let stream = self.shared.jetstream.get_stream_no_info(stream).await?;
        match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(found) => {
                Ok(Some(Raw { sequence: found.sequence, headers: found.headers, body: found.payload }))
            }
            Err(error) if matches!(error.kind(), Kind::NoMessageFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn ask(&self, ask: &Ask, limit: Duration) -> Result<Answer, AskError> {
        Self::ask(self, ask, limit).await
    }

    /// A durable consumer whose pinned group leaves one client active.
    async fn join(
        &self,
        list: List,
        partition: u16,
        joining: Joining,
    ) -> Result<BoxStream<'static, Result<Handed, Failure>>, Failure> {
        let stream = self.shared.jetstream.get_stream_no_info(list.stream(partition)).await?;
        let name = &list.consumer(partition);
        let consumer = if joining.may_make {
            stream.get_or_create_consumer(name, list.declared(partition)).await?
        } else {
            stream.get_consumer::<pull::Config>(name).await?
        };
        if joining.takes_over
            && let Err(error) = stream.unpin_consumer(name, GROUP).await
        {
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
        Ok(messages.map(|message| handed(message?)).boxed())
    }
}

/// One batched direct get of the exact subject.
async fn read(connection: &Connection, partition: u16, subject: &str, from: u64) -> Result<Page, LoadError> {
    let page = direct::page(connection, &subject::stream(partition), subject, from).await;
    let page = page.map_err(|error| LoadError::Unavailable(error.into()))?;
    let next = page.messages.last().map_or(from, |got| got.raw.sequence + 1);
    let messages = page.messages.into_iter().map(|got| got.raw).collect();
    Ok(Page { messages, next: (page.pending > 0).then_some(next) })
}

fn handed(message: jetstream::Message) -> Result<Handed, Failure> {
    let info = message.info()?;
    let (sequence, pending) = (info.stream_sequence, info.pending);
    let deliveries = u32::try_from(info.delivered).unwrap_or(1);
    let subject = message.subject.to_string();
    let due = message.headers.as_ref().and_then(deadline::due_in);
    Ok(Handed { subject, sequence, deliveries, pending, due, receipt: Box::new(Acknowledger(message)) })
}

struct Acknowledger(jetstream::Message);

impl Receipt for Acknowledger {
    fn tell(&self, word: Word) -> BoxFuture<'_, Result<(), Failure>> {
        let kind = match word {
            Word::Done => AckKind::Ack,
            Word::Going => AckKind::Progress,
            Word::Later(pause) => AckKind::Nak(Some(pause)),
        };
        // While the server is away, what is to be sent waits for it.
        Box::pin(async move { timeout(SERVER_TIMEOUT, self.0.ack_with(kind)).await? })
    }
}

impl fmt::Debug for Handed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, sequence, deliveries, .. } = self;
        write!(formatter, "{subject} at {sequence}, the {deliveries}. time")
    }
}

/// What the server answers to the last message of a batch; of one that was refused, nothing of this.
#[derive(Deserialize)]
struct Committed {
    seq: Option<u64>,
    count: Option<u64>,
}

fn unpublished(error: PublishError) -> Unpublished {
    use jetstream::context::PublishErrorKind as Kind;
    if is_conflict(&error) {
        return Unpublished::Conflict { last: named_sequence(&error) };
    }
    match error.kind() {
        Kind::TimedOut | Kind::BrokenPipe | Kind::StreamNotFound => Unpublished::Unanswered(error.into()),
        Kind::WrongLastMessageId
        | Kind::WrongLastSequence
        | Kind::MaxAckPending
        | Kind::MaxPayloadExceeded
        | Kind::Other => Unpublished::Refused(error.into()),
    }
}

/// The two codes by which a server says "the expected sequence is not the last": 10071, and 10164 (replicated or in
/// a batch, while another write of the subject is in flight).
fn is_conflict(error: &PublishError) -> bool {
    let source = std::error::Error::source(error);
    let code = source.and_then(|source| source.downcast_ref::<jetstream::Error>());
    code.is_some_and(|error| {
        [ErrorCode::STREAM_WRONG_LAST_SEQUENCE, ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT]
            .contains(&error.error_code())
    })
}

/// The true last sequence, which the server names in the text of 10071.
fn named_sequence(error: &PublishError) -> Option<u64> {
    let text = std::error::Error::source(error)?.to_string();
    text.rsplit_once("wrong last sequence: ")?.1.trim().split(' ').next()?.parse().ok()
}
