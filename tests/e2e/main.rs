//! The platform as its users meet it. Every test starts its own nats-server and processes.

mod access;
mod accounts;
mod as_of;
mod bad_input;
mod cancel;
mod cross;
mod live;
mod log;
mod nats_cli;
mod nodes;
mod notifications;
mod meals;
mod rental;
mod appliance;
mod orders;
mod overload;
mod outages;
mod deadlines;
mod own_flows;
mod payments;
mod rebuild;
mod restarts;
mod roles;
mod seed_000;
mod settings;
mod views;
