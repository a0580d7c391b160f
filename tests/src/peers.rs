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
