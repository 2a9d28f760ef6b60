//! What the resource of faults answers, as text for a terminal.

use serde_json::{Map, Value};

/// Keys of a fault that are no part of the plan, or stand first.
const FIGURES: [&str; 6] = ["number", "do", "in_force", "fired", "struck", "frames"];

/// The plan, and what it has done.
pub fn plan_text(answer: &Value) -> String {
    let mut lines = Vec::new();
    if answer["active"] == true {
        let (plan, seed, tick) = (&answer["plan"], &answer["seed"], &answer["tick"]);
        lines.push(format!("plan {plan} runs: seed {seed}, tick {tick}"));
        lines.extend(answer["fault"].as_array().into_iter().flatten().filter_map(Value::as_object).map(fault_line));
    } else {
        lines.push("no plan of faults runs".to_owned());
    }
    for (kind, struck) in answer["total"].as_object().into_iter().flatten() {
        lines.push(format!("since the start: {kind} {struck}"));
    }
    lines.join("\n")
}

/// One fault: its number, whether it is in force, what it says, what it did.
fn fault_line(fault: &Map<String, Value>) -> String {
    let figure = |name: &str| fault.get(name).cloned().unwrap_or_default();
    let mark = if figure("in_force") == true { "*" } else { " " };
    let said = fault.iter().filter(|(name, _)| !FIGURES.contains(&name.as_str()));
    let said: Vec<String> = said.map(|(name, value)| format!("{name}={}", word(value))).collect();
    let frames = match figure("frames").as_u64() {
        Some(frames @ 1..) => format!(", {frames} frames"),
        _ => String::new(),
    };
    let kind = word(&figure("do"));
    format!("{mark} {}  {kind} {}: {} struck{frames}", figure("number"), said.join(" "), figure("struck"))
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(parts) => {
            let parts: Vec<String> = parts.iter().map(|(name, value)| format!("{name}={}", word(value))).collect();
            format!("{{{}}}", parts.join(" "))
        }
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plan_is_a_line_for_each_fault() {
        let answer = json!({"active": true, "plan": 2, "seed": 7, "tick": 41, "total": {"reset": 12, "drop": 1}, "fault": [
            {"number": 1, "at": "10s", "who": {"share": 0.1}, "do": "reset", "in_force": false, "fired": 1, "struck": 12, "frames": 0},
            {"number": 2, "every": 5, "do": "drop", "in_force": true, "fired": 40, "struck": 1, "frames": 3},
        ]});
        let expected = "plan 2 runs: seed 7, tick 41\n  1  reset at=10s who={share=0.1}: 12 struck\n\
                        * 2  drop every=5: 1 struck, 3 frames\nsince the start: reset 12\nsince the start: drop 1";
        assert_eq!(plan_text(&answer), expected);
        assert_eq!(plan_text(&json!({"active": false, "plan": 0, "fault": [], "total": {}})), "no plan of faults runs");
    }
}
