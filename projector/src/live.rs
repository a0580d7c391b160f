//! Who hears of what becomes visible: an order's followers, a customer's, a store's. Each hears only of its own, so
//! thousands of quiet followers cost a busy node nothing. The newest events are remembered, so that a follower who was
//! cut off for a moment is told what it missed without a row being read.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use domain::{OrderId, Position};
use tokio::sync::broadcast::{Receiver, Sender, channel, error::RecvError};

use crate::fold::Visible;

/// Events that a slow follower may be behind before it is told to resume.
pub const BEHIND_MAX: usize = 128;
/// Events of all topics that are remembered; about half a kilobyte each.
const REMEMBERED_MAX: usize = 5_000;

/// A visible event, with the position of its partition.
pub type LiveEvent = Arc<Visible>;

/// What a follower follows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    Order(OrderId),
    Customer(String),
    Store(String),
}

impl Topic {
    fn is_of(&self, event: &Visible) -> bool {
        match self {
            Self::Order(order_id) => event.order_id == *order_id,
            Self::Customer(customer_id) => event.parties.customer_id.as_ref() == Some(customer_id),
            Self::Store(store_id) => event.parties.store_id.as_ref() == Some(store_id),
        }
    }
}

/// Everybody who follows something; clones share it.
#[derive(Clone)]
pub(crate) struct Followers(Arc<Mutex<Told>>);

/// What was told, and whom.
struct Told {
    topics: HashMap<Topic, Sender<LiveEvent>>,
    /// The newest events, oldest first.
    remembered: VecDeque<LiveEvent>,
    /// By partition: every event after this one is remembered.
    remembered_after: Vec<u64>,
    /// By partition: every event up to this one was told.
    upto: Vec<u64>,
}

impl Followers {
    /// With nothing told yet; the views are at these sequences.
    pub(crate) fn new(upto: Vec<u64>) -> Self {
        let (topics, remembered) = (HashMap::new(), VecDeque::new());
        Self(Arc::new(Mutex::new(Told { topics, remembered, remembered_after: upto.clone(), upto })))
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn follow(&self, topic: Topic) -> Following {
        self.subscribe(&mut self.lock(), topic)
    }

    fn subscribe(&self, told: &mut Told, topic: Topic) -> Following {
        let sender = told.topics.entry(topic.clone()).or_insert_with(|| channel(BEHIND_MAX).0);
        let events = sender.subscribe();
        metrics::gauge!("twelve_live_followers").increment(1.0);
        Following { topic, events, followers: self.clone() }
    }

    /// Follows, and answers with what was told since `seen` as well, and how far that is; `None` instead of that if it
    /// is not remembered.
    pub(crate) fn resume(&self, topic: Topic, seen: &[Position]) -> (Following, Option<Missed>) {
        let mut told = self.lock();
        let at = |partition: u16| {
            seen.iter().find(|seen| seen.partition == partition).map_or(0, |seen| seen.sequence)
        };
        let is_remembered =
            (0_u16..).zip(&told.remembered_after).all(|(partition, after)| at(partition) >= *after);
        let missed = is_remembered.then(|| {
            let is_missed = |event: &&LiveEvent| {
                let Position { partition, sequence } = event.entry.position;
                sequence > at(partition) && topic.is_of(event)
            };
            let events = told.remembered.iter().filter(is_missed).cloned().collect();
            let upto = (0_u16..).zip(&told.upto);
            let upto =
                upto.map(|(partition, sequence)| Position { partition, sequence: *sequence }).collect();
            Missed { events, upto }
        });
        (self.subscribe(&mut told, topic), missed)
    }

    /// Tells of events; with them, everything up to these sequences is told.
    pub(crate) fn tell(&self, events: Vec<Visible>, upto: impl Iterator<Item = u64>) {
        let mut told = self.lock();
        let told = &mut *told;
        for (is, upto) in told.upto.iter_mut().zip(upto) {
            *is = upto;
        }
        for event in events {
            let event = Arc::new(event);
            let store = event.parties.store_id.clone().map(Topic::Store);
            let customer = event.parties.customer_id.clone().map(Topic::Customer);
            let own = [Topic::Order(event.order_id)];
            for sender in own.iter().chain(&customer).chain(&store).filter_map(|topic| told.topics.get(topic))
            {
                // Its last follower may just have left.
                drop(sender.send(Arc::clone(&event)));
            }
            told.remembered.push_back(event);
            if told.remembered.len() > REMEMBERED_MAX
                && let Some(forgotten) = told.remembered.pop_front()
            {
                let Position { partition, sequence } = forgotten.entry.position;
                if let Some(after) = told.remembered_after.get_mut(usize::from(partition)) {
                    *after = sequence.max(*after);
                }
            }
        }
    }

    /// The views are at these sequences now. Where that is further than what was told, nothing is remembered any more,
    /// and followers hear that they are cut off: what they missed is in the views, and nobody will tell it.
    pub(crate) fn jump(&self, upto: &[u64]) {
        let mut told = self.lock();
        if told.upto != upto {
            told.remembered.clear();
            told.topics.clear();
            upto.clone_into(&mut told.remembered_after);
            upto.clone_into(&mut told.upto);
        }
    }
}

/// What a follower missed.
pub struct Missed {
    /// In the order in which it was told.
    pub events: Vec<LiveEvent>,
    /// How far this is; what is later comes live.
    pub upto: Vec<Position>,
}

/// What one follower hears. Dropped, it leaves nothing behind.
pub struct Following {
    topic: Topic,
    events: Receiver<LiveEvent>,
    followers: Followers,
}

impl Following {
    /// The next event; an error once the follower is too far behind or cut off, or the node ends.
    pub async fn next(&mut self) -> Result<LiveEvent, RecvError> {
        self.events.recv().await
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut told = self.followers.lock();
        // This one still counts. Where it was cut off, the topic is that of others.
        let is_cut_off = self.events.is_closed();
        if !is_cut_off && told.topics.get(&self.topic).is_some_and(|sender| sender.receiver_count() <= 1) {
            told.topics.remove(&self.topic);
        }
        metrics::gauge!("twelve_live_followers").decrement(1.0);
    }
}
