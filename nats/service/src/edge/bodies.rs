//! Bodies of calls as they come: a call is worked on once its body is there.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
};
use futures::StreamExt;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{EdgeSettings, connections::in_metric};
use crate::{
    grpc::CALL_BYTES_MAX,
    problem::{Code, Problem},
};

/// What a call has around its message by gRPC: its length, and whether it is packed.
const FRAME_BYTES: usize = 5;
/// Bytes of a body that are read at all. Who is a little over the limit is told so by the route.
const BYTES_MAX: usize = 2 * CALL_BYTES_MAX + FRAME_BYTES;
const RETRY_AFTER_S: u64 = 1;

/// Tells the connection that a call's body is there.
#[derive(Clone)]
pub(crate) struct BodyThere(pub(super) Arc<dyn Fn() + Send + Sync>);

/// Bodies that are not whole yet.
pub(crate) struct Bodies {
    settings: EdgeSettings,
    coming: Mutex<Coming>,
}

#[derive(Default)]
struct Coming {
    ever: u64,
    bytes: usize,
    /// By age: the bytes that came, and what gives the body up.
    all: BTreeMap<u64, (usize, CancellationToken)>,
}

impl Coming {
    fn went(&mut self, bytes: usize) {
        self.bytes -= bytes;
        metrics::gauge!("twelve_bodies_bytes").decrement(in_metric(bytes));
    }
}

impl Bodies {
    pub(crate) fn new(settings: &EdgeSettings) -> Self {
        Self { settings: settings.clone(), coming: Mutex::default() }
    }

    /// The call once its body is there, within its deadline.
    pub(crate) async fn whole(&self, request: Request) -> Result<Request, Problem> {
        let (mut parts, body) = request.into_parts();
        let there = parts.extensions.remove::<BodyThere>();
        let body = if body.is_end_stream() { body } else { self.collect(body).await?.into() };
        if let Some(BodyThere(tell)) = there {
            tell();
        }
        Ok(Request::from_parts(parts, body))
    }

    async fn collect(&self, body: Body) -> Result<Bytes, Problem> {
        if body.size_hint().lower() > BYTES_MAX as u64 {
            return Err(too_large());
        }
        let deadline = Instant::now() + self.settings.body_within();
        let (number, given_up) = self.begin();
        let _coming = Begun { bodies: self, number };
        let mut frames = body.into_data_stream();
        let mut bytes = Vec::new();
        loop {
            let next = tokio::select! {
                next = timeout_at(deadline, frames.next()) => next,
                () = given_up.cancelled() => return Err(crowded()),
            };
            match next {
                Ok(Some(Ok(chunk))) => {
                    if bytes.len() + chunk.len() > BYTES_MAX {
                        return Err(too_large());
                    }
                    bytes.extend_from_slice(&chunk);
                    self.came(number, chunk.len());
                }
                Ok(None) => return Ok(bytes.into()),
                Ok(Some(Err(_))) => return Err(Problem::malformed("the body could not be received")),
                Err(_) => return Err(late(self.settings.body_within_ms)),
            }
        }
    }

    fn coming(&self) -> MutexGuard<'_, Coming> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> (u64, CancellationToken) {
        let given_up = CancellationToken::new();
        let mut coming = self.coming();
        coming.ever += 1;
        let number = coming.ever;
        coming.all.insert(number, (0, given_up.clone()));
        self.keep_bounds(&mut coming);
        (number, given_up)
    }

    fn came(&self, number: u64, count: usize) {
        let mut coming = self.coming();
        if let Some((bytes, _)) = coming.all.get_mut(&number) {
            *bytes += count;
            coming.bytes += count;
            metrics::gauge!("twelve_bodies_bytes").increment(in_metric(count));
        }
        self.keep_bounds(&mut coming);
    }

    /// Gives those up that began first, until the rest is within the bounds.
    fn keep_bounds(&self, coming: &mut Coming) {
        let bytes_max = usize::try_from(self.settings.bodies_bytes_max).unwrap_or(usize::MAX);
        let most = usize::try_from(self.settings.bodies_max).unwrap_or(usize::MAX);
        while (coming.bytes > bytes_max || coming.all.len() > most)
            && let Some((_, (bytes, given_up))) = coming.all.pop_first()
        {
            coming.went(bytes);
            given_up.cancel();
        }
    }
}

/// A body that is coming, until it is there or given up.
struct Begun<'a> {
    bodies: &'a Bodies,
    number: u64,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let mut coming = self.bodies.coming();
        if let Some((bytes, _)) = coming.all.remove(&self.number) {
            coming.went(bytes);
        }
    }
}

fn refused(why: &'static str) {
    metrics::counter!("twelve_bodies_refused_total", "why" => why).increment(1);
}

fn too_large() -> Problem {
    refused("large");
    let detail = format!("a command's body has at most {CALL_BYTES_MAX} bytes");
    closing(Problem::new(Code::BodyTooLarge, detail))
}

fn late(within_ms: u64) -> Problem {
    refused("late");
    let detail = format!("the body did not come within {within_ms} ms; nothing was done");
    closing(Problem::new(Code::BodyLate, detail))
}

fn crowded() -> Problem {
    refused("crowded");
    let detail = "too many bodies are on their way, and this one began first; nothing was done, try again";
    closing(Problem::unavailable(Code::Overloaded, detail, RETRY_AFTER_S))
}

/// The rest of the body is not read: over HTTP/1 nothing can follow it.
fn closing(problem: Problem) -> Problem {
    problem.with_header("connection", "close")
}
