//! Turns that callers take in rotation: some are held at a time, and of those who wait, each caller in turn gets one,
//! however many another caller waits for (round robin, as in "fair queueing", Nagle 1987, RFC 970).

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// A queue of one caller.
type Queue = VecDeque<oneshot::Sender<Turn>>;

#[derive(Default)]
struct State {
    held: usize,
    /// Callers who wait, the one first whose turn is next.
    waiting: VecDeque<(Arc<str>, Queue)>,
}

/// Turns for work that only some may do at a time.
pub(crate) struct Turns {
    at_once: usize,
    state: Mutex<State>,
}

/// A turn that is held until it is dropped.
#[must_use = "a turn is held for as long as the work takes"]
pub(crate) struct Turn(Option<Arc<Turns>>);

impl Turns {
    /// `at_once` turns are held at a time.
    pub(crate) fn new(at_once: usize) -> Arc<Self> {
        Arc::new(Self { at_once, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn of this caller. Who does not wait any longer drops the future, and loses nothing for others.
    pub(crate) async fn take(self: &Arc<Self>, caller: &Arc<str>) -> Turn {
        let turn = {
            let mut state = self.state();
            if state.held < self.at_once {
                state.held += 1;
                return Turn(Some(Arc::clone(self)));
            }
            let (sender, turn) = oneshot::channel();
            match state.waiting.iter_mut().find(|(waits, _)| waits == caller) {
                Some((_, queue)) => queue.push_back(sender),
                None => state.waiting.push_back((Arc::clone(caller), VecDeque::from([sender]))),
            }
            turn
        };
        // Senders are dropped with these turns alone, which are borrowed here.
        turn.await.unwrap_or(Turn(None))
    }

    /// Who is next; `None` if nobody waits, and then the turn is given back.
    fn next(&self) -> Option<oneshot::Sender<Turn>> {
        let mut state = self.state();
        while let Some((caller, mut queue)) = state.waiting.pop_front() {
            let next = queue.pop_front();
            if !queue.is_empty() {
                state.waiting.push_back((caller, queue));
            }
            if next.is_some() {
                return next;
            }
        }
        state.held -= 1;
        None
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(turns) = self.0.take() else { return };
        while let Some(next) = turns.next() {
            match next.send(Self(Some(Arc::clone(&turns)))) {
                Ok(()) => return,
                // Who waited has gone; the turn goes on to the next.
                Err(mut refused) => drop(refused.0.take()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::{FutureExt, poll};

    use super::*;

    #[tokio::test]
    async fn a_caller_who_waits_for_many_turns_delays_another_by_one() {
        let turns = Turns::new(1);
        let [greedy, modest]: [Arc<str>; 2] = ["greedy", "modest"].map(Arc::from);
        let held = turns.take(&greedy).await;
        let mut many: Vec<_> = (0..5).map(|_| turns.take(&greedy).boxed()).collect();
        for waits in &mut many {
            assert!(poll!(waits).is_pending());
        }
        let mut other = pin!(turns.take(&modest));
        assert!(poll!(&mut other).is_pending());
        drop(held);
        let first = many.remove(0).await;
        drop(first);
        let theirs = other.now_or_never().expect("the other caller is next");
        // Those who have gone are passed over.
        many.truncate(1);
        drop(theirs);
        drop(many.remove(0).now_or_never().expect("the only one who still waits"));
        let state = turns.state();
        assert_eq!((state.held, state.waiting.len()), (0, 0), "nothing is left");
    }
}
