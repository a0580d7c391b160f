//! Every event as the log stores it, pinned: what was written once must read for ever.

use std::path::PathBuf;

use domain::Event;

fn golden(type_name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/stored_events").join(format!("{type_name}.v1.json"))
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the golden files are read by the test, not by the domain")]
fn every_event_type_reads_from_its_golden_file_and_writes_it_again() {
    for type_name in Event::TYPES {
        let text =
            std::fs::read_to_string(golden(type_name)).unwrap_or_else(|error| panic!("{type_name}: {error}"));
        let stored: serde_json::Value = serde_json::from_str(&text).unwrap();
        let event = Event::deserialize_data(type_name, &stored).expect("a known type").expect("its shape");
        assert_eq!(event.type_name(), *type_name);
        assert_eq!(event.serialize_data(serde_json::value::Serializer).unwrap(), stored, "{type_name}");
    }
}

#[test]
fn an_unknown_type_is_said_to_be_unknown() {
    assert!(Event::deserialize_data("CouponEaten", &serde_json::json!({})).is_none());
}
