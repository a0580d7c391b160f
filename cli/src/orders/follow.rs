//! `twelve orders follow`: the live stream of an order, a customer or a store, resumed where it broke off.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use futures::StreamExt as _;
use reqwest::{Method, Response, header::ACCEPT};
use serde_json::{Value, json};
use service::process;
use tokio::time::{sleep, timeout};

use crate::{
    rest::{Answer, Rest, RestSettings},
    terminal,
};

/// The platform sends a line at least every 15 s; a stream that is silent for longer is broken.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// How long the platform may take to begin a stream.
const BEGIN_MAX: Duration = Duration::from_secs(30);
/// Before a stream that broke off is begun again.
const RESUME_PAUSE: Duration = Duration::from_secs(1);
/// Times in a row that a stream is begun again without hearing anything.
const RESUMES_MAX: u32 = 30;
/// The largest event, in bytes: the page that a live list begins with.
const EVENT_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Args, Clone, Debug)]
pub(super) struct Settings {
    /// The order's id
    #[arg(required_unless_present_any = ["customer", "store"])]
    order: Option<String>,
    /// All orders of this customer
    #[arg(long, value_name = "ID", conflicts_with_all = ["order", "store"])]
    customer: Option<String>,
    /// All orders of this store
    #[arg(long, value_name = "ID", conflicts_with = "order")]
    store: Option<String>,
    /// End once the order has this status
    #[arg(long, value_name = "STATUS", requires = "order")]
    until: Option<String>,
    /// As JSON, one event a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    rest: RestSettings,
}

pub(super) async fn run(settings: Settings) -> anyhow::Result<()> {
    let stop = process::stop_on_signal()?;
    let segments = match (&settings.order, &settings.customer, &settings.store) {
        (Some(order), _, _) => vec!["orders", order, "live"],
        (None, Some(customer), _) => vec!["customers", customer, "orders", "live"],
        (None, None, Some(store)) => vec!["stores", store, "orders", "live"],
        (None, None, None) => anyhow::bail!("name an order, --customer or --store"),
    };
    let path = super::target(&segments, &[])?;
    let rest = settings.rest.open()?;
    tokio::select! {
        followed = follow(&settings, &rest, &path) => followed,
        () = stop.cancelled() => Ok(()),
    }
}

async fn follow(settings: &Settings, rest: &Rest, path: &str) -> anyhow::Result<()> {
    let (mut last_id, mut resumes) = (None::<String>, 0);
    loop {
        match begin(rest, path, last_id.as_deref()).await {
            Ok(mut live) => {
                while let Some(event) = live.next().await {
                    resumes = 0;
                    last_id = event.id.clone().or(last_id);
                    if event.name != "dropped" && tell(settings, &event) {
                        return Ok(());
                    }
                }
            }
            // It was there before: it may be restarting.
            Err(error) if last_id.is_some() && resumes < RESUMES_MAX => {
                tracing::debug!(error = %format!("{error:#}"), "the live stream cannot be resumed yet");
            }
            Err(error) => return Err(error),
        }
        resumes += 1;
        anyhow::ensure!(
            resumes <= RESUMES_MAX,
            "{path} ends whenever it is begun; {RESUMES_MAX} times in a row"
        );
        sleep(RESUME_PAUSE).await;
    }
}

async fn begin(rest: &Rest, path: &str, last_id: Option<&str>) -> anyhow::Result<Live> {
    let mut request = rest.request(Method::GET, path).header(ACCEPT, "text/event-stream");
    if let Some(id) = last_id {
        request = request.header("Last-Event-ID", id);
    }
    let response =
        timeout(BEGIN_MAX, rest.send(request)).await.context("the live stream does not begin")??;
    if response.status().is_success() {
        return Ok(Live::new(response));
    }
    anyhow::bail!("{path} is not followed: {}", Answer::read(response).await?.explain())
}

/// Prints an event; whether it was the last one that is wanted.
fn tell(settings: &Settings, event: &Event) -> bool {
    if settings.json {
        println!("{}", json!({ "event": event.name, "id": event.id, "data": event.data }));
    } else if event.name == "change" {
        let order =
            if settings.order.is_some() { "" } else { event.data["order_id"].as_str().unwrap_or_default() };
        println!("{}", format!("{order}  {}", super::change(&event.data)).trim_start());
    } else {
        let entries = event.data["timeline"].as_array().into_iter().flatten();
        entries.for_each(|entry| println!("{}", super::change(entry)));
        event.data["items"]
            .as_array()
            .into_iter()
            .flatten()
            .for_each(|item| println!("{}", super::row(item)));
    }
    let status = event.data["status"].as_str();
    terminal::is_closed() || (settings.until.is_some() && settings.until.as_deref() == status)
}

/// One Server-Sent Event.
struct Event {
    name: String,
    id: Option<String>,
    data: Value,
}

/// A live stream that is being read.
struct Live {
    bytes: futures::stream::BoxStream<'static, reqwest::Result<Vec<u8>>>,
    buffer: Vec<u8>,
    /// What of the buffer holds no end of an event.
    searched: usize,
}

impl Live {
    fn new(response: Response) -> Self {
        let bytes = response.bytes_stream().map(|chunk| chunk.map(|chunk| chunk.to_vec()));
        Self { bytes: bytes.boxed(), buffer: Vec::new(), searched: 0 }
    }

    /// The next event; `None` once the stream ended, broke off, or was silent for too long.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let end = self.buffer[self.searched..].windows(2).position(|two| two == b"\n\n");
            if let Some(end) = end {
                let block: Vec<u8> = self.buffer.drain(..self.searched + end + 2).collect();
                self.searched = 0;
                if let Some(event) = parse(&String::from_utf8_lossy(&block)) {
                    return Some(event);
                }
                continue;
            }
            self.searched = self.buffer.len().saturating_sub(1);
            let chunk = timeout(SILENCE_MAX, self.bytes.next()).await.ok()??.ok()?;
            self.buffer.extend(chunk);
            if self.buffer.len() > EVENT_BYTES_MAX {
                return None;
            }
        }
    }
}

/// Reads an event; `None` for a comment, which only says that the stream lives.
fn parse(block: &str) -> Option<Event> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    Some(Event {
        name: field("event:")?.to_owned(),
        id: field("id:").map(ToOwned::to_owned),
        data: serde_json::from_str(field("data:")?).ok()?,
    })
}
