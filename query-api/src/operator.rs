//! The operator's own port: rebuilds beside the living, compared, swapped in, rolled back. Never behind the front door.

pub mod contract;

use std::{convert::Infallible, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{
    Json, Router,
    extract::{Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
    routing::{get, post},
};
use clap::Args;
use domain::{Timestamp, access::Role};
use futures::stream;
use nats::EventLog;
use projector::{
    NodeSettings, Unreadable, Views,
    as_of::InvalidMoment,
    job::{self, Job, JobError, Status, Work},
    snapshot::{self, About, TakeError},
    store::CACHE_MB,
    view,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use service::{
    Caller, Code, Guard, GuardSettings, LimitSettings, Problem, guarded, process, settings, shared,
};
use tokio::{net::TcpListener, sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

/// In the views' folder: where the operator's port is.
pub const ADDRESS_FILE: &str = "operator";
/// How often a progress stream tells, if nothing else changes.
const TELL_EVERY: Duration = Duration::from_millis(250);
/// How long a job may take to begin.
const BEGIN_MAX: Duration = Duration::from_secs(10);
const RETRY_AFTER_S: u64 = 1;

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Views and operators")]
pub struct OperatorSettings {
    /// Events that a query with `as_of` may fold at most
    #[arg(long, env = "TWELVE_AS_OF_EVENTS_MAX", value_name = "N", default_value_t = 500_000)]
    pub as_of_events_max: u64,
    /// Where operators rebuild, compare and swap views; keep it from customers. Port 0 takes a free one, which the file
    /// `operator` in the views' folder names
    #[arg(long, env = "TWELVE_OPERATOR_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:0",
          value_parser = settings::address)]
    pub operator_listen: SocketAddr,
    /// Take a snapshot of the views when the newest is older than this many seconds, for new nodes to start from; 0:
    /// take none
    #[arg(long, env = "TWELVE_SNAPSHOT_EVERY_S", value_name = "S", default_value_t = 3_600)]
    pub snapshot_every_s: u32,
    /// Megabytes of memory in which the views' store keeps pages; a store that is being rebuilt takes as much again
    #[arg(long, env = "TWELVE_VIEW_CACHE_MB", value_name = "MB", default_value_t = CACHE_MB,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub view_cache_mb: u32,
    /// What happens at an event that does not read: all views of its partition stop there, or its order's alone
    #[arg(long, env = "TWELVE_UNREADABLE", value_name = "WHAT", value_enum, default_value_t = Unreadable::Stop)]
    pub unreadable: Unreadable,
}

impl OperatorSettings {
    /// Listens for operators.
    pub async fn listen(&self) -> anyhow::Result<TcpListener> {
        process::listen(self.operator_listen).await
    }

    /// How the view node behaves.
    pub fn node(&self) -> NodeSettings {
        let every = Duration::from_secs(self.snapshot_every_s.into());
        NodeSettings {
            snapshot_every: (!every.is_zero()).then_some(every),
            unreadable: self.unreadable,
            cache_mb: self.view_cache_mb,
        }
    }
}

/// Serves operators until `stop`, and notes where in `folder`, for `twelve views` to find.
pub async fn serve(
    (listener, guard): (TcpListener, Option<Guard>),
    settings: &GuardSettings,
    (views, log): (Views, EventLog),
    folder: &Path,
    limits: &LimitSettings,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let note = folder.join(ADDRESS_FILE);
    std::fs::write(&note, format!("http://{}", listener.local_addr()?))
        .with_context(|| format!("cannot write {}", note.display()))?;
    let calls = router(views, log).layer(middleware::from_fn(operators_only));
    // A page that a browser on this machine shows can call a loopback address, too: no other site's may.
    let of_operator = GuardSettings { trusted_origins: Vec::new(), ..settings.clone() };
    let whole = guarded(shared(calls, limits), &of_operator, guard)?
        .merge(service::contract::router(&contract::document(), limits));
    let served = process::serve(listener, whole, limits.door(settings.hosts()), stop).await;
    drop(std::fs::remove_file(note));
    served
}

/// Lets through callers with an operator's token; all, where no tokens are asked for.
async fn operators_only(caller: Caller, request: Request, next: Next) -> Response {
    match caller.permit(|person| person.is(Role::Operator)) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn router(views: Views, log: EventLog) -> Router {
    let snapshots = Router::new()
        .route("/admin/views/snapshots", get(snapshots).post(take_snapshot))
        .with_state((views.clone(), log));
    Router::new()
        .route("/admin/views/rebuild", get(status).post(rebuild))
        .route("/admin/views/rebuild/live", get(live))
        .route("/admin/views/rebuild/pace", post(pace))
        .route("/admin/views/rebuild/cancel", post(cancel))
        .route("/admin/views/verify", post(verify))
        .route("/admin/views/swap", post(swap))
        .route("/admin/views/rollback", post(rollback))
        .with_state(views)
        .merge(snapshots)
}

/// A snapshot of the views.
#[derive(Serialize, JsonSchema)]
struct Snapshot {
    taken_at: Timestamp,
    /// Events that are folded in it.
    events: u64,
    newest_event: Timestamp,
}

/// The snapshots that a new node could start from, the newest first.
#[derive(Serialize, JsonSchema)]
struct SnapshotList {
    items: Vec<Snapshot>,
}

/// The rebuild ends.
#[derive(Serialize, JsonSchema)]
struct Canceled {
    state: job::State,
}

async fn snapshots(State((_, log)): State<(Views, EventLog)>) -> Result<Json<SnapshotList>, Problem> {
    let kept = snapshot::fitting(&log).await.map_err(|error| not_taken(&error))?;
    Ok(Json(SnapshotList { items: kept.iter().map(|(_, about)| told(about)).collect() }))
}

async fn take_snapshot(State((views, log)): State<(Views, EventLog)>) -> Result<Json<Snapshot>, Problem> {
    let about = snapshot::take(&views, &log).await.map_err(|error| not_taken(&error))?;
    Ok(Json(told(&about)))
}

fn told(about: &About) -> Snapshot {
    Snapshot { taken_at: about.taken_at, events: about.events(), newest_event: about.newest }
}

fn not_taken(error: &TakeError) -> Problem {
    tracing::warn!(error = %nats::causes(error), "no snapshot was taken or told");
    Problem::unavailable(Code::SnapshotUnavailable, nats::causes(error), RETRY_AFTER_S)
}

/// What is asked for; each call takes what it knows of it.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "RebuildRequest")]
struct Asked {
    /// Whether the generation takes over by itself if it agrees with the serving one.
    swap: bool,
    /// 0: as fast as it goes, and 6,000 while readers ask.
    events_per_second_max: u64,
    although_it_differs: bool,
    /// This view's rows alone, all others as they are.
    view: Option<String>,
    /// The views of this moment (positions, or a time), into a folder that nobody serves.
    until: Option<String>,
}

impl Asked {
    /// What kind of rebuild is asked for.
    fn rebuild(&self, views: &Views) -> Result<Work, Problem> {
        match (&self.view, &self.until) {
            (None, None) => Ok(Work::Rebuild { swap: self.swap, only: None }),
            (Some(view), None) => {
                let only = view::rows_of(view);
                let only = only.ok_or_else(|| Problem::malformed(format!("there is no view {view:?}")))?;
                match views.are_whole() {
                    Ok(true) => Ok(Work::Rebuild { swap: self.swap, only: Some(only) }),
                    Ok(false) => Err(refused(&JobError::NotWhole)),
                    Err(error) => Err(refused(&error)),
                }
            }
            (None, Some(moment)) if !self.swap => moment
                .parse()
                .map(Work::Until)
                .map_err(|error: InvalidMoment| Problem::malformed(error.to_string())),
            (_, Some(_)) => {
                Err(Problem::malformed("until a moment, all views are built, and none is swapped in"))
            }
        }
    }
}

fn asked(body: &str) -> Result<Asked, Problem> {
    if body.trim().is_empty() {
        return Ok(Asked::default());
    }
    serde_json::from_str(body).map_err(|error| Problem::malformed(error.to_string()))
}

async fn rebuild(State(views): State<Views>, body: String) -> Result<Response, Problem> {
    let asked = asked(&body)?;
    begin(&views, asked.rebuild(&views)?, asked.events_per_second_max).await
}

async fn verify(State(views): State<Views>, body: String) -> Result<Response, Problem> {
    if views.health().is_outdated {
        return Err(refused(&JobError::Frozen));
    }
    // Until then, rows may be ahead of the positions that they are compared at.
    if !views.has_caught_up() && views.health().stopped.is_none() {
        return Err(refused(&JobError::CatchingUp));
    }
    begin(&views, Work::Verify, asked(&body)?.events_per_second_max).await
}

async fn rollback(State(views): State<Views>) -> Result<Response, Problem> {
    views.previous().map_err(|error| refused(&error))?;
    begin(&views, Work::Rollback, 0).await
}

async fn begin(views: &Views, work: Work, most: u64) -> Result<Response, Problem> {
    let before = views.jobs().newest();
    let mut changes = views.jobs().changes();
    changes.borrow_and_update();
    views.jobs().begin(work, most).map_err(|error| refused(&error))?;
    let is_new = |job: &Arc<Job>| before.as_ref().is_none_or(|before| !Arc::ptr_eq(before, job));
    // What changes first may be the end of the job before.
    let beginning = async {
        loop {
            if let Some(job) = views.jobs().newest().filter(is_new) {
                return Some(job);
            }
            changes.changed().await.ok()?;
        }
    };
    match timeout(BEGIN_MAX, beginning).await.ok().flatten() {
        Some(job) => Ok((StatusCode::ACCEPTED, Json(job.status())).into_response()),
        None => Err(Problem::new(
            Code::NotBegun,
            "the generation could not be opened; the log of this process says why",
        )),
    }
}

async fn status(State(views): State<Views>) -> Result<Json<Status>, Problem> {
    let job = views.jobs().newest().ok_or_else(|| refused(&JobError::None))?;
    Ok(Json(job.status()))
}

async fn pace(State(views): State<Views>, body: String) -> Result<Json<Status>, Problem> {
    let most = asked(&body)?.events_per_second_max;
    let job = views.jobs().newest().ok_or_else(|| refused(&JobError::None))?;
    job.slow_down(most);
    Ok(Json(job.status()))
}

async fn cancel(State(views): State<Views>) -> Result<Response, Problem> {
    views.jobs().cancel().map_err(|error| refused(&error))?;
    Ok((StatusCode::ACCEPTED, Json(Canceled { state: job::State::Canceled })).into_response())
}

async fn swap(State(views): State<Views>, body: String) -> Result<Json<Status>, Problem> {
    let although = asked(&body)?.although_it_differs;
    let swapping = views.clone();
    let swapped = tokio::task::spawn_blocking(move || swapping.swap(although)).await;
    swapped.map_err(|_| refused(&JobError::Closed))?.map_err(|error| refused(&error))?;
    status(State(views)).await
}

/// The job's progress as it goes, until it is over.
async fn live(State(views): State<Views>) -> Response {
    let changes = views.jobs().changes();
    let told = stream::unfold((views, changes, false), tell);
    Sse::new(told).keep_alive(KeepAlive::default()).into_response()
}

type Telling = (Views, watch::Receiver<u64>, bool);

async fn tell((views, mut changes, ended): Telling) -> Option<(Result<Event, Infallible>, Telling)> {
    if ended {
        return None;
    }
    // What changes is told at once, progress now and then.
    drop(timeout(TELL_EVERY, changes.changed()).await);
    let status = views.jobs().newest()?.status();
    let ended = status.state.is_over();
    let event = Event::default().event("progress").json_data(&status).ok()?;
    Some((Ok(event), (views, changes, ended)))
}

fn refused(error: &JobError) -> Problem {
    let code = match error {
        JobError::Busy => Code::RebuildUnderWay,
        JobError::None => return Problem::new(Code::NoRebuild, error.to_string()),
        JobError::NotReady(_) => Code::RebuildNotReady,
        JobError::Differs(_) => Code::GenerationsDiffer,
        JobError::NotWhole => Code::ViewsNotWhole,
        JobError::CatchingUp => Code::ViewsCatchingUp,
        JobError::NoPrevious => Code::NoPreviousGeneration,
        JobError::Outdated | JobError::Frozen => Code::GenerationOutdated,
        JobError::NoMeeting | JobError::Closed | JobError::Store(_) => {
            tracing::error!(error = %nats::causes(error), "the views could not be changed over");
            return Problem::unavailable(Code::ViewsUnavailable, error.to_string(), RETRY_AFTER_S);
        }
    };
    Problem::new(code, error.to_string())
}
