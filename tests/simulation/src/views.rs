//! A projector that is killed now and then, and what it should have come to.

use std::collections::BTreeMap;

use domain::Position;
use nats::Stored;
use projector::{View, view};
use serde_json::Value;

use crate::{chance::Chance, server::Server};

/// A view's rows, by key.
type Rows<V> = BTreeMap<Vec<u8>, <V as projector::List>::Row>;

/// One view that differs from the fold of the log.
pub fn difference(server: &Server, partitions: u16, chance: &Chance) -> Option<String> {
    let logs: Vec<Vec<Stored>> = (0..partitions).map(|partition| log(server, partition)).collect();
    differs::<view::orders::Orders>(&logs, chance)
        .or_else(|| differs::<view::food_counts::FoodCounts>(&logs, chance))
        .or_else(|| differs::<view::rider_counts::RiderCounts>(&logs, chance))
        .or_else(|| differs::<view::ratings::Ratings>(&logs, chance))
}

fn log(server: &Server, partition: u16) -> Vec<Stored> {
    let stream = nats::subject::stream(partition);
    let read = server.messages(&stream).map(|(subject, raw)| {
        let position = Position { partition, sequence: raw.sequence };
        nats::codec::decode(subject, position, &raw.headers, raw.body.clone())
    });
    read.filter_map(Result::ok).collect()
}

fn fold<V: View>(rows: &mut Rows<V>, event: &Stored) {
    for key in V::keys(event) {
        if let Some(row) = V::apply(&key, rows.remove(&key), event) {
            rows.insert(key, row);
        }
    }
}

/// Partition by partition, against all of them as they come, with commits and crashes in between.
fn differs<V: View>(logs: &[Vec<Stored>], chance: &Chance) -> Option<String> {
    let mut expected: Rows<V> = BTreeMap::new();
    logs.iter().flatten().for_each(|event| fold::<V>(&mut expected, event));
    let mut committed: (Rows<V>, Vec<usize>) = (BTreeMap::new(), vec![0; logs.len()]);
    let mut live = committed.clone();
    loop {
        let waiting: Vec<usize> = (0..logs.len()).filter(|log| live.1[*log] < logs[*log].len()).collect();
        let Some(log) = chance.one(&waiting) else { break };
        fold::<V>(&mut live.0, &logs[*log][live.1[*log]]);
        live.1[*log] += 1;
        if chance.permille(200) {
            committed.clone_from(&live);
        } else if chance.permille(50) {
            live.clone_from(&committed);
        }
    }
    let show = |rows: &Rows<V>| -> BTreeMap<Vec<u8>, Value> {
        rows.iter().map(|(key, row)| (key.clone(), V::show(row))).collect()
    };
    let (is, should_be) = (show(&live.0), show(&expected));
    let different = should_be.iter().find(|(key, row)| is.get(*key) != Some(row));
    different.map(|(key, row)| format!("view {}: {row} is {:?}", V::NAME, is.get(key)))
}
