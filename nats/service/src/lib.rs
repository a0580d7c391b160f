//! What every process of Twelve needs.
//!
//! [`settings`] reads flags, environment and a file; [`flows`] reads the flows and checks them; [`telemetry`] sends log
//! lines and spans; [`startup`] waits for what is not there yet; [`process`] sets up signals and the HTTP server;
//! [`edge`] keeps slow and hostile peers from taking what others need; [`hosts`] are the names that are answered to;
//! [`request`] gives every call an id, a trace and a metric; [`fields`] reads header fields; [`guard`] tells who calls,
//! [`limits`] how often they may, [`shares`] how much at a time, [`contract`] what they may ask; [`grpc`] is the other
//! way in; [`problem`] is the one shape of an error answer.

pub mod settings;
pub mod flows;
pub mod telemetry;
pub mod startup;
pub mod process;
mod catalog;
pub mod request;
pub mod fields;
pub mod hosts;
mod cors;
mod keys;
pub mod guard;
pub mod shares;
mod origin;
pub mod edge;
pub mod limits;
pub mod contract;
pub mod problem;
pub mod grpc;

pub use edge::{Door, EdgeSettings};
pub use flows::FlowSettings;
pub use guard::{Guard, GuardSettings, guarded, same_site};
pub use hosts::Hosts;
pub use limits::{LimitSettings, limited, shared};
pub use problem::{Code, Problem};
pub use request::Caller;
pub use shares::{Kind, Share};
pub use startup::StartupSettings;

/// Every process allocates with it: the store of the views spends half its time in the allocator, and this one halves
/// that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
