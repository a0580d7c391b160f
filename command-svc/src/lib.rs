//! Takes commands by REST and by NATS, decides them on the order's own story, appends the event; runs the saga.
//!
//! Read in this order: [`story`] (what is known of an order), [`execute`] (load, decide, append, once), [`payment`] and [`provider`] (the one context that
//! calls outside), [`calls`] (commands to other contexts, behind breakers), [`runner`] (the saga at work),
//! [`routes`] (the URL table) and [`body`] (what a body must say).

pub mod body;
pub mod calls;
pub mod execute;
pub mod payment;
pub mod provider;
pub mod routes;
pub mod runner;
pub mod settings;
pub mod start;
pub mod story;

pub use settings::{CommandSettings, Role};
pub use start::CommandService;
