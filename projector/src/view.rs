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
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    folder::{Fold, Folder},
    rows::Rows,
};

/// Rows in an order, as readers find them.
pub trait List: Send + Sync + 'static {
    /// The list's name in URLs, in the store and in reports. Never reuse one.
    const NAME: &'static str;

    /// Which rows these are, and how the store keeps them.
    const ROWS: Rows;

    /// Raise it when the rows, their shape or their places come about otherwise: the views are then built anew by
    /// themselves.
    const VERSION: u32 = 1;

    /// One row, as it is stored.
    type Row: Clone + Send + Serialize + DeserializeOwned + 'static;

    /// Whether the list is the rows themselves, as they lie, rather than places that point to them.
    const IS_ROWS: bool = false;

    /// Where the row is found, in ascending order of these bytes; `None` while it is not in this list. Of a list that
    /// [is the rows](Self::IS_ROWS), only whether it is in there counts.
    fn place(row: &Self::Row) -> Option<Vec<u8>>;

    /// The row as readers see it; the contract is made of this type.
    type Shown: Serialize + JsonSchema + 'static;

    /// The row as readers see it.
    fn shown(row: &Self::Row) -> Self::Shown;

    /// The row as readers see it, as JSON.
    fn show(row: &Self::Row) -> serde_json::Value {
        as_json(&Self::shown(row))
    }
}

/// A read model: rows, each the fold of the events that carry its key.
pub trait View: List {
    /// The keys of the rows that the event belongs to, each once; none if the view does not care for it.
    fn keys(event: &Stored) -> Vec<Vec<u8>>;

    /// The row of this key after the event; `None` if there still is none.
    fn apply(key: &[u8], row: Option<Self::Row>, event: &Stored) -> Option<Self::Row>;

    /// When the row began, of rows that lie [by age](Rows::ByAge). It never changes.
    fn began(_: &Self::Row) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    /// All lists of these rows.
    fn lists() -> Vec<Places<Self::Row>> {
        vec![Places::of::<Self>()]
    }
}

/// A list in which an order has at most one row: it is kept in the order's own row, so that an event of the order
/// changes one row, and not eight.
pub trait Part: Send + Sync + 'static {
    /// As [`List::NAME`].
    const NAME: &'static str;

    /// As [`List::VERSION`].
    const VERSION: u32 = 1;

    /// As [`List::IS_ROWS`]: the newest order first.
    const IS_ROWS: bool = false;

    type Row;

    /// This list's part of an order's row.
    fn of(order: &orders::Row) -> Option<&Self::Row>;

    /// Whether the event may change it.
    fn concerns(event: &Stored) -> bool;

    /// The part after an event that concerns it; `None` if there still is none.
    fn apply(part: Option<Self::Row>, event: &Stored) -> Option<Self::Row>;

    /// As [`List::place`].
    fn place(part: &Self::Row) -> Option<Vec<u8>>;

    /// As [`List::Shown`].
    type Shown: Serialize + JsonSchema + 'static;

    /// As [`List::shown`].
    fn shown(part: &Self::Row) -> Self::Shown;
}

impl<P: Part> List for P {
    const NAME: &'static str = P::NAME;
    const ROWS: Rows = orders::Orders::ROWS;
    const VERSION: u32 = P::VERSION;
    const IS_ROWS: bool = P::IS_ROWS;
    type Row = orders::Row;

    fn place(row: &orders::Row) -> Option<Vec<u8>> {
        P::of(row).and_then(P::place)
    }

    /// `None`: the order is not in this list.
    type Shown = Option<P::Shown>;

    fn shown(row: &orders::Row) -> Option<P::Shown> {
        P::of(row).map(P::shown)
    }
}

/// What readers see, as JSON.
pub fn as_json(shown: &impl Serialize) -> serde_json::Value {
    // What is shown has texts for keys, and writes.
    serde_json::to_value(shown).unwrap_or_default()
}

/// A list as the fold keeps it.
pub struct Places<R> {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    pub(crate) is_rows: bool,
    pub(crate) place: fn(&R) -> Option<Vec<u8>>,
    pub(crate) show: fn(&R) -> serde_json::Value,
}

impl<R> Places<R> {
    pub fn of<L: List<Row = R> + ?Sized>() -> Self {
        Self { name: L::NAME, version: L::VERSION, is_rows: L::IS_ROWS, place: L::place, show: L::show }
    }
}

/// Every view but `orders`, which the live feed reads as well and [`crate::fold::Projection`] therefore names.
pub(crate) fn all() -> Vec<Box<dyn Fold>> {
    vec![
        Box::new(Folder::<food_counts::FoodCounts>::default()),
        Box::new(Folder::<rider_counts::RiderCounts>::default()),
        Box::new(Folder::<ratings::Ratings>::default()),
    ]
}

/// The place of what a list that is the rows has.
const fn listed() -> Vec<u8> {
    Vec::new()
}

/// All of them.
pub(crate) fn everything() -> Vec<Box<dyn Fold>> {
    let orders: Box<dyn Fold> = Box::new(Folder::<orders::Orders>::default());
    std::iter::once(orders).chain(all()).collect()
}

/// How rows are kept in the store; another number is another definition.
const LAYOUT: u32 = 3;

/// What the views are, in one word: another word is another way to fold, and asks for a rebuild.
pub fn definition() -> String {
    let said: Vec<String> = everything().iter().map(|view| view.definition()).collect();
    domain::id::fingerprint(format!("{LAYOUT}:{}", said.join(",")).as_bytes())
}

/// How the rows of the named view are kept; `None` if there is no such view.
pub(crate) fn rows(view: &str) -> Option<Rows> {
    everything().iter().map(|fold| fold.rows()).find(|rows| rows.name() == view)
}

/// Every list, with the rows that it is of, and whether it is them.
pub(crate) fn lists() -> Vec<(&'static str, Rows, bool)> {
    let mut lists = Vec::new();
    for fold in everything() {
        lists.extend(fold.lists().into_iter().map(|(list, is_rows)| (list, fold.rows(), is_rows)));
    }
    lists
}

/// The rows of which the named list is one; `None` if there is no such list.
pub fn rows_of(list: &str) -> Option<Rows> {
    lists().into_iter().find(|(name, ..)| *name == list).map(|(_, rows, _)| rows)
}

/// A stored row of the named view, as the readers of its lists see it; `None` if there is no such view, or the row
/// does not read.
pub fn show(view: &str, row: &[u8]) -> Option<serde_json::Value> {
    everything().iter().find(|fold| fold.rows().name() == view)?.show(row)
}

/// The names of all views.
pub const NAMES: [&str; 15] = [
    orders::Orders::NAME,
    mypage::MyPage::NAME,
    <coupons::Coupons as List>::NAME,
    <payments::Payments as List>::NAME,
    <deliveries::Deliveries as List>::NAME,
    sagas::Sagas::NAME,
    sagas::ParkedSagas::NAME,
    <store_orders::StoreOrders as List>::NAME,
    food_counts::FoodCounts::NAME,
    rider_counts::RiderCounts::NAME,
    <rider_deliveries::RiderDeliveries as List>::NAME,
    <open_deliveries::OpenDeliveries as List>::NAME,
    <reviews::Reviews as List>::NAME,
    ratings::Ratings::NAME,
    notifications::Notifications::NAME,
];

/// The key of a row that belongs to one order.
pub fn order_key(order_id: OrderId) -> Vec<u8> {
    order_id.0.as_bytes().to_vec()
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

/// A number that is the less the newer the moment is.
pub(crate) fn newest_least(time: Timestamp) -> u64 {
    u64::MAX - u64::try_from(time.as_microsecond()).unwrap_or_default()
}

/// A place in a list, newest first: the inverted time, then the order, so that no two share a place.
fn newest_first(time: Timestamp, order_id: OrderId) -> Vec<u8> {
    [&newest_least(time).to_be_bytes()[..], order_id.0.as_bytes()].concat()
}
