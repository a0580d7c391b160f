//! The URL table of queries.

mod flows;
mod notifications;
mod orders;
mod rows;
mod riders;
mod sagas;
mod stores;
mod views;

use std::sync::Arc;

use axum::{Router, middleware, routing::get};
use domain::{OrderId, sight::Sight};
use nats::{EventLog, FlowBook};
use projector::{
    Views,
    node::Health,
    view::{
        coupons::Coupons,
        order_key,
        orders::{Orders, Row},
        payments::Payments,
    },
};
use service::{
    Caller, Problem,
    process::{Check, Readiness},
};
use tokio_util::sync::CancellationToken;

use crate::{AsOf, access, as_of, grpc, live, read::store_failed};

/// What handlers read from.
#[derive(Clone)]
pub struct App {
    pub views: Views,
    /// The views as they are now, where `views` are those of a moment that has passed.
    pub now: Option<Views>,
    pub log: EventLog,
    pub flows: FlowBook,
    pub as_of: AsOf,
    /// Ends the live streams, which would otherwise outlive any graceful stop.
    pub stop: CancellationToken,
}

impl App {
    /// What the caller sees of an order: as of a moment that has passed, only what they see of it now, too.
    pub(crate) fn sight(&self, caller: &Caller, row: &Row) -> Result<Sight, Problem> {
        let then = caller.sight(&row.parties())?;
        let (Some(views), true) = (&self.now, caller.person.is_some()) else { return Ok(then) };
        let row = views.row::<Orders>(&order_key(row.order_id)).map_err(|error| store_failed(&error))?;
        let now = caller.sight(&row.map(|row| row.parties()).unwrap_or_default())?;
        Ok(then.and(now))
    }
}

/// All queries, now and as of a moment that has passed; and an order by gRPC.
pub fn router(app: App) -> Router {
    let rest = table(app.clone())
        .layer(middleware::from_fn_with_state(app, as_of::answer))
        .route_layer(middleware::from_fn(access::check));
    rest.clone().merge(grpc::router(rest))
}

/// All queries of these views.
pub(crate) fn table(app: App) -> Router {
    Router::new()
        .route("/orders", get(orders::list))
        .route("/orders/{order_id}", get(orders::one))
        .route("/orders/{order_id}/events", get(orders::events))
        .route("/orders/{order_id}/live", get(live::order))
        .route("/customers/{customer_id}/orders", get(orders::of_customer))
        .route("/customers/{customer_id}/orders/live", get(live::customer))
        .route("/coupons", get(rows::list::<Coupons>))
        .route("/payments", get(rows::list::<Payments>))
        .route("/deliveries", get(riders::all))
        .route("/deliveries/open", get(riders::open))
        .route("/riders/delivery-counts", get(riders::counts))
        .route("/riders/{rider_id}/deliveries", get(riders::deliveries))
        .route("/stores/{store_id}/orders", get(stores::orders))
        .route("/stores/{store_id}/orders/live", get(live::store))
        .route("/items/order-counts", get(stores::food_counts))
        .route("/items/{item_id}/order-count", get(stores::food_count))
        .route("/reviews", get(stores::reviews))
        .route("/notifications", get(notifications::list))
        .route("/sagas", get(sagas::list))
        .route("/sagas/{order_id}", get(sagas::one))
        .route("/views", get(views::list))
        .route("/views/{name}", get(views::one))
        .route("/flows", get(flows::list))
        .route("/flows/{name}", get(flows::one))
        .with_state(app)
}

/// The order that a path names. What is no id names no order.
fn order_id(text: &str) -> Result<OrderId, Problem> {
    text.parse().map_err(|_| Problem::order_not_found())
}

/// Ready: the log is complete, connected, caught up with the log as it was at the start, and not standing still; views
/// of an older definition, as long as nothing is known against their being built anew.
pub fn readiness(views: Views, log: &EventLog) -> Readiness {
    let log = log.clone();
    Arc::new(move || {
        let connected = log.connection().is_connected();
        let caught_up = views.has_caught_up();
        let Health { stopped, is_outdated, rebuild_failure, .. } = views.health();
        vec![
            Check::of_history(&log.lost()),
            Check {
                name: "nats",
                ok: connected,
                detail: if connected { "connected" } else { "not connected" }.into(),
            },
            Check {
                name: "views",
                ok: caught_up && stopped.is_none() && rebuild_failure.is_none(),
                detail: match (stopped.or_else(|| rebuild_failure.as_deref().map(outdated)), caught_up) {
                    (Some(why), _) => why,
                    (None, true) if is_outdated => "of an older definition, and being built anew".into(),
                    (None, true) => "caught up with the log as it was at the start".into(),
                    (None, false) => "catching up".into(),
                },
            },
        ]
    })
}

fn outdated(why: &str) -> String {
    format!("of an older definition, and could not be built anew, which is tried again: {why}")
}
