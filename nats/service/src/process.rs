//! A process from its first line to its last: tracing, signals, the HTTP server and its probes.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use anyhow::Context as _;
use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use clap::Args;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::Serialize;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use crate::{
    catalog,
    edge::{self, Door},
    grpc,
    hosts::Rule,
    limits::{LimitSettings, shared},
    request,
    telemetry::TelemetrySettings,
};

/// Buckets of every histogram of seconds, from a tenth of a millisecond to ten seconds.
const SECONDS: [f64; 15] =
    [0.0001, 0.0003, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// What a process says about itself.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Configuration and telemetry")]
pub struct ProcessSettings {
    /// A TOML file of settings, named like the flags: `listen = "0.0.0.0:8080"`
    #[arg(long, env = "TWELVE_CONFIG", value_name = "FILE", global = true)]
    pub config: Option<std::path::PathBuf>,
    #[command(flatten)]
    pub telemetry: TelemetrySettings,
}

/// Starts to collect metrics; the first call decides, later ones share.
pub fn metrics_handle() -> anyhow::Result<PrometheusHandle> {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .install_recorder()?;
    catalog::describe();
    Ok(HANDLE.get_or_init(|| handle).clone())
}

/// A token that is cancelled by Ctrl-C, SIGTERM, or the end of the terminal (SIGHUP).
pub fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    stop_on_hang_up(&stop)?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        tracing::info!("stopping");
        token.cancel();
        // A second Ctrl-C does not wait; but a server that this process started would stay and keep its data locked.
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        nats::server::end_started();
        std::process::exit(130);
    });
    Ok(stop)
}

/// A terminal that is closed ends what runs in it, as Ctrl-C does; but not what was started by `nohup`.
fn stop_on_hang_up(stop: &CancellationToken) -> anyhow::Result<()> {
    if is_hang_up_ignored() {
        return Ok(());
    }
    let (mut hang_up, stop) = (signal(SignalKind::hangup())?, stop.clone());
    tokio::spawn(async move {
        if hang_up.recv().await.is_some() && !stop.is_cancelled() {
            tracing::info!("the terminal was closed: stopping");
            stop.cancel();
        }
    });
    Ok(())
}

/// Whether this process was started with SIGHUP ignored: Linux says so; elsewhere it is taken as not ignored.
fn is_hang_up_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // SIGHUP is signal 1, the mask's lowest bit.
    mask.is_some_and(|mask| mask & 1 == 1)
}

/// One reason to be ready or not.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub ok: bool,
    pub detail: String,
}

impl Check {
    /// Whether the log has everything that it ever had.
    pub fn of_history(lost: &[nats::follow::Loss]) -> Self {
        let told = lost.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let detail = if lost.is_empty() {
            "complete".to_owned()
        } else {
            format!("{told}; restore it from a backup, or start with --missing-events accept")
        };
        Self { name: "history", ok: lost.is_empty(), detail }
    }
}

/// What a process says when it is asked whether it is ready.
pub type Readiness = Arc<dyn Fn() -> Vec<Check> + Send + Sync>;

#[derive(Clone)]
struct Probes {
    metrics: PrometheusHandle,
    readiness: Readiness,
}

/// `/healthz`, `/readyz` and `/metrics`; and gRPC's health service. Whoever asks may do so as often as they like.
pub fn probes(readiness: Readiness, limits: &LimitSettings) -> anyhow::Result<Router> {
    let health = grpc::serving::health(readiness.clone());
    let probes = Probes { metrics: metrics_handle()?, readiness };
    let routes = Router::new()
        .route("/healthz", get(async || Json(serde_json::json!({ "status": "alive" }))))
        .route("/readyz", get(ready))
        .route("/metrics", get(async |State(probes): State<Probes>| probes.metrics.render()))
        .with_state(probes)
        .merge(health);
    Ok(shared(routes, limits))
}

async fn ready(State(probes): State<Probes>) -> impl IntoResponse {
    let checks = (probes.readiness)();
    let (status, word) = if checks.iter().all(|check| check.ok) {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    };
    (status, Json(serde_json::json!({ "status": word, "checks": checks })))
}

/// Listens, or says plainly why not.
pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; is another process using it? Choose another: --listen HOST:PORT")
    })
}

/// Serves until `stop`; open calls get some seconds to finish.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    door: Door,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let rule = Rule { hosts: door.hosts.clone(), is_loopback: listener.local_addr()?.ip().is_loopback() };
    edge::serve(listener, request::layered(router, rule), door, stop).await
}
