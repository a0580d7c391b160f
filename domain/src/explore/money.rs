//! The payment context's errands to the provider, call by call, and what the provider's books say.
//!
//! The provider keeps one entry a key. A charge under a key that was charged before answers as before; a cancel closes
//! its key: what was taken goes back, and what arrives later is declined. A provider without these two is not safe
//! to use, see `docs/payment-provider.md`.

use super::{
    ATTEMPTS_MAX, ERRANDS_MAX, Move, people,
    stories::{Stories, Story, StoryId},
};
use crate::{
    command::Command,
    order::Order,
    payment::{self, Charge, Payment, PaymentCommand},
};

/// What the provider knows of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    #[default]
    Nothing,
    Charged,
    Declined,
    Closed,
}

/// An errand of the payment context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Errand {
    /// The key it is about, counted from 0.
    key: usize,
    /// The story that its record holds for; `None`: whatever happened meanwhile.
    expects: Option<StoryId>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// The charge is on its way to the provider.
    Charging,
    /// It still is, and nobody waits for the answer any more.
    Unheard,
    /// The provider said yes, or no.
    Heard(bool),
    /// The provider refused the call, and the attempt is given up: its key is to be closed, then it counts as declined.
    Refused,
    /// The log did not take the charge: it is to go back.
    Owing,
    /// The provider is to be asked what became of the key.
    Asking,
    /// It knew nothing: the attempt is to be given up.
    Deferring,
    /// The money is to be asked back.
    Returning,
    Returned,
}

/// The provider's books, and the errands under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Till {
    books: [Entry; ATTEMPTS_MAX as usize],
    pub(super) errands: [Option<Errand>; ERRANDS_MAX],
}

/// Where an errand's next step leads.
type Next = (StoryId, Till, Move);

impl Errand {
    /// The errand that the saga's command starts.
    pub(super) fn of(command: &Command, at: &Story, sent: StoryId) -> Option<Self> {
        let stage = match command {
            Command::SettlePayment => Stage::Asking,
            Command::ReturnPayment => Stage::Returning,
            Command::Ordering(_)
            | Command::Payment(_)
            | Command::ChargePayment { .. }
            | Command::Store(_)
            | Command::Marketing(_)
            | Command::Delivery(_)
            | Command::Review(_)
            | Command::Notification(_)
            | Command::Saga(_) => return None,
        };
        let key = usize::try_from(at.state.payment.attempt()).ok()?.checked_sub(1)?;
        Some(Self { key, expects: Some(sent), stage })
    }
}

impl Errand {
    fn attempt(&self) -> u32 {
        u32::try_from(self.key + 1).unwrap_or(u32::MAX)
    }
}

impl Till {
    /// The till with one more errand; `None` if too many are under way.
    pub(super) fn with(&self, errand: Errand) -> Option<Self> {
        let free = self.errands.iter().position(Option::is_none)?;
        let mut till = self.clone();
        till.errands[free] = Some(errand);
        Some(till)
    }

    fn put(&self, place: usize, errand: Option<Errand>) -> Self {
        let mut till = self.clone();
        till.errands[place] = errand;
        till
    }

    fn book(&self, key: usize, entry: Entry) -> Self {
        let mut till = self.clone();
        till.books[key] = entry;
        till
    }

    /// The customer pays, once or again: the intent is recorded, and the charge goes on its way.
    pub(super) fn charged(&self, stories: &mut Stories<'_>, at: StoryId) -> Vec<Next> {
        let is_last = stories[at].state.payment == Payment::Declined { attempt: ATTEMPTS_MAX };
        let Some(request) = people::payment(stories, at).filter(|_| !is_last) else { return Vec::new() };
        let next = stories.decided(at, &Command::Payment(request)).unwrap_or(at);
        let Payment::Requested { attempt, .. } = stories[next].state.payment else { return Vec::new() };
        let Some(key) = usize::try_from(attempt).ok().and_then(|n| n.checked_sub(1)) else {
            return Vec::new();
        };
        let made =
            Move { who: "the customer", what: "pays", event: (next != at).then_some("PaymentRequested") };
        let till = self.with(Errand { key, expects: None, stage: Stage::Charging });
        till.map(|till| (next, till, made)).into_iter().collect()
    }

    /// Everything that an errand may come to next.
    pub(super) fn steps(
        &self,
        stories: &mut Stories<'_>,
        at: StoryId,
        place: usize,
        gives_up_first: bool,
    ) -> Vec<Next> {
        let Some(errand) = self.errands[place] else { return Vec::new() };
        let say = |who: &'static str, what: &'static str| Move { who, what, event: None };
        let go = |stage| self.put(place, Some(Errand { stage, ..errand }));
        let provider = "the provider";
        // Whatever it does, the payment context may crash before.
        let mut next = vec![(at, self.put(place, None), say("the payment context", "crashes"))];
        let entry = self.books[errand.key];
        match errand.stage {
            Stage::Charging => {
                next[0] = (at, go(Stage::Unheard), say(provider, "is slow; nobody waits any longer"));
                next.push((at, self.put(place, None), say(provider, "is away")));
                if self.is_shared(errand.key) {
                    next.push(self.refused(stories, at, place, gives_up_first));
                }
                next.extend(
                    self.answers(place, true).into_iter().map(|(till, what)| (at, till, say(provider, what))),
                );
            }
            Stage::Unheard => {
                next.extend(
                    self.answers(place, false)
                        .into_iter()
                        .map(|(till, what)| (at, till, say(provider, what))),
                );
            }
            Stage::Heard(approved) => {
                let charge = if approved {
                    Charge::Approved { reference: "provider".into() }
                } else {
                    Charge::Declined { reason: "no".into() }
                };
                let owing = charge.is_owed_when_refused().then_some(Errand { stage: Stage::Owing, ..errand });
                let command = Command::Payment(charge.outcome_of(errand.attempt()));
                next.push(self.recorded(stories, at, place, &command, owing));
            }
            Stage::Refused => next.push(self.closed_of_refused(at, place)),
            Stage::Owing => next.push((at, self.closed(place, None), say(provider, "gives the money back"))),
            Stage::Asking => {
                let stage = match entry {
                    Entry::Nothing => Stage::Deferring,
                    Entry::Charged => Stage::Heard(true),
                    Entry::Declined | Entry::Closed => Stage::Heard(false),
                };
                next.push((at, go(stage), say(provider, "says what became of the payment")));
            }
            Stage::Deferring => {
                let command = PaymentCommand::Defer { attempt: errand.attempt() };
                next.push(self.recorded(stories, at, place, &Command::Payment(command), None));
            }
            Stage::Returning => {
                let told = Errand { stage: Stage::Returned, ..errand };
                next.push((at, self.closed(place, Some(told)), say(provider, "gives the money back")));
            }
            Stage::Returned => {
                let command =
                    payment::closed(stories[at].state.payment, stories[at].state.order, people::price());
                next.push(self.recorded(stories, at, place, &Command::Payment(command), None));
            }
        }
        next
    }

    /// Whether another call may be charged under the key, or was. Where none can be, a refused call is a declined one:
    /// no other begins once the attempt is given up.
    fn is_shared(&self, key: usize) -> bool {
        let calls = self.errands.iter().flatten().filter(|errand| errand.key == key).count();
        calls > 1 || self.books[key] != Entry::Nothing
    }

    /// The provider refuses the call to charge, whatever it has under the key, and the attempt is given up. That is one
    /// move: a refusal changes nothing, so it is the same whether it comes long before or right before what it leads
    /// to.
    fn refused(&self, stories: &mut Stories<'_>, at: StoryId, place: usize, gives_up_first: bool) -> Next {
        let Some(errand) = self.errands[place].filter(|_| gives_up_first) else {
            return self.closed_of_refused(at, place);
        };
        let command = Command::Payment(PaymentCommand::Defer { attempt: errand.attempt() });
        let (story, mut till, made) = self.recorded(stories, at, place, &command, None);
        if stories[story].state.payment.has_given_up(errand.attempt()) {
            till = till.put(place, Some(Errand { stage: Stage::Refused, ..errand }));
        }
        (
            story,
            till,
            Move { what: "hears that the provider refuses the call, and gives the payment up", ..made },
        )
    }

    fn closed_of_refused(&self, at: StoryId, place: usize) -> Next {
        let told = self.errands[place].map(|errand| Errand { stage: Stage::Heard(false), ..errand });
        let made =
            Move { who: "the provider", what: "closes the key of the call that it refuses", event: None };
        (at, self.closed(place, told), made)
    }

    /// A charge reaches the provider.
    fn answers(&self, place: usize, is_heard: bool) -> Vec<(Self, &'static str)> {
        let Some(errand) = self.errands[place] else { return Vec::new() };
        let entries: &[Entry] = match self.books[errand.key] {
            Entry::Nothing => &[Entry::Charged, Entry::Declined],
            Entry::Charged => &[Entry::Charged],
            Entry::Declined => &[Entry::Declined],
            Entry::Closed => &[Entry::Closed],
        };
        let answer = |entry: &Entry| {
            let approved = *entry == Entry::Charged;
            let told = is_heard.then_some(Errand { stage: Stage::Heard(approved), ..errand });
            let what = match (approved, is_heard) {
                (true, true) => "charges",
                (true, false) => "charges, unheard",
                (false, true) => "declines",
                (false, false) => "declines, unheard",
            };
            (self.book(errand.key, *entry).put(place, told), what)
        };
        entries.iter().map(answer).collect()
    }

    /// The key is closed; what was taken under it goes back.
    fn closed(&self, place: usize, errand: Option<Errand>) -> Self {
        let Some(was) = self.errands[place] else { return self.clone() };
        let entry = match self.books[was.key] {
            Entry::Declined => Entry::Declined,
            Entry::Nothing | Entry::Charged | Entry::Closed => Entry::Closed,
        };
        self.book(was.key, entry).put(place, errand)
    }

    /// The payment context records what it learned.
    fn recorded(
        &self,
        stories: &mut Stories<'_>,
        at: StoryId,
        place: usize,
        command: &Command,
        owing: Option<Errand>,
    ) -> Next {
        let made = |what, event| Move { who: "the payment context", what, event };
        if self.errands[place].is_some_and(|errand| errand.expects.is_some_and(|expected| expected != at)) {
            return (at, self.put(place, None), made("is too late, the story moved on", None));
        }
        let is_refused = stories[at].state.decide(stories.flow, command).is_err();
        let story = stories.decided(at, command).unwrap_or(at);
        let event = if story == at { None } else { stories[story].names.last().copied() };
        (story, self.put(place, owing.filter(|_| is_refused)), made(command.name(), event))
    }

    /// The rule about money that is broken.
    pub(super) fn broken(&self, story: &Story) -> Option<&'static str> {
        let charged = self.books.iter().filter(|entry| **entry == Entry::Charged).count();
        if charged > 1 {
            return Some("nobody is charged twice");
        }
        if story.step.is_some() || self.errands.iter().any(Option::is_some) {
            return None;
        }
        let is_over =
            matches!(story.state.order, Order::Canceled | Order::Expired | Order::Rejected | Order::Returned);
        let says_charged = match story.state.payment {
            Payment::Approved { attempt, .. } => {
                let key = usize::try_from(attempt).ok().and_then(|attempt| attempt.checked_sub(1));
                if key.and_then(|key| self.books.get(key)) != Some(&Entry::Charged) {
                    return Some(
                        "money is captured or returned, never both: what the log calls paid is in the till",
                    );
                }
                true
            }
            Payment::None
            | Payment::Requested { .. }
            | Payment::Declined { .. }
            | Payment::Deferred { .. }
            | Payment::Canceled => false,
        };
        if is_over && charged > 0 {
            return Some("an order that is over keeps no money");
        }
        (charged > 0 && !says_charged).then_some("the provider took nothing that the log does not know of")
    }
}
