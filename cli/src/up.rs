//! `twelve up`: everything in one process.

use std::net::SocketAddr;

use clap::Args;
use command_svc::{CommandService, CommandSettings};
use nats::{FlowBook, server::LocalServer};
use projector::Views;
use query_api::{App, AsOf, OperatorSettings, console, operator, overdue, readiness};
use service::{
    FlowSettings, Guard, GuardSettings, LimitSettings, contract, guarded, limited, process, settings, shared,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    ledger,
    local::{LocalSettings, Opened},
    openapi,
};

#[derive(Args, Clone, Debug)]
pub(crate) struct Settings {
    /// Where to listen for REST calls, live streams, probes and metrics
    #[arg(long, env = "TWELVE_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:8080",
          value_parser = settings::address)]
    listen: SocketAddr,
    /// Keep the payments in SQL, too: `sqlite:FILE` or `postgres://USER:PASSWORD@HOST/DATABASE`
    #[arg(long, env = "TWELVE_LEDGER", value_name = "URL", hide_env_values = true)]
    ledger: Option<String>,
    #[command(flatten)]
    local: LocalSettings,
    #[command(flatten)]
    flows: FlowSettings,
    #[command(flatten)]
    operator: OperatorSettings,
    #[command(flatten)]
    commands: CommandSettings,
    #[command(flatten)]
    guard: GuardSettings,
    #[command(flatten)]
    limits: LimitSettings,
}

pub(crate) async fn run(settings: Settings) -> anyhow::Result<()> {
    let stop = process::stop_on_signal()?;
    let guard = settings.guard.guard(settings.listen)?;
    let flows = settings.flows.load()?;
    process::metrics_handle()?;
    let listener = process::listen(settings.listen).await?;
    let Opened { log, url, mut server } = tokio::select! {
        opened = settings.local.open("twelve-up") => opened?,
        () = stop.cancelled() => anyhow::bail!("interrupted before the log was open"),
    };
    let monitor = server.as_ref().and_then(LocalServer::monitor);
    let lost = kept(server.as_mut());
    let started =
        serve(&settings, flows, (listener, guard), (&log, &url, monitor.as_deref()), lost, &stop).await;
    log.connection().close().await;
    match (started, server) {
        (Ok(()), Some(server)) => server.stop().await?,
        (Err(error), Some(server)) => {
            server.leave_as_found().await;
            return Err(error);
        }
        (started, None) => return started,
    }
    Ok(())
}

async fn serve(
    settings: &Settings,
    flows: domain::Flows,
    (listener, guard): (tokio::net::TcpListener, Option<Guard>),
    (log, url, monitor): (&nats::EventLog, &str, Option<&str>),
    lost: impl Future<Output = anyhow::Error>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let keeper = match settings.ledger.clone() {
        Some(url) => Some(ledger::Keeper::open(url, log.clone()).await?),
        None => None,
    };
    let (views, mut following) =
        Views::start(log, &settings.local.views(), settings.operator.node(), stop).await?;
    let flows = FlowBook::new(log, flows);
    let service = CommandService::new(log.clone(), flows.clone(), settings.commands.clone())?;
    service.prepare().await?;
    let mut deciding = service.start(stop).await?;
    let (views_are, health, rooms) =
        (readiness(views.clone(), log), service.health().clone(), service.rooms().clone());
    let readiness = std::sync::Arc::new(move || [views_are(), health.checks(), vec![rooms.check()]].concat());
    let mut probes = process::probes(readiness, &settings.limits)?;
    let (of_operator, folder) = (settings.guard.clone(), settings.local.views());
    let operator = settings.operator.listen().await?;
    let operator_address = operator.local_addr()?;
    let for_operators = (operator, guard.clone());
    let (operated, followed, ending) = (views.clone(), log.clone(), stop.clone());
    let limits = settings.limits.clone();
    following.spawn(async move {
        operator::serve(for_operators, &of_operator, (operated, followed), &folder, &limits, ending).await
    });
    if let Some(keeper) = keeper {
        let (ending, probe) = (stop.clone(), keeper.probe());
        probes = probes.merge(shared(probe, &settings.limits));
        // What it is about goes on without it.
        following.spawn(async move {
            if let Err(error) = keeper.run(ending).await {
                tracing::error!(error = %nats::causes(&error), "the ledger does not follow the log any more");
            }
            Ok(())
        });
    }
    let app = App {
        views,
        now: None,
        log: log.clone(),
        flows,
        as_of: AsOf::new(settings.operator.as_of_events_max),
        stop: stop.clone(),
    };
    following.spawn(overdue::watch(app.views.clone(), app.flows.clone(), stop.clone()));
    let (commands, queries) = (service.router(), query_api::router(app));
    let routes = limited(commands, &settings.limits).merge(limited(queries, &settings.limits));
    let contract = contract::router(&openapi::document(&settings.commands.roles), &settings.limits);
    let console = limited(console::router(), &settings.limits);
    let whole = guarded(routes, &settings.guard, guard)?.merge(probes).merge(contract).merge(console);
    greet(settings, (listener.local_addr()?, operator_address), url, monitor);
    let serving = process::serve(listener, whole, settings.limits.door(settings.guard.hosts()), stop.clone());
    tokio::pin!(serving);
    let result = tokio::select! {
        result = &mut serving => result,
        ended = ended(&mut deciding, stop) => ended,
        lost = lost => Err(lost),
    };
    stop.cancel();
    finish(deciding).await?;
    finish(following).await?;
    result
}

/// Keeps our own nats-server running; answers why that cannot be done any more.
async fn kept(server: Option<&mut LocalServer>) -> anyhow::Error {
    match server {
        Some(server) => server.keep().await.into(),
        None => std::future::pending().await,
    }
}

/// Why a part ended although nobody asked it to.
async fn ended(tasks: &mut JoinSet<anyhow::Result<()>>, stop: &CancellationToken) -> anyhow::Result<()> {
    while let Some(ended) = tasks.join_next().await {
        if !stop.is_cancelled() {
            ended??;
            anyhow::bail!("a part of the command service ended by itself");
        }
    }
    stop.cancelled().await;
    std::future::pending().await
}

async fn finish(mut tasks: JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

fn greet(
    settings: &Settings,
    (address, operator): (SocketAddr, SocketAddr),
    url: &str,
    monitor: Option<&str>,
) {
    let data = settings.local.data.display();
    let url = nats::connection::without_secrets(url);
    let order = r#"{"flow":"marketplace","channel":"phone","customer":{"id":"gentleman","name":"홍길동","phone":"010-0000-0000"},"lines":[{"item_id":"2001","name":"gram","quantity":1,"unit_price":9000000}],"currency":"KRW","address":{"line":"England","region":"london"},"payment":{"method":"card","token":"tok_ok"}}"#;
    // Who is asked for a token needs one: `twelve token` makes such for development.
    let bearer =
        if settings.guard.auth_jwks.is_some() { " -H \"Authorization: Bearer $(cat token)\"" } else { "" };
    let monitor = monitor.map_or(String::new(), |monitor| {
        format!("monitor   {monitor}        (of nats-server; twelve doctor --data {data})\n  ")
    });
    println!(
        "\nTwelve is up.\n\n  \
         REST      http://{address}        (all calls: /docs; also /readyz, /metrics, /views, /flows)\n  \
         console   http://{address}/console\n  \
         operators http://{operator}        (rebuilds of views, snapshots: /docs; twelve views --help)\n  \
         log       {url}        (nats stream ls --server {url})\n  \
         {monitor}\
         data      {data}\n\n\
         Place an order:\n\n  \
         curl -i http://{address}/orders{bearer} -H 'Content-Type: application/json' -d '{order}'\n\n\
         See it:\n\n  \
         curl{bearer} http://{address}/customers/gentleman/orders\n\n\
         A day of orders, for every page and query to show something:\n\n  \
         twelve demo --url http://{address}\n\n\
         Ctrl-C stops; the data stays.\n"
    );
}
