//! Who may do what, and who sees what: by role, and by whose order it is.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    command::Command,
    delivery::DeliveryCommand,
    event::{DeliveryEvent, Event, OrderEvent, StoreEvent},
    order::OrderCommand,
    payment::PaymentCommand,
    sight::Sight,
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
    /// Delivers what is not for riders, and fetches what is given back; sees that.
    Delivery,
    /// Sees coupons.
    Marketing,
    /// May do and see everything.
    Operator,
}

/// Where a person can be written to: what their issuer has verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    pub email: Option<String>,
    pub phone: Option<String>,
}

/// Somebody who proved who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// A customer's id in orders, a rider's id in deliveries.
    pub id: String,
    pub roles: BTreeSet<Role>,
    /// The stores that they work for.
    pub stores: BTreeSet<String>,
    pub contact: Contact,
}

/// Whose an order is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parties {
    pub customer_id: Option<String>,
    /// The store that has the order before it.
    pub store_id: Option<String>,
    /// The rider who picked it up.
    pub rider_id: Option<String>,
    /// Whether riders may pick it up.
    pub is_open: bool,
    /// Whether the delivery team delivers it, or fetches it back.
    pub is_with_delivery_team: bool,
}

impl Parties {
    /// Whose the order with these events is.
    pub fn of<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        events.into_iter().fold(Self::default(), Self::after)
    }

    /// Whose the order is after one more event.
    #[must_use]
    pub fn after(mut self, event: &Event) -> Self {
        match event {
            Event::Ordering(event) => match event {
                OrderEvent::OrderPlaced(placed) => self.customer_id = Some(placed.customer.id.clone()),
                OrderEvent::OrderCancelRequested(_) | OrderEvent::OrderExpired(_) => self.is_open = false,
                OrderEvent::ReturnRequested(_) => self.is_with_delivery_team = true,
                OrderEvent::OrderRejected(_)
                | OrderEvent::OrderCompleted(_)
                | OrderEvent::OrderCanceled(_)
                | OrderEvent::OrderReturned(_) => {}
            },
            Event::Store(StoreEvent::StoreOrderReceived(received)) => {
                self.store_id = Some(received.store_id.clone());
            }
            Event::Delivery(event) => {
                self.is_open = false;
                match event {
                    DeliveryEvent::DeliveryListed(_) => self.is_open = true,
                    DeliveryEvent::DeliveryRequested(_) => self.is_with_delivery_team = true,
                    DeliveryEvent::DeliveryPickedUp(picked) => self.rider_id = Some(picked.rider_id.clone()),
                    DeliveryEvent::DeliveryStarted(_)
                    | DeliveryEvent::DeliveryCompleted(_)
                    | DeliveryEvent::DeliveryCanceled(_)
                    | DeliveryEvent::ReturnPickupStarted(_)
                    | DeliveryEvent::ReturnPickupCompleted(_) => {}
                }
            }
            Event::Store(_)
            | Event::Payment(_)
            | Event::Marketing(_)
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

    /// Whether the work on the order is theirs, as its store. An order without a store is no store's.
    fn prepares(&self, order: &Parties) -> bool {
        order.store_id.as_deref().is_some_and(|store_id| self.works_for(store_id))
    }

    /// Whether they picked the order up.
    fn carries(&self, order: &Parties) -> bool {
        order.rider_id.as_deref().is_some_and(|rider_id| self.is_rider(rider_id))
    }

    /// Whether the delivery is theirs: a rider's who picked it up, or else the delivery team's.
    fn delivers(&self, order: &Parties) -> bool {
        let is_teams = order.rider_id.is_none() && order.is_with_delivery_team;
        self.carries(order) || (is_teams && self.is(Role::Delivery))
    }

    /// Whether the way back is theirs: the delivery team fetches what a rider brought, too.
    fn fetches(&self, order: &Parties) -> bool {
        self.carries(order) || (order.is_with_delivery_team && self.is(Role::Delivery))
    }

    /// What they see of the order; `None` if nothing. One who is several of its parties sees what any of them sees.
    pub fn sight(&self, order: &Parties) -> Option<Sight> {
        let parties = [
            (self.owns(order), Sight::WHOLE),
            (self.prepares(order), Sight::STORE),
            (self.delivers(order) || self.fetches(order), Sight::COURIER),
            (order.is_open && self.is(Role::Rider), Sight::OPEN),
        ];
        parties.into_iter().filter_map(|(is_party, sight)| is_party.then_some(sight)).reduce(Sight::or)
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
                DeliveryCommand::Start | DeliveryCommand::Complete | DeliveryCommand::Cancel => {
                    self.delivers(order)
                }
                DeliveryCommand::StartReturn | DeliveryCommand::CompleteReturn => self.fetches(order),
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
        Person { id: id.to_owned(), roles: [role].into(), stores, contact: Contact::default() }
    }

    fn order() -> Parties {
        Parties {
            customer_id: Some("홍길동".into()),
            store_id: Some("store-1".into()),
            rider_id: Some("rider-1".into()),
            is_open: false,
            is_with_delivery_team: false,
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
    fn what_no_rider_picked_up_is_delivered_by_the_delivery_team_and_by_no_rider() {
        let (rider, team) = (person("rider-1", Role::Rider), person("team", Role::Delivery));
        let shipped = Parties { rider_id: None, is_with_delivery_team: true, ..order() };
        let listed = Parties { rider_id: None, is_open: true, ..order() };
        for command in [DeliveryCommand::Start, DeliveryCommand::Complete, DeliveryCommand::Cancel] {
            let command = Command::Delivery(command);
            assert!(team.may(&command, &shipped) && !rider.may(&command, &shipped), "{command:?}");
            assert!(!team.may(&command, &listed) && !rider.may(&command, &listed), "{command:?}");
            assert!(!team.may(&command, &order()) && rider.may(&command, &order()), "{command:?}");
        }
        let given_back = Parties { is_with_delivery_team: true, ..order() };
        for command in [DeliveryCommand::StartReturn, DeliveryCommand::CompleteReturn] {
            let command = Command::Delivery(command);
            assert!(team.may(&command, &given_back) && rider.may(&command, &given_back), "{command:?}");
            assert!(!person("rider-2", Role::Rider).may(&command, &given_back), "{command:?}");
        }
    }

    #[test]
    fn an_order_without_a_store_is_no_stores() {
        let order = Parties { store_id: None, ..order() };
        for command in [StoreCommand::Accept, StoreCommand::Reject { reason: None }, StoreCommand::Finish] {
            assert!(!person("store-1", Role::Store).may(&Command::Store(command), &order));
        }
        assert_eq!(person("store-1", Role::Store).sight(&order), None);
    }

    #[test]
    fn a_rider_sees_what_is_open_and_what_they_picked_up_and_nothing_else() {
        let (mine, other) = (person("rider-1", Role::Rider), person("rider-2", Role::Rider));
        let open = Parties { rider_id: None, is_open: true, ..order() };
        let not_yet = Parties { rider_id: None, ..order() };
        assert_eq!((mine.sight(&open), other.sight(&open)), (Some(Sight::OPEN), Some(Sight::OPEN)));
        assert_eq!((mine.sight(&order()), other.sight(&order())), (Some(Sight::COURIER), None));
        assert_eq!(mine.sight(&not_yet), None);
    }

    #[test]
    fn nobody_is_taken_for_another_by_an_id_alone() {
        let everywhere = |role| person("홍길동", role).sight(&order()).is_some();
        assert!(everywhere(Role::Customer) && everywhere(Role::Operator));
        assert!(!everywhere(Role::Store) && !everywhere(Role::Rider) && !everywhere(Role::Marketing));
        assert!(!everywhere(Role::Delivery));
        assert_eq!(person("somebody", Role::Customer).sight(&Parties::default()), None);
    }
}
