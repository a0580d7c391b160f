//! `twelve command-svc`: the command side as a process of its own.

use std::{net::SocketAddr, sync::Arc};

use clap::Args;
use command_svc::{CommandService, CommandSettings};
use service::{
    FlowSettings, GuardSettings, LimitSettings, StartupSettings, contract, guarded, limited,
    process::{self, Check, Readiness},
    settings::{self, LogSettings, ServerSettings},
};

/// Its name on the nats-server and in traces.
pub(crate) const NAME: &str = "twelve-command-svc";

#[derive(Args, Clone, Debug)]
pub(crate) struct Settings {
    /// Where to listen for REST calls, probes and metrics
    #[arg(long, env = "TWELVE_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:8081",
          value_parser = settings::address)]
    listen: SocketAddr,
    #[command(flatten)]
    server: ServerSettings,
    #[command(flatten)]
    startup: StartupSettings,
    #[command(flatten)]
    log: LogSettings,
    #[command(flatten)]
    flows: FlowSettings,
    #[command(flatten)]
    commands: CommandSettings,
    #[command(flatten)]
    guard: GuardSettings,
    #[command(flatten)]
    limits: LimitSettings,
}

/// Serves until a signal stops it, or a part of it ends by itself.
pub(crate) async fn run(settings: Settings) -> anyhow::Result<()> {
    let guard = settings.guard.guard(settings.listen)?;
    let stop = process::stop_on_signal()?;
    let startup = settings.startup;
    let (url, durability) = (&settings.server.nats, settings.server.durability);
    let open = async || settings.log.open(url, NAME, durability).await;
    let log = startup.patiently(&stop, open).await?;
    let connection = log.connection().clone();
    let watched = log.clone();
    let flows = nats::FlowBook::new(&log, settings.flows.load()?);
    let roles = settings.commands.roles.clone();
    let service = CommandService::new(log, flows, settings.commands)?;
    let (health, rooms) = (service.health().clone(), service.rooms().clone());
    let readiness: Readiness = Arc::new(move || {
        let ok = watched.connection().is_connected();
        let nats = Check { name: "nats", ok, detail: if ok { "connected" } else { "not connected" }.into() };
        [vec![Check::of_history(&watched.lost()), nats], health.checks(), vec![rooms.check()]].concat()
    });
    let probes = process::probes(readiness, &settings.limits)?;
    let listener = process::listen(settings.listen).await?;
    let mut schemas = contract::Schemas::default();
    let operations = command_svc::contract::operations(&roles, &mut schemas);
    let document = contract::document(&contract::SERVICES, &operations, schemas);
    let contract = contract::router(&document, &settings.limits);
    startup.patiently(&stop, async || service.prepare().await).await?;
    let mut tasks = service.start(&stop).await?;
    tracing::info!(address = %listener.local_addr()?, "command-svc is up");
    let served = process::serve(
        listener,
        guarded(limited(service.router(), &settings.limits), &settings.guard, guard)?
            .merge(probes)
            .merge(contract),
        settings.limits.door(settings.guard.hosts()),
        stop.clone(),
    );
    tokio::pin!(served);
    let result = loop {
        tokio::select! {
            result = &mut served => break result,
            Some(ended) = tasks.join_next() => if !stop.is_cancelled() {
                break ended?.and_then(|()| anyhow::bail!("a part of command-svc ended by itself"));
            },
        }
    };
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    connection.close().await;
    result
}
