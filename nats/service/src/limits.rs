//! No caller takes everything: calls a second for each caller, and calls in progress for all of them together.

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::{ConnectInfo, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
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
use http_body::{Frame, SizeHint};
use ipnet::IpNet;

use crate::{
    edge::{Bodies, Door, EdgeSettings},
    hosts::Hosts,
    origin,
    problem::Problem,
    request::Caller,
    shares::{AllShares, Bounds, CallerShares, Kind, Share},
};

/// Calls after which callers who have not called for long are forgotten.
const FORGET_EVERY: u64 = 10_000;

/// How much callers may ask for.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits of callers")]
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
    /// Calls of one caller that may be in progress; more are refused with 429. Where no tokens are asked for, the
    /// callers on this machine are told apart by nothing, and share them all
    #[arg(long, env = "TWELVE_CALLS_IN_PROGRESS_EACH_MAX", value_name = "N", default_value_t = 500,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub calls_in_progress_each_max: u32,
    /// Calls of all callers that may wait for a position or an outcome
    #[arg(long, env = "TWELVE_WAITS_MAX", value_name = "N", default_value_t = 1_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub waits_max: u32,
    /// Calls of one caller that may wait for a position or an outcome; more are refused with 429
    #[arg(long, env = "TWELVE_WAITS_EACH_MAX", value_name = "N", default_value_t = 200,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub waits_each_max: u32,
    /// Live streams of all callers
    #[arg(long, env = "TWELVE_LIVE_MAX", value_name = "N", default_value_t = 10_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub live_max: u32,
    /// Live streams of one caller; more are refused with 429. Where no tokens are asked for, the callers on this
    /// machine share them all
    #[arg(long, env = "TWELVE_LIVE_EACH_MAX", value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub live_each_max: u32,
    /// Queries of all callers that may look at a moment of the past (`as_of`)
    #[arg(long, env = "TWELVE_AS_OF_MAX", value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub as_of_max: u32,
    /// Queries of one caller that may look at a moment of the past; more are refused with 429
    #[arg(long, env = "TWELVE_AS_OF_EACH_MAX", value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub as_of_each_max: u32,
    /// Pages of lists of all callers that may be built or wait to be; callers take turns
    #[arg(long, env = "TWELVE_PAGES_MAX", value_name = "N", default_value_t = 4_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub pages_max: u32,
    /// Pages of lists of one caller that may be built or wait to be; more are refused with 429. Where no tokens are
    /// for a token, the callers on this machine share them all
    #[arg(long, env = "TWELVE_PAGES_EACH_MAX", value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub pages_each_max: u32,
    /// Whose X-Forwarded-For is believed: the addresses of the gateway
    #[arg(long, env = "TWELVE_TRUSTED_PROXIES", value_name = "NET,…", value_delimiter = ',')]
    pub trusted_proxies: Vec<IpNet>,
    #[command(flatten)]
    pub edge: EdgeSettings,
}

type Rates = RateLimiter<String, DashMapStateStore<String>, DefaultClock, StateInformationMiddleware>;

struct Limits {
    rates: Option<Rates>,
    quota: Quota,
    calls: AtomicU64,
    shares: Arc<AllShares>,
    trusted: Vec<IpNet>,
    bodies: Arc<Bodies>,
    reception: Reception,
}

/// Bodies on their way, on all routes of the process.
static BODIES: OnceLock<Arc<Bodies>> = OnceLock::new();

/// How the body of a call is received.
#[derive(Clone, Copy, Debug)]
enum Reception {
    /// Before the call is worked on.
    Whole,
    /// While the call is worked on.
    Streamed,
}

impl LimitSettings {
    /// How a listener with these limits treats its peers.
    pub fn door(&self, hosts: Hosts) -> Door {
        Door { settings: self.edge.clone(), trusted: self.trusted_proxies.clone(), hosts }
    }

    fn bounds(&self, kind: Kind) -> Bounds {
        let (each, all) = match kind {
            Kind::Calls => (self.calls_in_progress_each_max, self.calls_in_progress_max),
            Kind::Waits => (self.waits_each_max, self.waits_max),
            Kind::Live => (self.live_each_max, self.live_max),
            Kind::AsOf => (self.as_of_each_max, self.as_of_max),
            Kind::Pages => (self.pages_each_max, self.pages_max),
        };
        let bound = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        Bounds { each: bound(each), all: bound(all) }
    }
}

/// Puts the limits around these routes. Each router that is limited has a count of calls in progress of its own, so
/// that a flood of queries leaves room for commands.
pub fn limited(router: Router, settings: &LimitSettings) -> Router {
    let limits = Limits { rates: rates(settings), ..Limits::shares(settings, Reception::Whole) };
    router.layer(middleware::from_fn_with_state(Arc::new(limits), check))
}

/// As [`limited`], but callers may call as often as they like: for operators, and for who asks whether we are there.
pub fn shared(router: Router, settings: &LimitSettings) -> Router {
    let limits = Limits::shares(settings, Reception::Whole);
    router.layer(middleware::from_fn_with_state(Arc::new(limits), check))
}

/// As [`limited`], for calls in which both sides go on speaking, as gRPC has them: one counts as a live stream, and
/// what its caller says ends after [`EdgeSettings::idle_max_ms`].
pub(crate) fn conversing(router: Router, settings: &LimitSettings) -> Router {
    let limits = Limits { rates: rates(settings), ..Limits::shares(settings, Reception::Streamed) };
    router.layer(middleware::from_fn_with_state(Arc::new(limits), check))
}

fn quota(settings: &LimitSettings) -> Quota {
    let at_once = NonZeroU32::new(settings.calls_at_once).unwrap_or(NonZeroU32::MIN);
    let per_second = NonZeroU32::new(settings.calls_per_second).unwrap_or(NonZeroU32::MIN);
    Quota::per_second(per_second).allow_burst(at_once)
}

fn rates(settings: &LimitSettings) -> Option<Rates> {
    let limiter = || RateLimiter::dashmap(quota(settings)).with_middleware::<StateInformationMiddleware>();
    (settings.calls_per_second > 0).then(limiter)
}

impl Limits {
    fn shares(settings: &LimitSettings, reception: Reception) -> Self {
        Self {
            rates: None,
            quota: quota(settings),
            calls: AtomicU64::new(0),
            shares: Arc::new(AllShares::new(|kind| settings.bounds(kind))),
            trusted: settings.trusted_proxies.clone(),
            bodies: Arc::clone(BODIES.get_or_init(|| Arc::new(Bodies::new(&settings.edge)))),
            reception,
        }
    }
}

async fn check(State(limits): State<Arc<Limits>>, request: Request, next: Next) -> Response {
    let (who, is_told_apart) = limits.who(&request);
    let shares = CallerShares { all: Arc::clone(&limits.shares), who: who.into(), is_told_apart };
    let told = match limits.rate(&shares.who) {
        Ok(told) => told,
        Err(problem) => {
            metrics::counter!("twelve_refused_total", "why" => "rate").increment(1);
            return problem.into_response();
        }
    };
    let mut response = match limits.reception {
        Reception::Whole => admit(&limits, shares, request, next).await,
        Reception::Streamed => converse(&limits, &shares, request, next).await,
    }
    .unwrap_or_else(Problem::into_response);
    for (name, value) in told.into_iter().flatten() {
        response.headers_mut().insert(name, value);
    }
    response
}

/// Answers a call once its body is there: only then it takes a place.
async fn admit(
    limits: &Limits,
    shares: CallerShares,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let mut request = limits.bodies.whole(request, &shares.who).await?;
    let in_progress = shares.take(Kind::Calls).inspect_err(|problem| {
        let why = if problem.status() == StatusCode::TOO_MANY_REQUESTS { "each" } else { "in_progress" };
        metrics::counter!("twelve_refused_total", "why" => why).increment(1);
    })?;
    if let Some(caller) = request.extensions_mut().get_mut::<Caller>() {
        caller.count_by(shares.clone());
    }
    let response = next.run(request).await;
    drop(in_progress);
    if is_live(&response) { Ok(holding(shares.take(Kind::Live)?, response)) } else { Ok(response) }
}

/// Answers a call whose body goes on while it is answered.
async fn converse(
    limits: &Limits,
    shares: &CallerShares,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let share = shares.take(Kind::Live)?;
    let response = next.run(limits.bodies.until_idle(request)).await;
    Ok(holding(share, response))
}

/// An answer that goes on for as long as its caller stays, and is no event stream by its type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GoesOn;

fn is_live(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    response.extensions().get::<GoesOn>().is_some()
        || kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// The answer, holding a share until it has ended.
fn holding(share: Share, response: Response) -> Response {
    response.map(|body| Body::new(Held { body, _share: share }))
}

/// The body of an answer that has a share for as long as it goes on.
struct Held {
    body: Body,
    _share: Share,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

type Told = Option<[(HeaderName, HeaderValue); 2]>;

impl Limits {
    /// What the caller is told of their rate; a refusal where it is exceeded.
    fn rate(&self, who: &str) -> Result<Told, Problem> {
        let Some(rates) = &self.rates else { return Ok(None) };
        if self.calls.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            rates.retain_recent();
        }
        let (policy, second) = (self.policy(), Duration::from_secs(1));
        match rates.check_key(&who.to_owned()) {
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

    /// Whose calls are counted together, and whether that is one caller: without tokens, all that come from this
    /// machine are told apart by nothing.
    fn who(&self, request: &Request) -> (String, bool) {
        let person = request.extensions().get::<Caller>().and_then(|caller| caller.person.clone());
        if let Some(person) = person {
            return (format!("person {}", person.id), true);
        }
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let Some(peer) = peer else { return (String::new(), false) };
        let address = origin::address(peer, request.headers(), &self.trusted);
        (origin::counted(address).to_string(), !address.is_loopback())
    }
}

fn headers(policy: &str, remaining: u32, reset: Duration) -> Told {
    let state = format!("\"caller\";r={remaining};t={}", reset.as_secs());
    let value = |text: &str| HeaderValue::from_str(text).ok();
    Some([
        (HeaderName::from_static("ratelimit-policy"), value(policy)?),
        (HeaderName::from_static("ratelimit"), value(&state)?),
    ])
}
