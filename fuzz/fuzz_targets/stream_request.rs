//! Is a message of a `/ws` client ever a panic, or understood as something that it does not say?
//!
//! What `StreamRequest::parse` accepts is read again by serde_json. What it refuses is answered with a
//! short text whatever came.
#![no_main]

use flowcast::wire::streams::is_symbol;
use flowcast::wire::streams::request::{Selection, StreamRequest};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let request = match StreamRequest::parse(text) {
        Ok(request) => request,
        Err(error) => {
            assert!(error.words.chars().count() <= 201, "{error}");
            return;
        }
    };
    // Fails only for numbers of unknown keys that no float holds, which `parse` never looks at.
    let Ok(said) = serde_json::from_str::<Value>(text) else { return };
    assert!(said.is_object());
    match request {
        StreamRequest::Ping => assert_eq!(said["type"], "ping"),
        StreamRequest::Subscribe(selection) => check(&said, "subscribe", &selection),
        StreamRequest::Unsubscribe(selection) => check(&said, "unsubscribe", &selection),
    }
});

fn check(said: &Value, kind: &str, selection: &Selection<'_>) {
    assert_eq!(said["type"], kind);
    let listed = said["channels"].as_array().into_iter().flatten();
    let expected: Vec<&str> = listed.chain([&said["channel"]]).filter_map(Value::as_str).collect();
    assert!((1..=256).contains(&selection.channels.len()) && selection.channels == expected);
    let expected = said["symbols"].as_array().map(|symbols| symbols.iter().filter_map(Value::as_str).collect());
    let symbols = selection.symbols.as_ref().map(|symbols| symbols.iter().map(AsRef::as_ref).collect::<Vec<_>>());
    assert_eq!(symbols, expected);
    assert!(symbols.is_none_or(|symbols| !symbols.is_empty() && symbols.into_iter().all(is_symbol)));
}
