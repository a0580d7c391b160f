//! What a view is: a key and a fold, one file each. A new view is one file and one line in [`all`].

pub mod coupons;
pub mod deliveries;
pub mod mypage;
pub mod orders;
pub mod payments;
pub mod sagas;

use domain::{OrderId, Timestamp};
use nats::Stored;
use serde::{Serialize, de::DeserializeOwned};

use crate::fold::{Fold, Folder};

/// A read model: rows, each the fold of the events that carry its key.
pub trait View: Send + Sync + 'static {
    /// The view's name in URLs, in the store and in reports. Never reuse one.
    const NAME: &'static str;

    /// One row, as it is stored.
    type Row: Clone + Send + Serialize + DeserializeOwned;

    /// The key of the row that the event belongs to; `None` if the view does not care for it.
    fn key(event: &Stored) -> Option<Vec<u8>>;

    /// The row after the event; `None` if there still is none.
    fn apply(row: Option<Self::Row>, event: &Stored) -> Option<Self::Row>;

    /// Where lists find the row, in ascending order of these bytes; `None` while it is in no list.
    fn place(row: &Self::Row) -> Option<Vec<u8>>;

    /// The row as readers see it.
    fn show(row: &Self::Row) -> serde_json::Value;
}

/// Every view but `orders`, which the live feed reads as well and [`crate::fold::Projection`] therefore names.
pub(crate) fn all() -> Vec<Box<dyn Fold>> {
    vec![
        Box::new(Folder::<mypage::MyPage>::default()),
        Box::new(Folder::<coupons::Coupons>::default()),
        Box::new(Folder::<payments::Payments>::default()),
        Box::new(Folder::<deliveries::Deliveries>::default()),
        Box::new(Folder::<sagas::Sagas>::default()),
    ]
}

/// The names of all views.
pub const NAMES: [&str; 6] = [
    orders::Orders::NAME,
    mypage::MyPage::NAME,
    coupons::Coupons::NAME,
    payments::Payments::NAME,
    deliveries::Deliveries::NAME,
    sagas::Sagas::NAME,
];

/// The key of a row that belongs to one order.
pub fn order_key(order_id: OrderId) -> Vec<u8> {
    order_id.0.as_bytes().to_vec()
}

/// A place in a list, newest first: the inverted time, then the order, so that no two share a place.
fn newest_first(time: Timestamp, order_id: OrderId) -> Vec<u8> {
    let micros = u64::try_from(time.as_microsecond()).unwrap_or_default();
    [&(u64::MAX - micros).to_be_bytes()[..], order_id.0.as_bytes()].concat()
}
