//! Readers of what comes from outside, given mangled input: each answers, and none panics.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context;
use async_nats::HeaderMap;
use command_svc::body;
use domain::{Flow, Flows, Money, OrderId, OrderState, Position, explore, notification, saga};
use nats::{Stored, codec, subject};
use projector::{List, View, view};
use serde_json::{Value, json};

use crate::{chance::Chance, mangle, setting};

/// What is read, and how often it was refused and taken.
pub type Tally = BTreeMap<&'static str, (u64, u64)>;

/// Good input, to be mangled.
pub struct Corpus {
    flows: Flows,
    flow_texts: Vec<String>,
    bodies: Vec<Value>,
    /// Stored events, by type.
    events: Vec<(String, Vec<u8>)>,
}

impl Corpus {
    /// The shipped flows, a body of each kind, and the golden events of the workspace.
    pub fn read(workspace: &Path) -> anyhow::Result<Self> {
        let texts = |folder: &str| -> anyhow::Result<Vec<(String, Vec<u8>)>> {
            let mut files = Vec::new();
            for entry in fs::read_dir(workspace.join(folder)).context(folder.to_owned())? {
                let path = entry?.path();
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
                if path.is_file() {
                    files.push((name.unwrap_or_default(), fs::read(&path)?));
                }
            }
            files.sort();
            Ok(files)
        };
        let is_flow = |(name, text): (String, Vec<u8>)| {
            Path::new(&name)
                .extension()
                .is_some_and(|kind| kind == "toml")
                .then(|| String::from_utf8_lossy(&text).into_owned())
        };
        let flow_texts = texts("domain/src/flow")?.into_iter().filter_map(is_flow).collect();
        let events = texts("domain/tests/stored_events")?.into_iter();
        let events = events
            .map(|(name, text)| (name.split('.').next().unwrap_or_default().to_owned(), text))
            .collect();
        Ok(Self { flows: setting().1.clone(), flow_texts, bodies: bodies(), events })
    }

    /// Gives some reader mangled input, and notes whether it took it.
    pub fn feed(&self, chance: &Chance, tally: &mut Tally) {
        let (reader, is_taken) = match chance.below(4) {
            0 => ("bodies", self.body(chance)),
            1 => ("stored events", self.story(chance)),
            2 => ("flow files", self.flow(chance)),
            _ => ("positions and ids", small(chance)),
        };
        let (refused, taken) = tally.entry(reader).or_default();
        *(if is_taken { taken } else { refused }) += 1;
    }

    fn body(&self, chance: &Chance) -> bool {
        let good = chance.one(&self.bodies).cloned().unwrap_or_default();
        let mut said = mangle::json(chance, &good);
        if chance.permille(300) {
            let bytes = mangle::bytes(chance, said.to_string().as_bytes());
            let Ok(read) = serde_json::from_slice(&bytes) else { return false };
            said = read;
        }
        match chance.below(5) {
            0 => body::payment_means(&said).is_ok(),
            1 => body::reason(&said).is_ok(),
            2 => body::rider(&said).is_ok(),
            3 => body::review(&said).is_ok(),
            _ => match body::placement(&said, &self.flows) {
                Ok(placement) => {
                    // What is taken has a price that can be paid.
                    let Money { amount, .. } = placement.placed.total;
                    assert!(amount >= 0 && !placement.placed.lines.is_empty(), "{said}");
                    true
                }
                Err(_) => false,
            },
        }
    }

    fn flow(&self, chance: &Chance) -> bool {
        let good = chance.one(&self.flow_texts).cloned().unwrap_or_default();
        let said = mangle::text(chance, &good);
        drop(Flow::parse_stored(&said));
        Flow::parse(&said).is_ok()
    }

    /// A story of events that are mangled, or come in no order that makes sense: what reads is folded.
    fn story(&self, chance: &Chance) -> bool {
        let order_id = OrderId(chance.uuid());
        let mut story: Vec<Stored> = Vec::new();
        for sequence in 1..=1 + chance.below(8) {
            let Some((event_type, data)) = chance.one(&self.events) else { return false };
            let is_mangled = chance.permille(300);
            let data = if is_mangled { mangle::bytes(chance, data) } else { data.clone() };
            let headers = headers(chance, event_type);
            let mut subject = subject::order(0, order_id);
            if chance.permille(20) {
                subject = mangle::text(chance, &subject);
            }
            let position = Position { partition: 0, sequence };
            story.extend(codec::decode(&subject, position, &headers, data.into()).ok());
        }
        let state = OrderState::replay(story.iter().map(|stored| &stored.recorded));
        for declared in self.flows.iter() {
            drop(saga::react(&declared.flow, &state));
            drop(notification::due(&declared.flow, story.iter().map(|stored| &stored.recorded)));
            for (_, command) in explore::people::commands(&declared.flow, &declared.reference, &state) {
                drop(state.decide(&declared.flow, &command));
            }
        }
        fold::<view::orders::Orders>(&story);
        fold::<view::food_counts::FoodCounts>(&story);
        fold::<view::rider_counts::RiderCounts>(&story);
        fold::<view::ratings::Ratings>(&story);
        !story.is_empty()
    }
}

fn fold<V: View>(story: &[Stored]) {
    let mut rows: BTreeMap<Vec<u8>, <V as List>::Row> = BTreeMap::new();
    for event in story {
        for key in V::keys(event) {
            if let Some(row) = V::apply(&key, rows.remove(&key), event) {
                drop((V::place(&row), V::show(&row)));
                rows.insert(key, row);
            }
        }
    }
}

fn headers(chance: &Chance, event_type: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let (event_id, command_id) = (chance.uuid().to_string(), chance.uuid().to_string());
    let good = [
        ("Event-Type", event_type),
        ("Event-Id", &event_id),
        ("Schema-Version", "1"),
        ("Time", "2026-01-01T00:00:00Z"),
        ("Command-Id", &command_id),
        ("Causation-Id", &event_id),
    ];
    for (name, value) in good {
        // Line breaks are no part of a header.
        let value = match chance.below(40) {
            0 => continue,
            1 => mangle::text(chance, value),
            2 => mangle::nasty(chance),
            _ => value.to_owned(),
        };
        headers.insert(name, value.replace(['\r', '\n'], "").as_str());
    }
    headers
}

/// Positions, ids, and amounts of money.
fn small(chance: &Chance) -> bool {
    let good = chance.one(&["2:1842", "0:1", "01890a5d-ac96-774b-bcce-b302099a8057", "KRW", "USD"]);
    let said = mangle::text(chance, good.copied().unwrap_or_default());
    let position = said.parse::<Position>();
    if let Ok(position) = &position {
        assert_eq!(position.to_string().parse::<Position>().ok(), Some(*position));
    }
    let order_id = said.parse::<OrderId>();
    let moment = said.parse::<projector::as_of::Moment>();
    let currency = said.parse::<domain::Currency>();
    position.is_ok() || order_id.is_ok() || moment.is_ok() || currency.is_ok()
}

/// A good body of each kind.
pub fn bodies() -> Vec<Value> {
    let mut meal = json!({
        "flow": "food",
        "customer": { "id": "hungry", "name": "배고픈", "phone": "010-1111-2222" },
        "store_id": "kimbap-heaven",
        "lines": [{ "item_id": "1", "name": "김밥", "quantity": 2, "unit_price": 4_500, "options": ["참치"] }],
        "currency": "KRW",
        "address": { "line": "마포대로 1", "region": "mapo" },
        "delivery_type": "bicycle",
        "payment": { "method": "card", "token": "tok_ok" },
    });
    let food = meal.clone();
    if let Some(fields) = meal.as_object_mut() {
        fields.remove("delivery_type");
        fields.remove("store_id");
        fields.insert("flow".into(), json!("marketplace"));
    }
    vec![
        food,
        meal,
        json!({ "method": "card", "token": "tok_ok" }),
        json!({ "reason": "too late" }),
        json!({ "rider_id": "r1" }),
        json!({ "rating": 5, "text": "good" }),
    ]
}
