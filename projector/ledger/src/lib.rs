//! The payments of the log, booked twice, in a SQL database: a view like any other, for those who want SQL.
//!
//! [`book`] says what an event books; [`place`] says where the ledger is; [`store`] keeps it, rows and checkpoint in
//! one transaction; [`follow`] keeps it up with the log; [`reconcile`] proves it against the log.

pub mod book;
pub mod place;
pub mod store;
pub mod follow;
pub mod reconcile;

pub use book::{Booking, Entry};
pub use place::shown;
pub use store::Ledger;

use domain::Position;

/// Why the ledger does not go on.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// What no later try can change.
    #[error("the ledger at {place} cannot be used: {why}")]
    Unusable { place: String, why: String },
    #[error("there is no ledger at {place}; `twelve up --ledger URL` and `twelve ledger follow` make one")]
    Missing { place: String },
    #[error("the ledger's database did not take what was booked in time")]
    Late,
    #[error("the ledger's database failed")]
    Sql(#[from] sqlx::Error),
    #[error("the log did not answer")]
    Log(#[from] nats::TopologyError),
    #[error("{0}; nothing is skipped: correct the event's reader, then start again")]
    Unreadable(#[from] nats::Undecodable),
    #[error(
        "the ledger was folded from another log than this one (partition {partition}): give it a database of its own"
    )]
    OtherLog { partition: u16 },
    #[error("another process keeps this ledger, too, and came first at {position}; one is enough")]
    Overtaken { position: Position },
    #[error("the log ended before {0}, which the ledger has")]
    Shortened(Position),
}
