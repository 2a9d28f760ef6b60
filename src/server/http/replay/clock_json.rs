//! A clock as JSON: the body of `GET /replay` and what else names times (`docs/replay.md`, "What it says").

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::replay::change::{Pace, Speed};
use crate::replay::moment::{Resolved, Span};
use crate::replay::remote::Remote;
use crate::replay::replays::{LoadJob, LoadState};
use crate::replay::snapshot::{Epoch, Snapshot, State};

/// The body of `GET /replay`.
pub fn clock_json(clock: &Snapshot, clients: u64) -> Map<String, Value> {
    let span = clock.axis.span;
    let dates: Vec<String> = clock.axis.dates.iter().map(ToString::to_string).collect();
    let (pace, speed, interval_ms) = match clock.pace {
        Pace::Interval(interval) => ("interval", Value::Null, number(interval.as_secs_f64() * 1000.0)),
        Pace::Recorded(Speed::Times(times)) => ("recorded", number(times), Value::Null),
        Pace::Recorded(Speed::Max) => ("recorded", "max".into(), Value::Null),
    };
    let body = json!({
        "state": clock.state.name(),
        "pace": pace,
        "speed": speed,
        "achieved_speed": clock.achieved_speed.map(|speed| number((speed * 1000.0).round() / 1000.0)),
        "interval_ms": interval_ms,
        "data_time": time(clock.data_time),
        "record": clock.record,
        "progress": (span.progress(clock.data_time) * 1000.0).round() / 1000.0,
        "range": {
            "from": dates.first(),
            "to": dates.last(),
            "dates": dates,
            "first": time(span.first),
            "last": time(span.last),
        },
        "loop": clock.is_loop,
        "max_gap_ms": clock.max_gap.map(|gap| number(gap.as_secs_f64() * 1000.0)),
        "epoch": clock.epoch,
        "tick": clock.tick,
        "pause_at": clock.pause_at.map(time),
        "late_us_p99": clock.late_us_p99,
        "clients": clients,
    });
    let Value::Object(mut body) = body else { unreachable!("written as an object") };
    if let State::Waiting { clients } = clock.state {
        body.insert("waiting_for".to_owned(), clients.into());
    }
    body
}

/// The clock of a session: the same, with its name.
pub fn session_json(name: &str, remote: &Remote) -> Map<String, Value> {
    let mut body = Map::from_iter([("session".to_owned(), name.into())]);
    body.extend(clock_json(&remote.snapshot(), remote.seats().taken() as u64));
    body
}

/// What became of a seek.
pub fn resolved_json(resolved: &Resolved) -> Value {
    json!({
        "asked": time(resolved.asked),
        "data_time": time(resolved.data_time),
        "clamped": resolved.clamped.name(),
        "in_gap": resolved.in_gap,
    })
}

/// The data of `event: epoch`.
pub fn epoch_json(epoch: &Epoch) -> Value {
    json!({ "epoch": epoch.number, "cause": epoch.cause.name(), "from": time(epoch.from), "to": time(epoch.to) })
}

/// The answer to a load.
pub fn job_json(job: &LoadJob) -> Value {
    let mut body = json!({
        "job": job.id.to_string(),
        "state": state_name(&job.state),
        "done": job.done,
        "total": job.total,
        "dates": job.dates.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    if let LoadState::Failed(reason) = &job.state {
        body["error"] = reason.as_str().into();
    }
    body
}

/// One word for how far a load is.
pub const fn state_name(state: &LoadState) -> &'static str {
    match state {
        LoadState::Loading => "loading",
        LoadState::Loaded => "loaded",
        LoadState::Failed(_) => "failed",
    }
}

/// `{"first":…,"last":…}`, or null.
pub fn span_json(span: Option<Span>) -> Value {
    span.map_or(Value::Null, |span| json!({ "first": time(span.first), "last": time(span.last) }))
}

/// A time of the records: RFC 3339 in UTC, with milliseconds only if there are any.
pub fn time(unix_ms: i64) -> String {
    Timestamp::from_millisecond(unix_ms).map_or_else(|_| unix_ms.to_string(), |time| time.to_string())
}

/// `1` rather than `1.0`.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { (value as i64).into() } else { value.into() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use jiff::civil::date;

    use super::*;
    use crate::replay::snapshot::Axis;

    fn clock() -> Snapshot {
        let span = Span { first: 1_764_340_200_000, last: 1_764_363_600_000 };
        Snapshot {
            state: State::Playing,
            pace: Pace::Recorded(Speed::Times(1.0)),
            achieved_speed: Some(0.998_04),
            data_time: 1_764_343_802_000,
            record: 3602,
            axis: Arc::new(Axis { dates: vec![date(2025, 11, 28)], span }),
            is_loop: true,
            max_gap: None,
            epoch: 4,
            tick: 18_211,
            pause_at: None,
            late_us_p99: 38,
        }
    }

    #[test]
    fn the_body_has_the_documented_keys_in_their_order() {
        let body = serde_json::to_string(&clock_json(&clock(), 5000)).unwrap();
        assert_eq!(
            body,
            r#"{"state":"playing","pace":"recorded","speed":1,"achieved_speed":0.998,"interval_ms":null,"#.to_owned()
                + r#""data_time":"2025-11-28T15:30:02Z","record":3602,"progress":0.154,"#
                + r#""range":{"from":"2025-11-28","to":"2025-11-28","dates":["2025-11-28"],"first":"2025-11-28T14:30:00Z","last":"2025-11-28T21:00:00Z"},"#
                + r#""loop":true,"max_gap_ms":null,"epoch":4,"tick":18211,"pause_at":null,"late_us_p99":38,"clients":5000}"#
        );
    }

    #[test]
    fn an_interval_has_no_speed_and_a_clock_that_waits_says_for_how_many() {
        let mut clock = clock();
        clock.pace = Pace::Interval(Duration::from_micros(1500));
        clock.state = State::Waiting { clients: 7 };
        clock.max_gap = Some(Duration::from_secs(2));
        clock.pause_at = Some(1_764_343_802_250);
        let body = Value::from(clock_json(&clock, 0));
        assert_eq!(body["speed"], Value::Null);
        assert_eq!((&body["interval_ms"], &body["max_gap_ms"]), (&json!(1.5), &json!(2000)));
        assert_eq!((&body["state"], &body["waiting_for"]), (&json!("waiting"), &json!(7)));
        assert_eq!(body["pause_at"], "2025-11-28T15:30:02.25Z");
    }
}
