//! The platform as its users meet it. Every test starts its own nats-server and processes.

mod orders;
mod cancel;
mod seed_000;
mod restarts;
mod log;
mod views;
mod live;
mod roles;
mod bad_input;
mod settings;
mod outages;
mod nats_cli;
