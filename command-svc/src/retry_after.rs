//! `Retry-After` (RFC 9110 §10.2.3): a service that says when to call again is not called before.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use domain::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::{
    StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};
use tokio::time::Instant;

/// The longest that is waited, whatever the answer says: a wrong clock must not silence a provider for a day.
pub const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);

/// Until when a peer asked not to be called; clones share it.
#[derive(Clone, Debug, Default)]
pub struct RetryAfter {
    until: Arc<Mutex<Option<Instant>>>,
}

impl RetryAfter {
    /// How long the peer is not to be called yet; `None` if it may be called now.
    pub fn time_left(&self) -> Option<Duration> {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let left = until?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Keeps what an answer of a peer that cannot serve now says; answers with how long that is.
    pub fn record(&self, status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
        if status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error() {
            return None;
        }
        let told = headers.get(RETRY_AFTER)?.to_str().ok().and_then(|text| parse(text.trim(), now))?;
        let pause = told.min(RETRY_AFTER_MAX);
        let until = Instant::now() + pause;
        let mut kept = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(kept.map_or(until, |kept| kept.max(until)));
        Some(pause)
    }
}

/// Seconds, or a date as HTTP writes it; `None` for what is neither, or past.
fn parse(text: &str, now: Timestamp) -> Option<Duration> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let at = DateTimeParser::new().parse_timestamp(text).ok()?;
    Duration::try_from(at.duration_since(now)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read_and_what_is_neither_is_not() {
        let now: Timestamp = "1994-11-06T08:49:07Z".parse().unwrap();
        assert_eq!(parse("120", now), Some(Duration::from_mins(2)));
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(parse("99999999999999999999", now), Some(Duration::from_secs(u64::MAX)));
        for wrong in ["", "soon", "-1", "1.5", "Sat, 05 Nov 1994 08:49:37 GMT"] {
            assert_eq!(parse(wrong, now), None, "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_peer_that_cannot_serve_now_is_left_alone_and_no_longer_than_the_limit() {
        let said = |seconds: &'static str| HeaderMap::from_iter([(RETRY_AFTER, seconds.parse().unwrap())]);
        let now = Timestamp::UNIX_EPOCH;
        let peer = RetryAfter::default();
        assert_eq!(peer.record(StatusCode::BAD_REQUEST, &said("9"), now), None);
        assert_eq!(peer.time_left(), None);
        peer.record(StatusCode::SERVICE_UNAVAILABLE, &said("9"), now);
        peer.record(StatusCode::TOO_MANY_REQUESTS, &said("3"), now);
        assert_eq!(peer.time_left(), Some(Duration::from_secs(9)), "the later of the two");
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(peer.time_left(), None);
        assert_eq!(peer.record(StatusCode::BAD_GATEWAY, &said("999999"), now), Some(RETRY_AFTER_MAX));
    }
}
