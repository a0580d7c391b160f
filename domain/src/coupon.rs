//! The marketing context: one coupon an order.

use serde::{Deserialize, Serialize};

use crate::{
    command::Refusal,
    event::{CouponCanceled, CouponEvent, CouponIssued, Event},
};

/// The coupon of one order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Coupon {
    #[default]
    None,
    Issued {
        coupon_id: String,
    },
    Canceled,
}

/// What marketing may be asked to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CouponCommand {
    Issue { coupon_id: String, kind: String },
    Cancel,
}

/// Decides about the coupon; `None` means that the fact already holds.
pub fn decide(coupon: &Coupon, command: &CouponCommand) -> Result<Option<Event>, Refusal> {
    match command {
        CouponCommand::Issue { coupon_id, kind } => match coupon {
            Coupon::None => {
                Ok(Some(CouponIssued { coupon_id: coupon_id.clone(), kind: kind.clone() }.into()))
            }
            Coupon::Issued { .. } => Ok(None),
            Coupon::Canceled => Err(Refusal::CouponCanceled),
        },
        CouponCommand::Cancel => match coupon {
            Coupon::Issued { coupon_id } => Ok(Some(CouponCanceled { coupon_id: coupon_id.clone() }.into())),
            Coupon::None | Coupon::Canceled => Ok(None),
        },
    }
}

/// The coupon after a fact.
#[must_use]
pub fn evolve(_: Coupon, event: &CouponEvent) -> Coupon {
    match event {
        CouponEvent::CouponIssued(issued) => Coupon::Issued { coupon_id: issued.coupon_id.clone() },
        CouponEvent::CouponCanceled(_) => Coupon::Canceled,
    }
}
