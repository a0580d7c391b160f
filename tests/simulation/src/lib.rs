//! The whole platform in one thread, in a time of its own, on a log in memory: two processes with the code that runs in
//! production, the server, the payment provider, whoever brings messages, and the people around some orders; messages
//! get lost, late and doubled, processes are killed, the server loses its power, clocks differ. Everything is drawn
//! from a seed, so what was seen once can be seen again.
//!
//! [`run`] lives one seed and holds its end against what must always be so. Read [`server`] (the log), [`net`] (what
//! gets lost), [`process`], [`bank`], [`postbox`], [`people`] (what happens), [`history`] and [`views`] (what must
//! hold).

pub mod chance;
pub mod server;
pub mod net;
pub mod process;
pub mod bank;
pub mod postbox;
pub mod people;
pub mod history;
pub mod mangle;
pub mod fuzz;
pub mod views;
mod world;

pub use self::server::Flaw;
pub use self::world::{Report, run, setting};
