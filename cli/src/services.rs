//! The parts of the platform, each as a process of its own: the same program, started as one of them.

mod command_svc;
mod projector;
mod query_api;

use clap::Subcommand;

#[derive(Subcommand, Debug)]
pub(crate) enum Service {
    /// Take commands by REST, decide them on the log, and run the saga; each role may run in a process of its own
    CommandSvc(Box<command_svc::Settings>),
    /// Follow the log into views of its own and answer queries from them; start as many as there is need for
    QueryApi(Box<query_api::Settings>),
    /// Build views from the log without serving them, or compare two generations of them
    Projector(Box<projector::Settings>),
}

impl Service {
    /// By which traces tell it from the others.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::CommandSvc(_) => command_svc::NAME,
            Self::QueryApi(_) => query_api::NAME,
            Self::Projector(_) => projector::NAME,
        }
    }

    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::CommandSvc(settings) => command_svc::run(*settings).await,
            Self::QueryApi(settings) => query_api::run(*settings).await,
            Self::Projector(settings) => projector::run(*settings).await,
        }
    }
}
