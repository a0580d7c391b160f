//! Orders that stand although their deadline is long past: whatever was to look at them again was lost. The server's
//! messages are only a reason to look, so nothing else would ever notice.

use std::time::Duration;

use domain::{Flow, saga};
use nats::FlowBook;
use projector::{
    Views,
    view::{orders::Row, sagas::Sagas},
};
use tokio_util::sync::CancellationToken;

/// How often some rows are looked at, and how many then at most: all of a long log's in turn, the newest orders first.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const ROWS_A_LOOK: usize = 10_000;
/// Rows between two chances for everything else.
const ROWS_AT_ONCE: usize = 500;
/// How long past a deadline is too long: more than a step, its retries and the views take.
const LATE_S: i64 = 60;

/// One way through all orders.
#[derive(Default)]
struct Round {
    after: Option<Vec<u8>>,
    found: u64,
}

/// Counts overdue orders again and again, until `stop`: `twelve_orders_overdue` is how many the last whole round found,
/// or this one if that is more.
pub async fn watch(views: Views, flows: FlowBook, stop: CancellationToken) -> anyhow::Result<()> {
    let watching = async {
        let (mut round, mut before) = (Round::default(), 0);
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            // Views that are behind show how orders were.
            if views.has_caught_up() && look(&views, &flows, &mut round).await {
                before = round.found;
                round = Round::default();
            }
            tell(before.max(round.found));
        }
    };
    stop.run_until_cancelled(watching).await;
    Ok(())
}

/// Looks at some more orders; answers whether the round is over.
async fn look(views: &Views, flows: &FlowBook, round: &mut Round) -> bool {
    for _ in 0..ROWS_A_LOOK / ROWS_AT_ONCE {
        let bounds = (ROWS_AT_ONCE, ROWS_AT_ONCE);
        let page = match views.list_within::<Sagas>(&[], round.after.as_deref(), bounds, |_| true) {
            Ok(page) => page,
            Err(error) => {
                tracing::debug!(error = %nats::causes(&error), "whether orders are overdue is not known");
                return false;
            }
        };
        for row in &page.rows {
            round.found += u64::from(is_overdue(row, flows).await);
        }
        round.after = page.next;
        if round.after.is_none() {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

async fn is_overdue(row: &Row, flows: &FlowBook) -> bool {
    let Some(reference) = &row.state.flow else { return false };
    let Ok(flow) = flows.find(reference).await else { return false };
    is_late(row, &flow)
}

fn is_late(row: &Row, flow: &Flow) -> bool {
    let due = saga::react(flow, &row.state).and_then(|step| step.not_before);
    due.is_some_and(|due| nats::now().duration_since(due).as_secs() > LATE_S)
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and no log has 2^53 orders")]
fn tell(orders: u64) {
    metrics::gauge!("twelve_orders_overdue").set(orders as f64);
}
