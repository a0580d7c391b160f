//! The flow checker: walks everything that can happen to an order of a flow, and holds it against what must always be
//! so. It is an explicit-state model checker, breadth first, so the first story that breaks a rule is a shortest one.
//!
//! What is walked: at each moment the customer, the store, two riders, the delivery team and an operator may do
//! anything; the saga's runner may look at the order, its command may arrive late, twice, or after the runner crashed
//! and another looked (up to [`WIRES_MAX`] commands under way); the payment provider may approve, decline, refuse the
//! call, be slow beyond every patience (its answer unheard, the charge landing later) or away, and the payment context
//! may crash before and after each of its calls (up to [`ERRANDS_MAX`] under way, [`ATTEMPTS_MAX`] attempts to pay);
//! any deadline may pass. Every decision is made by the code that runs in production: `OrderState::decide`,
//! `OrderState::evolve`, `saga::react`.
//!
//! What is not: two orders at once (they share nothing), and a log that loses what it acknowledged.

mod money;
pub mod people;
mod rules;
mod stories;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
};

use crate::{
    command::{Command, SagaCommand},
    event::Recorded,
    flow::{Flow, FlowRef},
    saga::{self, Step},
    state::OrderState,
    status::Status,
};
use money::{Errand, Till};
use stories::{Stories, Story, StoryId};

/// The longest story with [`ATTEMPTS_MAX`] attempts to pay; no order of a sound flow has a longer one.
pub const EVENTS_MAX: usize = 24;
/// Commands of the saga that are under way at a time.
pub const WIRES_MAX: usize = 2;
/// Payments that the payment context works on at a time.
pub const ERRANDS_MAX: usize = 2;
/// Attempts to pay one order.
pub const ATTEMPTS_MAX: u32 = 2;
/// Moments that are walked at most; a flow that has more is not vouched for.
pub const MOMENTS_MAX: usize = 3_000_000;

/// The process manager, and the payment context, as they are walked. Tests walk broken ones.
#[derive(Clone, Copy)]
pub struct Manager {
    pub react: fn(&Flow, &OrderState) -> Option<Step>,
    /// Whether a command holds only for the story that it was derived from.
    pub is_guarded: bool,
    /// Whether an attempt that the provider refuses is given up in the log before its key is closed.
    pub gives_up_first: bool,
}

impl Manager {
    /// As it runs in production.
    pub const REAL: Self = Self { react: saga::react, is_guarded: true, gives_up_first: true };
}

/// What a walk found.
#[derive(Debug, Default)]
pub struct Exploration {
    /// Different stories, unfinished ones included.
    pub stories: usize,
    /// Different moments: a story with what is under way, and the provider's books.
    pub moments: usize,
    /// From which status which event leads to which.
    pub transitions: BTreeSet<(Status, &'static str, Status)>,
    /// The first rule that was broken.
    pub violation: Option<Violation>,
}

/// A rule, and a shortest story that breaks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: &'static str,
    /// The events of the story.
    pub story: Vec<&'static str>,
    /// How it came about, a line a move.
    pub moves: Vec<String>,
}

/// One moment of one order's life.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Moment {
    story: StoryId,
    /// The stories that the saga's commands under way were derived from.
    wires: [Option<StoryId>; WIRES_MAX],
    till: Till,
}

/// What leads from one moment to the next.
#[derive(Clone, Copy, Debug)]
struct Move {
    who: &'static str,
    what: &'static str,
    event: Option<&'static str>,
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.who, self.what)?;
        self.event.map_or(Ok(()), |event| write!(f, " → {event}"))
    }
}

/// A walk under way.
struct Walk<'a> {
    manager: Manager,
    stories: Stories<'a>,
    moments: Vec<(Moment, Option<(usize, Move)>)>,
    known: BTreeMap<Moment, usize>,
    waiting: VecDeque<usize>,
    broken: Option<(usize, &'static str)>,
}

/// Walks a flow under the real process manager.
pub fn explore(flow: &Flow, reference: &FlowRef) -> Exploration {
    explore_with(flow, reference, Manager::REAL)
}

/// The first rule that an order's story breaks, after any of its events; `None`: all hold.
pub fn broken_rule(flow: &Flow, story: &[Recorded]) -> Option<&'static str> {
    let mut told = Story::default();
    story.iter().find_map(|recorded| {
        told.names.push(recorded.event.type_name());
        told.state = std::mem::take(&mut told.state).evolve(recorded);
        told.step = saga::react(flow, &told.state);
        rules::broken(flow, &told)
    })
}

/// Walks a flow; stops at the first moment that breaks a rule.
pub fn explore_with(flow: &Flow, reference: &FlowRef, manager: Manager) -> Exploration {
    let mut walk = Walk {
        manager,
        stories: Stories::new(flow, reference, manager.react),
        moments: Vec::new(),
        known: BTreeMap::new(),
        waiting: VecDeque::new(),
        broken: None,
    };
    let begin = Moment { story: walk.stories.begin(), wires: [None; WIRES_MAX], till: Till::default() };
    walk.visit(begin, None);
    while let Some(at) = walk.waiting.pop_front() {
        if walk.broken.is_some() {
            break;
        }
        if walk.moments.len() > MOMENTS_MAX {
            walk.broken = Some((at, "the flow is small enough to be walked whole"));
            break;
        }
        walk.leave(at);
    }
    walk.finish()
}

impl Walk<'_> {
    fn visit(&mut self, mut moment: Moment, from: Option<(usize, Move)>) {
        // The order of what is under way does not matter.
        moment.wires.sort_unstable();
        moment.till.errands.sort_unstable();
        if self.broken.is_some() || self.known.contains_key(&moment) {
            return;
        }
        let at = self.moments.len();
        let broken =
            self.stories[moment.story].broken.or_else(|| moment.till.broken(&self.stories[moment.story]));
        self.known.insert(moment.clone(), at);
        self.moments.push((moment, from));
        self.broken = broken.map(|rule| (at, rule));
        self.waiting.push_back(at);
    }

    /// Everything that may happen next.
    fn leave(&mut self, at: usize) {
        let moment = self.moments[at].0.clone();
        self.people_act(at, &moment);
        self.saga_looks(at, &moment);
        for wire in 0..WIRES_MAX {
            self.command_arrives(at, &moment, wire);
        }
        for errand in 0..ERRANDS_MAX {
            self.errand_goes_on(at, &moment, errand);
        }
    }

    fn people_act(&mut self, at: usize, moment: &Moment) {
        let story = &self.stories[moment.story];
        let mut commands = people::commands(self.stories.flow, self.stories.reference, &story.state);
        // To resume once is enough: what it leads to is the same the next time.
        let has_resumed = story.names.contains(&"SagaResumed");
        commands.retain(|(_, command)| !has_resumed || *command != Command::Saga(SagaCommand::Resume));
        for (who, command) in commands {
            if let Some(next) = self.stories.decided(moment.story, &command) {
                let made =
                    Move { who, what: command.name(), event: self.stories[next].names.last().copied() };
                self.visit(Moment { story: next, ..moment.clone() }, Some((at, made)));
            }
        }
        for (next, till, made) in moment.till.charged(&mut self.stories, moment.story) {
            self.visit(Moment { story: next, till, ..moment.clone() }, Some((at, made)));
        }
    }

    fn saga_looks(&mut self, at: usize, moment: &Moment) {
        let Some(step) = &self.stories[moment.story].step else { return };
        let what = step.command.name();
        let who =
            if step.not_before.is_some() { "a deadline passes, the saga sends" } else { "the saga sends" };
        let Some(free) = moment.wires.iter().position(Option::is_none) else { return };
        if !moment.wires.contains(&Some(moment.story)) {
            let mut next = moment.clone();
            next.wires[free] = Some(moment.story);
            self.visit(next, Some((at, Move { who, what, event: None })));
        }
    }

    /// A command reaches its context: once, or with a copy still under way.
    fn command_arrives(&mut self, at: usize, moment: &Moment, wire: usize) {
        let Some(sent) = moment.wires[wire] else { return };
        let Some(step) = self.stories[sent].step.clone() else { return };
        let what = step.command.name();
        let is_stale = sent != moment.story;
        let mut arrived = moment.clone();
        arrived.wires[wire] = None;
        if is_stale && self.manager.is_guarded {
            let made = Move { who: "too late, and refused as the story moved on", what, event: None };
            return self.visit(arrived, Some((at, made)));
        }
        if let Some(errand) = Errand::of(&step.command, &self.stories[moment.story], sent) {
            let made = Move { who: "payment receives", what, event: None };
            if let Some(till) = moment.till.with(errand) {
                self.visit(Moment { till: till.clone(), ..moment.clone() }, Some((at, made)));
                self.visit(Moment { till, ..arrived }, Some((at, made)));
            }
            return;
        }
        let decided = self.stories.decided(moment.story, &step.command);
        let Some(next) = decided else {
            if !is_stale {
                self.broken = Some((at, "what the saga asks for is granted"));
            }
            return self.visit(arrived, Some((at, Move { who: "refused", what, event: None })));
        };
        let event = self.stories[next].names.last().copied();
        let once = Move { who: if is_stale { "late, it arrives" } else { "it arrives" }, what, event };
        let again = Move { who: "it arrives, and will again", ..once };
        self.visit(Moment { story: next, ..arrived }, Some((at, once)));
        self.visit(Moment { story: next, ..moment.clone() }, Some((at, again)));
    }

    fn errand_goes_on(&mut self, at: usize, moment: &Moment, errand: usize) {
        let gives_up_first = self.manager.gives_up_first;
        for (story, till, made) in moment.till.steps(&mut self.stories, moment.story, errand, gives_up_first)
        {
            self.visit(Moment { story, till, ..moment.clone() }, Some((at, made)));
        }
    }

    fn finish(self) -> Exploration {
        let endless = || self.stories.endless().map(|story| self.endless(story));
        let broken = self.broken.map(|(at, rule)| self.violation(at, rule));
        let violation = broken.or_else(endless);
        Exploration {
            stories: self.stories.len(),
            moments: self.moments.len(),
            violation,
            transitions: self.stories.transitions,
        }
    }

    /// The story goes as far as it can, and ends with why it can go no further.
    fn endless(&self, story: StoryId) -> Violation {
        let furthest = self.stories.furthest(story);
        let mut violation = self.violation(self.first(furthest), "every order can come to its end");
        violation.moves.extend(self.stories.refusals(furthest));
        violation
    }

    fn first(&self, story: StoryId) -> usize {
        self.moments.iter().position(|(moment, _)| moment.story == story).unwrap_or_default()
    }

    fn violation(&self, mut at: usize, rule: &'static str) -> Violation {
        let story = self.stories[self.moments[at].0.story].names.clone();
        let mut moves = Vec::new();
        while let Some((before, made)) = &self.moments[at].1 {
            moves.push(made.to_string());
            at = *before;
        }
        moves.reverse();
        Violation { rule, story, moves }
    }
}

impl Exploration {
    /// The flow as a Mermaid state diagram: what customers see, and what moves it.
    pub fn diagram(&self) -> String {
        let mut lines = vec!["stateDiagram-v2".to_owned()];
        let begins = self.transitions.iter().map(|(from, _, _)| *from).min();
        lines.extend(begins.map(|begin| format!("    [*] --> {}", begin.as_str())));
        for (from, event, to) in self.transitions.iter().filter(|(from, _, to)| from != to) {
            lines.push(format!("    {} --> {}: {event}", from.as_str(), to.as_str()));
        }
        lines.join("\n")
    }
}
