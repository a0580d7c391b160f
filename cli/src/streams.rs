//! `twelve streams`: the log's streams as resources of a Kubernetes cluster.

use clap::Args;
use nats::nack;
use service::settings::LogSettings;

#[derive(Args, Clone, Debug)]
#[command(after_help = "In a cluster with NACK, the controller of the NATS project:\n  \
    twelve streams --partitions 4 --replicas 3 | kubectl apply -f -\n\
    and then the services with --streams verify.")]
pub(crate) struct Settings {
    #[command(flatten)]
    log: LogSettings,
}

/// Prints them.
pub(crate) fn run(settings: &Settings) {
    println!(
        "# The streams of the log, as `twelve streams` declares them for NACK, the controller of the NATS project."
    );
    print!("{}", nack::yaml(&nack::streams(&settings.log.topology())));
}
