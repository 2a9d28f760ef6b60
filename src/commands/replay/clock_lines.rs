//! What the replay resource answers, as text for a terminal.

use std::fmt::Write;

use serde_json::Value;

/// A value as text: without quotes, `-` for what is not known.
fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// `10x`, `max`, or `every 1000 ms`.
fn pace(clock: &Value) -> String {
    match (&clock["speed"], &clock["interval_ms"]) {
        (Value::Null, interval) => format!("every {} ms", word(interval)),
        (Value::String(max), _) => max.clone(),
        (speed, _) => format!("{speed}x"),
    }
}

fn percent(clock: &Value) -> String {
    clock["progress"].as_f64().map_or("-".to_owned(), |progress| format!("{:.1}%", progress * 100.0))
}

/// One line, for `--watch` and `tail`.
pub fn clock_line(clock: &Value) -> String {
    format!(
        "{:<8} {}  {:>6}  {}  record {}  epoch {}",
        word(&clock["state"]),
        word(&clock["data_time"]),
        percent(clock),
        pace(clock),
        word(&clock["record"]),
        word(&clock["epoch"]),
    )
}

/// Everything, a line each.
pub fn clock_text(clock: &Value) -> String {
    let range = &clock["range"];
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<10} {value}");
    };
    if let Some(session) = clock["session"].as_str() {
        row("session", session.to_owned());
    }
    let waiting = &clock["waiting_for"];
    let waits = if waiting.is_null() { String::new() } else { format!(" for {waiting} clients") };
    row("state", word(&clock["state"]) + &waits);
    let achieved = &clock["achieved_speed"];
    let achieved = if achieved.is_null() { String::new() } else { format!(", {achieved}x achieved") };
    row("pace", pace(clock) + &achieved);
    row("at", format!("{} ({}, record {})", word(&clock["data_time"]), percent(clock), word(&clock["record"])));
    row("range", format!("{} to {}", word(&range["first"]), word(&range["last"])));
    let dates: Vec<String> = range["dates"].as_array().into_iter().flatten().map(word).collect();
    let dates = if dates.len() > 3 {
        format!("{} to {} ({})", dates[0], dates[dates.len() - 1], dates.len())
    } else {
        dates.join(", ")
    };
    row("dates", dates);
    row("loop", word(&clock["loop"]));
    if !clock["max_gap_ms"].is_null() {
        row("max gap", format!("{} ms", clock["max_gap_ms"]));
    }
    if !clock["pause_at"].is_null() {
        row("pause at", word(&clock["pause_at"]));
    }
    row("clients", word(&clock["clients"]));
    row("tick", format!("{}, epoch {}, p99 {} us late", clock["tick"], clock["epoch"], clock["late_us_p99"]));
    text.truncate(text.trim_end().len());
    text
}

/// What a seek did beyond going where it was told to.
pub fn resolved_line(clock: &Value) -> Option<String> {
    let resolved = clock.get("resolved")?;
    let (asked, at) = (word(&resolved["asked"]), word(&resolved["data_time"]));
    match (resolved["clamped"].as_str(), resolved["in_gap"].as_bool()) {
        (Some("start"), _) => Some(format!("{asked} is before the first record: moved to {at}")),
        (Some("end"), _) => Some(format!("{asked} is after the last record: moved to {at}")),
        (_, Some(true)) => Some(format!("nothing was recorded at {asked}: the next record is of {at}")),
        _ => None,
    }
}

/// How far a load is.
pub fn job_line(job: &Value) -> String {
    let dates: Vec<String> = job["dates"].as_array().into_iter().flatten().map(word).collect();
    format!("{} {}: {} of {} files", word(&job["state"]), dates.join(", "), job["done"], job["total"])
}

/// A date that can be loaded.
pub fn date_line(date: &Value) -> String {
    let tickers: Vec<String> = date["tickers"].as_array().into_iter().flatten().map(word).collect();
    let shown = if tickers.len() > 8 { format!("{} tickers", tickers.len()) } else { tickers.join(" ") };
    let mark = if date["loaded"] == true { "*" } else { " " };
    let (first, last) = (word(&date["first"]), word(&date["last"]));
    format!("{mark} {}  {first} to {last}  {} files  {shown}", word(&date["date"]), date["files"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn clock() -> Value {
        json!({
            "state": "playing", "pace": "recorded", "speed": 10, "achieved_speed": 9.98, "interval_ms": null,
            "data_time": "2025-11-28T14:30:02Z", "record": 3602, "progress": 0.154,
            "range": {"from": "2025-11-28", "to": "2025-11-28", "dates": ["2025-11-28"],
                      "first": "2025-11-28T14:30:00Z", "last": "2025-11-28T21:00:00Z"},
            "loop": true, "max_gap_ms": null, "epoch": 4, "tick": 18211, "pause_at": null, "late_us_p99": 38, "clients": 5000,
        })
    }

    #[test]
    fn the_state_is_readable() {
        let line = "playing  2025-11-28T14:30:02Z   15.4%  10x  record 3602  epoch 4";
        assert_eq!(clock_line(&clock()), line);
        let text = clock_text(&clock());
        for row in [
            "state      playing",
            "pace       10x, 9.98x achieved",
            "at         2025-11-28T14:30:02Z (15.4%, record 3602)",
            "dates      2025-11-28",
            "tick       18211, epoch 4, p99 38 us late",
        ] {
            assert!(text.lines().any(|line| line == row), "{row} in\n{text}");
        }
        assert!(!text.contains("pause at") && !text.contains("max gap"), "{text}");
        let mut slow = clock();
        slow["speed"] = Value::Null;
        slow["interval_ms"] = 500.into();
        assert!(clock_line(&slow).contains("every 500 ms"));
    }

    #[test]
    fn a_seek_says_only_what_surprises() {
        let sought = |clamped: &str, in_gap: bool| {
            let resolved = json!({"asked": "A", "data_time": "B", "clamped": clamped, "in_gap": in_gap});
            resolved_line(&json!({ "resolved": resolved }))
        };
        assert_eq!(sought("none", false), None);
        assert_eq!(sought("none", true).unwrap(), "nothing was recorded at A: the next record is of B");
        assert_eq!(sought("end", false).unwrap(), "A is after the last record: moved to B");
        assert_eq!(resolved_line(&clock()), None);
    }
}
