//! Can a settings file's `[[feeds]]` panic their reader, or pass it outside of their bounds?
#![no_main]

use std::time::Duration;

use flowcast::source::broker::feed_settings;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    // `symbols_file` names a file, which must not be one of this machine's devices.
    if input.contains("symbols_file") {
        return;
    }
    let Ok(mut settings) = toml::from_str::<toml::Table>(input) else { return };
    let Some(value) = settings.remove("feeds") else { return };
    match feed_settings::feeds(value) {
        Ok(feeds) => {
            for feed in feeds {
                let limits = &feed.limits;
                assert!((1..=64).contains(&feed.id.len()));
                assert!((1..=3).contains(&limits.connections) && (1..=10_000).contains(&limits.instruments));
                assert!((1..=3000).contains(&limits.batch) && limits.calls_per_second > 0.0);
                assert!(limits.timeout <= Duration::from_hours(1) && feed.recovery.backoff.base > Duration::ZERO);
                assert!(feed.recovery.backoff.base <= feed.recovery.backoff.cap);
                assert!(!feed.base_url.contains(['?', '@']) && !feed.ws_url.contains(['?', '@']));
            }
        }
        Err(error) => assert!(error.to_string().starts_with("feeds")),
    }
});
