//! The rules of the order platform, and nothing else: no IO, no clock, no randomness.
//!
//! Read in this order: [`event`] (the facts), the contexts [`order`], [`payment`], [`store`], [`coupon`],
//! [`delivery`], [`review`], [`notification`] (each with its states, commands, `decide` and `evolve`), [`state`] (the
//! fold of one order's whole story), [`flow`] (how an order travels, as data) and [`saga`] (what happens next by
//! itself). [`explore`] walks everything that can come of it, [`history`] makes up lives that are true to it.
//!
//! Words: an **order** is what a customer asked for; its id keys the log. A **flow** is the declared way of an
//! order. A **context** decides about one side of an order and appends its own events. A **command** may be
//! refused; an **event** is a fact and never changes. A **position** says where in the log a fact stands.

pub mod id;
pub mod money;
pub mod event;
pub mod text;
pub mod order;
pub mod payment;
pub mod store;
pub mod coupon;
pub mod delivery;
pub mod review;
pub mod notification;
pub mod access;
pub mod sight;
pub mod status;
pub mod state;
pub mod command;
pub mod flow;
pub mod saga;
pub mod explore;
pub mod history;

/// A moment in UTC. The domain can compare and print one, but never asks what time it is.
pub use jiff::Timestamp;

pub use command::{Command, Refusal};
pub use event::{Context, Event, Recorded};
pub use flow::{Flow, FlowRef, Flows};
pub use id::{CommandId, EventId, OrderId, Position};
pub use money::{Currency, Money};
pub use state::OrderState;
pub use status::Status;
