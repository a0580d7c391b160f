//! What callers asked and were answered, held against the log: per order, is there one row of events that explains
//! every answer, in the order in which the calls were made?
//!
//! The log is that row, so nothing has to be searched (as Wing and Gong do, and Knossos and Porcupine after them): an
//! answer names its place in it, and each place must fit what was known before the call, and what the call was told.

use std::collections::BTreeMap;

use domain::{
    Command, CommandId, Context, EventId, Flow, OrderId, OrderState, Recorded, Refusal, Status, explore, saga,
};
use ledger::{Booking, book::PROVIDER};

/// What a caller was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The order stands at this sequence, as this; by this new or earlier event, if it was one's.
    Stands {
        sequence: u64,
        status: Status,
        event: Option<EventId>,
    },
    Refused(Refusal),
    /// Nothing, or something that says nothing about the order.
    Nothing,
}

/// A call, between two moments that are numbered in the order in which they were.
#[derive(Clone, Debug)]
pub struct Call {
    pub order_id: OrderId,
    pub command_id: CommandId,
    /// What was asked for, if one context decides it.
    pub command: Option<Command>,
    pub began: u64,
    pub ended: u64,
    pub told: Told,
}

/// What must not be, of one order: a rule of the flow checker is broken, an answer is not explained by the log, or its
/// saga has something left to do.
pub fn verdict(flow: &Flow, order_id: OrderId, story: &[Recorded], calls: &[Call]) -> Option<String> {
    // What a customer was told moves no order, and may be told again.
    let counts = |recorded: &&Recorded| recorded.event.context() != Context::Notification;
    let moved: Vec<Recorded> = story.iter().filter(counts).cloned().collect();
    let rule = explore::broken_rule(flow, &moved);
    let rule = rule.map(|rule| format!("order {order_id} breaks a rule: {rule}"));
    rule.or_else(|| contradiction(flow, story, calls)).or_else(|| {
        let step = saga::react(flow, &OrderState::replay(story))?;
        Some(format!("order {order_id} does not rest: {} is still to be done", step.command.name()))
    })
}

/// What the ledger books of an order comes, after no booking, to less than nothing, and in the end to what the provider
/// holds (minor units).
pub fn misbooked(order_id: OrderId, story: &[Recorded], held: i64) -> Option<String> {
    let mut booked = 0;
    for booking in story.iter().filter_map(Booking::of) {
        let Some(booking) = booking.within(booked) else { continue };
        let of_provider = booking.entries.iter().filter(|entry| entry.account == PROVIDER);
        booked += of_provider.map(|entry| entry.amount).sum::<i64>();
        if booked < 0 {
            return Some(format!("order {order_id}: the ledger holds {booked}"));
        }
    }
    (booked != held).then(|| format!("order {order_id}: the ledger holds {booked}, and the provider {held}"))
}

/// The first answer that the log does not explain.
fn contradiction(flow: &Flow, story: &[Recorded], calls: &[Call]) -> Option<String> {
    // Repeats of a call are one call, that began with the first of them.
    let mut first: BTreeMap<CommandId, u64> = BTreeMap::new();
    for call in calls {
        let began = first.entry(call.command_id).or_insert(call.began);
        *began = call.began.min(*began);
    }
    let states = states(story);
    calls.iter().find_map(|call| {
        let known = known_before(calls, call.began);
        let wrong = match &call.told {
            Told::Nothing => None,
            Told::Stands { sequence, status, event } => {
                let known_first = known_before(calls, first[&call.command_id]);
                let known = known_first;
                stands(story, &states, call.command_id, (*sequence, *status, *event), known)
            }
            Told::Refused(refusal) => {
                let later = calls.iter().filter(|other| first[&other.command_id] > call.ended);
                let until = later.filter_map(|other| placed_at(story, other.command_id)).min();
                refused(flow, &states, call.command.as_ref(), *refusal, known..until.unwrap_or(u64::MAX))
            }
        };
        wrong.map(|wrong| {
            let asked = call.command.as_ref().map_or("to pay and place", Command::name);
            format!("order {}: {asked} (command {}) {wrong}", call.order_id, call.command_id)
        })
    })
}

/// The order's state after each of its events, and before the first.
fn states(story: &[Recorded]) -> Vec<(u64, OrderState)> {
    let mut states = vec![(0, OrderState::default())];
    for recorded in story {
        let state = states.last().map(|(_, state)| state.clone()).unwrap_or_default();
        states.push((recorded.position.sequence, state.evolve(recorded)));
    }
    states
}

/// How far the story went for sure when a call began: as far as anybody had been told.
fn known_before(calls: &[Call], moment: u64) -> u64 {
    let told = calls.iter().filter(|call| call.ended < moment).map(|call| match &call.told {
        Told::Stands { sequence, .. } => *sequence,
        Told::Refused(_) | Told::Nothing => 0,
    });
    told.max().unwrap_or_default()
}

/// Where a command's own event is.
fn placed_at(story: &[Recorded], command_id: CommandId) -> Option<u64> {
    let event = story.iter().find(|recorded| recorded.command_id == command_id);
    event.map(|recorded| recorded.position.sequence)
}

fn stands(
    story: &[Recorded],
    told_of: &[(u64, OrderState)],
    command_id: CommandId,
    (sequence, status, event): (u64, Status, Option<EventId>),
    known: u64,
) -> Option<String> {
    let Some((_, found)) = told_of.iter().find(|(at, _)| *at == sequence) else {
        return Some(format!("was told that the order stands at {sequence}, and the log has nothing there"));
    };
    if found.status() != status {
        let (told, is) = (status.as_str(), found.status().as_str());
        return Some(format!("was told that the order is {told} at {sequence}, where it is {is}"));
    }
    let Some(event) = event else {
        let is_old = sequence < known;
        return is_old.then(|| format!("was told how it was at {sequence}, after {known} was known"));
    };
    match story.iter().find(|recorded| recorded.event_id == event) {
        None => Some(format!("was acknowledged with event {event}, and the log does not have it")),
        // What another command led to may be older.
        Some(recorded) if recorded.command_id == command_id && recorded.position.sequence <= known => {
            Some(format!("led to {}, before what was known when it was first given", recorded.position))
        }
        Some(_) => None,
    }
}

/// A refusal must be right at some moment between the call's beginning and its end.
fn refused(
    flow: &Flow,
    states: &[(u64, OrderState)],
    command: Option<&Command>,
    refusal: Refusal,
    moments: std::ops::Range<u64>,
) -> Option<String> {
    let command = command?;
    let mut possible = states.iter().filter(|(at, _)| moments.contains(at));
    let is_right = |state: &OrderState| {
        // Without a flow there is no order to decide about.
        let is_none = refusal == Refusal::OrderNotFound && state.flow.is_none();
        is_none || state.decide(flow, command) == Err(refusal)
    };
    if possible.any(|(_, state)| is_right(state)) {
        return None;
    }
    let (from, to) = (moments.start, moments.end);
    Some(format!("was refused with {}, which was never right from {from} up to {to}", refusal.code()))
}
