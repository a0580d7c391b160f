//! `twelve query-api`: a view node as a process of its own.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum as _};
use command_svc::Role;
use nats::FlowBook;
use projector::Views;
use query_api::{App, AsOf, OperatorSettings, console, operator, overdue, readiness, router};
use service::{
    FlowSettings, GuardSettings, LimitSettings, StartupSettings, contract, guarded, limited, process,
    settings::{self, LogSettings, ServerSettings},
};

use crate::openapi;

/// Its name on the nats-server and in traces.
pub(crate) const NAME: &str = "twelve-query-api";

#[derive(Args, Clone, Debug)]
pub(crate) struct Settings {
    /// Where to listen for queries, probes and metrics
    #[arg(long, env = "TWELVE_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:8082",
          value_parser = settings::address)]
    listen: SocketAddr,
    /// Where to keep the views; belongs to one process at a time
    #[arg(long, env = "TWELVE_VIEWS", value_name = "DIR", default_value = ".twelve/views")]
    views: PathBuf,
    #[command(flatten)]
    server: ServerSettings,
    #[command(flatten)]
    startup: StartupSettings,
    #[command(flatten)]
    log: LogSettings,
    #[command(flatten)]
    flows: FlowSettings,
    #[command(flatten)]
    operator: OperatorSettings,
    #[command(flatten)]
    guard: GuardSettings,
    #[command(flatten)]
    limits: LimitSettings,
}

/// Serves until a signal stops it.
pub(crate) async fn run(settings: Settings) -> anyhow::Result<()> {
    let guard = settings.guard.guard(settings.listen)?;
    let stop = process::stop_on_signal()?;
    let server = &settings.server;
    let open = async || settings.log.open(&server.nats, NAME, server.durability).await;
    let log = settings.startup.patiently(&stop, open).await?;
    process::metrics_handle()?;
    let (views, mut tasks) = Views::start(&log, &settings.views, settings.operator.node(), &stop).await?;
    // The front door sends readers of the contract here, so it is the whole one.
    let contract = contract::router(&openapi::document(Role::value_variants()), &settings.limits);
    let probes = process::probes(readiness(views.clone(), &log), &settings.limits)?;
    let app = App {
        views,
        now: None,
        log: log.clone(),
        flows: FlowBook::new(&log, settings.flows.load()?),
        as_of: AsOf::new(settings.operator.as_of_events_max),
        stop: stop.clone(),
    };
    tasks.spawn(overdue::watch(app.views.clone(), app.flows.clone(), stop.clone()));
    let listener = process::listen(settings.listen).await?;
    let operated = (settings.operator.listen().await?, guard.clone());
    tracing::info!(address = %operated.0.local_addr()?, "operators are served");
    let (views, followed, folder, ending) =
        (app.views.clone(), log.clone(), settings.views.clone(), stop.clone());
    let (of_operator, limits) = (settings.guard.clone(), settings.limits.clone());
    tasks.spawn(async move {
        operator::serve(operated, &of_operator, (views, followed), &folder, &limits, ending).await
    });
    tracing::info!(address = %listener.local_addr()?, "query-api is up");
    let result = process::serve(
        listener,
        guarded(limited(router(app), &settings.limits), &settings.guard, guard)?
            .merge(probes)
            .merge(contract)
            .merge(limited(console::router(), &settings.limits)),
        settings.limits.door(settings.guard.hosts()),
        stop.clone(),
    )
    .await;
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    log.connection().close().await;
    result
}
