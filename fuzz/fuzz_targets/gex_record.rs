//! Is a gex line ever a panic, an endless walk, or a record that does not hold the rows that the line holds?
//!
//! serde_json reads the accepted line again: every row of `strikes` is in the record or counted as skipped. The
//! payload must decode to the record.
#![no_main]

use flowcast::wire::payload::gex::{Gex, parse};
use flowcast::wire::payload::{Encoder, EncoderOptions, decompress};
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
    // Fails only for numbers of unknown keys that no float holds, and for a key that stands there twice.
    if let Ok(line) = serde_json::from_slice::<Value>(line) {
        let rows = |key: &str| line[key].as_array().map_or(0, Vec::len);
        let kept =
            parsed.record.strikes.len() + parsed.record.max_priors.as_ref().map_or(0, |priors| priors.tuples.len());
        assert_eq!(kept + parsed.noticed.skipped_rows as usize, rows("strikes") + rows("max_priors"));
    }
    let mut encoder = Encoder::new(EncoderOptions { zstd_level: -1 }).expect("memory for a zstd context");
    let message = decompress(encoder.encode(&parsed.record), 2 << 20).expect("what was just compressed");
    assert_eq!(Gex::decode(message.as_slice()).as_ref(), Ok(&parsed.record));
});
