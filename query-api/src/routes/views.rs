//! `GET /views`: how far each view is, and whether it stands still.

use axum::{
    extract::{Path, State},
    response::Response,
};
use domain::id::PositionText;
use projector::view::NAMES;
use service::{Code, Problem};

use super::App;
use crate::{
    answers::{OrderSetAside, PartitionLag, Quarantined, QuarantinedMessage, SharedStore, View},
    read::{Read, store_failed},
};

/// What all views share, because they share a store: positions, lag, generation, bytes.
async fn shared(app: &App) -> Result<SharedStore, Problem> {
    let bytes = app.views.bytes().map_err(|error| store_failed(&error))?;
    let mut partitions = Vec::new();
    for position in app.views.positions() {
        let last = app.log.partition_info(position.partition).await.ok().map(|info| info.last_sequence);
        partitions.push(PartitionLag {
            position: PositionText(position),
            lag_events: last.map(|last| last.saturating_sub(position.sequence)),
        });
    }
    let health = app.views.health();
    let set_aside = health.set_aside.into_iter().map(|order| OrderSetAside {
        order_id: order.order_id,
        position: PositionText(order.position),
        reason: order.reason,
    });
    let first = health.quarantine.first.into_iter().map(|message| QuarantinedMessage {
        subject: message.subject,
        position: PositionText(message.position),
        reason: message.reason,
    });
    Ok(SharedStore {
        generation: app.views.generation(),
        partitions,
        caught_up: app.views.has_caught_up(),
        stopped: health.stopped,
        set_aside: set_aside.collect(),
        quarantined: Quarantined { messages: health.quarantine.messages, first: first.collect() },
        store_bytes: bytes,
    })
}

fn describe(app: &App, name: &'static str, shared: &SharedStore) -> Result<View, Problem> {
    let rows = app.views.rows(name).map_err(|error| store_failed(&error))?;
    Ok(View { name, rows, store: shared.clone() })
}

pub(super) async fn list(State(app): State<App>, read: Read) -> Result<Response, Problem> {
    read.finish()?;
    let shared = shared(&app).await?;
    let items: Result<Vec<View>, Problem> = NAMES.iter().map(|name| describe(&app, name, &shared)).collect();
    Ok(read.answer_page(&app, &items?, None))
}

pub(super) async fn one(
    State(app): State<App>,
    Path(name): Path<String>,
    read: Read,
) -> Result<Response, Problem> {
    read.finish()?;
    let Some(name) = NAMES.into_iter().find(|known| *known == name) else {
        let detail = format!("there is no such view; there are: {}", NAMES.join(", "));
        return Err(Problem::new(Code::ViewNotFound, detail));
    };
    let shared = shared(&app).await?;
    Ok(read.answer(&app, &describe(&app, name, &shared)?, None))
}
