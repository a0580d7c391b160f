//! Commands whose context is in the very process that asks: handed over from task to task, not by way of the server.
//!
//! A process that has all contexts would otherwise send each of its commands to the server and get it back, and so with
//! the answer. What is handed over is answered, limited and drained like what comes from the server.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

use domain::Context;
use tokio::sync::{mpsc, oneshot};

use crate::ask::{Answer, Ask};

/// A command, and where its answer goes.
pub(crate) struct Asked {
    pub(crate) ask: Ask,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// The contexts that are offered by way of one connection.
#[derive(Default)]
pub(crate) struct Here {
    offered: RwLock<BTreeMap<Context, mpsc::Sender<Asked>>>,
}

impl Here {
    /// From here on a context's commands come out of this; at most `waiting_max` wait.
    pub(crate) fn offer(&self, context: Context, waiting_max: usize) -> mpsc::Receiver<Asked> {
        let (sender, receiver) = mpsc::channel(waiting_max);
        self.offered.write().unwrap_or_else(PoisonError::into_inner).insert(context, sender);
        receiver
    }

    /// Hands a context the command that `ask` makes; `None`, and it is not made, if the context is not here, or has too
    /// much to do, so that others may take it.
    pub(crate) fn hand_over(
        &self,
        context: Context,
        ask: impl FnOnce() -> Ask,
    ) -> Option<oneshot::Receiver<Answer>> {
        let offered = self.offered.read().unwrap_or_else(PoisonError::into_inner);
        let place = offered.get(&context)?.try_reserve().ok()?;
        let (answer, answered) = oneshot::channel();
        place.send(Asked { ask: ask(), answer });
        Some(answered)
    }
}
