//! Reads a stream by direct gets, a page at a time: without a consumer.
//!
//! Who may make consumers may have what is stored sent to any subject of the account, as if it came from there: the
//! body of that call names the subject, and permissions do not reach bodies (ADR 27). So readers make none.

use async_nats::{HeaderMap, HeaderValue, Message};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    broker::{Failure, Raw},
    connection::{Connection, SERVER_TIMEOUT},
};

/// Messages of one page.
pub(crate) const PAGE_MESSAGES_MAX: usize = 1_000;
/// Bytes after which a page ends: of ordinary events it has all [`PAGE_MESSAGES_MAX`], and of large ones not so many
/// that pages which wait to be folded fill the memory.
pub(crate) const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// As [`PAGE_BYTES_MAX`], where a page is dealt with before the next one is asked for.
const PIECES_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How often a page is asked for before a reader is told that it does not come whole.
const PAGE_TRIES_MAX: u32 = 3;
/// Every subject of a stream. Named so, the server does not look at each of them.
pub(crate) const ALL: &str = ">";

/// A stored message.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) subject: String,
    pub(crate) raw: Raw,
}

/// Messages that follow each other in a stream.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) messages: Vec<Got>,
    /// How many more there were behind these.
    pub(crate) pending: u64,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GetError {
    #[error("cannot ask for a page of stream {stream}")]
    Unsent { stream: String, source: Failure },
    #[error("stream {stream} did not answer within {SERVER_TIMEOUT:?}")]
    Late { stream: String },
    #[error("the connection closed before stream {stream} answered")]
    Closed { stream: String },
    #[error("stream {stream} answered {status} {description}")]
    Refused { stream: String, status: u16, description: String },
    #[error("a page of stream {stream} lost messages on its way, after sequence {after}")]
    Torn { stream: String, after: u64 },
}

/// The stream's messages on the subjects of `filter`, from sequence `from` on. A replica may answer, and be behind.
///
/// A page is whole, or an error: a connection that breaks while it comes, or a buffer that overruns, loses some of its
/// messages and not the ones behind them, and nothing else tells that from messages which are not there.
pub(crate) async fn page(
    connection: &Connection,
    stream: &str,
    filter: &str,
    from: u64,
) -> Result<Page, GetError> {
    page_within(connection, stream, filter, (from, PAGE_BYTES_MAX)).await
}

/// As [`page`], of so many bytes, but for its last message.
async fn page_within(
    connection: &Connection,
    stream: &str,
    filter: &str,
    (from, bytes_max): (u64, usize),
) -> Result<Page, GetError> {
    let mut tries_left = PAGE_TRIES_MAX;
    loop {
        tries_left -= 1;
        match page_once(connection, stream, filter, (from, bytes_max)).await {
            Err(torn @ GetError::Torn { .. }) => {
                metrics::counter!("twelve_log_pages_torn_total").increment(1);
                if tries_left == 0 {
                    return Err(torn);
                }
            }
            answered => return answered,
        }
    }
}

/// As [`page_within`], asked for once.
async fn page_once(
    connection: &Connection,
    stream: &str,
    filter: &str,
    (from, bytes_max): (u64, usize),
) -> Result<Page, GetError> {
    let unsent = |source: Failure| GetError::Unsent { stream: stream.to_owned(), source };
    let client = &connection.shared.client;
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| unsent(error.into()))?;
    let ask = json!({
        "seq": from.max(1), "batch": PAGE_MESSAGES_MAX, "max_bytes": bytes_max, "next_by_subj": filter,
    });
    let asked =
        client.publish_with_reply(format!("$JS.API.DIRECT.GET.{stream}"), inbox, ask.to_string().into());
    asked.await.map_err(|error| unsent(error.into()))?;
    let mut page = Page::default();
    loop {
        let answer = timeout(SERVER_TIMEOUT, answers.next()).await;
        let answer = answer.map_err(|_| GetError::Late { stream: stream.to_owned() })?;
        let answer = answer.ok_or_else(|| GetError::Closed { stream: stream.to_owned() })?;
        // Each part says which message of this page it follows.
        let after = page.messages.last().map_or(0, |last| last.raw.sequence);
        let is_next = number(answer.headers.as_ref(), "Nats-Last-Sequence") == after;
        let torn = || GetError::Torn { stream: stream.to_owned(), after };
        if sequence(answer.headers.as_ref()) > 0 {
            // Also one that was stored with a status of its own.
            if !is_next {
                return Err(torn());
            }
            page.messages.push(got(answer));
            continue;
        }
        match answer.status.map(|status| status.as_u16()) {
            Some(404) if page.messages.is_empty() => return Ok(page),
            Some(204) if is_next => {
                page.pending = number(answer.headers.as_ref(), "Nats-Num-Pending");
                return Ok(page);
            }
            None | Some(404 | 204) => return Err(torn()),
            Some(status) => {
                let description = answer.description.unwrap_or_default();
                return Err(GetError::Refused { stream: stream.to_owned(), status, description });
            }
        }
    }
}

fn got(message: Message) -> Got {
    let headers = message.headers.unwrap_or_default();
    let subject = text(Some(&headers), "Nats-Subject").unwrap_or_default().to_owned();
    let sequence = sequence(Some(&headers));
    Got { subject, raw: Raw { sequence, headers, body: message.payload } }
}

/// Where a message was stored, as the server says in its headers; 0 if it does not: then it is none of the stream's.
pub(crate) fn sequence(headers: Option<&HeaderMap>) -> u64 {
    number(headers, "Nats-Sequence")
}

fn number(headers: Option<&HeaderMap>, name: &str) -> u64 {
    text(headers, name).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The last value: the server writes its own behind those of the message.
fn text<'a>(headers: Option<&'a HeaderMap>, name: &str) -> Option<&'a str> {
    headers?.get_last(name).map(HeaderValue::as_str)
}

/// All messages of a stream on the subjects of a filter, oldest first, page by page.
pub(crate) struct Pages {
    connection: Connection,
    stream: String,
    filter: String,
    /// Where the next page begins; `None`: there is no more.
    from: Option<u64>,
    /// The sequence of the newest message that was read; 0 before the first.
    upto: u64,
}

impl Pages {
    pub(crate) fn new(connection: &Connection, stream: String, filter: String) -> Self {
        Self { connection: connection.clone(), stream, filter, from: Some(1), upto: 0 }
    }

    /// The sequence of the newest message that was read; 0 before the first.
    pub(crate) const fn upto(&self) -> u64 {
        self.upto
    }

    /// The bodies of the next page; empty at the end.
    pub(crate) async fn next(&mut self) -> Result<Vec<Bytes>, GetError> {
        let Some(from) = self.from else { return Ok(Vec::new()) };
        let page =
            page_within(&self.connection, &self.stream, &self.filter, (from, PIECES_BYTES_MAX)).await?;
        let Page { messages, pending } = page;
        self.upto = messages.last().map_or(self.upto, |last| last.raw.sequence);
        self.from = messages.last().filter(|_| pending > 0).map(|last| last.raw.sequence + 1);
        Ok(messages.into_iter().map(|got| got.raw.body).collect())
    }
}
