//! Read-only HTTP over the views. The process that serves a view is the process that builds it.
//!
//! `access` says who may ask what; [`read`] waits for positions, pages and answers, `pages` builds lists, in `turns`;
//! [`routes`] is the URL table, [`contract`] the same as data; [`live`] is Server-Sent Events; [`operator`] is what
//! only operators may do; [`as_of`] answers for a moment that has passed; [`overdue`] counts orders that nothing looks
//! at any more.

mod access;
pub mod answers;
pub mod read;
mod turns;
mod pages;
pub mod routes;
pub mod contract;
pub mod console;
mod grpc;
pub mod live;
pub mod operator;
pub mod as_of;
pub mod overdue;

pub use as_of::AsOf;
pub use operator::OperatorSettings;
pub use routes::{App, readiness, router};
