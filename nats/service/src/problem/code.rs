//! Every code that a problem can have: one closed list, of which the contract and the pages at `/problems` are made.

use axum::http::StatusCode;
use domain::Refusal;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize,
    de::{IntoDeserializer, value::Error},
};
use serde_json::{Value, json};

/// Declares the codes once: what each means is said to callers, too.
macro_rules! codes {
    ($($(#[doc = $meaning:literal])+ $name:ident = $code:literal, $status:ident;)+) => {
        /// What went wrong, in a word that never changes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $($(#[doc = $meaning])+ $name,)+
            /// The order's own state or flow does not allow it.
            Refused(Refusal),
        }

        /// All that are no refusals of an order's.
        const OWN: &[Code] = &[$(Code::$name),+];

        impl Code {
            /// As it stands in a problem's `code`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)+
                    Self::Refused(refusal) => refusal.code(),
                }
            }

            /// The status of every problem that has it.
            pub const fn status(self) -> StatusCode {
                match self {
                    $(Self::$name => StatusCode::$status,)+
                    Self::Refused(refusal) => status_of(refusal),
                }
            }

            /// What it means, in a sentence.
            pub fn meaning(self) -> String {
                match self {
                    $(Self::$name => concat!($($meaning),+).trim().to_owned(),)+
                    Self::Refused(refusal) => refusal.to_string(),
                }
            }
        }
    };
}

codes! {
    /// The call cannot be read: `detail` says what of it.
    Malformed = "malformed", BAD_REQUEST;
    /// `after`, `Log-Position`, `Last-Event-ID` or `as_of` names a position that the log does not have.
    PositionUnknown = "position_unknown", BAD_REQUEST;
    /// The call needs a token, or a better one.
    Unauthenticated = "unauthenticated", UNAUTHORIZED;
    /// The payment was declined; nothing was charged, and there is no order.
    PaymentDeclined = "payment_declined", PAYMENT_REQUIRED;
    /// It takes another role, or belongs to another caller.
    Forbidden = "forbidden", FORBIDDEN;
    /// The page of another web site may not do this.
    CrossSite = "cross_site", FORBIDDEN;
    /// There is nothing at this path.
    NotFound = "not_found", NOT_FOUND;
    /// There is no such flow.
    FlowNotFound = "flow_not_found", NOT_FOUND;
    /// There is no such view.
    ViewNotFound = "view_not_found", NOT_FOUND;
    /// There is no such breaker in this process.
    BreakerNotFound = "breaker_not_found", NOT_FOUND;
    /// No rebuild is under way.
    NoRebuild = "no_rebuild", NOT_FOUND;
    /// This path takes other methods.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED;
    /// A rebuild is under way already.
    RebuildUnderWay = "rebuild_under_way", CONFLICT;
    /// The generation is not ready yet.
    RebuildNotReady = "rebuild_not_ready", CONFLICT;
    /// The generation differs from the one that serves.
    GenerationsDiffer = "generations_differ", CONFLICT;
    /// One view alone is only rebuilt beside others that are whole.
    ViewsNotWhole = "views_not_whole", CONFLICT;
    /// The views have not caught up with the log as it was at the start.
    ViewsCatchingUp = "views_catching_up", CONFLICT;
    /// There is no generation to go back to.
    NoPreviousGeneration = "no_previous_generation", CONFLICT;
    /// The generation before is of another definition, or of another log.
    GenerationOutdated = "generation_outdated", CONFLICT;
    /// The generation could not be opened; the log of the process says why.
    NotBegun = "not_begun", CONFLICT;
    /// The order has changed since the `ETag` in `If-Match` was given.
    Stale = "stale", PRECONDITION_FAILED;
    /// The body is too large.
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE;
    /// The body is not JSON, or does not say so.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE;
    /// The call reads, and what it says is not acceptable: `errors` has every fault at once.
    Invalid = "invalid", UNPROCESSABLE_ENTITY;
    /// A parameter has a value that there is not: `detail` names those that there are.
    UnknownValue = "unknown_value", UNPROCESSABLE_ENTITY;
    /// The moment in `as_of` is too many events away.
    AsOfTooFar = "as_of_too_far", UNPROCESSABLE_ENTITY;
    /// The body did not come in time; nothing was done.
    BodyLate = "body_late", REQUEST_TIMEOUT;
    /// Callers are not asked who they are here, so only names of this machine are answered.
    HostUnknown = "host_unknown", MISDIRECTED_REQUEST;
    /// This caller calls too often.
    TooManyCalls = "too_many_calls", TOO_MANY_REQUESTS;
    /// This caller has as many calls, waits or streams at a time as one caller may have.
    TooManyAtOnce = "too_many_at_once", TOO_MANY_REQUESTS;
    /// The order's flow is not known here: nothing becomes of the call until it is.
    FlowUnknown = "flow_unknown", INTERNAL_SERVER_ERROR;
    /// The order has an event that this program cannot read: nothing becomes of the call until one that can runs.
    OrderUnreadable = "order_unreadable", INTERNAL_SERVER_ERROR;
    /// A fault of the platform's; it was logged.
    Internal = "internal", INTERNAL_SERVER_ERROR;
    /// More comes than can be done in time; nothing was done.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE;
    /// The keys that tokens are checked with are not available now.
    KeysUnavailable = "keys_unavailable", SERVICE_UNAVAILABLE;
    /// The log did not answer.
    LogUnavailable = "log_unavailable", SERVICE_UNAVAILABLE;
    /// The log is nearly full: what room is left is kept for orders that are under way.
    LogNearlyFull = "log_nearly_full", SERVICE_UNAVAILABLE;
    /// The payment could not be settled now.
    PaymentUnavailable = "payment_unavailable", SERVICE_UNAVAILABLE;
    /// The delivery gave no answer, and its consent is needed.
    DeliveryUnavailable = "delivery_unavailable", SERVICE_UNAVAILABLE;
    /// Other commands on the order kept coming first.
    Contended = "contended", SERVICE_UNAVAILABLE;
    /// The views have not reached the position that was asked for.
    ViewBehind = "view_behind", SERVICE_UNAVAILABLE;
    /// The view store failed; it was logged.
    ViewUnavailable = "view_unavailable", SERVICE_UNAVAILABLE;
    /// The views could not be changed over; it was logged.
    ViewsUnavailable = "views_unavailable", SERVICE_UNAVAILABLE;
    /// No snapshot could be taken or listed.
    SnapshotUnavailable = "snapshot_unavailable", SERVICE_UNAVAILABLE;
}

const fn status_of(refusal: Refusal) -> StatusCode {
    match refusal {
        Refusal::OrderNotFound => StatusCode::NOT_FOUND,
        Refusal::PaymentDeclined => StatusCode::PAYMENT_REQUIRED,
        Refusal::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::OrderExpired
        | Refusal::AlreadyPlaced
        | Refusal::AlreadyCanceled
        | Refusal::AlreadyDelivered
        | Refusal::AlreadyRejected
        | Refusal::AlreadyCompleted
        | Refusal::AlreadyAccepted
        | Refusal::AlreadyPickedUp
        | Refusal::PreparationStarted
        | Refusal::PreparationNotStarted
        | Refusal::StoreOrderNotReceived
        | Refusal::StoreOrderNotAccepted
        | Refusal::StoreOrderCanceled
        | Refusal::DeliveryNotListed
        | Refusal::NotDelivered
        | Refusal::AlreadyReviewed
        | Refusal::NotInFlow
        | Refusal::AlreadyShipped
        | Refusal::ReturnNotRequested
        | Refusal::ReturnNotPickedUp
        | Refusal::CancelNotRequested
        | Refusal::CancelRequested
        | Refusal::PaymentNotRequested
        | Refusal::PaymentDeferred
        | Refusal::PaymentApproved
        | Refusal::PaymentCanceled
        | Refusal::PaymentAttemptsExhausted
        | Refusal::RefundIncomplete
        | Refusal::AmountMismatch
        | Refusal::ProviderRefused
        | Refusal::CouponRequired
        | Refusal::CouponCanceled
        | Refusal::CouponStillValid
        | Refusal::DeliveryNotRequested
        | Refusal::DeliveryNotStarted
        | Refusal::DeliveryCanceled
        | Refusal::NotParked
        | Refusal::NotAtItsEnd
        | Refusal::OrderTooLong
        | Refusal::OrderArchived => StatusCode::CONFLICT,
    }
}

impl Code {
    /// Every code there is, by name.
    pub fn all() -> Vec<Self> {
        let schema = SchemaGenerator::default().root_schema_for::<Refusal>().to_value();
        let names = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let refusals = names.filter_map(|name| {
            let name: serde::de::value::StrDeserializer<'_, Error> = name.into_deserializer();
            Refusal::deserialize(name).ok().map(Self::Refused)
        });
        let mut all: Vec<Self> = OWN.iter().copied().chain(refusals).collect();
        all.sort_by_key(|code| code.as_str());
        all.dedup_by_key(|code| code.as_str());
        all
    }
}

impl JsonSchema for Code {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ProblemCode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = Self::all().iter().map(|code| code.as_str()).collect();
        let schema = json!({
            "type": "string", "enum": names,
            "description": "Stable; /problems/CODE says what each means. New ones may come.",
        });
        Schema::try_from(schema).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_on_the_list_under_its_own_name() {
        let all = Code::all();
        assert!(all.len() > OWN.len() + 30, "{all:?}");
        for code in all {
            assert!(!code.meaning().is_empty() && code.status().as_u16() >= 400, "{code:?}");
        }
    }
}
