//! A link between clients and their nats-server on which single things go wrong, as they do where connections break and
//! come back: what is lost is named by the test, and everything else passes as it is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinHandle,
};

/// What goes wrong.
#[derive(Default)]
struct Faults {
    /// Messages of pages, each lost once: of which stream, at which sequence.
    lost: Vec<(String, u64)>,
    /// Pages of the partitions' streams are lost altogether.
    no_pages: bool,
    /// How many descriptions of streams are lost.
    infos_lost: usize,
    /// Clients of this name are not let in.
    refused: Option<String>,
}

/// A link that is open until the test ends.
pub struct Link {
    url: String,
    faults: Arc<Mutex<Faults>>,
    task: JoinHandle<()>,
}

/// A message on its way to a client.
struct Frame {
    bytes: Vec<u8>,
    headers: String,
}

impl Link {
    /// To the server at this address.
    pub async fn to(server: &str) -> Self {
        let server = server.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("nats://{}", listener.local_addr().expect("an address"));
        let faults = Arc::new(Mutex::new(Faults::default()));
        let shared = Arc::clone(&faults);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(join(client, server.clone(), Arc::clone(&shared)));
            }
        });
        Self { url, faults, task }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Loses the message that this stream has at this sequence, the next time that it comes in a page.
    pub fn lose(&self, stream: &str, sequence: u64) {
        lock(&self.faults).lost.push((stream.to_owned(), sequence));
    }

    /// What was to be lost and was not yet.
    pub fn left_to_lose(&self) -> usize {
        lock(&self.faults).lost.len()
    }

    /// Whether the partitions' pages are lost from now on.
    pub fn lose_pages(&self, are_lost: bool) {
        lock(&self.faults).no_pages = are_lost;
    }

    /// Loses the next description of a stream.
    pub fn lose_info(&self) {
        lock(&self.faults).infos_lost += 1;
    }

    /// How many descriptions of streams are still to be lost.
    pub fn infos_left_to_lose(&self) -> usize {
        lock(&self.faults).infos_lost
    }

    /// Lets no client of this name in, or everybody again.
    pub fn refuse(&self, name: Option<&str>) {
        lock(&self.faults).refused = name.map(str::to_owned);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(faults: &Mutex<Faults>) -> MutexGuard<'_, Faults> {
    faults.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Faults {
    fn loses(&mut self, frame: &Frame) -> bool {
        let value = |name: &str| {
            let mut values = frame.headers.lines().filter_map(|line| line.strip_prefix(name));
            values.next_back().and_then(|value| value.strip_prefix(": ")).unwrap_or_default().to_owned()
        };
        let is_of_page = !value("Nats-Num-Pending").is_empty();
        let (stream, sequence) = (value("Nats-Stream"), value("Nats-Sequence").parse().unwrap_or(0));
        if is_of_page && self.no_pages && stream.starts_with("ORDERS-") {
            return true;
        }
        if is_of_page && let Some(at) = self.lost.iter().position(|lost| *lost == (stream.clone(), sequence))
        {
            self.lost.remove(at);
            return true;
        }
        let is_info = String::from_utf8_lossy(&frame.bytes).contains("jetstream.api.v1.stream_info_response");
        let is_lost = is_info && self.infos_lost > 0;
        self.infos_lost -= usize::from(is_lost);
        is_lost
    }
}

async fn join(client: TcpStream, server: String, faults: Arc<Mutex<Faults>>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = up(from_client, to_server, &faults) => {}
        () = down(from_server, to_client, &faults) => {}
    }
}

/// Passes on what a client says; its first line says its name.
async fn up(from: OwnedReadHalf, mut to: OwnedWriteHalf, faults: &Mutex<Faults>) {
    let (mut from, mut first) = (BufReader::new(from), Vec::new());
    if from.read_until(b'\n', &mut first).await.is_err() {
        return;
    }
    let text = String::from_utf8_lossy(&first).into_owned();
    let is_refused =
        lock(faults).refused.as_ref().is_some_and(|name| text.contains(&format!("\"name\":\"{name}\"")));
    if !is_refused && to.write_all(&first).await.is_ok() {
        // However it ends, the other direction ends with it.
        drop(tokio::io::copy(&mut from, &mut to).await);
    }
}

/// Passes on what the server says, message by message.
async fn down(from: OwnedReadHalf, mut to: OwnedWriteHalf, faults: &Mutex<Faults>) {
    let mut from = BufReader::new(from);
    while let Some(frame) = frame(&mut from).await {
        let is_lost = lock(faults).loses(&frame);
        if !is_lost && to.write_all(&frame.bytes).await.is_err() {
            return;
        }
    }
}

async fn frame(from: &mut BufReader<OwnedReadHalf>) -> Option<Frame> {
    let mut bytes = Vec::new();
    if from.read_until(b'\n', &mut bytes).await.ok()? == 0 {
        return None;
    }
    let line = String::from_utf8_lossy(&bytes).into_owned();
    let (is_message, has_headers) = (line.starts_with("MSG "), line.starts_with("HMSG "));
    if !is_message && !has_headers {
        return Some(Frame { bytes, headers: String::new() });
    }
    let mut sizes = line.split_whitespace().rev().map(|size| size.parse().unwrap_or(0_usize));
    let (whole, of_headers) = (sizes.next()?, sizes.next()?);
    let mut rest = vec![0; whole + 2];
    from.read_exact(&mut rest).await.ok()?;
    let headers = if has_headers {
        String::from_utf8_lossy(rest.get(..of_headers)?).into_owned()
    } else {
        String::new()
    };
    bytes.extend(rest);
    Some(Frame { bytes, headers })
}
