//! Flows: how an order travels, declared as data.

mod contradiction;

use std::{collections::BTreeMap, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{id::fingerprint, notification::NotifyRule, order::Channel};

/// The flows that come with the program, as the files they are.
const SHIPPED: [&str; 5] = [
    include_str!("flow/marketplace.toml"),
    include_str!("flow/appliance.toml"),
    include_str!("flow/food.toml"),
    include_str!("flow/kitchen.toml"),
    include_str!("flow/rental.toml"),
];

/// What each of [`SHIPPED`] looks like. A test draws them and compares.
const DIAGRAMS: [&str; 5] = [
    include_str!("flow/marketplace.mmd"),
    include_str!("flow/appliance.mmd"),
    include_str!("flow/food.mmd"),
    include_str!("flow/kitchen.mmd"),
    include_str!("flow/rental.mmd"),
];

/// Which flow an order follows, and in which version; an order keeps both for its life.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct FlowRef {
    pub name: String,
    /// A hash of the flow's declaration.
    pub version: String,
}

/// The declared way of an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// How long the order waits for a person, and what happens then.
    #[serde(default)]
    pub deadlines: Deadlines,
    /// What the customer is told, and how; `None`: nothing.
    #[serde(default)]
    pub notify: Option<NotifyRule>,
    /// Whether the customer may write a review, once, when the order has reached them.
    #[serde(default)]
    pub review: bool,
    /// Whether the customer may give back what was delivered.
    #[serde(default)]
    pub returns: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ends {
    /// Whoever delivers it reports so.
    #[default]
    Delivered,
    /// The customer confirms the receipt.
    Confirmed,
}

/// When the order is paid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PaymentRule {
    pub when: PaymentTime,
    /// Seconds after which a payment that got no answer is settled with the provider; an order that never came to stand
    /// is given up then, and what was taken goes back.
    #[serde(default = "settle_within_s")]
    pub settle_within_s: u32,
    /// What becomes of a new order while the provider gives no answer.
    #[serde(default)]
    pub provider_down: ProviderDown,
    /// Attempts to pay one order, declined ones and those without an answer; then it can only be canceled, or expires.
    #[serde(default = "attempts_max")]
    pub attempts_max: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProviderDown {
    /// There is no order; the caller is told to come back.
    #[default]
    Refuse,
    /// The order stands and waits to be paid in a second step.
    Defer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// As many as a customer with several cards and a patient hand makes.
const fn attempts_max() -> u32 {
    10
}

/// The coupon that marketing issues before a delivery may start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CouponRule {
    pub coupon_id: String,
    pub kind: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeliveryRule {
    pub start: DeliveryStart,
    /// The types a customer may choose among, where riders are found by type; empty: riders are found by region.
    #[serde(default)]
    pub types: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelRule {
    pub until: CancelUntil,
    #[serde(default)]
    pub mode: CancelMode,
    pub undo: Vec<Undo>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CancelMode {
    /// Taken at once, undone by the saga.
    #[default]
    Asynchronous,
    /// Only if the delivery context cancels while the customer waits; else nothing changes.
    Synchronous,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CancelUntil {
    Delivered,
    Shipped,
    PickedUp,
    PreparationStarted,
}

/// How long an order waits for each person who may never act.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deadlines {
    /// For the customer to pay an order that stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment: Option<Deadline>,
    /// For the store to accept or reject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<Deadline>,
    /// For a rider to pick it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rider: Option<Deadline>,
    /// For the customer to confirm the receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<Deadline>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deadline {
    /// Seconds from when the wait began.
    pub after_s: u32,
    pub then: Overdue,
}

/// What happens to an order that waited too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overdue {
    /// It is over, and undone like a canceled one.
    Expire,
    /// It counts as confirmed.
    Complete,
    /// It waits for an operator.
    Park,
}

/// One thing to take back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
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
    #[error("it does not read as a flow:\n{0}")]
    Syntax(#[from] toml::de::Error),
    #[error("line {line}: {reason}")]
    Contradiction { line: usize, reason: &'static str },
}

impl Flow {
    /// Reads a flow from its TOML text, and refuses one that contradicts itself.
    ///
    /// That it undoes all it does, and ends, is not read off its text: [`crate::explore`] walks its stories.
    pub fn parse(text: &str) -> Result<(Self, FlowRef), FlowError> {
        let (flow, reference) = Self::parse_stored(text)?;
        match contradiction::find(&flow) {
            Some((key, reason)) => {
                Err(FlowError::Contradiction { line: contradiction::line(text, key), reason })
            }
            None => Ok((flow, reference)),
        }
    }

    /// Reads a flow that some order follows already, whatever is thought of it today.
    pub fn parse_stored(text: &str) -> Result<(Self, FlowRef), FlowError> {
        let flow: Self = toml::from_str(text)?;
        let reference = FlowRef { name: flow.name.clone(), version: fingerprint(text.as_bytes()) };
        Ok((flow, reference))
    }

    /// Whether an order of this flow can stand before it is paid.
    pub fn may_be_paid_later(&self) -> bool {
        self.payment.when == PaymentTime::SecondStep || self.payment.provider_down == ProviderDown::Defer
    }

    fn undoes(&self, undo: Undo) -> bool {
        self.cancel.undo.contains(&undo)
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

/// One flow, with its text and the name of that.
#[derive(Clone, Debug)]
pub struct Declared {
    pub flow: Arc<Flow>,
    pub reference: FlowRef,
    pub text: String,
}

/// The flows that new orders can follow, one of each name.
#[derive(Clone, Debug, Default)]
pub struct Flows {
    by_name: BTreeMap<String, Declared>,
    /// What was drawn of them: drawing one takes a walk of everything that can happen, which is seconds.
    diagrams: BTreeMap<FlowRef, Arc<str>>,
}

impl Flows {
    /// The flows that come with the program.
    pub fn shipped() -> Result<Self, FlowError> {
        let mut flows = Self::default();
        for (text, diagram) in SHIPPED.iter().zip(DIAGRAMS) {
            let reference = flows.add(text)?.reference;
            flows.draw(reference, diagram.trim_end().into());
        }
        Ok(flows)
    }

    /// Adds a flow, in the place of the one that had its name.
    pub fn add(&mut self, text: &str) -> Result<Declared, FlowError> {
        let (flow, reference) = Flow::parse(text)?;
        let declared = Declared { flow: Arc::new(flow), reference, text: text.to_owned() };
        self.by_name.insert(declared.flow.name.clone(), declared.clone());
        Ok(declared)
    }

    /// The flow that a new order of this name follows.
    pub fn newest(&self, name: &str) -> Option<&Declared> {
        self.by_name.get(name)
    }

    /// Notes what a flow looks like, as [`crate::explore::Exploration::diagram`] draws it.
    pub fn draw(&mut self, reference: FlowRef, diagram: Arc<str>) {
        self.diagrams.insert(reference, diagram);
    }

    /// What a flow looks like; `None` if there is no picture of it.
    pub fn diagram(&self, reference: &FlowRef) -> Option<Arc<str>> {
        self.diagrams.get(reference).cloned()
    }

    /// All of them, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = &Declared> {
        self.by_name.values()
    }

    /// The names a new order can give, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_flows_read_and_do_not_contradict_themselves() {
        let flows = Flows::shipped().unwrap();
        let marketplace = flows.newest("marketplace").unwrap();
        assert_eq!(marketplace.flow.channels, [Channel::Web, Channel::Phone]);
        assert_eq!(marketplace.flow.cancel.undo, [Undo::Coupon, Undo::Delivery, Undo::Payment]);
        assert_eq!(flows.names().count(), SHIPPED.len());
    }

    #[test]
    fn a_flow_of_the_same_name_takes_the_place_of_the_older_and_has_another_version() {
        let mut flows = Flows::shipped().unwrap();
        let before = flows.newest("rental").unwrap().reference.clone();
        let text = SHIPPED[4].replace("title = \"Rental", "title = \"My rental");
        let declared = flows.add(&text).unwrap();
        assert_eq!(flows.newest("rental").unwrap().reference, declared.reference);
        assert_ne!(declared.reference.version, before.version);
    }
}
