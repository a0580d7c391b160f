//! The flow checker: the shipped flows pass, flows and process managers that are broken on purpose are caught.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::{fs, path::Path};

use domain::{
    Command, Flow, Flows, OrderState,
    delivery::{Delivery, DeliveryCommand},
    event::Context,
    explore::{Manager, Violation, explore, explore_with},
    order::{Order, OrderCommand},
    saga::{self, Step},
};

#[test]
fn every_order_of_every_shipped_flow_ends_whole_or_undone_whatever_comes_when() {
    let shipped = Flows::shipped().unwrap();
    for declared in shipped.iter() {
        let found = explore(&declared.flow, &declared.reference);
        let name = &declared.reference.name;
        assert_eq!(found.violation, None, "{name}");
        let drawn = found.diagram();
        let kept = shipped.diagram(&declared.reference).unwrap();
        assert_eq!(*kept, *drawn, "src/flow/{name}.mmd is to be:\n{drawn}\n");
        assert!(found.stories >= 13 && found.moments > found.stories, "{name}: {found:?}");
    }
}

/// Each broken flow of `broken_flows/`, what its check says, and an event of the shortest story.
const BROKEN: [(&str, &str, &str); 12] = [
    ("keeps_the_money", "keeps nothing", "OrderExpired"),
    ("keeps_the_coupon", "keeps nothing", "OrderCanceled"),
    ("keeps_the_delivery", "keeps nothing", "OrderExpired"),
    ("store_cooks_on", "keeps nothing", "StoreOrderReceived"),
    ("unpaid_for_ever", "waits for nobody for ever", "OrderPlaced"),
    ("deferred_for_ever", "waits for nobody for ever", "OrderPlaced"),
    ("silent_store", "waits for nobody for ever", "StoreOrderReceived"),
    ("no_rider", "waits for nobody for ever", "DeliveryListed"),
    ("never_confirmed", "waits for nobody for ever", "DeliveryPickedUp"),
    ("coupon_forgotten", "without its coupon", "DeliveryPickedUp"),
    ("free_of_charge_cancel", "keeps nothing", "OrderExpired"),
    ("store_not_asked", "keeps nothing", "StoreOrderReceived"),
];

#[test]
#[expect(clippy::disallowed_methods, reason = "the fixtures are read by the test, not by the domain")]
fn twelve_flows_that_are_broken_on_purpose_are_caught_with_a_shortest_story() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken_flows");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), BROKEN.len(), "each file has its line here");
    for (name, rule, event) in BROKEN {
        let text = fs::read_to_string(folder.join(format!("{name}.toml"))).unwrap();
        let (flow, reference) = Flow::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let violation =
            explore(&flow, &reference).violation.unwrap_or_else(|| panic!("{name} is not caught"));
        assert!(violation.rule.contains(rule), "{name}: {violation:#?}");
        assert!(violation.story.contains(&event), "{name}: {violation:#?}");
        assert!(violation.moves.len() >= violation.story.len(), "{name}: {violation:#?}");
    }
}

fn caught(flow: &str, react: fn(&Flow, &OrderState) -> Option<Step>, is_guarded: bool) -> Violation {
    let flows = Flows::shipped().unwrap();
    let declared = flows.newest(flow).unwrap();
    let found =
        explore_with(&declared.flow, &declared.reference, Manager { react, is_guarded, ..Manager::REAL });
    found.violation.unwrap_or_else(|| panic!("not caught in {flow}"))
}

fn instead(step: Option<Step>, command: Command) -> Option<Step> {
    step.map(|step| Step { command, not_before: None, ..step })
}

#[test]
fn a_saga_that_undoes_backwards_is_caught() {
    let violation = caught(
        "food",
        |flow, state| {
            let mut flow = flow.clone();
            flow.cancel.undo.reverse();
            saga::react(&flow, state)
        },
        true,
    );
    assert!(violation.rule.contains("declared order"), "{violation:#?}");
}

#[test]
fn a_saga_that_says_canceled_before_everything_is_undone_is_caught() {
    let hasty = |flow: &Flow, state: &OrderState| match (saga::react(flow, state), state.order) {
        (step, Order::CancelRequested) => instead(step, Command::Ordering(OrderCommand::Cancel)),
        (step, _) => step,
    };
    let violation = caught("marketplace", hasty, true);
    assert!(violation.rule.contains("keeps nothing"), "{violation:#?}");
}

#[test]
fn a_saga_that_forgets_the_money_of_an_expired_order_is_caught() {
    let forgetful = |flow: &Flow, state: &OrderState| {
        let step = saga::react(flow, state);
        step.filter(|step| state.order != Order::Expired || step.command.context() != Context::Payment)
    };
    let violation = caught("marketplace", forgetful, true);
    assert_eq!(violation.story, ["PaymentRequested", "OrderExpired"], "{violation:#?}");
}

#[test]
fn a_saga_that_sends_the_goods_before_the_coupon_is_caught() {
    let eager = |flow: &Flow, state: &OrderState| match (saga::react(flow, state), &state.delivery) {
        (step, Delivery::Requested) => instead(step, Command::Delivery(DeliveryCommand::Start)),
        (step, _) => step,
    };
    let violation = caught("marketplace", eager, true);
    assert!(violation.rule.contains("granted"), "the delivery itself refuses: {violation:#?}");
}

#[test]
fn a_saga_that_never_settles_a_payment_without_an_answer_is_caught() {
    let careless = |flow: &Flow, state: &OrderState| {
        saga::react(flow, state).filter(|step| step.command != Command::SettlePayment)
    };
    let violation = caught("appliance", careless, true);
    assert!(violation.rule.contains("waits for nobody for ever"), "{violation:#?}");
    assert_eq!(violation.story, ["OrderPlaced", "PaymentRequested"]);
}

#[test]
fn a_story_without_an_end_goes_as_far_as_it_can_and_says_why_it_goes_no_further() {
    let lazy = |flow: &Flow, state: &OrderState| {
        let step = saga::react(flow, state);
        step.filter(|step| state.order != Order::Placed || step.command.context() != Context::Delivery)
    };
    let violation = caught("kitchen", lazy, true);
    assert_eq!(violation.rule, "every order can come to its end");
    assert!(violation.story.contains(&"PreparationFinished"), "as far as it goes: {violation:#?}");
    let last = violation.moves.last().unwrap();
    assert!(last.contains("and no further") && last.contains("is refused"), "{violation:#?}");
    let confirms = violation.moves.iter().find(|made| made.contains("complete_order")).unwrap();
    assert!(confirms.contains("the customer") && confirms.contains("has not reached"), "{violation:#?}");
}

#[test]
fn a_runner_whose_commands_hold_for_any_story_is_caught() {
    let violation = caught("marketplace", saga::react, false);
    assert!(violation.moves.iter().any(|made| made.contains("late")), "{violation:#?}");
}

#[test]
fn a_payment_context_that_closes_the_key_of_a_refused_call_before_the_log_gave_it_up_is_caught() {
    let flows = Flows::shipped().unwrap();
    for name in ["marketplace", "appliance"] {
        let declared = flows.newest(name).unwrap();
        let hasty = Manager { gives_up_first: false, ..Manager::REAL };
        let found = explore_with(&declared.flow, &declared.reference, hasty);
        let violation = found.violation.unwrap_or_else(|| panic!("not caught in {name}"));
        assert!(
            violation.moves.iter().any(|made| made.contains("closes the key of the call that it refuses")),
            "{violation:#?}"
        );
        assert!(violation.rule.contains("what the log calls paid is in the till"), "{violation:#?}");
    }
}

#[test]
fn a_diagram_shows_what_customers_see_and_what_moves_it() {
    let flows = Flows::shipped().unwrap();
    let kitchen = flows.newest("kitchen").unwrap();
    let diagram = explore(&kitchen.flow, &kitchen.reference).diagram();
    for line in [
        "[*] --> paid",
        "paid --> accepted: StoreOrderAccepted",
        "paid --> expired: OrderExpired",
        "out_for_delivery --> completed: OrderCompleted",
    ] {
        assert!(diagram.contains(line), "{line}:\n{diagram}");
    }
    for past in ["preparing --> cancel_requested", "rejected --> cancel_requested"] {
        assert!(!diagram.contains(past), "{past}:\n{diagram}");
    }
}
