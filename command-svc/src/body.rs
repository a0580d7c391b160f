//! What a command's body must say: read strictly, all faults at once.

pub(crate) mod shape;
mod strict;

use std::{cell::RefCell, collections::BTreeSet, ops::RangeInclusive};

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{StatusCode, header},
};
use domain::{
    Currency, Flow, Flows, Money,
    event::OrderPlaced,
    flow::{Declared, PaymentTime, ProviderDown},
    money::AMOUNT_LIMIT,
    notification::Language,
    order::{Address, Channel, Customer, LINES_MAX, Line, QUANTITY_MAX},
    review::ReviewCommand,
    text::{EMAIL_BYTES_MAX, TextFault, check_id, check_phone, check_text},
};
use serde::{
    Deserialize,
    de::{DeserializeSeed, IntoDeserializer},
};
use serde_json::{Map, Value};
use service::problem::{Code, Fault, Problem};

use strict::Strict;

/// The largest body of a command, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
const OPTIONS_MAX: usize = 20;

/// A command's body: JSON, no key twice, at most [`BODY_BYTES_MAX`]. Nothing at all reads as `{}`.
pub struct Body {
    pub value: Value,
    pub bytes: Bytes,
}

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                let detail = format!("a command's body has at most {BODY_BYTES_MAX} bytes");
                Problem::new(Code::BodyTooLarge, detail)
            } else {
                Problem::malformed("the body could not be received")
            }
        })?;
        if bytes.is_empty() {
            return Ok(Self { value: Value::Object(Map::new()), bytes });
        }
        let is_json = content_type.as_ref().and_then(|value| value.to_str().ok()).is_some_and(|value| {
            value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
        });
        if !is_json {
            let detail = "a command's body is JSON: send Content-Type: application/json";
            return Err(Problem::new(Code::UnsupportedMediaType, detail));
        }
        Ok(Self { value: parse(&bytes)?, bytes })
    }
}

impl Body {
    /// By which a reused key with another body is noticed. The same members in another order, or with other spaces
    /// between them, are the same body.
    pub fn fingerprint(&self, command: &str) -> String {
        let mut sorted = self.value.clone();
        sorted.sort_all_objects();
        let told_apart = |body: &[u8]| domain::id::fingerprint(&[command.as_bytes(), b"\n", body].concat());
        domain::id::fingerprints(&told_apart(sorted.to_string().as_bytes()), &told_apart(&self.bytes))
    }
}

fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    Strict
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| Problem::malformed(format!("the body does not read as JSON: {error}")))
}

/// What a text must be like.
type Rule = fn(&str) -> Result<(), TextFault>;

/// A mail address as it may stand in a mail's `To` (RFC 5322 §3.4.1).
fn check_email(text: &str) -> Result<(), TextFault> {
    check_text(text)?;
    let reads = text.len() <= EMAIL_BYTES_MAX && text.parse::<lettre::Address>().is_ok();
    if reads { Ok(()) } else { Err(TextFault::Email) }
}

/// Where faults are noted.
type Faults = RefCell<Vec<Fault>>;

/// An object that is being read; what was not asked for is a fault in the end.
struct Fields<'a> {
    map: Option<&'a Map<String, Value>>,
    pointer: String,
    asked: RefCell<BTreeSet<&'static str>>,
    faults: &'a Faults,
}

impl<'a> Fields<'a> {
    fn of(value: Option<&'a Value>, pointer: String, faults: &'a Faults) -> Self {
        let map = value.and_then(Value::as_object);
        if map.is_none() {
            let what = if value.is_none_or(Value::is_null) { "is missing" } else { "must be an object" };
            faults.borrow_mut().push(Fault { pointer: pointer.clone(), detail: what.into() });
        }
        Self { map, pointer, asked: RefCell::default(), faults }
    }

    fn get(&self, name: &'static str) -> Option<&'a Value> {
        self.asked.borrow_mut().insert(name);
        self.map?.get(name).filter(|value| !value.is_null())
    }

    /// Notes a fault of a field; an object that is absent altogether was noted once, as a whole.
    fn fault(&self, name: &str, detail: impl Into<String>) {
        if self.map.is_some() {
            let pointer = format!("{}/{}", self.pointer, name.replace('~', "~0").replace('/', "~1"));
            self.faults.borrow_mut().push(Fault { pointer, detail: detail.into() });
        }
    }

    /// A text that `rule` holds for.
    fn optional(&self, name: &'static str, rule: Rule) -> Option<String> {
        let value = self.get(name)?;
        let Some(text) = value.as_str() else {
            self.fault(name, "must be a text");
            return None;
        };
        if let Err(fault) = rule(text) {
            self.fault(name, fault.to_string());
        }
        Some(text.to_owned())
    }

    fn required(&self, name: &'static str, rule: Rule) -> String {
        let text = self.optional(name, rule);
        if text.is_none() && self.get(name).is_none() {
            self.fault(name, "is missing");
        }
        text.unwrap_or_default()
    }

    fn optional_text(&self, name: &'static str) -> Option<String> {
        self.optional(name, check_text)
    }

    fn text(&self, name: &'static str) -> String {
        self.required(name, check_text)
    }

    fn id(&self, name: &'static str) -> String {
        self.required(name, check_id)
    }

    fn integer(&self, name: &'static str, range: RangeInclusive<i64>) -> i64 {
        let Some(value) = self.get(name) else {
            self.fault(name, "is missing");
            return *range.start();
        };
        value.as_i64().filter(|number| range.contains(number)).unwrap_or_else(|| {
            self.fault(name, format!("must be a whole number from {} to {}", range.start(), range.end()));
            *range.start()
        })
    }

    fn object(&self, name: &'static str) -> Self {
        let pointer = format!("{}/{name}", self.pointer);
        if self.map.is_none() {
            return Self { map: None, pointer, asked: RefCell::default(), faults: self.faults };
        }
        Self::of(self.get(name), pointer, self.faults)
    }

    fn list(&self, name: &'static str, length: RangeInclusive<usize>) -> &'a [Value] {
        let items = match self.get(name) {
            Some(Value::Array(items)) => items.as_slice(),
            Some(_) => {
                self.fault(name, "must be a list");
                return &[];
            }
            None => &[],
        };
        if !length.contains(&items.len()) {
            let (least, most) = (length.start(), length.end());
            self.fault(name, format!("must have {least} to {most} entries, and has {}", items.len()));
            return &[];
        }
        items
    }

    /// Notes what nobody asked for: usually a typing error.
    fn finish(self) {
        let Some(map) = self.map else { return };
        let asked = self.asked.borrow();
        for name in map.keys().filter(|name| !asked.contains(name.as_str())) {
            self.fault(name, "is not a field of this command");
        }
    }
}

/// An order as its customer wants it, and how it is to be paid, if it is.
#[derive(Clone, Debug)]
pub struct Placement {
    pub placed: OrderPlaced,
    pub payment: Option<PaymentMeans>,
    /// Whether it stands, and waits to be paid, when the payment gets no answer.
    pub defers: bool,
}

/// What the payment provider is to be asked with.
#[derive(Clone, Debug)]
pub struct PaymentMeans {
    pub method: String,
    pub token: String,
}

/// Reads `POST /orders`.
pub fn placement(body: &Value, flows: &Flows) -> Result<Placement, Problem> {
    let faults = Faults::default();
    let fields = Fields::of(Some(body), String::new(), &faults);
    let name = fields.text("flow");
    let flow = flows.newest(&name);
    if flow.is_none() && fields.get("flow").is_some_and(Value::is_string) {
        let known: Vec<&str> = flows.names().collect();
        fields.fault("flow", format!("there is no such flow; there are: {}", known.join(", ")));
    }
    let placed = order(&fields, flow);
    let payment = payment(&fields, flow.map(|declared| &*declared.flow));
    let defers = flow.is_some_and(|declared| declared.flow.payment.provider_down == ProviderDown::Defer);
    fields.finish();
    match (faults.into_inner(), placed) {
        (faults, Some(placed)) if faults.is_empty() => Ok(Placement { placed, payment, defers }),
        (faults, _) => Err(Problem::invalid(faults)),
    }
}

fn payment(fields: &Fields<'_>, flow: Option<&Flow>) -> Option<PaymentMeans> {
    let unwanted = match flow.map(|flow| flow.payment.when) {
        Some(PaymentTime::None) => "an order of this flow is not paid; leave it out",
        Some(PaymentTime::SecondStep) => "an order of this flow is paid in a second step; leave it out here",
        Some(PaymentTime::WithOrder) | None => return Some(means(fields.object("payment"))),
    };
    if fields.get("payment").is_some() {
        fields.fault("payment", unwanted);
    }
    None
}

fn means(fields: Fields<'_>) -> PaymentMeans {
    let means = PaymentMeans { method: fields.text("method"), token: fields.text("token") };
    fields.finish();
    means
}

/// Reads `{"method": "…", "token": "…"}`.
pub fn payment_means(body: &Value) -> Result<PaymentMeans, Problem> {
    let faults = Faults::default();
    let means = means(Fields::of(Some(body), String::new(), &faults));
    no_faults(faults).map(|()| means)
}

fn order(fields: &Fields<'_>, declared: Option<&Declared>) -> Option<OrderPlaced> {
    let flow = declared.map(|declared| &*declared.flow);
    let channel = channel(fields, flow);
    let customer = customer(fields.object("customer"));
    let lines = lines(fields);
    let currency: Option<Currency> = match fields.text("currency").parse::<Currency>() {
        Ok(currency) if currency.is_in_use() => Some(currency),
        Ok(currency) => {
            fields.fault("currency", format!("{currency} is no money that people pay with today (ISO 4217)"));
            None
        }
        Err(error) => {
            if fields.get("currency").is_some_and(Value::is_string) {
                fields.fault("currency", format!("{error}"));
            }
            None
        }
    };
    let address = address(fields.object("address"), flow);
    let store_id = store(fields, flow);
    let delivery_type = delivery_type(fields, flow);
    let each = lines.iter().map(|line| (line.quantity, line.unit_price));
    let total = currency.and_then(|currency| Money::total(currency, each));
    if currency.is_some() && total.is_none() {
        fields.fault("lines", format!("the total must stay below {AMOUNT_LIMIT}"));
    }
    let Declared { flow, reference, .. } = declared?;
    Some(OrderPlaced {
        flow: reference.clone(),
        channel,
        customer,
        store_id,
        lines,
        total: total?,
        address,
        delivery_type,
        // An order worth nothing is paid by nothing.
        awaits_payment: flow.payment.when == PaymentTime::SecondStep && total?.amount > 0,
    })
}

fn channel(fields: &Fields<'_>, flow: Option<&Flow>) -> Channel {
    let Some(name) = fields.optional_text("channel") else { return Channel::Web };
    let channel = [Channel::Web, Channel::Phone].into_iter().find(|channel| channel.as_str() == name);
    match (channel, flow) {
        (Some(channel), Some(flow)) if flow.channels.contains(&channel) => channel,
        (Some(channel), None) => channel,
        (_, flow) => {
            let known = flow.map_or(&[Channel::Web, Channel::Phone][..], |flow| &flow.channels);
            let known: Vec<&str> = known.iter().map(|channel| channel.as_str()).collect();
            fields.fault("channel", format!("must be one of: {}", known.join(", ")));
            Channel::Web
        }
    }
}

fn address(fields: Fields<'_>, flow: Option<&Flow>) -> Address {
    let address = Address { line: fields.text("line"), region: fields.optional_text("region") };
    if address.region.is_none() && flow.is_some_and(Flow::finds_riders_by_region) {
        fields.fault("region", "is missing: riders are found by it");
    }
    fields.finish();
    address
}

fn store(fields: &Fields<'_>, flow: Option<&Flow>) -> Option<String> {
    match flow {
        Some(flow) if flow.store => Some(fields.id("store_id")),
        Some(_) if fields.get("store_id").is_some() => {
            fields.fault("store_id", "an order of this flow names no store; leave it out");
            None
        }
        Some(_) | None => fields.optional("store_id", check_id),
    }
}

fn delivery_type(fields: &Fields<'_>, flow: Option<&Flow>) -> Option<String> {
    let Some(flow) = flow else { return fields.optional_text("delivery_type") };
    if flow.delivery.types.is_empty() {
        if fields.get("delivery_type").is_some() {
            fields.fault("delivery_type", "an order of this flow asks for no delivery type; leave it out");
        }
        return None;
    }
    let chosen = fields.text("delivery_type");
    if fields.get("delivery_type").is_some() && !flow.delivery.types.contains(&chosen) {
        fields.fault("delivery_type", format!("must be one of: {}", flow.delivery.types.join(", ")));
    }
    Some(chosen)
}

fn customer(fields: Fields<'_>) -> Customer {
    let customer = Customer {
        id: fields.id("id"),
        name: fields.text("name"),
        phone: fields.optional("phone", check_phone),
        email: fields.optional("email", check_email),
        language: language(&fields),
    };
    fields.finish();
    customer
}

fn language(fields: &Fields<'_>) -> Option<Language> {
    let name = fields.optional_text("language")?;
    let language = Language::deserialize(name.as_str().into_deserializer());
    let fault = |_: serde::de::value::Error| fields.fault("language", "must be one of: ko, en");
    language.map_err(fault).ok()
}

fn lines(fields: &Fields<'_>) -> Vec<Line> {
    let items = fields.list("lines", 1..=LINES_MAX);
    items.iter().enumerate().map(|(index, item)| line(fields, index, item)).collect()
}

fn line(fields: &Fields<'_>, index: usize, item: &Value) -> Line {
    let line = Fields::of(Some(item), format!("{}/lines/{index}", fields.pointer), fields.faults);
    let quantity = line.integer("quantity", 1..=i64::from(QUANTITY_MAX));
    let read = Line {
        item_id: line.id("item_id"),
        name: line.text("name"),
        quantity: u32::try_from(quantity).unwrap_or(QUANTITY_MAX),
        unit_price: line.integer("unit_price", 0..=AMOUNT_LIMIT - 1),
        options: options(&line),
    };
    line.finish();
    read
}

fn options(line: &Fields<'_>) -> Vec<String> {
    let items = line.list("options", 0..=OPTIONS_MAX);
    let option = |(index, item): (usize, &Value)| {
        let text = item.as_str();
        match text
            .map_or(Err("must be a text".into()), |text| check_text(text).map_err(|fault| fault.to_string()))
        {
            Ok(()) => text.map(ToOwned::to_owned),
            Err(detail) => {
                let pointer = format!("{}/options/{index}", line.pointer);
                line.faults.borrow_mut().push(Fault { pointer, detail });
                None
            }
        }
    };
    items.iter().enumerate().filter_map(option).collect()
}

/// Reads a body of at most `{"reason": "…"}`.
pub fn reason(body: &Value) -> Result<Option<String>, Problem> {
    let faults = Faults::default();
    let fields = Fields::of(Some(body), String::new(), &faults);
    let reason = fields.optional_text("reason");
    fields.finish();
    no_faults(faults).map(|()| reason)
}

/// Reads `{"rider_id": "…"}`.
pub fn rider(body: &Value) -> Result<String, Problem> {
    let faults = Faults::default();
    let fields = Fields::of(Some(body), String::new(), &faults);
    let rider_id = fields.id("rider_id");
    fields.finish();
    no_faults(faults).map(|()| rider_id)
}

/// Reads `{"rating": 1–5, "text": "…"}`.
pub fn review(body: &Value) -> Result<ReviewCommand, Problem> {
    let faults = Faults::default();
    let fields = Fields::of(Some(body), String::new(), &faults);
    let rating = u8::try_from(fields.integer("rating", 1..=5)).unwrap_or(1);
    let text = fields.text("text");
    fields.finish();
    no_faults(faults).map(|()| ReviewCommand::Write { rating, text })
}

/// Reads a body that says nothing.
pub fn nothing(body: &Value) -> Result<(), Problem> {
    let faults = Faults::default();
    Fields::of(Some(body), String::new(), &faults).finish();
    no_faults(faults)
}

fn no_faults(faults: Faults) -> Result<(), Problem> {
    let faults = faults.into_inner();
    if faults.is_empty() { Ok(()) } else { Err(Problem::invalid(faults)) }
}
