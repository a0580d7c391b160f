//! Whoever brings messages to customers: refuses, is slow, and brings messages without saying so.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use command_svc::notify::{Carrier, Message, PostError};
use domain::{
    Event, EventId, Flow, OrderId, Recorded,
    event::NotificationEvent,
    notification::{self, Notice},
};
use futures::future::BoxFuture;
use tokio::time::sleep;

use crate::net::Net;

const SLOW_MOST: Duration = Duration::from_secs(8);

/// What was brought to customers.
pub struct Postbox {
    net: Arc<Net>,
    /// Messages of a thousand that something goes wrong with.
    trouble: u64,
    brought: Mutex<BTreeSet<EventId>>,
}

impl Postbox {
    pub fn new(net: &Arc<Net>, trouble: u64) -> Self {
        Self { net: Arc::clone(net), trouble, brought: Mutex::default() }
    }

    fn bring(&self, about: EventId) {
        self.brought.lock().unwrap_or_else(PoisonError::into_inner).insert(about);
        self.net.tell(|| format!("a customer is told of {about}"));
    }

    fn was_brought(&self, about: EventId) -> bool {
        self.brought.lock().unwrap_or_else(PoisonError::into_inner).contains(&about)
    }

    /// What must not be at the end: a change that the customer was not told of, one that is in the story twice, or one
    /// that the story has and the customer has not.
    pub fn mistold(&self, flow: &Flow, order_id: OrderId, story: &[Recorded]) -> Option<String> {
        mistold(flow, story, |about| self.was_brought(about))
            .map(|wrong| format!("order {order_id}: {wrong}"))
    }
}

fn mistold(flow: &Flow, story: &[Recorded], was_brought: impl Fn(EventId) -> bool) -> Option<String> {
    if let Some(Notice { status, .. }) = notification::due(flow, story).first() {
        return Some(format!("the customer was never told that it is {}", status.as_str()));
    }
    let mut known = Vec::new();
    story.iter().find_map(|recorded| {
        let Event::Notification(NotificationEvent::NotificationSent(sent)) = &recorded.event else {
            return None;
        };
        let is_second = known.contains(&sent.about);
        known.push(sent.about);
        let about = sent.about;
        let second = is_second.then(|| format!("that {about} was told is recorded twice"));
        second.or_else(|| {
            (!was_brought(about)).then(|| format!("{about} is recorded as told, and nobody heard of it"))
        })
    })
}

impl Carrier for Postbox {
    fn send(&self, message: Message) -> BoxFuture<'_, Result<String, PostError>> {
        Box::pin(async move {
            let goes_wrong = !self.net.is_calm() && self.net.chance.permille(self.trouble);
            match goes_wrong.then(|| self.net.chance.below(3)) {
                Some(0) => return Err(PostError::NotNow("it answers 503".into())),
                Some(1) => {
                    self.bring(message.about);
                    sleep(SLOW_MOST).await;
                    return Err(PostError::NotNow("the answer is lost".into()));
                }
                Some(_) => sleep(self.net.chance.while_up_to(SLOW_MOST)).await,
                None => {}
            }
            self.bring(message.about);
            Ok(format!("simulated-{}", message.about))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_was_not_told_or_is_said_to_have_been_is_noticed() {
        let flows = domain::Flows::shipped().unwrap();
        let declared = flows.iter().find(|declared| declared.flow.notify.is_some()).unwrap();
        let (flow, story) =
            (&declared.flow, domain::history::life(declared, 1, domain::Timestamp::UNIX_EPOCH));
        assert_eq!(mistold(flow, &story, |_| true), None);
        assert!(mistold(flow, &story, |_| false).unwrap().contains("nobody heard"));
        let untold: Vec<_> = story.iter().filter(|recorded| !is_sent(recorded)).cloned().collect();
        assert!(mistold(flow, &untold, |_| true).unwrap().contains("never told"));
        let mut twice = story.clone();
        twice.extend(story.iter().filter(|recorded| is_sent(recorded)).cloned());
        assert!(mistold(flow, &twice, |_| true).unwrap().contains("twice"));
    }

    fn is_sent(recorded: &Recorded) -> bool {
        matches!(recorded.event, Event::Notification(NotificationEvent::NotificationSent(_)))
    }
}
