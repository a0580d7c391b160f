//! What a view is: keys and a fold, one file each. A new view is one file and one line in [`all`].

pub mod coupons;
pub mod deliveries;
pub mod mypage;
pub mod orders;
pub mod payments;
pub mod sagas;
pub mod store_orders;
pub mod food_counts;
pub mod rider_counts;
pub mod rider_deliveries;
pub mod open_deliveries;
pub mod reviews;
pub mod ratings;
pub mod notifications;

use domain::{OrderId, Timestamp};
use nats::Stored;
use serde::{Serialize, de::DeserializeOwned};

use crate::fold::{Fold, Folder};

/// A read model: rows, each the fold of the events that carry its key.
pub trait View: Send + Sync + 'static {
    /// The view's name in URLs, in the store and in reports. Never reuse one.
    const NAME: &'static str;

    /// Raise it when `keys`, `apply`, `place` or the shape of `Row` changes: the views are then built anew by
    /// themselves.
    const VERSION: u32 = 1;

    /// One row, as it is stored.
    type Row: Clone + Send + Serialize + DeserializeOwned;

    /// The keys of the rows that the event belongs to, each once; none if the view does not care for it.
    fn keys(event: &Stored) -> Vec<Vec<u8>>;

    /// The row of this key after the event; `None` if there still is none.
    fn apply(key: &[u8], row: Option<Self::Row>, event: &Stored) -> Option<Self::Row>;

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
        Box::new(Folder::<store_orders::StoreOrders>::default()),
        Box::new(Folder::<food_counts::FoodCounts>::default()),
        Box::new(Folder::<rider_counts::RiderCounts>::default()),
        Box::new(Folder::<rider_deliveries::RiderDeliveries>::default()),
        Box::new(Folder::<open_deliveries::OpenDeliveries>::default()),
        Box::new(Folder::<reviews::Reviews>::default()),
        Box::new(Folder::<ratings::Ratings>::default()),
        Box::new(Folder::<notifications::Notifications>::default()),
    ]
}

/// What the views are, in one word: another word is another way to fold, and asks for a rebuild.
pub fn definition() -> String {
    let orders: Box<dyn Fold> = Box::new(Folder::<orders::Orders>::default());
    let views = std::iter::once(orders).chain(all());
    let said: Vec<String> = views.map(|view| format!("{}:{}", view.name(), view.version())).collect();
    domain::id::fingerprint(said.join(",").as_bytes())
}

/// A stored row of the named view, as readers see it; `None` if there is no such view, or the row does not read.
pub fn show(view: &str, row: &[u8]) -> Option<serde_json::Value> {
    if view == orders::Orders::NAME {
        return Folder::<orders::Orders>::default().show(row);
    }
    all().iter().find(|fold| fold.name() == view)?.show(row)
}

/// The names of all views.
pub const NAMES: [&str; 14] = [
    orders::Orders::NAME,
    mypage::MyPage::NAME,
    coupons::Coupons::NAME,
    payments::Payments::NAME,
    deliveries::Deliveries::NAME,
    sagas::Sagas::NAME,
    store_orders::StoreOrders::NAME,
    food_counts::FoodCounts::NAME,
    rider_counts::RiderCounts::NAME,
    rider_deliveries::RiderDeliveries::NAME,
    open_deliveries::OpenDeliveries::NAME,
    reviews::Reviews::NAME,
    ratings::Ratings::NAME,
    notifications::Notifications::NAME,
];

/// The key of a row that belongs to one order.
pub fn order_key(order_id: OrderId) -> Vec<u8> {
    order_id.0.as_bytes().to_vec()
}

/// The key of the event's order, if the event is one that the view cares for.
fn own_key(is_ours: bool, event: &Stored) -> Vec<Vec<u8>> {
    if is_ours { vec![order_key(event.recorded.order_id)] } else { Vec::new() }
}

/// What the places of everything that belongs to `owner` begin with.
///
/// Ids hold no control characters, so none is another's prefix.
pub fn places_of(owner: &str) -> Vec<u8> {
    [owner.as_bytes(), &[0]].concat()
}

/// A place in a list, the highest count first.
fn highest_first(count: u64, id: &str) -> Vec<u8> {
    [&(u64::MAX - count).to_be_bytes()[..], id.as_bytes()].concat()
}

/// A place in a list, newest first: the inverted time, then the order, so that no two share a place.
fn newest_first(time: Timestamp, order_id: OrderId) -> Vec<u8> {
    let micros = u64::try_from(time.as_microsecond()).unwrap_or_default();
    [&(u64::MAX - micros).to_be_bytes()[..], order_id.0.as_bytes()].concat()
}
