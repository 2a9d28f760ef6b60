//! A change of the clock as JSON: the body of `PATCH /replay`, key by key (`docs/replay.md`, "Change it").

use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::change::{Change, MAX_STEP, Pace, Speed, Wanted};
use super::moment::Moment;
use super::moment_text::{MOMENTS, cut, cut_reason, duration};

/// The shortest interval that can be asked for.
const LEAST_INTERVAL: Duration = Duration::from_micros(10);

/// The shortest length that gaps can be cut to.
const LEAST_GAP: Duration = Duration::from_millis(1);

/// The longest interval, and the longest gap.
const MOST: Duration = Duration::from_hours(24);

/// Why a body is no change. Each says what was expected and what came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum ChangeError {
    /// Not JSON, not an object, or a key that is unknown or there twice.
    #[error("expected a JSON object such as {{\"state\":\"paused\"}}: {reason}")]
    NotAChange { reason: String },
    /// A value that its key cannot have.
    #[error("{key}: expected {expected}, got {got}")]
    BadValue { key: &'static str, expected: &'static str, got: String },
    /// A speed that is none; the text of `docs/replay.md`.
    #[error("{reason}")]
    BadSpeed { reason: String },
    /// A duration that is none, or outside of its range.
    #[error("{key}: {reason}")]
    BadDuration { key: &'static str, reason: String },
    /// Two paces.
    #[error("expected speed or interval, got both: interval publishes at a fixed pace, speed at the recorded one")]
    TwoPaces,
    /// Two places.
    #[error("expected seek or \"state\":\"stopped\", got both: stopped goes to the first record")]
    TwoPlaces,
}

/// The body, with every value as it came. `Some(Value::Null)` is a null that was written.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ChangeBody {
    #[serde(deserialize_with = "written")]
    state: Option<Value>,
    #[serde(deserialize_with = "written")]
    speed: Option<Value>,
    #[serde(deserialize_with = "written")]
    interval: Option<Value>,
    #[serde(deserialize_with = "written")]
    seek: Option<Value>,
    #[serde(deserialize_with = "written")]
    step: Option<Value>,
    #[serde(deserialize_with = "written")]
    pause_at: Option<Value>,
    #[serde(deserialize_with = "written", rename = "loop")]
    is_loop: Option<Value>,
    #[serde(deserialize_with = "written")]
    max_gap: Option<Value>,
}

fn written<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Change {
    /// Reads the body of a request. `is_strict` and `if_epoch` are not part of it.
    pub fn of_json(body: &[u8]) -> Result<Self, ChangeError> {
        // An array would be taken for the keys in their order.
        if body.trim_ascii_start().first() == Some(&b'[') {
            return Err(ChangeError::NotAChange { reason: "got an array".to_owned() });
        }
        let body: ChangeBody = serde_json::from_slice(body)
            .map_err(|error| ChangeError::NotAChange { reason: cut_reason(&error.to_string()) })?;
        if body.speed.is_some() && body.interval.is_some() {
            return Err(ChangeError::TwoPaces);
        }
        let pace = match (&body.speed, &body.interval) {
            (Some(speed), _) => Some(Pace::Recorded(self::speed(speed)?)),
            (None, Some(interval)) => Some(Pace::Interval(length("interval", interval, LEAST_INTERVAL)?)),
            (None, None) => None,
        };
        let change = Self {
            wanted: body.state.as_ref().map(wanted).transpose()?,
            pace,
            seek: body.seek.as_ref().map(|seek| moment("seek", seek)).transpose()?,
            step: body.step.as_ref().map(step).transpose()?,
            pause_at: body.pause_at.as_ref().map(|at| or_null(at, |at| moment("pause_at", at))).transpose()?,
            is_loop: body.is_loop.as_ref().map(boolean).transpose()?,
            max_gap: body
                .max_gap
                .as_ref()
                .map(|gap| or_null(gap, |gap| length("max_gap", gap, LEAST_GAP)))
                .transpose()?,
            is_strict: false,
            if_epoch: None,
        };
        match (change.wanted, change.seek) {
            (Some(Wanted::Stopped), Some(_)) => Err(ChangeError::TwoPlaces),
            _ => Ok(change),
        }
    }
}

fn refused<T>(key: &'static str, expected: &'static str, got: &Value) -> Result<T, ChangeError> {
    Err(ChangeError::BadValue { key, expected, got: cut(&got.to_string()) })
}

fn or_null<T>(value: &Value, parse: impl FnOnce(&Value) -> Result<T, ChangeError>) -> Result<Option<T>, ChangeError> {
    if value.is_null() { Ok(None) } else { parse(value).map(Some) }
}

fn wanted(value: &Value) -> Result<Wanted, ChangeError> {
    match value.as_str() {
        Some("playing") => Ok(Wanted::Playing),
        Some("paused") => Ok(Wanted::Paused),
        Some("stopped") => Ok(Wanted::Stopped),
        _ => refused("state", r#""playing", "paused" or "stopped""#, value),
    }
}

fn speed(value: &Value) -> Result<Speed, ChangeError> {
    let bad = |times: f64| ChangeError::BadSpeed { reason: Speed::expected(times, &cut(&value.to_string())) };
    match value {
        Value::String(text) if text == "max" => Ok(Speed::Max),
        Value::Number(number) => {
            let times = number.as_f64().unwrap_or(f64::NAN);
            Speed::times(times).ok_or_else(|| bad(times))
        }
        _ => Err(bad(f64::NAN)),
    }
}

fn length(key: &'static str, value: &Value, least: Duration) -> Result<Duration, ChangeError> {
    match value.as_str() {
        Some(text) => duration(text, least, MOST).map_err(|reason| ChangeError::BadDuration { key, reason }),
        None => refused(key, r#"a duration with a unit, such as "500ms" or "1m30s""#, value),
    }
}

fn moment(key: &'static str, value: &Value) -> Result<Moment, ChangeError> {
    let moment = match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(seconds) => seconds.as_f64().and_then(Moment::unix_seconds),
        Value::Object(keys) if keys.len() == 1 => keys.get("record").and_then(Value::as_u64).map(Moment::Record),
        _ => None,
    };
    moment.map_or_else(|| refused(key, MOMENTS, value), Ok)
}

fn step(value: &Value) -> Result<i64, ChangeError> {
    match value.as_i64() {
        Some(ticks) if ticks != 0 && (-MAX_STEP..=MAX_STEP).contains(&ticks) => Ok(ticks),
        _ => refused("step", "a whole number of ticks from -1000000 to 1000000, but not 0", value),
    }
}

fn boolean(value: &Value) -> Result<bool, ChangeError> {
    value.as_bool().map_or_else(|| refused("loop", "true or false", value), Ok)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use jiff::civil::Time;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn change(body: &Value) -> Result<Change, String> {
        Change::of_json(body.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_with_every_kind_of_value() {
        let empty = Change::default;
        let recorded = |speed| Change { pace: Some(Pace::Recorded(speed)), ..empty() };
        let seek = |moment| Change { seek: Some(moment), ..empty() };
        for (body, expected) in [
            (json!({}), empty()),
            (json!({"state": "playing"}), Change { wanted: Some(Wanted::Playing), ..empty() }),
            (json!({"state": "paused"}), Change { wanted: Some(Wanted::Paused), ..empty() }),
            (json!({"state": "stopped"}), Change { wanted: Some(Wanted::Stopped), ..empty() }),
            (json!({"speed": 1}), recorded(Speed::Times(1.0))),
            (json!({"speed": 0.01}), recorded(Speed::Times(0.01))),
            (json!({"speed": 100_000}), recorded(Speed::Times(100_000.0))),
            (json!({"speed": "max"}), recorded(Speed::Max)),
            (
                json!({"interval": "500ms"}),
                Change { pace: Some(Pace::Interval(Duration::from_millis(500))), ..empty() },
            ),
            (json!({"seek": "2025-11-28T14:30:00Z"}), seek(Moment::At(1_764_340_200_000))),
            (json!({"seek": 1_764_340_200}), seek(Moment::At(1_764_340_200_000))),
            (json!({"seek": 1_764_340_200.5}), seek(Moment::At(1_764_340_200_500))),
            (json!({"seek": "14:30"}), seek(Moment::TimeOfDay(Time::constant(14, 30, 0, 0)))),
            (json!({"seek": "+30s"}), seek(Moment::Offset(SignedDuration::from_secs(30)))),
            (json!({"seek": "-5m"}), seek(Moment::Offset(SignedDuration::from_secs(-300)))),
            (json!({"seek": "50%"}), seek(Moment::Share(0.5))),
            (json!({"seek": {"record": 7}}), seek(Moment::Record(7))),
            (json!({"step": -3}), Change { step: Some(-3), ..empty() }),
            (json!({"pause_at": "50%"}), Change { pause_at: Some(Some(Moment::Share(0.5))), ..empty() }),
            (json!({"pause_at": null}), Change { pause_at: Some(None), ..empty() }),
            (json!({"loop": false}), Change { is_loop: Some(false), ..empty() }),
            (json!({"max_gap": "2s"}), Change { max_gap: Some(Some(Duration::from_secs(2))), ..empty() }),
            (json!({"max_gap": null}), Change { max_gap: Some(None), ..empty() }),
        ] {
            assert_eq!(change(&body), Ok(expected), "{body}");
        }
        let several =
            change(&json!({"state": "playing", "speed": "max", "seek": "0%", "pause_at": "15:59:30"})).unwrap();
        assert!(
            several.wanted.is_some() && several.pace.is_some() && several.seek.is_some() && several.pause_at.is_some()
        );
    }

    #[test]
    fn a_bad_value_is_named_with_its_key_what_was_expected_and_what_came() {
        let speed = r#"expected a speed above 0 or "max", got"#;
        let range = r#"expected a speed from 0.01 to 100000 or "max", got"#;
        for (body, expected) in [
            (json!({"speed": 0}), format!("{speed} 0")),
            (json!({"speed": -1}), format!("{speed} -1")),
            (json!({"speed": "fast"}), format!("{speed} \"fast\"")),
            (json!({"speed": "NaN"}), format!("{speed} \"NaN\"")),
            (json!({"speed": null}), format!("{speed} null")),
            (json!({"speed": 1e308}), format!("{range} 1e+308")),
            (json!({"speed": 0.001}), format!("{range} 0.001")),
            (json!({"state": "fast"}), r#"state: expected "playing", "paused" or "stopped", got "fast""#.to_owned()),
            (
                json!({"step": 0}),
                "step: expected a whole number of ticks from -1000000 to 1000000, but not 0, got 0".to_owned(),
            ),
            (json!({"loop": 1}), "loop: expected true or false, got 1".to_owned()),
        ] {
            assert_eq!(change(&body), Err(expected), "{body}");
        }
        for (body, start, end) in [
            (json!({"step": 1.5}), "step: expected", "got 1.5"),
            (json!({"step": 1e308}), "step: expected", "got 1e+308"),
            (json!({"step": 1_000_001}), "step: expected", "got 1000001"),
            (json!({"step": "1"}), "step: expected", "got \"1\""),
            (json!({"interval": 1}), "interval: expected a duration with a unit", "got 1"),
            (json!({"interval": "0s"}), "interval: expected a duration with a unit", "got \"0s\""),
            (json!({"interval": null}), "interval: expected a duration with a unit", "got null"),
            (json!({"max_gap": "-2s"}), "max_gap: expected a duration with a unit", "got \"-2s\""),
            (json!({"seek": null}), "seek: expected a time such as", "got null"),
            (json!({"seek": "soon"}), "seek: expected a time such as", "got \"soon\""),
            (json!({"seek": 1e308}), "seek: expected a time such as", "got 1e+308"),
            (json!({"seek": {"record": -1}}), "seek: expected a time such as", r#"got {"record":-1}"#),
            (json!({"seek": {"record": 1, "of": 2}}), "seek: expected a time such as", r#"got {"record":1,"of":2}"#),
            (json!({"pause_at": []}), "pause_at: expected a time such as", "got []"),
            (json!({"sped": 1}), "expected a JSON object", "`max_gap` at line 1 column 7"),
        ] {
            let error = change(&body).unwrap_err();
            assert!(error.starts_with(start) && error.ends_with(end), "{body}: {error}");
        }
    }

    #[test]
    fn what_is_no_object_of_keys_is_refused() {
        for body in [
            "",
            "null",
            "[]",
            r#"["paused"]"#,
            "1",
            "\"paused\"",
            "{",
            r#"{"speed":NaN}"#,
            r#"{"speed":1e999}"#,
            r#"{"speed":1}{}"#,
            r#"{"speed":1,"speed":2}"#,
            "\u{feff}{}",
        ] {
            let error = Change::of_json(body.as_bytes()).unwrap_err();
            assert!(matches!(error, ChangeError::NotAChange { .. }), "{body}: {error}");
        }
        assert!(Change::of_json(&[b'{', 0xff, b'}']).is_err());
        assert_eq!(Change::of_json(br#"{"speed":1,"interval":"1s"}"#), Err(ChangeError::TwoPaces));
        assert_eq!(Change::of_json(br#"{"state":"stopped","seek":"0%"}"#), Err(ChangeError::TwoPlaces));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(|record| json!({ "record": record })),
            "[-+0-9:.%maxsh]{0,8}|playing|paused|stopped|max".prop_map(Value::from),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_in_range(
            values in proptest::collection::vec(
                (proptest::sample::select(vec!["state", "speed", "interval", "seek", "step", "pause_at", "loop", "max_gap", "x"]), any_value()),
                0..5,
            )
        ) {
            let body: serde_json::Map<String, Value> = values.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            let is_known = !body.contains_key("x");
            match change(&Value::from(body)) {
                Ok(change) => {
                    prop_assert!(is_known);
                    match change.pace {
                        Some(Pace::Recorded(Speed::Times(times))) => prop_assert!((Speed::LEAST..=Speed::MOST).contains(&times)),
                        Some(Pace::Interval(interval)) => prop_assert!((LEAST_INTERVAL..=MOST).contains(&interval)),
                        _ => {}
                    }
                    prop_assert!(change.step.is_none_or(|step| step != 0 && step.abs() <= MAX_STEP));
                    prop_assert!(change.max_gap.flatten().is_none_or(|gap| (LEAST_GAP..=MOST).contains(&gap)));
                }
                Err(error) => prop_assert!(error.contains("expected") && error.chars().count() < 700),
            }
        }
    }
}
