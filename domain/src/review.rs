//! The review context: one review an order.

use serde::{Deserialize, Serialize};

use crate::{
    command::Refusal,
    event::{Event, ReviewEvent, ReviewWritten},
    state::Brief,
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
    Write { rating: u8, text: String },
}

/// Decides about the review. A second one is refused: it could say something else.
pub fn decide(review: Review, of: Option<&Brief>, command: &ReviewCommand) -> Result<Option<Event>, Refusal> {
    let ReviewCommand::Write { rating, text } = command;
    match review {
        Review::None => {
            let items = of.map_or(&[][..], |brief| &brief.items);
            let written = ReviewWritten {
                rating: *rating,
                text: text.clone(),
                store_id: of.and_then(|brief| brief.store_id.clone()),
                item_ids: items.iter().map(|item| item.item_id.clone()).collect(),
            };
            Ok(Some(written.into()))
        }
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
