//! No caller takes everything: calls a second for each caller, and calls in progress for all of them together.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use clap::Args;
use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};
use ipnet::IpNet;

use crate::{problem::Problem, request::Caller};

/// Calls after which callers who have not called for long are forgotten.
const FORGET_EVERY: u64 = 10_000;
/// Seconds after which a call may be tried again when too many are in progress.
const RETRY_AFTER_S: u64 = 1;
const FORWARDED_FOR: &str = "x-forwarded-for";

/// How much callers may ask for.
#[derive(Args, Clone, Debug)]
pub struct LimitSettings {
    /// Calls a second that one caller may make on average, by token, or by address where nobody is asked for one; 0:
    /// any number
    #[arg(long, env = "TWELVE_CALLS_PER_SECOND", value_name = "N", default_value_t = 0)]
    pub calls_per_second: u32,
    /// Calls that one caller may make at once, above that average
    #[arg(long, env = "TWELVE_CALLS_AT_ONCE", value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub calls_at_once: u32,
    /// Calls of all callers that may be in progress, live streams not counted; more are refused with 503
    #[arg(long, env = "TWELVE_CALLS_IN_PROGRESS_MAX", value_name = "N", default_value_t = 2_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub calls_in_progress_max: u32,
    /// Whose X-Forwarded-For is believed: the addresses of the gateway
    #[arg(long, env = "TWELVE_TRUSTED_PROXIES", value_name = "NET,…", value_delimiter = ',')]
    pub trusted_proxies: Vec<IpNet>,
}

type Rates = RateLimiter<String, DashMapStateStore<String>, DefaultClock, StateInformationMiddleware>;

struct Limits {
    rates: Option<Rates>,
    quota: Quota,
    calls: AtomicU64,
    in_progress: AtomicUsize,
    in_progress_max: usize,
    trusted: Vec<IpNet>,
}

/// Puts the limits around these routes. Each router that is limited has a count of calls in progress of its own, so
/// that a flood of queries leaves room for commands.
pub fn limited(router: Router, settings: &LimitSettings) -> Router {
    let at_once = NonZeroU32::new(settings.calls_at_once).unwrap_or(NonZeroU32::MIN);
    let per_second = NonZeroU32::new(settings.calls_per_second);
    let quota = Quota::per_second(per_second.unwrap_or(NonZeroU32::MIN)).allow_burst(at_once);
    let limits = Limits {
        rates: per_second
            .map(|_| RateLimiter::dashmap(quota).with_middleware::<StateInformationMiddleware>()),
        quota,
        calls: AtomicU64::new(0),
        in_progress: AtomicUsize::new(0),
        in_progress_max: usize::try_from(settings.calls_in_progress_max).unwrap_or(usize::MAX),
        trusted: settings.trusted_proxies.clone(),
    };
    router.layer(middleware::from_fn_with_state(Arc::new(limits), check))
}

/// A call in progress, counted until it is answered or given up.
struct InProgress(Arc<Limits>);

impl InProgress {
    fn begin(limits: &Arc<Limits>) -> Option<Self> {
        if limits.in_progress.fetch_add(1, Ordering::AcqRel) < limits.in_progress_max {
            return Some(Self(Arc::clone(limits)));
        }
        limits.in_progress.fetch_sub(1, Ordering::AcqRel);
        None
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.in_progress.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn check(State(limits): State<Arc<Limits>>, request: Request, next: Next) -> Response {
    let told = match limits.rate(&request) {
        Ok(told) => told,
        Err(problem) => {
            metrics::counter!("twelve_refused_total", "why" => "rate").increment(1);
            return problem.into_response();
        }
    };
    let Some(_in_progress) = InProgress::begin(&limits) else {
        metrics::counter!("twelve_refused_total", "why" => "in_progress").increment(1);
        let detail = "too many calls are in progress; nothing was done, try again";
        return Problem::unavailable("overloaded", detail, RETRY_AFTER_S).into_response();
    };
    let mut response = next.run(request).await;
    for (name, value) in told.into_iter().flatten() {
        response.headers_mut().insert(name, value);
    }
    response
}

type Told = Option<[(HeaderName, HeaderValue); 2]>;

impl Limits {
    /// What the caller is told of their rate; a refusal where it is exceeded.
    fn rate(&self, request: &Request) -> Result<Told, Problem> {
        let Some(rates) = &self.rates else { return Ok(None) };
        if self.calls.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            rates.retain_recent();
        }
        let (policy, second) = (self.policy(), Duration::from_secs(1));
        match rates.check_key(&self.who(request)) {
            Ok(state) => Ok(headers(&policy, state.remaining_burst_capacity(), second)),
            Err(not_until) => {
                let wait = not_until.wait_time_from(DefaultClock::default().now());
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                let detail =
                    format!("more than {} calls a second; nothing was done", self.quota_per_second());
                let problem = Problem::too_many(detail, seconds);
                let told = headers(&policy, 0, Duration::from_secs(seconds.max(1)));
                Err(told
                    .into_iter()
                    .flatten()
                    .fold(problem, |problem, (name, value)| problem.with_value(name, value)))
            }
        }
    }

    fn quota_per_second(&self) -> u64 {
        let each = self.quota.replenish_interval().as_nanos().max(1);
        u64::try_from(1_000_000_000 / each).unwrap_or(u64::MAX)
    }

    /// The rate in the words of the IETF's draft on `RateLimit` header fields.
    fn policy(&self) -> String {
        let burst = u64::from(self.quota.burst_size().get());
        let window = burst.div_ceil(self.quota_per_second().max(1)).max(1);
        format!("\"caller\";q={burst};w={window}")
    }

    /// Whose calls are counted together.
    fn who(&self, request: &Request) -> String {
        let person = request.extensions().get::<Caller>().and_then(|caller| caller.person.clone());
        if let Some(person) = person {
            return format!("person {}", person.id);
        }
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        peer.map_or_else(String::new, |peer| address(peer, request.headers(), &self.trusted).to_string())
    }
}

/// Where a call comes from: the last address that a proxy which is believed put before its own.
fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let told = headers.get_all(FORWARDED_FOR).into_iter().filter_map(|value| value.to_str().ok());
    let told: Vec<IpAddr> =
        told.flat_map(|value| value.split(',')).map_while(|address| address.trim().parse().ok()).collect();
    let mut from = peer;
    for address in told.into_iter().rev() {
        if !is_trusted(&from) {
            break;
        }
        from = address;
    }
    from
}

fn headers(policy: &str, remaining: u32, reset: Duration) -> Told {
    let state = format!("\"caller\";r={remaining};t={}", reset.as_secs());
    let value = |text: &str| HeaderValue::from_str(text).ok();
    Some([
        (HeaderName::from_static("ratelimit-policy"), value(policy)?),
        (HeaderName::from_static("ratelimit"), value(&state)?),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(peer: &str, forwarded: &'static str, trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED_FOR, HeaderValue::from_static(forwarded));
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_a_proxy_that_is_trusted_says_where_a_call_comes_from() {
        assert_eq!(from("203.0.113.9", "10.9.9.9", &[]), "203.0.113.9");
        assert_eq!(from("10.0.0.2", "198.51.100.7", &["10.0.0.0/8"]), "198.51.100.7");
        assert_eq!(
            from("10.0.0.2", "1.1.1.1, 198.51.100.7", &["10.0.0.0/8"]),
            "198.51.100.7",
            "what a caller adds"
        );
        assert_eq!(
            from("10.0.0.2", "198.51.100.7, 10.0.0.3", &["10.0.0.0/8"]),
            "198.51.100.7",
            "two proxies"
        );
        assert_eq!(from("10.0.0.2", "nonsense", &["10.0.0.0/8"]), "10.0.0.2");
    }
}
