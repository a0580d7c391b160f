//! Who may do what, and who sees what: by role, and by whose order it is.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    command::Command,
    delivery::DeliveryCommand,
    event::{DeliveryEvent, Event, OrderEvent},
    order::OrderCommand,
    payment::PaymentCommand,
    store::StoreCommand,
};

/// What somebody is to the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Orders, pays, cancels, gives back and reviews; sees their own orders.
    Customer,
    /// Works for stores; sees what those have before them.
    Store,
    /// Picks up what is open, and brings it; sees what is open, and what they picked up.
    Rider,
    /// Sees coupons.
    Marketing,
    /// May do and see everything.
    Operator,
}

/// Somebody who proved who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// A customer's id in orders, a rider's id in deliveries.
    pub id: String,
    pub roles: BTreeSet<Role>,
    /// The stores that they work for.
    pub stores: BTreeSet<String>,
}

/// Whose an order is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parties {
    pub customer_id: Option<String>,
    /// The store that the order is for.
    pub store_id: Option<String>,
    /// The rider who picked it up.
    pub rider_id: Option<String>,
    /// Whether riders may pick it up.
    pub is_open: bool,
}

impl Parties {
    /// Whose the order with these events is.
    pub fn of<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        events.into_iter().fold(Self::default(), Self::after)
    }

    fn after(mut self, event: &Event) -> Self {
        match event {
            Event::Ordering(OrderEvent::OrderPlaced(placed)) => {
                self.customer_id = Some(placed.customer.id.clone());
                self.store_id.clone_from(&placed.store_id);
            }
            Event::Delivery(DeliveryEvent::DeliveryListed(_)) => self.is_open = true,
            Event::Delivery(DeliveryEvent::DeliveryPickedUp(picked)) => {
                self.rider_id = Some(picked.rider_id.clone());
                self.is_open = false;
            }
            Event::Delivery(DeliveryEvent::DeliveryCanceled(_))
            | Event::Ordering(OrderEvent::OrderCancelRequested(_)) => self.is_open = false,
            Event::Ordering(_)
            | Event::Payment(_)
            | Event::Store(_)
            | Event::Marketing(_)
            | Event::Delivery(_)
            | Event::Review(_)
            | Event::Notification(_)
            | Event::Saga(_) => {}
        }
        self
    }
}

impl Person {
    pub fn is(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Whether they are this customer.
    pub fn is_customer(&self, customer_id: &str) -> bool {
        self.is(Role::Customer) && self.id == customer_id
    }

    /// Whether they are this rider.
    pub fn is_rider(&self, rider_id: &str) -> bool {
        self.is(Role::Rider) && self.id == rider_id
    }

    /// Whether they work for this store.
    pub fn works_for(&self, store_id: &str) -> bool {
        self.is(Role::Store) && self.stores.contains(store_id)
    }

    /// Whether the order is theirs, as its customer.
    pub fn owns(&self, order: &Parties) -> bool {
        self.is(Role::Operator) || order.customer_id.as_deref().is_some_and(|id| self.is_customer(id))
    }

    /// Whether the work on the order is theirs, as its store. An order for no store in particular is any store's.
    fn prepares(&self, order: &Parties) -> bool {
        match &order.store_id {
            Some(store_id) => self.works_for(store_id),
            None => self.is(Role::Store),
        }
    }

    /// Whether the delivery is theirs. One that nobody picks up is the delivery team's.
    fn delivers(&self, order: &Parties) -> bool {
        match &order.rider_id {
            Some(rider_id) => self.is_rider(rider_id),
            None => self.is(Role::Rider),
        }
    }

    /// Whether they see the order.
    pub fn may_see(&self, order: &Parties) -> bool {
        let is_rider = order.rider_id.as_deref().is_some_and(|id| self.is_rider(id));
        let is_store = order.store_id.as_deref().is_some_and(|id| self.works_for(id));
        self.owns(order) || is_store || is_rider || (order.is_open && self.is(Role::Rider))
    }

    /// Whether they may give the command. What only the platform itself asks of itself, nobody may.
    pub fn may(&self, command: &Command, order: &Parties) -> bool {
        if self.is(Role::Operator) {
            return true;
        }
        match command {
            Command::Ordering(command) => match command {
                OrderCommand::Place(placed) => self.is_customer(&placed.customer.id),
                OrderCommand::Complete
                | OrderCommand::RequestCancel { .. }
                | OrderCommand::Cancel
                | OrderCommand::RequestReturn { .. } => self.owns(order),
                OrderCommand::Expire { .. } | OrderCommand::Reject { .. } | OrderCommand::Return => false,
            },
            Command::ChargePayment { .. }
            | Command::Payment(PaymentCommand::Request(_))
            | Command::Review(_) => self.owns(order),
            Command::Store(command) => match command {
                StoreCommand::Accept
                | StoreCommand::Reject { .. }
                | StoreCommand::Start
                | StoreCommand::Finish => self.prepares(order),
                StoreCommand::Receive(_) | StoreCommand::Cancel => false,
            },
            Command::Delivery(command) => match command {
                DeliveryCommand::PickUp { rider_id } => self.is_rider(rider_id),
                DeliveryCommand::Start
                | DeliveryCommand::Complete
                | DeliveryCommand::Cancel
                | DeliveryCommand::StartReturn
                | DeliveryCommand::CompleteReturn => self.delivers(order),
                DeliveryCommand::Request { .. } | DeliveryCommand::List(_) => false,
            },
            Command::Payment(_)
            | Command::SettlePayment
            | Command::ReturnPayment
            | Command::Marketing(_)
            | Command::Notification(_)
            | Command::Saga(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{command::SagaCommand, review::ReviewCommand};

    fn person(id: &str, role: Role) -> Person {
        let stores = if role == Role::Store { [id.to_owned()].into() } else { BTreeSet::new() };
        Person { id: id.to_owned(), roles: [role].into(), stores }
    }

    fn order() -> Parties {
        Parties {
            customer_id: Some("홍길동".into()),
            store_id: Some("store-1".into()),
            rider_id: Some("rider-1".into()),
            is_open: false,
        }
    }

    fn commands() -> Vec<(Role, Command)> {
        let of =
            |role: Role, commands: Vec<Command>| commands.into_iter().map(move |command| (role, command));
        let customer = vec![
            Command::Ordering(OrderCommand::RequestCancel { reason: None }),
            Command::Ordering(OrderCommand::Cancel),
            Command::Ordering(OrderCommand::Complete),
            Command::Ordering(OrderCommand::RequestReturn { reason: None }),
            Command::Review(ReviewCommand::Write { rating: 5, text: "좋아요".into() }),
        ];
        let store = vec![
            Command::Store(StoreCommand::Accept),
            Command::Store(StoreCommand::Reject { reason: None }),
            Command::Store(StoreCommand::Start),
            Command::Store(StoreCommand::Finish),
        ];
        let rider = vec![
            Command::Delivery(DeliveryCommand::PickUp { rider_id: "rider-1".into() }),
            Command::Delivery(DeliveryCommand::Start),
            Command::Delivery(DeliveryCommand::Complete),
            Command::Delivery(DeliveryCommand::Cancel),
        ];
        let operator = vec![
            Command::Saga(SagaCommand::Resume),
            Command::Saga(SagaCommand::Archive),
            Command::ReturnPayment,
            Command::Ordering(OrderCommand::Expire { reason: "late".into() }),
        ];
        let all = of(Role::Customer, customer).chain(of(Role::Store, store)).chain(of(Role::Rider, rider));
        all.chain(of(Role::Operator, operator)).collect()
    }

    #[test]
    fn each_command_is_for_one_role_and_only_for_those_whose_order_it_is() {
        let theirs = [
            person("홍길동", Role::Customer),
            person("store-1", Role::Store),
            person("rider-1", Role::Rider),
            person("홍길동", Role::Marketing),
        ];
        let foreign = [
            person("somebody", Role::Customer),
            person("store-2", Role::Store),
            person("rider-2", Role::Rider),
        ];
        for (role, command) in commands() {
            for person in &theirs {
                assert_eq!(person.may(&command, &order()), person.is(role), "{command:?} by {person:?}");
            }
            for person in &foreign {
                assert!(!person.may(&command, &order()), "{command:?} by {person:?}");
            }
            assert!(person("op", Role::Operator).may(&command, &order()), "{command:?}");
        }
    }

    #[test]
    fn a_rider_sees_what_is_open_and_what_they_picked_up_and_nothing_else() {
        let (mine, other) = (person("rider-1", Role::Rider), person("rider-2", Role::Rider));
        let open = Parties { rider_id: None, is_open: true, ..order() };
        let not_yet = Parties { rider_id: None, ..order() };
        assert!(mine.may_see(&open) && other.may_see(&open));
        assert!(mine.may_see(&order()) && !other.may_see(&order()));
        assert!(!mine.may_see(&not_yet));
    }

    #[test]
    fn nobody_is_taken_for_another_by_an_id_alone() {
        let everywhere = |role| person("홍길동", role).may_see(&order());
        assert!(everywhere(Role::Customer) && everywhere(Role::Operator));
        assert!(!everywhere(Role::Store) && !everywhere(Role::Rider) && !everywhere(Role::Marketing));
        assert!(!person("somebody", Role::Customer).may_see(&Parties::default()));
    }
}
