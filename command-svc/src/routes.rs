//! The URL table of commands. Every handler parses, executes, answers.

mod answer;
mod breakers;
mod delivery;
mod orders;
mod review;
mod sagas;
mod store;

use crate::{
    body::BODY_BYTES_MAX, breaker::Breakers, calls::Calls, checkout::Checkout, execute::Executor,
    room::Rooms, settings::Role,
};
use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post},
};

pub(crate) use answer::Accepted;
pub(crate) use breakers::BreakerList;

/// What handlers work with.
#[derive(Clone)]
pub struct App {
    pub executor: Executor,
    pub calls: Calls,
    pub breakers: Breakers,
    pub rooms: Rooms,
}

impl App {
    fn checkout(&self) -> Checkout {
        Checkout { executor: self.executor.clone(), calls: self.calls.clone() }
    }
}

/// The routes of the contexts that this process serves.
pub fn router(app: App, roles: &[Role]) -> Router {
    let mut router =
        Router::new().route("/breakers", get(breakers::list)).route("/breakers/{call}", post(breakers::hold));
    for role in roles {
        router = match role {
            Role::Ordering => router
                .route("/orders", post(orders::place))
                .route("/orders/{order_id}/payment", post(orders::pay))
                .route("/orders/{order_id}/cancel", post(orders::cancel))
                .route("/orders/{order_id}/confirm", post(orders::confirm))
                .route("/orders/{order_id}/return", post(orders::give_back)),
            Role::Store => router
                .route("/orders/{order_id}/store/accept", post(store::accept))
                .route("/orders/{order_id}/store/reject", post(store::reject))
                .route("/orders/{order_id}/store/start", post(store::start))
                .route("/orders/{order_id}/store/finish", post(store::finish)),
            Role::Review => router.route("/orders/{order_id}/review", post(review::write)),
            Role::Delivery => router
                .route("/orders/{order_id}/delivery/pickup", post(delivery::pick_up))
                .route("/orders/{order_id}/delivery/start", post(delivery::start))
                .route("/orders/{order_id}/delivery/complete", post(delivery::complete))
                .route("/orders/{order_id}/delivery/cancel", post(delivery::cancel))
                .route("/orders/{order_id}/return/pickup", post(delivery::start_return))
                .route("/orders/{order_id}/return/complete", post(delivery::complete_return)),
            Role::Saga => router.route("/sagas/{order_id}/resume", post(sagas::resume)),
            Role::Payment | Role::Marketing | Role::Notification => router,
        };
    }
    router.layer(DefaultBodyLimit::max(BODY_BYTES_MAX)).with_state(app)
}
