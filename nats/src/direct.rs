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
/// Bytes after which a page ends, so that a page of large messages overruns no buffer on its way.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
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
}

/// The stream's messages on the subjects of `filter`, from sequence `from` on. A replica may answer, and be behind.
pub(crate) async fn page(
    connection: &Connection,
    stream: &str,
    filter: &str,
    from: u64,
) -> Result<Page, GetError> {
    let unsent = |source: Failure| GetError::Unsent { stream: stream.to_owned(), source };
    let client = &connection.shared.client;
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| unsent(error.into()))?;
    let ask = json!({
        "seq": from.max(1), "batch": PAGE_MESSAGES_MAX, "max_bytes": PAGE_BYTES_MAX, "next_by_subj": filter,
    });
    let asked =
        client.publish_with_reply(format!("$JS.API.DIRECT.GET.{stream}"), inbox, ask.to_string().into());
    asked.await.map_err(|error| unsent(error.into()))?;
    let mut page = Page::default();
    loop {
        let answer = timeout(SERVER_TIMEOUT, answers.next()).await;
        let answer = answer.map_err(|_| GetError::Late { stream: stream.to_owned() })?;
        let answer = answer.ok_or_else(|| GetError::Closed { stream: stream.to_owned() })?;
        match answer.status.map(|status| status.as_u16()) {
            None => page.messages.push(got(answer)),
            Some(404) => return Ok(page),
            Some(204) => {
                page.pending = number(answer.headers.as_ref(), "Nats-Num-Pending");
                return Ok(page);
            }
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

/// Where a message was stored, as the server says in its headers; 0 if it does not.
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
}

impl Pages {
    pub(crate) fn new(connection: &Connection, stream: String, filter: String) -> Self {
        Self { connection: connection.clone(), stream, filter, from: Some(1) }
    }

    /// The bodies of the next page; empty at the end.
    pub(crate) async fn next(&mut self) -> Result<Vec<Bytes>, GetError> {
        let Some(from) = self.from else { return Ok(Vec::new()) };
        let Page { messages, pending } = page(&self.connection, &self.stream, &self.filter, from).await?;
        self.from = messages.last().filter(|_| pending > 0).map(|last| last.raw.sequence + 1);
        Ok(messages.into_iter().map(|got| got.raw.body).collect())
    }
}
