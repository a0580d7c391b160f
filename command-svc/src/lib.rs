//! Takes commands by REST and by NATS, decides them on the order's own story, appends the event; runs the saga.
//!
//! Read in this order: [`story`] (what is known of an order), [`execute`] (load, decide, append, once), [`payment`]
//! and [`provider`] (the one context that calls outside), [`retry_after`] (when others may be called again),
//! [`admission`] (how many at a time), [`room`] (for how much more), [`calls`] (commands to other contexts, behind
//! breakers), [`decide`] (answers to theirs), [`checkout`] (calls that several take part in),
//! [`runner`] (the saga at work), [`notify`] (customers are told), [`routes`] (the URL table), [`contract`] (the same
//! as data), [`health`] (what probes are told) and [`body`] (what a body must say).

pub mod preset;
pub mod settings;
pub mod story;
pub mod execute;
pub mod retry_after;
pub mod provider;
pub mod payment;
pub mod admission;
pub mod room;
pub mod breaker;
pub mod calls;
pub mod decide;
pub mod checkout;
pub mod runner;
pub mod notify;
pub mod routes;
pub mod body;
pub mod contract;
pub mod grpc;
pub mod health;
pub mod start;

pub use settings::{CommandSettings, Role};
pub use start::CommandService;
