//! `twelve`: everything in one process, each part as a process of its own, and the tools around it.

// First: its macros are for all that follow.
#[macro_use]
mod terminal;

mod accounts;
mod archive;
mod bench;
mod completions;
mod demo;
mod doctor;
mod flow;
mod ledger;
mod local;
mod openapi;
mod orders;
mod rest;
mod services;
mod setup;
mod streams;
mod token;
mod up;
mod views;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use service::{process::ProcessSettings, settings};

/// An order platform on NATS JetStream: event-sourced, and each order's way is a declared flow.
#[derive(Parser, Debug)]
#[command(
    version,
    about,
    after_help = "A day of orders in a minute:\n  twelve up\nand in another terminal:\n  twelve demo\n  twelve orders list"
)]
struct Twelve {
    #[command(flatten)]
    process: ProcessSettings,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Start everything in one process, with a nats-server of its own
    Up(Box<up::Settings>),
    #[command(flatten)]
    Service(services::Service),
    /// Fill a running platform with a day of orders, so that every page and query shows something
    Demo(demo::Settings),
    /// List, show, follow and cancel a running platform's orders
    Orders(orders::Settings),
    /// List, show and check the flows that orders follow
    Flow(flow::Settings),
    /// Rebuild the views from the log, or compare two generations of them
    Views(views::Settings),
    /// Move orders that are over out of the log, into the archive beside it
    Archive(Box<archive::Settings>),
    /// Book the payments of the log twice, in SQL, and prove the books
    Ledger(ledger::Settings),
    /// Issue a token for development, and the key set that it is checked with
    Token(token::Settings),
    /// Make a key for each kind of process, and the permissions that a nats-server gives them
    NatsAccounts(accounts::Settings),
    /// Make or verify the streams, buckets and work queues on a nats-server
    Nats(setup::Settings),
    /// Print the log's streams as resources of a Kubernetes cluster (NACK)
    Streams(Box<streams::Settings>),
    /// Print every call as `OpenAPI` 3.1
    Openapi {
        /// The calls on the operator's port instead
        #[arg(long)]
        operator: bool,
    },
    /// Print the log and every event's JSON Schema as `AsyncAPI` 3.0
    Asyncapi,
    /// Look at a deployment, and say what is wrong with it and what to do
    Doctor(doctor::Settings),
    /// Print what a shell completes after `twelve`
    Completions(completions::Settings),
    /// Measure: orders, whole lives, reads, races and cancels at a steady rate, next to raw JetStream
    Bench(bench::Settings),
}

#[tokio::main]
async fn main() -> ExitCode {
    terminal::exit_code(run().await)
}

async fn run() -> anyhow::Result<()> {
    let twelve: Twelve = settings::parse()?;
    let name = if let Command::Service(service) = &twelve.command { service.name() } else { "twelve" };
    let _telemetry = twelve.process.telemetry.start(name)?;
    match twelve.command {
        Command::Up(settings) => up::run(*settings).await,
        Command::Service(service) => service.run().await,
        Command::Demo(settings) => demo::run(settings).await,
        Command::Orders(settings) => orders::run(settings).await,
        Command::Flow(settings) => flow::run(settings),
        Command::Views(settings) => views::run(settings).await,
        Command::Archive(settings) => archive::run(*settings).await,
        Command::Ledger(settings) => ledger::run(settings).await,
        Command::Token(settings) => token::run(&settings),
        Command::NatsAccounts(settings) => accounts::run(&settings),
        Command::Nats(settings) => setup::run(settings).await,
        Command::Streams(settings) => {
            streams::run(&settings);
            Ok(())
        }
        Command::Openapi { operator } => {
            openapi::run(operator);
            Ok(())
        }
        Command::Asyncapi => {
            println!("{:#}", nats::contract::document());
            Ok(())
        }
        Command::Completions(settings) => {
            completions::run(settings, Twelve::command());
            Ok(())
        }
        Command::Doctor(settings) => doctor::run(settings).await,
        Command::Bench(settings) => bench::run(settings).await,
    }
}
