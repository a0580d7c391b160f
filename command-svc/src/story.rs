//! An order's story in memory, and those that were worked on a moment ago.
//!
//! A remembered story may be behind the log, never ahead of it. So what it says happened did happen; an event that is
//! decided on it is appended under the guard of its last sequence, and refused by the log if the story moved on; only
//! what it does *not* say must be asked of the log before something is denied on that ground.

use std::sync::{Arc, Mutex, PoisonError};

use domain::{
    Event, OrderId, OrderState, Recorded,
    access::Parties,
    event::{OrderEvent, OrderPlaced},
};
use nats::Stored;

/// Stories on a shelf; the one that was put there first makes room.
const STORIES_A_SHELF: usize = 4;
/// Longer stories are not remembered.
const EVENTS_MAX: usize = 64;

/// One order's events, oldest first, with their fold.
#[derive(Clone, Debug, Default)]
pub struct Story {
    pub events: Vec<Stored>,
    pub state: OrderState,
}

impl Story {
    pub fn new(events: Vec<Stored>) -> Self {
        let state = OrderState::replay(events.iter().map(|stored| &stored.recorded));
        Self { events, state }
    }

    /// The sequence of the newest event; 0 if there is none.
    pub fn sequence(&self) -> u64 {
        self.state.sequence()
    }

    /// Whose the order is.
    pub fn parties(&self) -> Parties {
        Parties::of(self.events.iter().map(|stored| &stored.recorded.event))
    }

    /// What was ordered; `None` if the order does not stand.
    pub fn placed(&self) -> Option<&OrderPlaced> {
        self.events.iter().find_map(|stored| match &stored.recorded.event {
            Event::Ordering(OrderEvent::OrderPlaced(placed)) => Some(placed),
            Event::Ordering(_)
            | Event::Payment(_)
            | Event::Store(_)
            | Event::Marketing(_)
            | Event::Delivery(_)
            | Event::Review(_)
            | Event::Notification(_)
            | Event::Saga(_) => None,
        })
    }

    /// The story with one more event.
    #[must_use]
    pub fn with(&self, stored: Stored) -> Self {
        let state = self.state.clone().evolve(&stored.recorded);
        let mut events = self.events.clone();
        events.push(stored);
        Self { events, state }
    }

    /// The order's state right after one of its events.
    pub fn state_after(&self, event: &Recorded) -> OrderState {
        let until = event.position.sequence;
        let so_far = self.events.iter().map(|stored| &stored.recorded);
        OrderState::replay(so_far.take_while(|recorded| recorded.position.sequence <= until))
    }
}

type Shelf = Mutex<Vec<(OrderId, Arc<Story>)>>;

/// The stories that were worked on a moment ago.
#[derive(Debug)]
pub struct Recent {
    /// Each with a lock of its own; an order's shelf follows from its id.
    shelves: Vec<Shelf>,
}

impl Recent {
    /// Room for about so many stories.
    pub fn new(stories: usize) -> Self {
        let shelves = stories.div_ceil(STORIES_A_SHELF).max(1);
        Self { shelves: std::iter::repeat_with(Mutex::default).take(shelves).collect() }
    }

    /// The remembered story of an order.
    pub fn get(&self, order_id: OrderId) -> Option<Arc<Story>> {
        let stories = self.shelf(order_id).lock().unwrap_or_else(PoisonError::into_inner);
        stories.iter().find(|(id, _)| *id == order_id).map(|(_, story)| Arc::clone(story))
    }

    /// Remembers a story, unless it is empty or a longer one of the order is known.
    pub fn put(&self, order_id: OrderId, story: &Arc<Story>) {
        if story.events.is_empty() || story.events.len() > EVENTS_MAX {
            return;
        }
        let mut stories = self.shelf(order_id).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = stories.iter_mut().find(|(id, _)| *id == order_id) {
            if known.sequence() < story.sequence() {
                *known = Arc::clone(story);
            }
            return;
        }
        if stories.len() == STORIES_A_SHELF {
            stories.remove(0);
        }
        stories.push((order_id, Arc::clone(story)));
    }

    fn shelf(&self, order_id: OrderId) -> &Shelf {
        let (_, low) = order_id.0.as_u64_pair();
        &self.shelves[usize::try_from(low % self.shelves.len() as u64).unwrap_or_default()]
    }
}
