//! Who hears of what becomes visible: an order's followers, a customer's, a store's. Each hears only of its own, so
//! thousands of quiet followers cost a busy node nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use domain::OrderId;
use tokio::sync::broadcast::{Receiver, Sender, channel, error::RecvError};

use crate::fold::Visible;

/// Events that a slow follower may be behind before it is told to resume.
pub const BEHIND_MAX: usize = 128;

/// A visible event, with the position of its partition.
pub type LiveEvent = Arc<Visible>;

/// What a follower follows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    Order(OrderId),
    Customer(String),
    Store(String),
}

/// Everybody who follows something; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Followers(Arc<Mutex<HashMap<Topic, Sender<LiveEvent>>>>);

impl Followers {
    fn lock(&self) -> MutexGuard<'_, HashMap<Topic, Sender<LiveEvent>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn follow(&self, topic: Topic) -> Following {
        let mut topics = self.lock();
        let sender = topics.entry(topic.clone()).or_insert_with(|| channel(BEHIND_MAX).0);
        let events = sender.subscribe();
        metrics::gauge!("twelve_live_followers").increment(1.0);
        Following { topic, events, followers: self.clone() }
    }

    pub(crate) fn tell(&self, events: Vec<Visible>) {
        if events.is_empty() {
            return;
        }
        let topics = self.lock();
        if topics.is_empty() {
            return;
        }
        for event in events {
            let event = Arc::new(event);
            let store = event.parties.store_id.clone().map(Topic::Store);
            let customer = event.parties.customer_id.clone().map(Topic::Customer);
            let order = [Topic::Order(event.order_id)];
            for sender in order.iter().chain(&customer).chain(&store).filter_map(|topic| topics.get(topic)) {
                // Its last follower may just have left.
                drop(sender.send(Arc::clone(&event)));
            }
        }
    }
}

/// What one follower hears. Dropped, it leaves nothing behind.
pub struct Following {
    topic: Topic,
    events: Receiver<LiveEvent>,
    followers: Followers,
}

impl Following {
    /// The next event; an error once the follower is too far behind, or the node ends.
    pub async fn next(&mut self) -> Result<LiveEvent, RecvError> {
        self.events.recv().await
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut topics = self.followers.lock();
        // This one still counts.
        if topics.get(&self.topic).is_some_and(|sender| sender.receiver_count() <= 1) {
            topics.remove(&self.topic);
        }
        metrics::gauge!("twelve_live_followers").decrement(1.0);
    }
}
