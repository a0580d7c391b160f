//! What a flow file must not say, because no order could follow it.

use super::{CancelMode, CancelUntil, DeliveryStart, Ends, Flow, Overdue, PaymentTime, ProviderDown, Undo};
use crate::Status;

/// The most attempts to pay that a flow may allow: an order's story must have an end.
const ATTEMPTS_MAX: u32 = 100;

/// A contradiction: whether a flow has it, the key of the file where it is seen, and what is wrong.
type Contradiction = (fn(&Flow) -> bool, &'static str, &'static str);

const ALL: [Contradiction; 24] = [
    (|flow| !is_name(&flow.name), "name", "a flow's name has 1 to 40 small letters, digits, - or _"),
    (|flow| flow.channels.is_empty(), "channels", "there is no channel: nobody could order"),
    (|flow| repeats(&flow.cancel.undo), "cancel.undo", "one thing is undone twice"),
    (
        |flow| flow.undoes(Undo::Payment) && flow.payment.when == PaymentTime::None,
        "cancel.undo",
        "the payment is undone, and nobody pays",
    ),
    (
        |flow| flow.undoes(Undo::StoreOrder) && !flow.store,
        "cancel.undo",
        "the store order is undone, and there is no store",
    ),
    (
        |flow| flow.undoes(Undo::Coupon) && flow.coupon.is_none(),
        "cancel.undo",
        "the coupon is undone, and none is issued",
    ),
    (
        |flow| !flow.store && flow.cancel.until == CancelUntil::PreparationStarted,
        "cancel.until",
        "canceling is over once the preparation starts, and no store prepares anything",
    ),
    (
        |flow| flow.delivery.start != DeliveryStart::Rider && flow.cancel.until == CancelUntil::PickedUp,
        "cancel.until",
        "canceling is over once a rider picks up, and there is no rider",
    ),
    (
        |flow| {
            flow.cancel.mode == CancelMode::Synchronous
                && flow.cancel.until == CancelUntil::PreparationStarted
        },
        "cancel.mode",
        "the delivery is to consent, and canceling is over before there is one",
    ),
    (
        |flow| flow.delivery.start != DeliveryStart::Rider && !flow.delivery.types.is_empty(),
        "delivery.types",
        "riders have types, and there is no rider",
    ),
    (|flow| repeats(&flow.delivery.types), "delivery.types", "one type is named twice"),
    (
        |flow| {
            flow.payment.when != PaymentTime::WithOrder && flow.payment.provider_down == ProviderDown::Defer
        },
        "payment.provider_down",
        "only a payment that comes with the order can be deferred",
    ),
    (
        |flow| flow.payment.settle_within_s == 0,
        "payment.settle_within_s",
        "a payment needs at least a second to be settled",
    ),
    (
        |flow| !(1..=ATTEMPTS_MAX).contains(&flow.payment.attempts_max),
        "payment.attempts_max",
        "an order has 1 to 100 attempts to be paid",
    ),
    (
        |flow| flow.deadlines.payment.is_some() && !flow.may_be_paid_later(),
        "deadlines.payment",
        "no order of this flow waits to be paid",
    ),
    (
        |flow| flow.deadlines.store.is_some() && !flow.store,
        "deadlines.store",
        "there is no store to wait for",
    ),
    (
        |flow| flow.deadlines.rider.is_some() && flow.delivery.start != DeliveryStart::Rider,
        "deadlines.rider",
        "there is no rider to wait for",
    ),
    (
        |flow| flow.deadlines.confirm.is_some() && flow.ends != Ends::Confirmed,
        "deadlines.confirm",
        "nobody confirms the receipt",
    ),
    (
        |flow| {
            let waits = [&flow.deadlines.payment, &flow.deadlines.store, &flow.deadlines.rider];
            waits.into_iter().flatten().any(|deadline| deadline.then == Overdue::Complete)
        },
        "deadlines",
        "only an order that waits to be confirmed can be complete by itself",
    ),
    (
        |flow| flow.deadlines.confirm.is_some_and(|deadline| deadline.then == Overdue::Expire),
        "deadlines.confirm",
        "what the customer has cannot expire",
    ),
    (
        |flow| {
            let deadlines = &flow.deadlines;
            let all = [&deadlines.payment, &deadlines.store, &deadlines.rider, &deadlines.confirm];
            all.into_iter().flatten().any(|deadline| deadline.after_s == 0)
        },
        "deadlines",
        "a deadline of no seconds gives nobody a chance",
    ),
    (
        |flow| flow.notify.as_ref().is_some_and(|notify| repeats(&notify.on)),
        "notify.on",
        "one change is named twice",
    ),
    (
        |flow| {
            let told = flow.notify.as_ref().is_some_and(|notify| notify.on.contains(&Status::Completed));
            told && flow.ends != Ends::Confirmed
        },
        "notify.on",
        "no order of this flow is ever completed: it ends delivered",
    ),
    // After what is said of the riders' own keys, which is nearer to the cause.
    (
        |flow| flow.ends == Ends::Confirmed && flow.delivery.start != DeliveryStart::Rider,
        "ends",
        "the customer confirms what a rider picked up, and there is no rider: take [delivery] start = \"rider\"",
    ),
];

/// The first contradiction of a flow: the key where it is seen, and what is wrong.
pub(super) fn find(flow: &Flow) -> Option<(&'static str, &'static str)> {
    ALL.iter().find(|(is_so, _, _)| is_so(flow)).map(|(_, key, reason)| (*key, *reason))
}

/// The line of a file, counted from 1, where `key` (dotted) is set, or else the nearest table around it begins.
pub(super) fn line(text: &str, key: &str) -> usize {
    let Ok(document) = toml::de::DeTable::parse(text) else { return 1 };
    let mut table = document.get_ref();
    let mut at = 0;
    for part in key.split('.') {
        let Some((name, value)) = table.get_key_value(part) else { break };
        at = name.span().start;
        let toml::de::DeValue::Table(inner) = value.get_ref() else { break };
        table = inner;
    }
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// A name is part of a subject of the log.
fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    (1..=40).contains(&name.len()) && name.bytes().all(fits)
}

fn repeats<T: PartialEq>(list: &[T]) -> bool {
    list.iter().enumerate().any(|(index, item)| list[..index].contains(item))
}

#[cfg(test)]
mod tests {
    use super::super::{Flow, SHIPPED};

    #[test]
    fn a_flow_that_contradicts_itself_is_refused_with_line_and_reason() {
        let (marketplace, rental) = (SHIPPED[0], SHIPPED[4]);
        let cases = [
            (marketplace, r#"["web", "phone"]"#, "[]", 4, "nobody could order"),
            (marketplace, r#"["coupon", "delivery", "payment"]"#, r#"["coupon", "coupon"]"#, 19, "twice"),
            (marketplace, r#"until = "delivered""#, r#"until = "picked_up""#, 18, "there is no rider"),
            (marketplace, "[delivery]", "[delivery]\ntypes = ['walk']", 15, "there is no rider"),
            (marketplace, "[payment]", "ends = \"confirmed\"\n[payment]", 6, "there is no rider"),
            (rental, r#"["delivery"]"#, r#"["delivery", "payment"]"#, 16, "nobody pays"),
            (
                rental,
                "[cancel]",
                "[deadlines]\nstore = {after_s = 5, then = 'expire'}\n[cancel]",
                14,
                "no store",
            ),
        ];
        for (good, was, is, line, reason) in cases {
            assert!(good.contains(was), "{was}");
            let error = Flow::parse(&good.replace(was, is)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("line {line}: ")) && error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_file_that_does_not_read_is_refused_with_its_line() {
        let wings = SHIPPED[0].replace("[delivery]", "[delivery]\nwings = true");
        let error = Flow::parse(&wings).unwrap_err().to_string();
        assert!(error.contains("line 15") && error.contains("unknown field `wings`"), "{error}");
    }
}
