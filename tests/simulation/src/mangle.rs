//! Input that somebody got wrong: good input, mangled as chance has it.

use serde_json::{Map, Value, json};

use crate::chance::Chance;

/// Texts that have broken programs before.
pub const NASTY: [&str; 26] = [
    "",
    " ",
    "\0",
    "null",
    "-1",
    "0",
    "9223372036854775808",
    "1e999",
    "-0",
    "NaN",
    "true",
    "[",
    "{",
    "\"",
    "\u{202e}",
    "가",
    "é",
    "👨‍👩‍👧‍👦",
    "../../etc/passwd",
    "%00",
    "' OR 1=1 --",
    "1970-01-01T00:00:00Z",
    "99999-12-31T23:59:59.999999999Z",
    "0:18446744073709551615",
    "65536:1",
    "\r\n",
];
const LONG: usize = 3_000;
/// Times that one input is mangled, at most.
const TIMES_MAX: u64 = 4;

/// A text that has broken programs before, or a very long one.
pub fn nasty(chance: &Chance) -> String {
    if chance.permille(30) {
        "x".repeat(LONG)
    } else {
        chance.one(&NASTY).map_or_else(String::new, ToString::to_string)
    }
}

fn index(chance: &Chance, length: usize) -> usize {
    usize::try_from(chance.below(length.max(1) as u64)).unwrap_or_default()
}

/// Bytes with some of them changed, gone, doubled, or replaced by something nasty.
pub fn bytes(chance: &Chance, good: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..=chance.below(TIMES_MAX) {
        let (from, to) = (index(chance, bytes.len()), index(chance, bytes.len()));
        let (from, to) = (from.min(to), from.max(to).min(from.min(to) + 40));
        match chance.below(6) {
            0 if !bytes.is_empty() => bytes[from] ^= 1 << chance.below(8),
            1 => drop(bytes.drain(from..to)),
            2 => bytes.truncate(from),
            3 => {
                let copy = bytes.get(from..to).map(<[u8]>::to_vec).unwrap_or_default();
                bytes.splice(to..to, copy);
            }
            4 => drop(bytes.splice(from..to, nasty(chance).into_bytes())),
            _ => bytes.insert(from.min(bytes.len()), u8::try_from(chance.below(256)).unwrap_or_default()),
        }
    }
    bytes
}

/// Text, mangled; what is no text any more is made one.
pub fn text(chance: &Chance, good: &str) -> String {
    String::from_utf8_lossy(&bytes(chance, good.as_bytes())).into_owned()
}

fn value(chance: &Chance) -> Value {
    match chance.below(9) {
        0 => Value::Null,
        1 => json!(chance.permille(500)),
        2 => json!([]),
        3 => json!({}),
        4 => json!(i64::MIN),
        5 => json!(u64::MAX),
        6 => json!(1e300),
        7 => json!(-1),
        _ => json!(nasty(chance)),
    }
}

/// A value with some of what is in it gone, replaced, doubled or added to.
pub fn json(chance: &Chance, good: &Value) -> Value {
    let mut mangled = good.clone();
    for _ in 0..=chance.below(TIMES_MAX) {
        mangle(chance, &mut mangled);
    }
    mangled
}

fn mangle(chance: &Chance, at: &mut Value) {
    let goes_deeper = chance.permille(700);
    match at {
        Value::Object(fields) if goes_deeper && !fields.is_empty() => in_object(chance, fields),
        Value::Array(items) if goes_deeper && !items.is_empty() => {
            let index = index(chance, items.len());
            match chance.below(4) {
                0 => drop(items.remove(index)),
                1 => items.push(items[index].clone()),
                _ => mangle(chance, &mut items[index]),
            }
        }
        Value::String(good) if goes_deeper => *good = text(chance, good),
        Value::Object(_)
        | Value::Array(_)
        | Value::String(_)
        | Value::Null
        | Value::Bool(_)
        | Value::Number(_) => *at = value(chance),
    }
}

fn in_object(chance: &Chance, fields: &mut Map<String, Value>) {
    let keys: Vec<String> = fields.keys().cloned().collect();
    let Some(key) = chance.one(&keys) else { return };
    match chance.below(6) {
        0 => drop(fields.remove(key)),
        1 => drop(fields.insert(nasty(chance), value(chance))),
        _ => {
            if let Some(field) = fields.get_mut(key) {
                mangle(chance, field);
            }
        }
    }
}
