//! The marketing context: one coupon an order.

use serde::{Deserialize, Serialize};

use crate::{
    command::Refusal,
    event::{CouponCanceled, CouponIssued, Event},
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

/// The coupon after a fact; facts of other contexts leave it as it is.
#[must_use]
pub fn evolve(coupon: Coupon, event: &Event) -> Coupon {
    match event {
        Event::CouponIssued(issued) => Coupon::Issued { coupon_id: issued.coupon_id.clone() },
        Event::CouponCanceled(_) => Coupon::Canceled,
        Event::OrderPlaced(_)
        | Event::OrderExpired(_)
        | Event::OrderCancelRequested(_)
        | Event::OrderCanceled(_)
        | Event::PaymentRequested(_)
        | Event::PaymentApproved(_)
        | Event::PaymentDeclined(_)
        | Event::PaymentCanceled(_)
        | Event::DeliveryRequested(_)
        | Event::DeliveryStarted(_)
        | Event::DeliveryCompleted(_)
        | Event::DeliveryCanceled(_)
        | Event::SagaParked(_)
        | Event::SagaResumed(_) => coupon,
    }
}
