//! What is left is held against everything that was asked and told.

use std::time::{Duration, Instant};

use domain::{
    Flow, OrderId, OrderState, Recorded,
    payment::{Payment, provider_key},
    saga,
};
use nats::{EventLog, LoadError, Stored};
use serde_json::json;
use simulation::history::{self, Told};
use tokio::time::sleep;

use crate::{
    people::{Life, Noted},
    platform::Platform,
    report::Report,
};

/// Within this time every order has come to rest: all deadlines, one after the other, and pauses before retries.
const REST_MAX: Duration = Duration::from_secs(90);
/// A rebuild beside all the rest, on two cores that they share.
const VERIFY_MAX: Duration = Duration::from_mins(3);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Judges; what must not be goes into the report.
pub(crate) async fn judge(platform: &Platform, lives: &[Life], report: &mut Report) {
    let log = platform.log().await;
    let began = Instant::now();
    for life in lives {
        let flow = &platform.flows[life.flow];
        let story = at_rest(&log, life.order_id, flow, began).await;
        report.orders += usize::from(!story.is_empty());
        report.events += story.len();
        report.calls += life.noted.len();
        report.violations.extend(broken(platform, life, flow, &story));
    }
    report.rest = began.elapsed();
    report.violations.extend(views_differ(platform).await);
}

/// An order's story once its saga has nothing to do any more, or as it is when the time is up.
async fn at_rest(log: &EventLog, order_id: OrderId, flow: &Flow, began: Instant) -> Vec<Recorded> {
    loop {
        let story = match whole(log, order_id).await {
            Ok(story) => story,
            // A leader may still be chosen.
            Err(_) if began.elapsed() < REST_MAX => {
                sleep(LOOK_EVERY).await;
                continue;
            }
            Err(error) => panic!("the log does not answer: {error}"),
        };
        let story: Vec<Recorded> = story.into_iter().map(|stored| stored.recorded).collect();
        let rests = saga::react(flow, &OrderState::replay(&story)).is_none();
        if rests || began.elapsed() > REST_MAX {
            return story;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// An order's whole story: a replica that is behind may answer, and is asked again.
async fn whole(log: &EventLog, order_id: OrderId) -> Result<Vec<Stored>, LoadError> {
    let last = log.last_sequence(order_id).await?;
    log.load(order_id, last).await
}

/// What must not be, of one order.
fn broken(platform: &Platform, life: &Life, flow: &Flow, story: &[Recorded]) -> Option<String> {
    let calls: Vec<_> = life.noted.iter().map(|noted| explained(noted, story)).collect();
    history::verdict(flow, life.order_id, story, &calls)
        .or_else(|| money_lost(platform, life.order_id, &OrderState::replay(story)))
        .or_else(|| {
            let held = platform.provider.balance_of(&life.order_id.to_string());
            history::misbooked(life.order_id, story, held)
        })
}

/// A call with the event that its answer speaks of: answers by REST name its place, not its id.
fn explained(noted: &Noted, story: &[Recorded]) -> history::Call {
    let mut call = noted.call.clone();
    if let Told::Stands { sequence, event, .. } = &mut call.told {
        let is_its = |recorded: &&Recorded| match call.command {
            // It was carried out by several contexts.
            None => true,
            Some(_) => recorded.command_id == call.command_id || noted.is_replayed,
        };
        let there = story.iter().find(|recorded| recorded.position.sequence == *sequence);
        *event = there.filter(is_its).map(|recorded| recorded.event_id);
    }
    call
}

/// What the provider holds is what the log says was paid.
fn money_lost(platform: &Platform, order_id: OrderId, state: &OrderState) -> Option<String> {
    let held = platform.provider.held_of(&order_id.to_string());
    let paid: Vec<String> = match state.payment {
        Payment::Approved { attempt, .. } => vec![provider_key(order_id, attempt)],
        Payment::None
        | Payment::Requested { .. }
        | Payment::Declined { .. }
        | Payment::Deferred { .. }
        | Payment::Canceled => Vec::new(),
    };
    (held != paid)
        .then(|| format!("order {order_id}: the provider holds {held:?}, and the log says {paid:?} was paid"))
}

/// The views against a rebuild from the log.
async fn views_differ(platform: &Platform) -> Option<String> {
    let began = Instant::now();
    loop {
        let asked = platform.operator.post("/admin/views/verify", &json!({})).await;
        if asked.status == 202 {
            break;
        }
        if began.elapsed() > VERIFY_MAX {
            return Some(format!("the views are not to be verified: {}", asked.body));
        }
        sleep(LOOK_EVERY).await;
    }
    loop {
        let job = platform.operator.get("/admin/views/rebuild").await.body;
        match job["state"].as_str() {
            Some("verified") if job["comparison"]["differences"] == 0 => return None,
            Some("verified" | "failed") => {
                return Some(format!("the views are not the fold of the log: {job}"));
            }
            _ if began.elapsed() > VERIFY_MAX => return Some(format!("the views are not verified: {job}")),
            _ => sleep(LOOK_EVERY).await,
        }
    }
}
