//! Whose an order is: what the views say of it is what the domain says, after every event that an order may have.

use domain::{
    Event, Flows, OrderId, Position, Recorded, Timestamp,
    access::Parties,
    event::{DeliveryEvent, OrderEvent, OrderExpired},
    history,
};
use nats::Stored;
use projector::{
    View,
    view::{
        order_key,
        orders::{Orders, Row},
    },
};

const ORDERS: u64 = 60;

fn stored(recorded: Recorded) -> Stored {
    let mut data = Vec::new();
    recorded.event.serialize_data(&mut serde_json::Serializer::new(&mut data)).expect("it is JSON");
    Stored { recorded, data: data.into(), causation_id: None, trace_parent: None }
}

/// The life of an order, and, where riders could pick it up, one that expired instead.
fn lives(number: u64, life: Vec<Recorded>) -> Vec<Vec<Recorded>> {
    let is_listed =
        |event: &Recorded| matches!(event.event, Event::Delivery(DeliveryEvent::DeliveryListed(_)));
    let expired = life.iter().position(is_listed).map(|listed| {
        let mut expired = life[..=listed].to_vec();
        let mut last = life[listed].clone();
        last.position = Position { sequence: last.position.sequence + 1, ..last.position };
        last.event = Event::Ordering(OrderEvent::OrderExpired(OrderExpired { reason: number.to_string() }));
        expired.push(last);
        expired
    });
    expired.into_iter().chain([life]).collect()
}

#[test]
fn an_order_is_in_the_views_whose_the_domain_says_it_is_after_every_event() {
    let flows = Flows::shipped().expect("they read");
    let flows: Vec<_> = flows.iter().collect();
    let (mut events, mut expired_open) = (0, 0);
    for (number, declared) in (0..ORDERS).zip(flows.iter().cycle()) {
        let began = Timestamp::from_second(i64::try_from(number).expect("small")).expect("a moment");
        for life in lives(number, history::life(declared, number, began)) {
            let key = order_key(OrderId::from_key("history", &number.to_string()));
            let (mut row, mut parties) = (None, Parties::default());
            for recorded in life {
                let (event, was_open) = (recorded.event.clone(), parties.is_open);
                parties = parties.after(&event);
                row = Orders::apply(&key, row, &stored(recorded));
                let seen = row.as_ref().map(Row::parties);
                assert_eq!(seen, Some(parties.clone()), "after {} of {number}", event.type_name());
                expired_open += u64::from(was_open && event.type_name() == "OrderExpired");
                events += 1;
            }
        }
    }
    assert!(events > ORDERS && expired_open > 0, "{events} events, {expired_open} expired");
}
