//! Flows: how an order travels, declared as data.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{id::fingerprint, order::Channel};

/// The flows that come with the program, as the files they are.
const SHIPPED: [&str; 5] = [
    include_str!("flow/marketplace.toml"),
    include_str!("flow/appliance.toml"),
    include_str!("flow/food.toml"),
    include_str!("flow/kitchen.toml"),
    include_str!("flow/rental.toml"),
];

/// Which flow an order follows, and in which version; an order keeps both for its life.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FlowRef {
    pub name: String,
    /// A hash of the flow's declaration.
    pub version: String,
}

/// The declared way of an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    pub name: String,
    pub title: String,
    pub channels: Vec<Channel>,
    pub payment: PaymentRule,
    /// Whether a store receives the order, accepts or rejects it, starts and finishes it, before any delivery.
    #[serde(default)]
    pub store: bool,
    #[serde(default)]
    pub coupon: Option<CouponRule>,
    pub delivery: DeliveryRule,
    /// What ends the order.
    #[serde(default)]
    pub ends: Ends,
    pub cancel: CancelRule,
    /// Whether the customer may write a review, once, when the order has reached them.
    #[serde(default)]
    pub review: bool,
    /// Whether the customer may give back what was delivered.
    #[serde(default)]
    pub returns: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ends {
    /// Whoever delivers it reports so.
    #[default]
    Delivered,
    /// The customer confirms the receipt.
    Confirmed,
}

/// When the order is paid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentRule {
    pub when: PaymentTime,
    /// Seconds after which an order whose payment got no answer is given up, and what was taken goes back.
    #[serde(default = "settle_within_s")]
    pub settle_within_s: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentTime {
    /// One act: the order stands once the provider has approved.
    WithOrder,
    /// By the customer, later: the order stands at once and waits.
    SecondStep,
    /// Never: the order stands at once.
    None,
}

const fn settle_within_s() -> u32 {
    30
}

/// The coupon that marketing issues before a delivery may start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CouponRule {
    pub coupon_id: String,
    pub kind: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliveryRule {
    pub start: DeliveryStart,
    /// The types a customer may choose among, where riders are found by type; empty: riders are found by region.
    #[serde(default)]
    pub types: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStart {
    /// By itself, as soon as everything before it is done.
    Automatic,
    /// The delivery team ships it.
    Shipped,
    /// Listed for riders; one of them picks it up.
    Rider,
}

/// Until when the customer may cancel, and what is undone in which order before the order counts as canceled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelRule {
    pub until: CancelUntil,
    #[serde(default)]
    pub mode: CancelMode,
    pub undo: Vec<Undo>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelMode {
    /// Taken at once, undone by the saga.
    #[default]
    Asynchronous,
    /// Only if the delivery context cancels while the customer waits; else nothing changes.
    Synchronous,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelUntil {
    Delivered,
    Shipped,
    PickedUp,
    PreparationStarted,
}

/// One thing to take back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    Coupon,
    StoreOrder,
    Delivery,
    Payment,
}

/// A flow file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    #[error("the flow file does not read as a flow:\n{0}")]
    Syntax(#[from] toml::de::Error),
    #[error("flow {flow}: {reason}")]
    Contradiction { flow: String, reason: String },
}

impl Flow {
    /// Reads a flow from its TOML text and checks that it does not contradict itself.
    pub fn parse(text: &str) -> Result<(Self, FlowRef), FlowError> {
        let flow: Self = toml::from_str(text)?;
        flow.check()?;
        let version = fingerprint(text.as_bytes());
        let reference = FlowRef { name: flow.name.clone(), version };
        Ok((flow, reference))
    }

    fn check(&self) -> Result<(), FlowError> {
        let refuse =
            |reason: &str| Err(FlowError::Contradiction { flow: self.name.clone(), reason: reason.into() });
        if self.channels.is_empty() {
            return refuse("channels is empty: nobody could order");
        }
        for (index, undo) in self.cancel.undo.iter().enumerate() {
            if self.cancel.undo[..index].contains(undo) {
                return refuse("cancel.undo names a thing twice");
            }
        }
        let undoes = |undo| self.cancel.undo.contains(&undo);
        // A cancel that is over before the preparation starts never meets a delivery.
        let meets_delivery = self.cancel.until != CancelUntil::PreparationStarted;
        if undoes(Undo::Payment) != (self.payment.when != PaymentTime::None)
            || (meets_delivery && !undoes(Undo::Delivery))
        {
            return refuse("cancel.undo must name payment and delivery, or a canceled order keeps them");
        }
        if undoes(Undo::StoreOrder) != self.store {
            return refuse("cancel.undo names the store_order exactly when there is a store");
        }
        if self.cancel.mode == CancelMode::Synchronous && self.cancel.undo != [Undo::Delivery] {
            return refuse(
                "a synchronous cancel undoes the delivery, and there must be nothing else to undo",
            );
        }
        if !self.store && self.cancel.until == CancelUntil::PreparationStarted {
            return refuse("cancel.until is preparation_started, and no store prepares anything");
        }
        if self.delivery.start != DeliveryStart::Rider
            && (self.cancel.until == CancelUntil::PickedUp || !self.delivery.types.is_empty())
        {
            return refuse("only riders pick up and have types; delivery.start is another");
        }
        if self.coupon.is_some() != self.cancel.undo.contains(&Undo::Coupon) {
            return refuse("cancel.undo names the coupon exactly when the flow issues one");
        }
        Ok(())
    }

    /// Whether riders see the orders of their region.
    pub fn finds_riders_by_region(&self) -> bool {
        self.delivery.start == DeliveryStart::Rider && self.delivery.types.is_empty()
    }

    /// Whether a delivery may only be canceled once the coupon is.
    pub fn undoes_coupon_before_delivery(&self) -> bool {
        let place = |wanted| self.cancel.undo.iter().position(|undo| *undo == wanted);
        matches!((place(Undo::Coupon), place(Undo::Delivery)), (Some(coupon), Some(delivery)) if coupon < delivery)
    }
}

/// The flows a service knows, each in every version it was given.
#[derive(Clone, Debug)]
pub struct Flows {
    by_reference: BTreeMap<FlowRef, Arc<Flow>>,
    newest: BTreeMap<String, FlowRef>,
}

impl Flows {
    /// The flows that come with the program.
    pub fn shipped() -> Result<Self, FlowError> {
        let mut flows = Self { by_reference: BTreeMap::new(), newest: BTreeMap::new() };
        for text in SHIPPED {
            let (flow, reference) = Flow::parse(text)?;
            flows.newest.insert(flow.name.clone(), reference.clone());
            flows.by_reference.insert(reference, Arc::new(flow));
        }
        Ok(flows)
    }

    /// The flow that a new order of this name follows.
    pub fn newest(&self, name: &str) -> Option<(&FlowRef, &Arc<Flow>)> {
        let reference = self.newest.get(name)?;
        Some((reference, self.by_reference.get(reference)?))
    }

    /// The flow that a running order follows.
    pub fn get(&self, reference: &FlowRef) -> Option<&Arc<Flow>> {
        self.by_reference.get(reference)
    }

    /// The names a new order can give, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.newest.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_flows_read_and_do_not_contradict_themselves() {
        let flows = Flows::shipped().unwrap();
        let (reference, flow) = flows.newest("marketplace").unwrap();
        assert_eq!(flow.channels, [Channel::Web, Channel::Phone]);
        assert_eq!(flow.cancel.undo, [Undo::Coupon, Undo::Delivery, Undo::Payment]);
        assert!(flows.get(reference).is_some());
    }

    #[test]
    fn a_flow_that_contradicts_itself_is_refused_with_its_reason() {
        let good = SHIPPED[0];
        let cases = [
            (r#"["web", "phone"]"#, "[]", "nobody could order"),
            (r#"["coupon", "delivery", "payment"]"#, r#"["coupon", "delivery"]"#, "must name payment"),
            (r#"["coupon", "delivery", "payment"]"#, r#"["delivery", "payment"]"#, "exactly when"),
            (
                r#"["coupon", "delivery", "payment"]"#,
                r#"["coupon", "coupon", "delivery", "payment"]"#,
                "twice",
            ),
            ("[delivery]", "[delivery]\nwings = true", "unknown field"),
        ];
        for (was, is, reason) in cases {
            assert!(good.contains(was), "{was}");
            let error = Flow::parse(&good.replace(was, is)).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
