//! Is a body of PATCH /replay or POST /replay/load, or a text of a moment, a speed or dates, ever a panic or outside of
//! its range?
//!
//! What is accepted is what the clock allows. What is refused is answered with a short text whatever came.
#![no_main]

use flowcast::replay::change::{Change, MAX_STEP, Pace, Speed};
use flowcast::replay::moment::{Moment, Span};
use flowcast::replay::wanted_dates::{MAX_DATES, WantedDates};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    match Change::of_json(body) {
        Ok(change) => check(&change),
        Err(error) => assert_short(&error.to_string()),
    }
    match WantedDates::of_json(body) {
        Ok(dates) => assert_eq!(dates.to_string().parse().as_ref(), Ok(&dates)),
        Err(error) => assert_short(&error.to_string()),
    }
    let Ok(text) = std::str::from_utf8(body) else { return };
    match text.parse::<Moment>() {
        Ok(moment) => drop(moment.at(0, Span { first: i64::MIN / 2, last: i64::MAX / 2 })),
        Err(error) => assert_short(&error.to_string()),
    }
    if let Ok(WantedDates::List(dates)) = text.parse() {
        assert!((1..=MAX_DATES).contains(&dates.len()));
    }
    if let Err(error) = text.parse::<Speed>() {
        assert_short(&error);
    }
});

fn check(change: &Change) {
    match change.pace {
        Some(Pace::Recorded(Speed::Times(times))) => assert!((Speed::LEAST..=Speed::MOST).contains(&times)),
        Some(Pace::Interval(interval)) => assert!(!interval.is_zero()),
        Some(Pace::Recorded(Speed::Max)) | None => {}
    }
    assert!(change.step.is_none_or(|step| step != 0 && step.abs() <= MAX_STEP));
    for moment in [change.seek, change.pause_at.flatten()].into_iter().flatten() {
        if let Moment::Share(share) = moment {
            assert!((0.0..=1.0).contains(&share));
        }
    }
}

fn assert_short(error: &str) {
    assert!(error.chars().count() <= 1000, "{error}");
}
