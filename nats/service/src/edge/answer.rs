//! An answer on its way: its bytes are counted from when they are made until the socket has them.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes, HttpBody};
use bytes::Buf;
use http_body::{Frame, SizeHint};

use super::{connection::Call, connections::Connections};

/// The body of an answer.
pub(super) struct Answer {
    body: Body,
    call: Arc<Call>,
    connections: Arc<Connections>,
    /// Whether it is not known how long it will be, so that room for it was not asked for.
    is_open: bool,
}

/// There is no room for what the peer would leave unread.
const CROWDED: &str = "too many answers wait for their callers to read them";

impl Answer {
    pub(super) fn new(body: Body, call: Arc<Call>, connections: Arc<Connections>) -> Self {
        let is_open = body.size_hint().exact().is_none();
        Self { body, call, connections, is_open }
    }
}

impl HttpBody for Answer {
    type Data = Piece;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
        if self.is_open && bytes > 0 && !self.connections.has_room_for(bytes, &self.call.connection) {
            metrics::counter!("twelve_refused_total", "why" => "unread").increment(1);
            return Poll::Ready(Some(Err(axum::Error::new(io::Error::other(CROWDED)))));
        }
        let call = &self.call;
        Poll::Ready(frame.map(|frame| Ok(frame?.map_data(|bytes| Piece::new(bytes, Arc::clone(call))))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes of an answer that wait for the peer.
pub(super) struct Piece {
    bytes: Bytes,
    call: Arc<Call>,
}

impl Piece {
    fn new(bytes: Bytes, call: Arc<Call>) -> Self {
        call.waits(bytes.len());
        Self { bytes, call }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.call.went(count);
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.call.went(self.bytes.remaining());
    }
}
