//! `?as_of=`: the same queries, on the views as they were at a position or a time.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use axum::{
    Json,
    body::Body,
    extract::{Query, Request, State},
    http::{HeaderValue, Uri, uri::PathAndQuery},
    middleware::Next,
    response::{IntoResponse, Response},
};
use domain::{OrderId, Refusal, access::Role, sight::Sight};
use nats::{EventLog, LoadError};
use projector::{
    Views,
    as_of::{self, AsOfError, Folded, InvalidMoment, Moment},
    view::orders::Orders,
};
use service::{Caller, Code, Kind, Problem};
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::task::AbortOnDropHandle;
use tower::ServiceExt;

use crate::{App, routes};

/// Moments whose views are kept for the next query of the same moment, and for how long without one.
const KEPT_MAX: usize = 4;
const KEPT_UNUSED_MAX: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Moments that are folded at a time, and how long a query waits for its turn.
const FOLDS_MAX: usize = 1;
const TURN_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long a fold may take.
const FOLD_MAX: Duration = Duration::from_mins(1);
const RETRY_AFTER_S: u64 = 1;

/// The views of some moments, folded when they are first asked for, one at a time, and dropped when unused.
#[derive(Clone)]
pub struct AsOf {
    events_max: u64,
    shared: Arc<Shared>,
}

struct Shared {
    kept: Mutex<Kept>,
    folding: Arc<Semaphore>,
}

#[derive(Default)]
struct Kept {
    moments: VecDeque<OfMoment>,
    /// Lets go what is not used; ends once nothing is left.
    letting_go: Option<AbortOnDropHandle<()>>,
}

struct OfMoment {
    moment: Moment,
    folded: Folded,
    used: Instant,
}

impl Kept {
    fn tell(&self) {
        let count = u32::try_from(self.moments.len()).unwrap_or(u32::MAX);
        metrics::gauge!("twelve_as_of_kept").set(f64::from(count));
    }
}

impl AsOf {
    /// Folds at most `events_max` events for one query.
    pub fn new(events_max: u64) -> Self {
        let shared = Shared { kept: Mutex::default(), folding: Arc::new(Semaphore::new(FOLDS_MAX)) };
        Self { events_max, shared: Arc::new(shared) }
    }

    async fn views(&self, app: &App, moment: &Moment) -> Result<Views, Problem> {
        if let Some(views) = self.shared.find(moment) {
            return Ok(views);
        }
        let turn = timeout(TURN_WAIT_MAX, Arc::clone(&self.shared.folding).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            let detail = "other moments are being folded; try again";
            return Err(Problem::unavailable(Code::Overloaded, detail, RETRY_AFTER_S));
        };
        // Another query of this moment may have been first.
        if let Some(views) = self.shared.find(moment) {
            return Ok(views);
        }
        let folding = as_of::views_quietly(&app.log, &app.views, moment, self.events_max, turn);
        let folded = timeout(FOLD_MAX, folding).await.unwrap_or(Err(AsOfError::GivenUp));
        let folded = folded.map_err(|error| refused(&error))?;
        let views = folded.views.clone();
        self.shared.keep(moment.clone(), folded);
        Ok(views)
    }
}

impl Shared {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, moment: &Moment) -> Option<Views> {
        let mut kept = self.kept();
        let found = kept.moments.iter_mut().find(|kept| kept.folded.are_of(&kept.moment, moment))?;
        found.used = Instant::now();
        Some(found.folded.views.clone())
    }

    /// What was not asked for lately, and whether nothing else is left.
    fn take_unused(&self) -> (VecDeque<OfMoment>, bool) {
        let mut kept = self.kept();
        let is_used = |kept: &OfMoment| kept.used.elapsed() < KEPT_UNUSED_MAX;
        let (used, unused) = std::mem::take(&mut kept.moments).into_iter().partition(is_used);
        kept.moments = used;
        kept.tell();
        let is_empty = kept.moments.is_empty();
        if is_empty {
            // Its caller ends without it, and the next moment has another.
            kept.letting_go.take().map(AbortOnDropHandle::detach);
        }
        (unused, is_empty)
    }

    fn keep(self: &Arc<Self>, moment: Moment, folded: Folded) {
        let mut kept = self.kept();
        if kept.moments.len() == KEPT_MAX {
            kept.moments.pop_front();
        }
        kept.moments.push_back(OfMoment { moment, folded, used: Instant::now() });
        kept.tell();
        if kept.letting_go.is_none() {
            let letting_go = tokio::spawn(let_go(Arc::downgrade(self)));
            kept.letting_go = Some(AbortOnDropHandle::new(letting_go));
        }
    }
}

/// Drops views of moments that are not asked for, until none are left: their stores take memory and disk.
async fn let_go(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(shared) = shared.upgrade() else { return };
        let (unused, is_empty) = shared.take_unused();
        // Closing a store takes a while, and is not to be waited for by those who look for another.
        drop(tokio::task::spawn_blocking(move || drop(unused)).await);
        if is_empty {
            return;
        }
    }
}

/// Answers a query that asks `as_of`; hands on all others.
pub(crate) async fn answer(State(app): State<App>, request: Request, next: Next) -> Response {
    let Some((said, rest)) = split(request.uri()) else {
        return next.run(request).await;
    };
    match answer_as_of(&app, request, &said, &rest).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

/// The moment that a query string asks for, and what else it asks.
fn split(uri: &Uri) -> Option<(String, String)> {
    let is_moment = |pair: &&str| pair.starts_with("as_of=");
    let pairs = || uri.query().unwrap_or_default().split('&');
    let rest: Vec<&str> = pairs().filter(|pair| !is_moment(pair)).collect();
    let mut said = Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?.0.into_iter();
    let said = said.find(|(name, _)| name == "as_of")?.1;
    // Given twice, one of them is left for the query to refuse.
    let again: Vec<&str> = pairs().filter(is_moment).skip(1).collect();
    Some((said, [rest, again].concat().join("&")))
}

fn moment(said: &str) -> Result<Moment, Problem> {
    // A plus of an offset that is not percent-encoded reads as a space.
    let parsed =
        said.parse().or_else(|wrong| said.replace(' ', "+").parse().map_err(|_: InvalidMoment| wrong));
    match parsed {
        Ok(Moment::Time(time)) if time > nats::now() => Err(Problem::malformed("as_of lies in the future")),
        Ok(moment) => Ok(moment),
        Err(wrong) => Err(Problem::malformed(format!("as_of: {wrong}"))),
    }
}

async fn answer_as_of(app: &App, request: Request, said: &str, rest: &str) -> Result<Response, Problem> {
    let moment = moment(said)?;
    let caller = request.extensions().get::<Caller>().cloned();
    let path = request.uri().path().to_owned();
    if ["/live", "/events"].iter().any(|end| path.ends_with(end)) || path.starts_with("/flows") {
        return Err(Problem::malformed("this is no query of a view; leave as_of out"));
    }
    let one_order = path.strip_prefix("/orders/").and_then(|id| id.parse::<OrderId>().ok());
    if let Some(order_id) = one_order {
        // It is read from the log, which is never behind what is waited for.
        let is_other =
            |pair: &&str| !["", "after", "wait"].contains(&pair.split('=').next().unwrap_or_default());
        if let Some(other) = rest.split('&').find(is_other) {
            return Err(Problem::malformed(format!("this query has no parameter {other:?} beside as_of")));
        }
        return one(&app.log, order_id, &moment, caller.as_ref()).await;
    }
    // All rows of a moment are folded for this, whatever the query; a price that only operators may ask.
    if let Some(caller) = &caller {
        caller.permit(|person| person.is(Role::Operator))?;
    }
    let _share = caller.as_ref().map(|caller| caller.share(Kind::AsOf)).transpose()?;
    let views = app.as_of.views(app, &moment).await?;
    let query = if rest.is_empty() { path } else { format!("{path}?{rest}") };
    let query: PathAndQuery =
        query.parse().map_err(|_| Problem::malformed("the query string does not read"))?;
    // Anew, so that nothing of the first routing is left in it.
    let mut again = Request::new(Body::empty());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = Uri::from(query);
    *again.headers_mut() = request.headers().clone();
    if let Some(caller) = caller {
        again.extensions_mut().insert(caller);
    }
    let table = routes::table(App { views, now: Some(app.views.clone()), ..app.clone() });
    let Ok(answered) = table.oneshot(again).await;
    Ok(answered)
}

async fn one(
    log: &EventLog,
    order_id: OrderId,
    moment: &Moment,
    caller: Option<&Caller>,
) -> Result<Response, Problem> {
    let seen = as_of::order(log, order_id, moment).await.map_err(|error| refused(&error))?;
    let (row, now) = seen.ok_or_else(Problem::order_not_found)?;
    // Who saw it then and may not see it now is not told; nor is who may see it now told what was not theirs then.
    let sight = |parties| caller.map_or(Ok(Sight::WHOLE), |caller| caller.sight(parties));
    let sight = sight(&row.parties())?.and(sight(&now)?);
    let position = row.position().ok_or_else(Problem::order_not_found)?;
    let mut response = Json(Orders::shown_to(&row, sight)).into_response();
    if let Ok(position) = HeaderValue::from_str(&position.to_string()) {
        response.headers_mut().insert("view-position", position);
    }
    Ok(response)
}

fn refused(error: &AsOfError) -> Problem {
    match error {
        AsOfError::NotYet(_) => Problem::new(Code::PositionUnknown, error.to_string()),
        AsOfError::TooFar { .. } => Problem::new(Code::AsOfTooFar, error.to_string()),
        AsOfError::Unreadable(_) | AsOfError::Load(LoadError::Undecodable(_)) => {
            tracing::error!(error = %nats::causes(error), "a moment's views cannot be had");
            Problem::new(Code::OrderUnreadable, nats::causes(error))
        }
        AsOfError::Load(LoadError::TooLong(_)) => {
            Problem::new(Code::Refused(Refusal::OrderTooLong), Refusal::OrderTooLong.to_string())
        }
        AsOfError::GivenUp
        | AsOfError::Log(_)
        | AsOfError::Load(LoadError::Unavailable(_) | LoadError::Refused { .. } | LoadError::Archive(_))
        | AsOfError::Store(_) => {
            tracing::warn!(error = %nats::causes(error), "a moment's views could not be had");
            Problem::unavailable(Code::ViewUnavailable, error.to_string(), RETRY_AFTER_S)
        }
    }
}
