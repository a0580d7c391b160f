//! The review context: one review an order.

use serde::{Deserialize, Serialize};

use crate::{
    command::Refusal,
    event::{Event, ReviewEvent, ReviewWritten},
};

/// The review of one order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Review {
    #[default]
    None,
    Written,
}

/// What the customer may be asked to be heard with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReviewCommand {
    Write(ReviewWritten),
}

/// Decides about the review. A second one is refused: it could say something else.
pub fn decide(review: Review, command: &ReviewCommand) -> Result<Option<Event>, Refusal> {
    let ReviewCommand::Write(written) = command;
    match review {
        Review::None => Ok(Some(written.clone().into())),
        Review::Written => Err(Refusal::AlreadyReviewed),
    }
}

/// The review after a fact.
#[must_use]
pub fn evolve(_: Review, event: &ReviewEvent) -> Review {
    match event {
        ReviewEvent::ReviewWritten(_) => Review::Written,
    }
}
