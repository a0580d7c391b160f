//! Read-only HTTP over the views. The process that serves a view is the process that builds it.
//!
//! [`read`] waits for positions, pages and answers; [`routes`] is the URL table; [`live`] is Server-Sent Events.

pub mod read;
pub mod routes;
pub mod live;

pub use routes::{App, readiness, router};
