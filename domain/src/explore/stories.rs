//! The stories met so far, each once, with what the saga makes of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Index,
};

use uuid::Uuid;

use super::{people, rules};
use crate::{
    Timestamp,
    command::Command,
    delivery::{Delivery, DeliveryCommand},
    event::{Event, Recorded},
    flow::{Ends, Flow, FlowRef},
    id::{CommandId, EventId, OrderId, Position},
    order::{Order, OrderCommand},
    payment::Payment,
    saga::Step,
    state::OrderState,
    status::Status,
};

/// A story's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StoryId(u32);

/// One story.
#[derive(Default)]
pub(super) struct Story {
    pub(super) names: Vec<&'static str>,
    pub(super) state: OrderState,
    /// What the saga does next.
    pub(super) step: Option<Step>,
    /// The rule that it breaks.
    pub(super) broken: Option<&'static str>,
    before: Option<StoryId>,
}

/// All stories of a walk.
pub(super) struct Stories<'a> {
    pub(super) flow: &'a Flow,
    pub(super) reference: &'a FlowRef,
    pub(super) transitions: BTreeSet<(Status, &'static str, Status)>,
    react: fn(&Flow, &OrderState) -> Option<Step>,
    all: Vec<Story>,
    longer: BTreeMap<(StoryId, &'static str), StoryId>,
}

impl Index<StoryId> for Stories<'_> {
    type Output = Story;
    fn index(&self, id: StoryId) -> &Story {
        &self.all[id.0 as usize]
    }
}

impl<'a> Stories<'a> {
    pub(super) fn new(
        flow: &'a Flow,
        reference: &'a FlowRef,
        react: fn(&Flow, &OrderState) -> Option<Step>,
    ) -> Self {
        let transitions = BTreeSet::new();
        Self { flow, reference, transitions, react, all: Vec::new(), longer: BTreeMap::new() }
    }

    /// The story in which nothing has happened.
    pub(super) fn begin(&mut self) -> StoryId {
        self.add(Vec::new(), OrderState::default(), None)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The story that a command leads to; `None` if it is refused or changes nothing.
    pub(super) fn decided(&mut self, at: StoryId, command: &Command) -> Option<StoryId> {
        let event = self[at].state.decide(self.flow, command).ok().flatten()?;
        Some(self.after(at, &event))
    }

    fn after(&mut self, at: StoryId, event: &Event) -> StoryId {
        let name = event.type_name();
        if let Some(known) = self.longer.get(&(at, name)) {
            return *known;
        }
        let before = &self[at];
        let mut names = before.names.clone();
        names.push(name);
        let state = before.state.clone().evolve(&record(names.len() as u64, event));
        if before.state.is_visible() {
            let moved = (before.state.status(), name, state.status());
            self.transitions.insert(moved);
        }
        let next = self.add(names, state, Some(at));
        self.longer.insert((at, name), next);
        next
    }

    fn add(&mut self, names: Vec<&'static str>, state: OrderState, before: Option<StoryId>) -> StoryId {
        let step = (self.react)(self.flow, &state);
        let mut story = Story { names, state, step, broken: None, before };
        story.broken = rules::broken(self.flow, &story);
        self.all.push(story);
        StoryId(u32::try_from(self.all.len() - 1).unwrap_or(u32::MAX))
    }

    /// A shortest story from which no way leads to an end.
    pub(super) fn endless(&self) -> Option<StoryId> {
        let mut ends: Vec<bool> = self.all.iter().map(|story| self.is_end(story)).collect();
        // A story is numbered after the one it continues.
        for number in (0..self.all.len()).rev() {
            if let (true, Some(before)) = (ends[number], self.all[number].before) {
                ends[before.0 as usize] = true;
            }
        }
        let endless = ends.iter().enumerate().filter(|(_, ends)| !**ends).map(|(number, _)| number);
        let shortest = endless.min_by_key(|number| self.all[*number].names.len())?;
        u32::try_from(shortest).ok().map(StoryId)
    }

    /// The longest story that goes on from this one; a shortest way there says most of why it goes no further.
    pub(super) fn furthest(&self, from: StoryId) -> StoryId {
        let (mut furthest, mut continues) = (from, BTreeSet::from([from]));
        // A story is numbered after the one it continues.
        for (number, story) in (0_u32..).zip(&self.all) {
            if story.before.is_some_and(|before| continues.contains(&before)) {
                continues.insert(StoryId(number));
                if story.names.len() > self[furthest].names.len() {
                    furthest = StoryId(number);
                }
            }
        }
        furthest
    }

    /// Why no command brings a story to its end: each one that could, and the answer that it gets.
    pub(super) fn refusals(&self, at: StoryId) -> Vec<String> {
        let state = &self[at].state;
        let ends = |command: &Command| {
            matches!(
                command,
                Command::Ordering(OrderCommand::Complete | OrderCommand::RequestCancel { .. })
                    | Command::Delivery(DeliveryCommand::Complete)
            )
        };
        let ways = people::commands(self.flow, self.reference, state).into_iter();
        ways.filter(|(_, command)| ends(command))
            .filter_map(|(who, command)| {
                let refused = state.decide(self.flow, &command).err()?;
                Some(format!("and no further: {who}: {} is refused: {refused}", command.name()))
            })
            .collect()
    }

    fn is_end(&self, story: &Story) -> bool {
        let state = &story.state;
        match state.order {
            Order::NotPlaced => {
                matches!(state.payment, Payment::None | Payment::Declined { .. } | Payment::Canceled)
            }
            Order::Placed => self.flow.ends == Ends::Delivered && state.delivery == Delivery::Completed,
            Order::CancelRequested | Order::ReturnRequested => false,
            Order::Canceled | Order::Expired | Order::Rejected => story.step.is_none(),
            Order::Completed | Order::Returned => true,
        }
    }
}

fn record(sequence: u64, event: &Event) -> Recorded {
    let event_id = EventId(Uuid::from_u128(u128::from(sequence)));
    Recorded {
        order_id: OrderId(Uuid::nil()),
        position: Position { partition: 0, sequence },
        event_id,
        time: Timestamp::UNIX_EPOCH,
        command_id: CommandId::from_step(event_id, "explore"),
        fingerprint: None,
        event: event.clone(),
    }
}
