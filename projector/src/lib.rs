//! Folds the log into views.
//!
//! [`view`] says what a view is and lists them; [`store`] keeps rows and checkpoints together in sled; [`fold`] turns
//! events into changed rows; [`node`] follows the log and serves readers; [`rebuild`] makes a generation from nothing.

pub mod view;
pub mod store;
pub mod fold;
pub mod node;
pub mod rebuild;

pub use node::{LiveEvent, Views};
pub use store::{Store, StoreError};
pub use view::View;
