//! The platform as its users meet it. Every test starts its own nats-server and processes.

mod bad_input;
mod cancel;
mod live;
mod log;
mod nats_cli;
mod meals;
mod rental;
mod appliance;
mod orders;
mod outages;
mod restarts;
mod roles;
mod seed_000;
mod settings;
mod views;
