//! What is known of one connection: what it waits for, and since when.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{EdgeSettings, connections::Unread};

/// Why a connection was ended by us. The names are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// No call came, or its head did not end.
    Head,
    /// There was no call for long.
    Idle,
    /// An answer was not read.
    Unread,
    /// Others needed the place.
    Crowded,
    /// The process ended.
    Stopped,
}

impl Cut {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Idle => "idle",
            Self::Unread => "unread",
            Self::Crowded => "crowded",
            Self::Stopped => "stopped",
        }
    }
}

/// An open connection.
pub(super) struct Connection {
    pub(super) id: u64,
    /// Whose it is, where connections of one address are counted.
    pub(super) address: Option<IpAddr>,
    /// Ends it at once.
    pub(super) cut: CancellationToken,
    unread: Arc<Unread>,
    state: Mutex<State>,
}

struct State {
    /// Calls that are not answered, or whose answers are not read to their end.
    calls: usize,
    /// Those of them whose body is there.
    whole: usize,
    has_called: bool,
    /// Since when there is no call.
    idle_since: Instant,
    /// Since when the head of a call has been coming.
    head_since: Option<Instant>,
    is_http2: bool,
    /// Since when the socket takes nothing more.
    stuck_since: Option<Instant>,
    /// Of each call, what of its answer waits for the peer.
    answers: HashMap<u64, Waiting>,
    calls_ever: u64,
}

/// What of an answer waits for the peer.
struct Waiting {
    bytes: usize,
    /// Since when it would have been waiting if the peer had read all that it did at the least rate: that does not
    /// move where nothing is read, and is now where the peer reads as fast as that, or faster.
    since: Instant,
    /// Gives the answer up, and with it its call.
    given_up: CancellationToken,
}

/// What a connection's peer has not read.
pub(super) struct Holding {
    pub(super) bytes: usize,
    /// Since when, of its slowest answer.
    pub(super) since: Instant,
}

/// How much a connection would be missed; of the least, the one that has been idle longest.
pub(super) type Worth = (bool, Instant);

impl Connection {
    pub(super) fn new(id: u64, address: Option<IpAddr>, cut: CancellationToken, unread: Arc<Unread>) -> Self {
        let state = State {
            calls: 0,
            whole: 0,
            has_called: false,
            idle_since: Instant::now(),
            head_since: None,
            is_http2: false,
            stuck_since: None,
            answers: HashMap::new(),
            calls_ever: 0,
        };
        Self { id, address, cut, unread, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes came from the peer.
    pub(super) fn was_read(&self, is_http2: bool) {
        let mut state = self.state();
        state.is_http2 |= is_http2;
        if state.calls == 0 && state.head_since.is_none() {
            state.head_since = Some(Instant::now());
        }
    }

    /// The socket took bytes, or took none.
    pub(super) fn was_written(&self, is_stuck: bool) {
        let mut state = self.state();
        match (is_stuck, state.stuck_since) {
            (true, None) => state.stuck_since = Some(Instant::now()),
            (false, Some(_)) => state.stuck_since = None,
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// Why it is to be ended now, if it is. An answer that is not read ends its connection, also one that several calls
    /// share: what h2 has taken of an answer it keeps until the peer reads, whatever becomes of the call.
    pub(super) fn overdue(&self, settings: &EdgeSettings) -> Option<Cut> {
        let now = Instant::now();
        let is_over = |since: Instant, limit: Duration| now.duration_since(since) >= limit;
        let mut state = self.state();
        if state.stuck_since.is_some_and(|since| is_over(since, settings.unread_max())) {
            return Some(Cut::Unread);
        }
        if state.answers.values().any(|waiting| is_over(waiting.since, settings.unread_max())) {
            self.unread.remove(state.give_up(Cut::Unread));
            return Some(Cut::Unread);
        }
        if state.calls > 0 {
            return None;
        }
        // HTTP/2 has frames that belong to no call, and what came may be those.
        if !state.is_http2 {
            let first = (!state.has_called).then_some(state.idle_since);
            if first.or(state.head_since).is_some_and(|since| is_over(since, settings.head_within())) {
                return Some(Cut::Head);
            }
        }
        is_over(state.idle_since, settings.idle_max()).then_some(Cut::Idle)
    }

    /// Whether no call is in progress.
    pub(super) fn is_idle(&self) -> bool {
        self.state().calls == 0
    }

    /// How much it would be missed, unless a call of it is being worked on.
    pub(super) fn worth(&self) -> Option<Worth> {
        let state = self.state();
        (state.whole == 0).then_some((state.has_called, state.idle_since))
    }

    /// What of all its answers the peer has not read; `None` if that is nothing.
    pub(super) fn holding(&self) -> Option<Holding> {
        let state = self.state();
        let bytes = state.answers.values().map(|waiting| waiting.bytes).sum();
        let since = state.answers.values().map(|waiting| waiting.since).min()?;
        Some(Holding { bytes, since })
    }

    /// Gives all answers up that are not read, and the connection, for others.
    pub(super) fn give_up_unread(&self) {
        let bytes = self.state().give_up(Cut::Crowded);
        self.unread.remove(bytes);
        self.cut.cancel();
        super::connections::ended(Cut::Crowded);
    }
}

impl State {
    /// Gives all answers up that are not read: how many bytes of them waited.
    fn give_up(&mut self, why: Cut) -> usize {
        let mut bytes = 0;
        for (_, waiting) in self.answers.drain() {
            waiting.given_up.cancel();
            bytes += waiting.bytes;
            metrics::counter!("twelve_answers_cut_total", "why" => why.as_str()).increment(1);
        }
        bytes
    }
}

/// A call on a connection, from its head until its answer is read.
pub(super) struct Call {
    pub(super) connection: Arc<Connection>,
    number: u64,
    is_whole: Mutex<bool>,
    /// Ends the call and its answer, and nothing else of its connection.
    pub(super) given_up: CancellationToken,
}

impl Call {
    pub(super) fn begin(connection: &Arc<Connection>) -> Self {
        let mut state = connection.state();
        state.calls += 1;
        state.calls_ever += 1;
        state.head_since = None;
        let number = state.calls_ever;
        drop(state);
        let (is_whole, given_up) = (Mutex::new(false), CancellationToken::new());
        Self { connection: Arc::clone(connection), number, is_whole, given_up }
    }

    /// Its body is there: from now on it counts.
    pub(super) fn body_is_there(&self) {
        let mut is_whole = self.is_whole.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_whole {
            *is_whole = true;
            let mut state = self.connection.state();
            state.whole += 1;
            state.has_called = true;
        }
    }

    /// So many bytes of its answer wait for the peer.
    pub(super) fn waits(&self, bytes: usize) {
        let mut state = self.connection.state();
        if bytes == 0 || self.given_up.is_cancelled() {
            return;
        }
        let waiting = state.answers.entry(self.number).or_insert_with(|| Waiting {
            bytes: 0,
            since: Instant::now(),
            given_up: self.given_up.clone(),
        });
        waiting.bytes += bytes;
        drop(state);
        self.connection.unread.add(bytes);
    }

    /// So many bytes of its answer were handed to the socket, or are not to be.
    pub(super) fn went(&self, bytes: usize) {
        let mut state = self.connection.state();
        let rate = self.connection.unread.rate_min();
        // Of an answer that was given up, nothing waits any more.
        let Some(waiting) = state.answers.get_mut(&self.number) else { return };
        let went = bytes.min(waiting.bytes);
        waiting.bytes -= went;
        waiting.since = (waiting.since + took(went, rate)).min(Instant::now());
        if waiting.bytes == 0 {
            state.answers.remove(&self.number);
        }
        drop(state);
        self.connection.unread.remove(went);
    }
}

/// How long so many bytes take at so many a second.
fn took(bytes: usize, per_second: u32) -> Duration {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    Duration::from_secs(bytes.into()) / per_second.max(1)
}

impl Drop for Call {
    fn drop(&mut self) {
        let is_whole = *self.is_whole.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.connection.state();
        state.calls = state.calls.saturating_sub(1);
        state.whole = state.whole.saturating_sub(usize::from(is_whole));
        if state.calls == 0 {
            state.idle_since = Instant::now();
        }
    }
}
