//! Bodies of calls as they come: a call is worked on once its body is there.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
};
use futures::StreamExt;
use tokio::time::{Instant, sleep, timeout_at};
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
    count: usize,
    /// Of each caller, by age.
    of_each: HashMap<Arc<str>, BTreeMap<u64, Arriving>>,
}

/// A body that is coming.
struct Arriving {
    bytes: usize,
    given_up: CancellationToken,
}

impl Coming {
    /// Forgets one, and says what gives it up.
    fn remove(&mut self, caller: &Arc<str>, number: u64) -> Option<CancellationToken> {
        let theirs = self.of_each.get_mut(caller)?;
        let Arriving { bytes, given_up } = theirs.remove(&number)?;
        if theirs.is_empty() {
            self.of_each.remove(caller);
        }
        self.count -= 1;
        self.bytes -= bytes;
        metrics::gauge!("twelve_bodies_bytes").decrement(in_metric(bytes));
        Some(given_up)
    }

    /// The oldest body of the caller of whom there is most.
    fn of_the_most<K: Ord>(&self, much: impl Fn(&BTreeMap<u64, Arriving>) -> K) -> Option<(Arc<str>, u64)> {
        let (caller, theirs) = self.of_each.iter().max_by_key(|(_, theirs)| much(theirs))?;
        Some((Arc::clone(caller), *theirs.first_key_value()?.0))
    }
}

impl Bodies {
    pub(crate) fn new(settings: &EdgeSettings) -> Self {
        Self { settings: settings.clone(), coming: Mutex::default() }
    }

    /// The call of this caller once its body is there, within its deadline.
    pub(crate) async fn whole(&self, request: Request, caller: &Arc<str>) -> Result<Request, Problem> {
        let (mut parts, body) = request.into_parts();
        let there = parts.extensions.remove::<BodyThere>();
        let body = if body.is_end_stream() { body } else { self.collect(body, caller).await?.into() };
        if let Some(BodyThere(tell)) = there {
            tell();
        }
        Ok(Request::from_parts(parts, body))
    }

    /// A call whose body goes on while it is answered, and ends once it has gone on for as long as a connection may be
    /// idle. Until its connection tells so, it is none that is worked on.
    pub(crate) fn until_idle(&self, request: Request) -> Request {
        let deadline = sleep(self.settings.idle_max());
        request.map(|body| Body::from_stream(body.into_data_stream().take_until(deadline)))
    }

    async fn collect(&self, body: Body, caller: &Arc<str>) -> Result<Bytes, Problem> {
        if body.size_hint().lower() > BYTES_MAX as u64 {
            return Err(too_large());
        }
        let deadline = Instant::now() + self.settings.body_within();
        let (number, given_up) = self.begin(caller);
        let _coming = Begun { bodies: self, caller, number };
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
                    self.came(caller, number, chunk.len());
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

    fn begin(&self, caller: &Arc<str>) -> (u64, CancellationToken) {
        let given_up = CancellationToken::new();
        let mut coming = self.coming();
        coming.ever += 1;
        coming.count += 1;
        let number = coming.ever;
        let arriving = Arriving { bytes: 0, given_up: given_up.clone() };
        coming.of_each.entry(Arc::clone(caller)).or_default().insert(number, arriving);
        self.keep_bounds(&mut coming);
        (number, given_up)
    }

    fn came(&self, caller: &Arc<str>, number: u64, count: usize) {
        let mut coming = self.coming();
        let theirs = coming.of_each.get_mut(caller);
        if let Some(arriving) = theirs.and_then(|theirs| theirs.get_mut(&number)) {
            arriving.bytes += count;
            coming.bytes += count;
            metrics::gauge!("twelve_bodies_bytes").increment(in_metric(count));
        }
        self.keep_bounds(&mut coming);
    }

    /// Gives bodies up until the rest is within the bounds: of the caller of whom there is most, the oldest first. So
    /// who begins many makes room for those who begin few.
    fn keep_bounds(&self, coming: &mut Coming) {
        let bytes_max = usize::try_from(self.settings.bodies_bytes_max).unwrap_or(usize::MAX);
        let most = usize::try_from(self.settings.bodies_max).unwrap_or(usize::MAX);
        loop {
            let next = if coming.bytes > bytes_max {
                let bytes = |theirs: &BTreeMap<u64, Arriving>| {
                    theirs.values().map(|arriving| arriving.bytes).sum::<usize>()
                };
                coming.of_the_most(bytes)
            } else if coming.count > most {
                coming.of_the_most(BTreeMap::len)
            } else {
                return;
            };
            let Some((caller, number)) = next else { return };
            if let Some(given_up) = coming.remove(&caller, number) {
                given_up.cancel();
            }
        }
    }
}

/// A body that is coming, until it is there or given up.
struct Begun<'a> {
    bodies: &'a Bodies,
    caller: &'a Arc<str>,
    number: u64,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        drop(self.bodies.coming().remove(self.caller, self.number));
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
    let detail = "too many bodies are on their way, and most of them are yours; nothing was done, try again";
    closing(Problem::unavailable(Code::Overloaded, detail, RETRY_AFTER_S))
}

/// The rest of the body is not read: over HTTP/1 nothing can follow it.
fn closing(problem: Problem) -> Problem {
    problem.with_header("connection", "close")
}
