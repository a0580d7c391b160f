//! Whether a command printed what its document shows.

use std::{borrow::Cow, sync::OnceLock};

use regex::Regex;

/// What differs from run to run, and what is put in its place on both sides.
const MASKS: [(&str, &str); 6] = [
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?", "TIME"),
    (r"\b(\d+(\.\d+)?(ns|µs|ms|s|m|h))+\b", "DURATION"),
    (r"\b\d+(\.\d+)? ?(B|KiB|MiB|kB|bytes)\b", "SIZE"),
    (r"\b[0-9a-f]{16,}\b", "HEX"),
    (r"[ \t]+", " "),
    (r"─+", "─"),
];

fn masked(line: &str) -> String {
    static COMPILED: OnceLock<Vec<(Regex, &str)>> = OnceLock::new();
    let compile = |(pattern, mask)| (Regex::new(pattern).expect("a pattern"), mask);
    let masks = COMPILED.get_or_init(|| MASKS.into_iter().map(compile).collect());
    let mut line: Cow<'_, str> = line.trim_end().into();
    for (pattern, mask) in masks {
        line = pattern.replace_all(&line, *mask).into_owned().into();
    }
    line.into_owned()
}

/// The expected lines that are not in the output.
pub(crate) fn missing<'a>(expected: &'a [String], output: &str) -> Vec<&'a str> {
    let mut printed: Vec<String> = output.lines().map(masked).collect();
    let is_missing = |line: &&'a String| {
        let pattern = masked(line);
        let found = printed.iter().position(|candidate| matches(&pattern, candidate));
        found.map(|index| printed.swap_remove(index)).is_none()
    };
    let shown = expected.iter().filter(|line| !line.trim().is_empty() && line.trim() != "…");
    shown.filter(is_missing).map(String::as_str).collect()
}

/// Whether a line is as expected, where `…` stands for anything.
fn matches(pattern: &str, line: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('…') else { return pattern == line };
    let Some(mut line) = line.strip_prefix(first) else { return false };
    let mut parts = rest.split('…').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return line.ends_with(part);
        }
        let Some((_, after)) = line.split_once(part) else { return false };
        line = after;
    }
    true
}

#[test]
fn what_differs_from_run_to_run_is_masked_and_what_does_not_is_not() {
    let expected =
        ["│ a │ 2026-11-21 03:52:02 │ 6 │ 3.3 KiB │ 633ms │".to_owned(), "x…z".to_owned(), "…".to_owned()];
    assert!(missing(&expected, "xyz\n│ a    │ 2027-01-01 00:00:00 │ 6 │ 1 B │ 1m2.5s │").is_empty());
    assert_eq!(missing(&expected, "xyzw\n│ a    │ 2027-01-01 00:00:00 │ 7 │ 1 B │ 1s │").len(), 2);
    assert_eq!(missing(&["HTTP/1.1 201 Created".to_owned()], "HTTP/1.1 200 OK").len(), 1);
}
