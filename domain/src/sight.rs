//! What a caller sees of an order: the one place where personal data is taken out, whichever way an answer goes out.

use crate::{
    event::{
        DeliveryEvent, DeliveryListed, DeliveryRequested, Event, OrderEvent, OrderPlaced, PaymentApproved,
        PaymentEvent, PaymentRequested,
    },
    order::{Address, Customer},
};

/// What a caller sees of an order, beside its status and its times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one kind of data that is seen or not, apart from the others"
)]
pub struct Sight {
    /// Who ordered: id and name.
    customer: bool,
    /// The customer's phone number and mail address, and the messages that were sent there.
    contact: bool,
    /// What was ordered, for how much, and why it was given up.
    goods: bool,
    /// Where it goes, to the door; the region is seen without it.
    address: bool,
    /// How it is paid: means, references, coupons; and what operators are told of it.
    payment: bool,
}

impl Sight {
    /// The customer's, and operators'.
    pub const WHOLE: Self = Self { customer: true, contact: true, goods: true, address: true, payment: true };
    /// The store's that makes it.
    pub const STORE: Self = Self { contact: false, address: false, payment: false, ..Self::WHOLE };
    /// Of the rider or the delivery team that delivers it.
    pub const COURIER: Self = Self { contact: false, payment: false, ..Self::WHOLE };
    /// Of every rider while it may be picked up: its region, and how it stands.
    pub const OPEN: Self =
        Self { customer: false, contact: false, goods: false, address: false, payment: false };

    /// What is seen by both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            customer: self.customer && other.customer,
            contact: self.contact && other.contact,
            goods: self.goods && other.goods,
            address: self.address && other.address,
            payment: self.payment && other.payment,
        }
    }

    /// What is seen by either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self {
            customer: self.customer || other.customer,
            contact: self.contact || other.contact,
            goods: self.goods || other.goods,
            address: self.address || other.address,
            payment: self.payment || other.payment,
        }
    }

    /// Whether nothing is hidden.
    pub fn is_whole(self) -> bool {
        self == Self::WHOLE
    }

    /// Whether what was ordered is seen.
    pub const fn sees_goods(self) -> bool {
        self.goods
    }

    /// Whether the whole address is seen.
    pub const fn sees_address(self) -> bool {
        self.address
    }

    /// Whether how it is paid is seen.
    pub const fn sees_payment(self) -> bool {
        self.payment
    }

    /// The customer; without phone number and mail address where those are not seen.
    pub fn customer(self, customer: &Customer) -> Option<Customer> {
        // Each field by name, here and below, so that a new one is decided on before anybody sees it.
        let Customer { id, name, phone, email, language } = customer.clone();
        let (phone, email) = if self.contact { (phone, email) } else { (None, None) };
        self.customer.then_some(Customer { id, name, phone, email, language })
    }

    /// The address; only its region where the rest is not seen.
    #[must_use]
    pub fn address(self, address: &Address) -> Address {
        let line = if self.address { address.line.clone() } else { String::new() };
        Address { line, region: address.region.clone() }
    }

    /// The event's data without what is not seen; `None` if nothing of it is.
    pub fn event(self, event: &Event) -> Option<Event> {
        match event {
            Event::Ordering(event) => self.ordering(event),
            Event::Payment(event) => self.payment(event),
            Event::Delivery(event) => self.delivery(event),
            Event::Store(_) | Event::Review(_) => self.goods.then(|| event.clone()),
            Event::Marketing(_) => self.payment.then(|| event.clone()),
            Event::Notification(_) => self.contact.then(|| event.clone()),
            // What an operator is told of a fault.
            Event::Saga(_) => self.is_whole().then(|| event.clone()),
        }
    }

    fn ordering(self, event: &OrderEvent) -> Option<Event> {
        match event {
            OrderEvent::OrderPlaced(placed) => {
                let OrderPlaced {
                    flow,
                    channel,
                    customer,
                    store_id,
                    lines,
                    total,
                    address,
                    delivery_type,
                    awaits_payment,
                } = placed.clone();
                let (customer, address) = (self.customer(&customer)?, self.address(&address));
                let seen = OrderPlaced {
                    flow,
                    channel,
                    customer,
                    store_id,
                    lines,
                    total,
                    address,
                    delivery_type,
                    awaits_payment,
                };
                self.goods.then(|| seen.into())
            }
            OrderEvent::OrderExpired(_)
            | OrderEvent::OrderRejected(_)
            | OrderEvent::OrderCompleted(_)
            | OrderEvent::OrderCancelRequested(_)
            | OrderEvent::OrderCanceled(_)
            | OrderEvent::ReturnRequested(_)
            | OrderEvent::OrderReturned(_) => self.goods.then(|| Event::Ordering(event.clone())),
        }
    }

    /// Who sees the goods sees what they cost.
    fn payment(self, event: &PaymentEvent) -> Option<Event> {
        if self.payment || !self.goods {
            return self.payment.then(|| Event::Payment(event.clone()));
        }
        match event {
            PaymentEvent::PaymentRequested(requested) if self.customer => {
                let PaymentRequested { flow, customer_id, amount, method: _ } = requested.clone();
                Some(PaymentRequested { flow, customer_id, amount, method: String::new() }.into())
            }
            PaymentEvent::PaymentApproved(approved) => {
                let PaymentApproved { amount, reference: _ } = approved.clone();
                Some(PaymentApproved { amount, reference: String::new() }.into())
            }
            PaymentEvent::PaymentCanceled(_) => Some(Event::Payment(event.clone())),
            PaymentEvent::PaymentRequested(_)
            | PaymentEvent::PaymentDeclined(_)
            | PaymentEvent::PaymentDeferred(_) => None,
        }
    }

    fn delivery(self, event: &DeliveryEvent) -> Option<Event> {
        match event {
            DeliveryEvent::DeliveryRequested(requested) => {
                Some(DeliveryRequested { address: self.address(&requested.address) }.into())
            }
            DeliveryEvent::DeliveryListed(listed) => {
                let DeliveryListed { address, delivery_type } = listed.clone();
                Some(DeliveryListed { address: self.address(&address), delivery_type }.into())
            }
            DeliveryEvent::DeliveryPickedUp(_)
            | DeliveryEvent::DeliveryStarted(_)
            | DeliveryEvent::DeliveryCompleted(_)
            | DeliveryEvent::DeliveryCanceled(_)
            | DeliveryEvent::ReturnPickupStarted(_)
            | DeliveryEvent::ReturnPickupCompleted(_) => self.goods.then(|| Event::Delivery(event.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_sights_both_see_what_each_sees_and_either_what_one_sees() {
        let (store, courier) = (Sight::STORE, Sight::COURIER);
        assert_eq!(store.and(courier), Sight::STORE);
        assert_eq!(store.or(courier), Sight::COURIER);
        assert_eq!(Sight::WHOLE.and(Sight::OPEN), Sight::OPEN);
        assert!(Sight::WHOLE.or(Sight::OPEN).is_whole());
    }
}
