//! Every way an order can go, in each shipped flow, and flows that are broken on purpose.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use domain::{
    Flow, FlowRef, Flows,
    explore::explore,
    flow::{CancelUntil, DeliveryStart, Undo},
};

fn shipped(name: &str) -> (Flow, FlowRef) {
    let flows = Flows::shipped().unwrap();
    let (reference, flow) = flows.newest(name).unwrap();
    ((**flow).clone(), reference.clone())
}

#[test]
fn every_order_of_every_flow_ends_whole_or_undone_in_order_whatever_comes_when() {
    let flows = Flows::shipped().unwrap();
    for name in flows.names() {
        let (flow, reference) = shipped(name);
        let found = explore(&flow, &reference);
        assert_eq!(found.violation, None, "{name}");
        assert!(found.stories >= 10 && found.rests > 2, "{name}: {found:?}");
    }
}

#[test]
fn a_flow_that_keeps_something_of_a_canceled_order_is_caught_with_a_shortest_story() {
    let (mut flow, reference) = shipped("marketplace");
    flow.cancel.undo.retain(|undo| *undo != Undo::Payment);
    let violation = explore(&flow, &reference).violation.unwrap();
    assert!(violation.rule.contains("keeps nothing"), "{violation:?}");
    assert_eq!(violation.story, ["PaymentRequested", "OrderExpired"]);
    let (mut flow, reference) = shipped("marketplace");
    flow.cancel.undo.retain(|undo| *undo != Undo::Coupon);
    assert!(explore(&flow, &reference).violation.unwrap().rule.contains("keeps nothing"));
}

#[test]
fn a_flow_whose_cut_off_is_on_another_way_is_caught() {
    let (mut flow, reference) = shipped("food");
    flow.cancel.undo.retain(|undo| *undo != Undo::Delivery);
    assert!(explore(&flow, &reference).violation.is_some(), "a delivery stays listed");
    let (mut flow, reference) = shipped("kitchen");
    flow.cancel.until = CancelUntil::Delivered;
    assert!(explore(&flow, &reference).violation.is_some(), "nothing undoes the delivery that is met now");
    let (mut flow, reference) = shipped("rental");
    flow.delivery.start = DeliveryStart::Automatic;
    assert_eq!(explore(&flow, &reference).violation, None, "sent by itself, it is merely sooner too late");
}

#[test]
fn a_diagram_shows_what_customers_see_and_what_moves_it() {
    let (flow, reference) = shipped("kitchen");
    let diagram = explore(&flow, &reference).diagram();
    for line in [
        "[*] --> paid",
        "paid --> accepted: StoreOrderAccepted",
        "out_for_delivery --> completed: OrderCompleted",
    ] {
        assert!(diagram.contains(line), "{line}:\n{diagram}");
    }
    for past in ["preparing --> cancel_requested", "rejected --> cancel_requested"] {
        assert!(!diagram.contains(past), "{past}:\n{diagram}");
    }
}
