//! The people and things of the day: who orders what, and how each order goes.

use serde_json::{Value, json};

/// Customers: id, name, region.
pub(super) const CUSTOMERS: [(&str, &str, &str); 10] = [
    ("hong-gildong", "홍길동", "mapo"),
    ("kim-younghee", "김영희", "mapo"),
    ("lee-chulsoo", "이철수", "gangnam"),
    ("park-jimin", "박지민", "mapo"),
    ("choi-sujin", "최수진", "gangnam"),
    ("jung-haneul", "정하늘", "jongno"),
    ("kang-daniel", "강다니엘", "mapo"),
    ("yoon-seoyeon", "윤서연", "jongno"),
    ("lim-jaehyun", "임재현", "gangnam"),
    ("han-bora", "한보라", "mapo"),
];
/// The first two cook, the last one sells appliances.
pub(super) const STORES: [&str; 3] = ["kimbap-heaven", "mapo-galbi", "hi-mart"];
pub(super) const RIDERS: [&str; 4] = ["rider-dongwook", "rider-minseo", "rider-taeyang", "rider-jisoo"];
const TYPES: [&str; 3] = ["walk", "bicycle", "motorbike"];
/// What can be ordered: id, name, price in won.
const GOODS: [(&str, &str, i64); 4] = [
    ("2001", "gram 노트북", 1_890_000),
    ("2002", "무선 이어폰", 159_000),
    ("2003", "기계식 키보드", 129_000),
    ("2004", "텀블러", 32_000),
];
const APPLIANCES: [(&str, &str, i64); 3] =
    [("3001", "냉장고", 2_450_000), ("3002", "세탁기", 1_190_000), ("3003", "공기청정기", 389_000)];
const CLOTHES: [(&str, &str, i64); 3] =
    [("4001", "한복", 80_000), ("4002", "턱시도", 120_000), ("4003", "웨딩드레스", 350_000)];
const FOOD: [(&str, &str, i64); 5] = [
    ("1001", "참치김밥", 4_500),
    ("1002", "떡볶이", 5_000),
    ("1003", "돼지갈비", 18_000),
    ("1004", "냉면", 9_000),
    ("1005", "비빔밥", 8_500),
];
const REVIEWS: [(u8, &str); 5] = [
    (5, "정말 맛있어요"),
    (4, "배달이 빨라요"),
    (5, "또 주문할게요"),
    (3, "조금 식었어요"),
    (2, "양이 적어요"),
];

/// A call that a customer, store or rider makes for an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Pay,
    /// With a card that is declined: the answer is 402, and the order waits on.
    PayInVain,
    Accept,
    Reject,
    StartPreparing,
    FinishPreparing,
    PickUp,
    Ship,
    Deliver,
    Confirm,
    Review,
    RequestReturn,
    PickUpReturn,
    CompleteReturn,
    Cancel,
}

/// How an order goes: its flow, the card it is paid with at once, and what people do then.
pub(super) struct Life {
    pub(super) flow: &'static str,
    pub(super) token: Option<&'static str>,
    pub(super) steps: &'static [Step],
}

const OK: Option<&str> = Some("tok_ok");

const fn life(flow: &'static str, token: Option<&'static str>, steps: &'static [Step]) -> Life {
    Life { flow, token, steps }
}

/// The lives of a day, told in this order, and again from the front.
const LIVES: [Life; 30] = {
    use Step::{
        Accept, Cancel, CompleteReturn, Confirm, Deliver, FinishPreparing, Pay, PayInVain, PickUp,
        PickUpReturn, Reject, RequestReturn, Review, Ship, StartPreparing,
    };
    [
        life("food", OK, &[Accept, StartPreparing, FinishPreparing, PickUp, Deliver, Review]),
        life("marketplace", OK, &[Deliver]),
        life("kitchen", OK, &[Accept, StartPreparing, FinishPreparing, PickUp, Confirm]),
        life("appliance", None, &[Pay, Accept, StartPreparing, FinishPreparing, Deliver]),
        life("rental", None, &[Ship, Deliver]),
        life("food", OK, &[]),
        life("marketplace", OK, &[]),
        life("kitchen", OK, &[Accept, StartPreparing, FinishPreparing]),
        life("appliance", None, &[]),
        life("rental", None, &[]),
        life("food", OK, &[Accept, StartPreparing, FinishPreparing]),
        // Its money does not go back at once: the order is parked.
        life("marketplace", Some("tok_refund_refused"), &[Cancel]),
        life("kitchen", OK, &[Reject]),
        life("appliance", None, &[PayInVain, Pay]),
        life("rental", None, &[Cancel]),
        life("food", OK, &[Accept, StartPreparing, FinishPreparing, PickUp, Deliver, Review]),
        life("marketplace", Some("tok_declined"), &[]),
        life("kitchen", OK, &[Cancel]),
        life("appliance", None, &[Pay, Cancel]),
        life("rental", None, &[Ship, Deliver, RequestReturn, PickUpReturn, CompleteReturn]),
        life("food", OK, &[Reject]),
        life("marketplace", Some("tok_slow:300"), &[Deliver]),
        life("kitchen", OK, &[Accept, StartPreparing, FinishPreparing, PickUp]),
        life("appliance", None, &[PayInVain]),
        life("rental", None, &[Ship]),
        life("food", OK, &[Cancel]),
        life("food", OK, &[Accept, StartPreparing, FinishPreparing, PickUp]),
        life("kitchen", OK, &[Accept, StartPreparing]),
        life("food", Some("tok_declined"), &[]),
        life("kitchen", OK, &[]),
    ]
};

/// The `number`th of these things.
fn nth<T: Copy>(things: &[T], number: u64) -> T {
    things[usize::try_from(number).unwrap_or_default() % things.len()]
}

/// How the `number`th order goes.
pub(super) fn life_of(number: u64) -> &'static Life {
    &LIVES[usize::try_from(number).unwrap_or_default() % LIVES.len()]
}

/// The body of the `number`th order.
pub(super) fn order(number: u64) -> Value {
    let Life { flow, token, .. } = life_of(number);
    // Numbers that share no factor with the lists' lengths: people, goods and lives come together in many ways.
    let (customer, name, region) = nth(&CUSTOMERS, number.wrapping_mul(7));
    let menu: &[(&str, &str, i64)] = match *flow {
        "food" | "kitchen" => &FOOD,
        "appliance" => &APPLIANCES,
        "rental" => &CLOTHES,
        _ => &GOODS,
    };
    let line = |number: u64, quantity: u64| {
        let (id, name, price) = nth(menu, number);
        json!({ "item_id": id, "name": name, "quantity": quantity, "unit_price": price })
    };
    let mut lines = vec![line(number / 3, 1 + number % 2)];
    if number.is_multiple_of(3) {
        lines.push(line(number / 3 + 1, 1));
    }
    let language = if number % 5 == 4 { "en" } else { "ko" };
    let mut order = json!({
        "flow": flow,
        "customer": {
            "id": customer, "name": name, "language": language,
            "phone": format!("010-0000-{:04}", number % 10_000), "email": format!("{customer}@example.com"),
        },
        "lines": lines,
        "currency": "KRW",
        "address": { "line": format!("월드컵로 {}", 1 + number % 40), "region": region },
    });
    if *flow == "marketplace" {
        order["channel"] = json!(if number % 4 == 1 { "phone" } else { "web" });
    }
    if let Some(token) = token {
        order["payment"] = json!({ "method": "card", "token": token });
    }
    match *flow {
        "food" | "kitchen" => order["store_id"] = json!(nth(&STORES[..2], number / 2)),
        "appliance" => order["store_id"] = json!(STORES[2]),
        _ => {}
    }
    if *flow == "food" {
        order["delivery_type"] = json!(nth(&TYPES, number));
    }
    order
}

impl Step {
    /// The rest of the path below the order's, and the body.
    pub(super) fn call(self, number: u64) -> (&'static str, Value) {
        let nothing = json!({});
        let card = |token: &str| json!({ "method": "card", "token": token });
        match self {
            Self::Pay => ("payment", card("tok_ok")),
            Self::PayInVain => ("payment", card("tok_declined")),
            Self::Accept => ("store/accept", nothing),
            Self::Reject => ("store/reject", json!({ "reason": "재료가 떨어졌어요" })),
            Self::StartPreparing => ("store/start", nothing),
            Self::FinishPreparing => ("store/finish", nothing),
            Self::PickUp => ("delivery/pickup", json!({ "rider_id": nth(&RIDERS, number / 2) })),
            Self::Ship => ("delivery/start", nothing),
            Self::Deliver => ("delivery/complete", nothing),
            Self::Confirm => ("confirm", nothing),
            Self::Review => {
                let (rating, text) = nth(&REVIEWS, number / 15);
                ("review", json!({ "rating": rating, "text": text }))
            }
            Self::RequestReturn => ("return", json!({ "reason": "사이즈가 맞지 않아요" })),
            Self::PickUpReturn => ("return/pickup", nothing),
            Self::CompleteReturn => ("return/complete", nothing),
            Self::Cancel => ("cancel", json!({ "reason": "마음이 바뀌었어요" })),
        }
    }
}
