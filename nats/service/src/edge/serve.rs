//! Takes connections and serves them until the process is to end.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use axum::{
    Router,
    body::{Body, HttpBody},
    extract::{ConnectInfo, Request},
    response::{IntoResponse, Response},
};
use hyper::{body::Incoming, rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use rustix::{
    net::sockopt,
    process::{Resource, getrlimit, setrlimit},
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::{
    BodyThere, Door, EdgeSettings,
    answer::Answer,
    connection::{Call, Connection, Cut},
    connections::{Connections, ended},
};
use crate::problem::{Code, Problem};

/// How long open calls may take to finish once the process was asked to stop.
const DRAIN_MAX: Duration = Duration::from_secs(4);
/// How long a connection may take to end once it was told that it is to.
const GOODBYE_MAX: Duration = Duration::from_secs(1);
/// How often a connection looks at its deadlines, at the least and at the most.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// A deadline is looked at so many times before it is over.
const LOOKS_IN_DEADLINE: u32 = 4;
/// How long nothing is accepted after the system gave no socket.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Files that the process needs for other things than callers' connections.
const OTHER_FILES: u64 = 512;

/// Bytes of a head that does not read as HTTP/1 yet.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Bytes of the header fields of one HTTP/2 call.
const FIELDS_BYTES_MAX: u32 = 16 * 1024;
/// Bytes that one HTTP/2 call may send before they are taken, and all calls of a connection together.
const WINDOW_BYTES: (u32, u32) = (64 * 1024, 256 * 1024);
/// Bytes of one answer that HTTP/2 takes from us before the peer does.
const SEND_BYTES_MAX: usize = 64 * 1024;
/// Bytes that the system keeps of what a peer has not read yet, for each connection.
const SOCKET_SEND_BYTES: usize = 128 * 1024;
/// How often an HTTP/2 peer that is silent is asked whether it is there, and how long it may take to say so.
const ASK_EVERY: Duration = Duration::from_secs(20);
/// Calls that a peer may take back before we have seen them.
const TAKEN_BACK_MAX: usize = 20;
const RETRY_AFTER_S: u64 = 1;

/// Serves until `stop`; open calls get [`DRAIN_MAX`] to finish.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    door: Door,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let most = connections_max(door.settings.connections_max);
    let connections = Arc::new(Connections::new(door, most));
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let is_local = stream.local_addr().is_ok_and(|here| here.ip() == peer.ip());
                let Some(connection) = connections.admit(peer, is_local) else { continue };
                let (connections, router, stop) = (Arc::clone(&connections), router.clone(), stop.clone());
                tasks.spawn(async move {
                    converse(&connections, &connection, (stream, peer), router, &stop).await;
                    connections.forget(&connection);
                });
            }
            // The peer went before it was taken.
            Err(error) if is_of_the_peer(&error) => {}
            Err(error) => {
                let ended = connections.make_room();
                tracing::warn!(%error, ended, "no connection can be taken; idle ones were ended");
                metrics::counter!("twelve_connections_refused_total", "bound" => "system").increment(1);
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    if timeout(DRAIN_MAX, tasks.wait()).await.is_err() {
        tracing::warn!("calls that were still open after {DRAIN_MAX:?} were cut");
        connections.cut_all.cancel();
        timeout(GOODBYE_MAX, tasks.wait()).await.context("connections did not end")?;
    }
    Ok(())
}

fn is_of_the_peer(error: &io::Error) -> bool {
    let kinds = [
        io::ErrorKind::ConnectionRefused,
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::Interrupted,
    ];
    kinds.contains(&error.kind())
}

/// How many connections there may be: as many as are set, if the system gives so many files.
fn connections_max(set: u32) -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum
        && let Err(error) =
            setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit })
    {
        tracing::debug!(%error, "the limit of open files cannot be raised");
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let most = u64::from(set).min(files.saturating_sub(OTHER_FILES).max(files / 2));
    if most < u64::from(set) {
        tracing::warn!(files, most, "there are fewer connections than set; raise the limit of open files");
    }
    usize::try_from(most).unwrap_or(usize::MAX)
}

fn http(settings: &EdgeSettings, calls: Calls) -> Builder<Calls> {
    let mut http = Builder::new(calls);
    // Heads and idle connections have deadlines here, from the first byte on, which hyper's begin after.
    http.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(HEAD_BYTES_MAX);
    let (of_call, of_connection) = WINDOW_BYTES;
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.streams_max)
        .max_header_list_size(FIELDS_BYTES_MAX)
        .initial_stream_window_size(of_call)
        .initial_connection_window_size(of_connection)
        .max_send_buf_size(SEND_BYTES_MAX)
        .max_pending_accept_reset_streams(TAKEN_BACK_MAX)
        .keep_alive_interval(ASK_EVERY)
        .keep_alive_timeout(ASK_EVERY);
    http
}

/// Runs the calls of one HTTP/2 connection, each until it is answered or given up.
///
/// hyper hands a call to its service, and right then what came of that to its executor: so the call that began last is
/// the one that is run. What is given up is dropped, with its connection.
#[derive(Clone, Default)]
struct Calls {
    begun: Arc<Mutex<Option<CancellationToken>>>,
}

impl Calls {
    fn begun(&self) -> MutexGuard<'_, Option<CancellationToken>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> Executor<F> for Calls
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        let given_up = self.begun().take();
        tokio::spawn(async move {
            match given_up {
                Some(given_up) => drop(given_up.run_until_cancelled(future).await),
                None => drop(future.await),
            }
        });
    }
}

/// One connection, from its first byte to its last.
async fn converse(
    connections: &Arc<Connections>,
    connection: &Arc<Connection>,
    (stream, peer): (TcpStream, SocketAddr),
    router: Router,
    stop: &CancellationToken,
) {
    let settings = &connections.door.settings;
    prepare(&stream, settings);
    let calls = Calls::default();
    let http = http(settings, calls.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let call = Arc::new(Call::begin(connection));
        *calls.begun() = Some(call.given_up.clone());
        answer(Arc::clone(connections), router.clone(), peer, call, request)
    });
    let io = TokioIo::new(super::watched::Watched::new(stream, Arc::clone(connection)));
    let mut serving = pin!(http.serve_connection(io, service));
    let mut looking = interval(look_every(settings));
    looking.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Once it was told to end, it does so when its calls are answered.
    let mut leaving: Option<Instant> = None;
    loop {
        let why = tokio::select! {
            // What goes wrong on a connection is its peer's doing, or the network's.
            _ = serving.as_mut() => return,
            () = connection.cut.cancelled() => return,
            () = stop.cancelled(), if leaving.is_none() => Cut::Stopped,
            _ = looking.tick() => {
                if connection.is_idle() && leaving.is_some_and(|since| since.elapsed() >= GOODBYE_MAX) {
                    return;
                }
                match connection.overdue(settings) {
                    None => continue,
                    Some(Cut::Idle) if leaving.is_some() => continue,
                    Some(why) => {
                        ended(why);
                        why
                    }
                }
            }
        };
        match why {
            Cut::Head | Cut::Unread | Cut::Crowded => return,
            Cut::Idle | Cut::Stopped => {
                serving.as_mut().graceful_shutdown();
                leaving = Some(Instant::now());
            }
        }
    }
}

fn look_every(settings: &EdgeSettings) -> Duration {
    let shortest = settings.head_within().min(settings.idle_max()).min(settings.unread_max());
    (shortest / LOOKS_IN_DEADLINE).clamp(LOOK_EVERY.0, LOOK_EVERY.1)
}

/// What the system does for us: it sends at once, keeps little, and gives a peer up that acknowledges nothing.
fn prepare(stream: &TcpStream, settings: &EdgeSettings) {
    // We look ourselves, and count it; this is for peers that are gone.
    let unread_ms = u32::try_from(settings.unread_max_ms.saturating_mul(2)).unwrap_or(u32::MAX);
    let prepared = stream
        .set_nodelay(true)
        .and_then(|()| Ok(sockopt::set_tcp_user_timeout(stream, unread_ms)?))
        .and_then(|()| Ok(sockopt::set_socket_send_buffer_size(stream, SOCKET_SEND_BYTES)?));
    if let Err(error) = prepared {
        tracing::debug!(%error, "a socket could not be set up");
    }
}

async fn answer(
    connections: Arc<Connections>,
    router: Router,
    peer: SocketAddr,
    call: Arc<Call>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    if request.body().is_end_stream() {
        call.body_is_there();
    }
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(ConnectInfo(peer));
    let noted = Arc::clone(&call);
    request.extensions_mut().insert(BodyThere(Arc::new(move || noted.body_is_there())));
    let Ok(mut response) = router.oneshot(request).await;
    let bytes = usize::try_from(response.body().size_hint().lower()).unwrap_or(usize::MAX);
    if bytes > 0 && !connections.has_room_for(bytes, &call.connection) {
        metrics::counter!("twelve_refused_total", "why" => "unread").increment(1);
        let detail = "too many answers wait for their callers to read them; try again";
        response = Problem::unavailable(Code::Overloaded, detail, RETRY_AFTER_S).into_response();
    }
    Ok(response.map(|body| Answer::new(body, call, connections)))
}
