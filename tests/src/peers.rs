//! Peers who are slow, silent, or hostile, as they are on a network: raw HTTP/1 and HTTP/2 on sockets of their own.

use std::{net::SocketAddr, time::Duration};

use axum::http::Request;
use h2::{RecvStream, SendStream, client::ResponseFuture};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
    time::timeout,
};

use crate::{Client, LIMIT};

/// Where a client's process listens.
pub fn address(client: &Client) -> SocketAddr {
    client.url().trim_start_matches("http://").parse().expect("an address")
}

/// A connection to this client's process that comes from this address of the machine.
pub async fn connect(client: &Client, from: &str) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from.parse().expect("an address"), 0))?;
    socket.connect(address(client)).await
}

/// What comes after these bytes, until the connection is closed.
pub async fn said(client: &Client, sent: &str) -> String {
    let mut stream = connect(client, "127.0.0.1").await.expect("a connection");
    stream.write_all(sent.as_bytes()).await.expect("sent");
    until_closed(&mut stream).await
}

/// What comes until the connection is closed, within the limit.
pub async fn until_closed(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // It may be reset, which is as good.
    drop(timeout(LIMIT, stream.read_to_end(&mut bytes)).await.expect("closed within the limit"));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends a byte again and again, until the connection is closed.
pub async fn drip(mut stream: TcpStream, every: Duration) {
    while stream.write_all(b"a").await.is_ok() {
        let closed = async {
            let mut buffer = [0; 64];
            while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
        };
        if timeout(every, closed).await.is_ok() {
            return;
        }
    }
}

/// An HTTP/2 connection whose peer does as it is told.
pub struct Http2 {
    sender: h2::client::SendRequest<axum::body::Bytes>,
    driver: JoinHandle<()>,
    authority: String,
}

/// A call that has begun.
pub struct Begun {
    pub response: ResponseFuture,
    pub body: SendStream<axum::body::Bytes>,
}

impl Http2 {
    /// A connection from this address that takes so many bytes of each answer before it is asked for more.
    pub async fn open(client: &Client, from: &str, window: u32) -> Option<Self> {
        let stream = connect(client, from).await.ok()?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window).initial_max_send_streams(1_000);
        let (sender, connection) = builder.handshake(stream).await.ok()?;
        let driver = tokio::spawn(async move { drop(connection.await) });
        Some(Self { sender, driver, authority: address(client).to_string() })
    }

    /// Begins a call; its body is left open unless it `is_whole`.
    pub async fn begin(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        is_whole: bool,
    ) -> Option<Begun> {
        let uri = format!("http://{}{path}", self.authority);
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut ready = timeout(LIMIT, self.sender.clone().ready()).await.ok()?.ok()?;
        let request = request.body(()).expect("a request");
        let (response, body) = ready.send_request(request, is_whole).ok()?;
        Some(Begun { response, body })
    }

    pub fn is_open(&self) -> bool {
        !self.driver.is_finished()
    }

    /// Waits until the other side has ended the connection.
    pub async fn until_closed(&mut self) {
        drop(timeout(LIMIT, &mut self.driver).await.expect("closed within the limit"));
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The text of an answer's body.
pub async fn text(mut body: RecvStream) -> String {
    let mut bytes = Vec::new();
    while let Some(Ok(chunk)) = body.data().await {
        drop(body.flow_control().release_capacity(chunk.len()));
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads an answer's body to its end; whether it came whole.
pub async fn whole(mut body: RecvStream) -> bool {
    while let Some(chunk) = body.data().await {
        let Ok(chunk) = chunk else { return false };
        drop(body.flow_control().release_capacity(chunk.len()));
    }
    // What was reset says so last.
    body.trailers().await.is_ok()
}

/// How much [`dribble`] takes at a time, which is half of the window that a connection for it has: for less, HTTP/2
/// asks for no more.
const DRIBBLE_BYTES: usize = 512;
/// The window of a connection whose answers are read by [`dribble`].
pub const DRIBBLE_WINDOW: u32 = 1_024;

/// Takes a little of an answer every so often, and so always reads; whether it came whole.
pub async fn dribble(mut body: RecvStream, every: Duration) -> bool {
    let mut held = 0;
    loop {
        match body.data().await {
            None => return body.trailers().await.is_ok(),
            Some(Err(_)) => return false,
            Some(Ok(chunk)) => held += chunk.len(),
        }
        while held >= DRIBBLE_BYTES {
            drop(body.flow_control().release_capacity(DRIBBLE_BYTES));
            held -= DRIBBLE_BYTES;
            tokio::time::sleep(every).await;
        }
    }
}

/// Reads an answer until these words came; `false` if it ended before, or they do not come within the limit.
pub async fn until_said(body: &mut RecvStream, words: &str) -> bool {
    let mut bytes = Vec::new();
    let reading = async {
        while let Some(Ok(chunk)) = body.data().await {
            drop(body.flow_control().release_capacity(chunk.len()));
            bytes.extend_from_slice(&chunk);
            if String::from_utf8_lossy(&bytes).contains(words) {
                return true;
            }
        }
        false
    };
    timeout(LIMIT, reading).await.unwrap_or(false)
}

/// The type of the frame by which a connection is told to end (RFC 9113 §6.8).
pub const GOAWAY: u8 = 7;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
/// The flags of a frame of header fields that are all there, of a call without a body.
const WHOLE: u8 = 0x5;
const FRAME_HEAD_BYTES: usize = 9;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("a short frame");
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// What an HTTP/2 connection begins with.
pub fn http2_begin() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat()
}

/// The first call of an HTTP/2 connection, its fields as literals without an index (RFC 7541 §6.2.2).
pub fn http2_get(path: &str, authority: &str) -> Vec<u8> {
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", authority), (":path", path)];
    let text = |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    let block = fields.map(|(name, value)| [vec![0], text(name), text(value)].concat()).concat();
    frame(HEADERS, WHOLE, 1, &block)
}

/// Reads on until a frame of this type is whole in `read`; `false` if the connection ended before.
pub async fn until_frame(stream: &mut TcpStream, read: &mut Vec<u8>, kind: u8) -> bool {
    let has = |read: &[u8]| {
        let mut rest = read;
        while let Some((head, after)) = rest.split_at_checked(FRAME_HEAD_BYTES) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let Some((_, next)) = after.split_at_checked(length) else { return false };
            if head[3] == kind {
                return true;
            }
            rest = next;
        }
        false
    };
    until(stream, read, has).await
}

/// Reads on until these bytes came; `false` if the connection ended before.
pub async fn until_bytes(stream: &mut TcpStream, read: &mut Vec<u8>, wanted: &[u8]) -> bool {
    until(stream, read, |read| read.windows(wanted.len()).any(|bytes| bytes == wanted)).await
}

async fn until(stream: &mut TcpStream, read: &mut Vec<u8>, has: impl Fn(&[u8]) -> bool) -> bool {
    let reading = async {
        while !has(read) {
            if stream.read_buf(read).await.map_or(true, |count| count == 0) {
                return false;
            }
        }
        true
    };
    timeout(LIMIT, reading).await.unwrap_or(false)
}
