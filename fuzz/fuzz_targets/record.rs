//! Is a JSONL line ever a panic, or a record that does not say what the line says?
//!
//! What `parse` accepts is read again by serde_json as floats: no integer may be a whole unit off.
//! The payload must decode to the record in both profiles. Exact scaling is `decimal`'s question.
#![no_main]

use flowcast::wire::payload::orderflow::{NUMBER_KEYS, Orderflow, parse, rescale, values};
use flowcast::wire::payload::{Encoder, EncoderOptions, Profile, decompress};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use serde_json::Value;

fuzz_target!(|line: &[u8]| {
    let parsed = match parse(line) {
        Ok(parsed) => parsed,
        Err(error) => {
            // The reason is logged, so it must stay short whatever the line is.
            assert!(error.to_string().len() < 1024, "{error}");
            return;
        }
    };

    assert!(line.trim_ascii_start().starts_with(b"{"), "only an object is a record");
    let mut zeroes = 0;
    // Fails only for numbers of unknown keys that no float holds, which `parse` never looks at.
    if let Ok(said) = serde_json::from_slice::<Value>(line) {
        assert_eq!(said["ticker"].as_str(), Some(parsed.record.ticker.as_str()));
        for (key, value, factor) in values(&parsed.record, Profile::V2026_04) {
            let float = said[key].as_f64();
            zeroes += u32::from(float.is_none());
            let expected = float.unwrap_or(0.0) * f64::from(factor);
            assert!((expected - value as f64).abs() <= 1.0, "{key}: expected about {expected}, got {value}");
        }
        assert_eq!(parsed.noticed.missing, zeroes);
    }
    assert!(parsed.noticed.missing as usize <= NUMBER_KEYS.len());

    let mut encoder = Encoder::new(EncoderOptions { zstd_level: -1 }).expect("memory for a zstd context");
    for profile in Profile::ALL {
        let mut record = parsed.record.clone();
        rescale(&mut record, profile);
        let message = decompress(encoder.encode(&record), 2 << 20).expect("what was just compressed");
        assert_eq!(Orderflow::decode(message.as_slice()).as_ref(), Ok(&record));
    }
});
