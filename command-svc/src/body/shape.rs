//! What commands' bodies look like, for the contract. Reading is stricter than any schema can say: what a flow needs,
//! and what it does not know, is found by `body`, all faults at once.

use std::borrow::Cow;

use domain::{
    Currency,
    money::AMOUNT_LIMIT,
    notification::Language,
    order::{Channel, LINES_MAX, QUANTITY_MAX},
    text::{EMAIL_BYTES_MAX, ID_CHARS_MAX, TEXT_CHARS_MAX},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::OPTIONS_MAX;
use crate::breaker::Hold;

/// A text of a few characters, none of them a control character.
#[derive(Deserialize)]
#[expect(dead_code, reason = "only its schema is asked for")]
pub(crate) struct Text(String);

impl JsonSchema for Text {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "minLength": 1, "maxLength": TEXT_CHARS_MAX,
            "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$",
        })
    }
}

/// An id with a visible character; not `.` or `..`.
#[derive(Deserialize)]
#[expect(dead_code, reason = "only its schema is asked for")]
pub(crate) struct Id(String);

impl JsonSchema for Id {
    fn schema_name() -> Cow<'static, str> {
        "Id".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "minLength": 1, "maxLength": ID_CHARS_MAX,
            "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$",
            "description": "with a visible character; not . or ..",
        })
    }
}

/// An order as its customer wants it; what else is needed depends on the flow.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is asked for")]
pub(crate) struct PlaceOrder {
    /// `GET /flows` lists them.
    #[schemars(example = &"marketplace")]
    flow: String,
    /// `web` if it is left out.
    channel: Option<Channel>,
    customer: PlacedBy,
    /// Where the flow has a store.
    store_id: Option<Id>,
    #[schemars(length(min = 1, max = LINES_MAX))]
    lines: Vec<OrderedLine>,
    #[schemars(example = &"KRW")]
    currency: Currency,
    address: DeliverTo,
    /// Where the flow lets the customer choose.
    delivery_type: Option<Text>,
    /// Where the flow takes the payment with the order.
    payment: Option<PaymentMeans>,
}

/// Who orders, and how they are told.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is asked for")]
pub(crate) struct PlacedBy {
    id: Id,
    name: Text,
    /// 5 to 15 digits. Where tokens are asked for, the customer's own has it as verified.
    #[schemars(extend("pattern" = "^\\+?[0-9 ().-]{5,30}$"))]
    phone: Option<String>,
    /// Where tokens are asked for, the customer's own has it as verified.
    #[schemars(email, length(max = EMAIL_BYTES_MAX))]
    email: Option<String>,
    /// The flow's if it is left out.
    language: Option<Language>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is asked for")]
pub(crate) struct OrderedLine {
    item_id: Id,
    name: Text,
    #[schemars(range(min = 1, max = QUANTITY_MAX))]
    quantity: u32,
    /// **Set by the caller, compared with no price list**; 0 is taken. Minor units of the order's currency.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = AMOUNT_LIMIT))]
    unit_price: i64,
    #[schemars(length(max = OPTIONS_MAX))]
    options: Option<Vec<Text>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is asked for")]
pub(crate) struct DeliverTo {
    line: Text,
    /// Where riders are found by it.
    region: Option<Text>,
}

/// What the payment provider is asked with.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is asked for")]
pub(crate) struct PaymentMeans {
    method: Text,
    token: Text,
}

/// Nothing: the path says it all.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoBody {}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is asked for")]
pub(crate) struct Reason {
    reason: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is asked for")]
pub(crate) struct PickUp {
    rider_id: Id,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is asked for")]
pub(crate) struct WriteReview {
    #[schemars(range(min = 1, max = 5))]
    rating: u8,
    text: Text,
}

/// `open`: no call goes through; `closed`: every call does; `null`: it goes by what the calls come to.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HoldBreaker {
    pub(crate) hold: Option<Hold>,
}
