//! Folds the log into views.
//!
//! [`view`] says what a view is and lists them; [`store`] keeps rows and checkpoints together in sled, [`rows`]
//! how they lie there, [`packing`] how they are written, [`generations`] the directories; [`fold`] turns events into
//! changed rows; [`node`] serves readers from one generation, [`live`] ones too, while a [`job`] builds another beside
//! it; [`compare`] holds one against the other; [`as_of`] folds the views as they were; [`snapshot`] copies them for
//! others to start from; [`rebuild`] makes a generation offline.

pub mod view;
pub mod store;
pub mod rows;
mod changes;
pub mod packing;
mod restoring;
pub mod generations;
mod folder;
pub mod quarantine;
pub mod fold;
pub mod node;
mod reading;
pub mod live;
mod generation;
pub mod job;
mod beside;
pub mod as_of;
pub mod snapshot;
pub mod compare;
pub mod rebuild;

pub use fold::Unreadable;
pub use node::{NodeSettings, Views};
pub use reading::{PAGE_BYTES_MAX, Page, SCAN_PLACES_MAX};
pub use store::{Store, StoreError};
pub use view::{List, Part, View};
