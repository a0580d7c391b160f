//! `?as_of=`: the same queries, on the views as they were at a position or a time.

use std::{collections::VecDeque, sync::Arc};

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, Uri, uri::PathAndQuery},
    middleware::Next,
    response::{IntoResponse, Response},
};
use domain::{OrderId, sight::Sight};
use nats::EventLog;
use projector::{
    Views,
    as_of::{self, AsOfError, Moment},
    view::orders::Orders,
};
use service::{Caller, Code, Problem};
use tokio::sync::Mutex;
use tower::ServiceExt;

use crate::{App, routes};

/// Moments whose views are kept for the next query of the same moment.
const KEPT_MAX: usize = 4;
const RETRY_AFTER_S: u64 = 1;

/// The views of some moments, folded when they are first asked for, one at a time.
#[derive(Clone)]
pub struct AsOf {
    events_max: u64,
    kept: Arc<Mutex<VecDeque<(String, Views)>>>,
}

impl AsOf {
    /// Folds at most `events_max` events for one query.
    pub fn new(events_max: u64) -> Self {
        Self { events_max, kept: Arc::default() }
    }

    async fn views(&self, app: &App, said: &str, moment: &Moment) -> Result<Views, AsOfError> {
        let mut kept = self.kept.lock().await;
        if let Some((_, views)) = kept.iter().find(|(moment, _)| moment == said) {
            return Ok(views.clone());
        }
        let views = as_of::views(&app.log, &app.views, moment, self.events_max).await?;
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back((said.to_owned(), views.clone()));
        Ok(views)
    }
}

/// Answers a query that asks `as_of`; hands on all others.
pub(crate) async fn answer(State(app): State<App>, request: Request, next: Next) -> Response {
    let Some((said, rest)) = split(request.uri().query().unwrap_or_default()) else {
        return next.run(request).await;
    };
    match answer_as_of(&app, request, &said, &rest).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

/// The moment that a query string asks for, and what else it asks.
fn split(query: &str) -> Option<(String, String)> {
    let (mut said, mut rest) = (None, Vec::new());
    for pair in query.split('&') {
        match pair.strip_prefix("as_of=") {
            Some(text) if said.is_none() => {
                said = Some(text.replace("%3A", ":").replace("%3a", ":").replace("%2C", ","));
            }
            _ => rest.push(pair),
        }
    }
    Some((said?, rest.join("&")))
}

fn moment(said: &str) -> Result<Moment, Problem> {
    match said.replace("%2B", "+").parse() {
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
    if let Some(order_id) = one_order.filter(|_| rest.is_empty()) {
        return one(&app.log, order_id, &moment, caller.as_ref()).await;
    }
    let views = app.as_of.views(app, said, &moment).await.map_err(|error| refused(&error))?;
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
        AsOfError::Log(_) | AsOfError::Unreadable(_) | AsOfError::Load(_) | AsOfError::Store(_) => {
            tracing::warn!(error = %nats::causes(error), "a moment's views could not be had");
            Problem::unavailable(Code::ViewUnavailable, error.to_string(), RETRY_AFTER_S)
        }
    }
}
