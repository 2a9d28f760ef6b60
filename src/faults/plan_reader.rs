//! Reads a plan from TOML or JSON, and refuses what could not work: key by key, with the number of the fault.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::fault_plan::{
    FaultAction, FaultClass, FaultKind, FaultPlan, MAX_FAULTS, NegotiateFault, PlannedFault, STREAMS_NAME, Trigger, Who,
};
use super::glob::{Glob, MAX_GLOB};
use super::plan_moment::{PlanMoment, duration_ms};

/// Bytes of the longest plan.
pub const MAX_PLAN: usize = 64 << 10;

/// Bytes of the longest reason in a close frame (RFC 6455 §5.5).
const MAX_REASON: usize = 123;

/// Characters of a value that an error shows.
const SHOWN: usize = 64;

/// The most pings of a flood.
const MAX_PINGS: u64 = 10_000;

/// The longest time that an answer or a frame is held, ms.
const MAX_HOLD_MS: u64 = 300_000;

/// How a plan is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanSyntax {
    /// `seed = 7`, `[[fault]]`
    Toml,
    /// `{"seed":7,"fault":[…]}`
    Json,
}

/// Why a plan is refused. Nothing of it is executed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum PlanError {
    /// Too long.
    #[error("expected a plan of at most {MAX_PLAN} bytes, got {actual}")]
    TooLong { actual: usize },
    /// Not UTF-8, not TOML, not JSON.
    #[error("expected a plan of faults as {syntax}: {reason}")]
    Unreadable { syntax: &'static str, reason: String },
    /// A key outside of the faults.
    #[error("unknown key {key:?}; a plan has seed and fault")]
    UnknownKey { key: String },
    /// A value outside of the faults.
    #[error("{key}: expected {expected}, got {got}")]
    BadValue { key: &'static str, expected: &'static str, got: String },
    /// Too many.
    #[error("expected at most {MAX_FAULTS} faults, got {actual}")]
    TooMany { actual: usize },
    /// One of the faults.
    #[error("fault {number}: {reason}")]
    Fault { number: usize, reason: FaultError },
}

/// What is wrong with a fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum FaultError {
    /// A value that its key cannot have, or none where one must be.
    #[error("{key}: expected {expected}, got {got}")]
    BadValue { key: String, expected: String, got: String },
    /// A key that it does not take.
    #[error("unknown key {key:?}; {kind} takes {takes}")]
    UnknownKey { key: String, kind: &'static str, takes: String },
    /// Values that do not fit together, or cannot have an effect.
    #[error("{reason}")]
    Misfit { reason: String },
}

impl FaultPlan {
    /// Reads a plan.
    pub fn read(bytes: &[u8], syntax: PlanSyntax) -> Result<Self, PlanError> {
        if bytes.len() > MAX_PLAN {
            return Err(PlanError::TooLong { actual: bytes.len() });
        }
        let (name, read): (_, Result<Value, String>) = match syntax {
            PlanSyntax::Json => ("JSON", serde_json::from_slice(bytes).map_err(|error| error.to_string())),
            PlanSyntax::Toml => ("TOML", of_toml(bytes)),
        };
        let value = read.map_err(|reason| PlanError::Unreadable { syntax: name, reason: cut(&reason, 4 * SHOWN) })?;
        Self::of_value(value)
    }

    fn of_value(value: Value) -> Result<Self, PlanError> {
        let Value::Object(mut plan) = value else {
            return Err(PlanError::BadValue { key: "plan", expected: "an object", got: shown(&value) });
        };
        let seed = match plan.remove("seed") {
            None => 0,
            Some(value) => value.as_u64().ok_or_else(|| PlanError::BadValue {
                key: "seed",
                expected: "an integer from 0 on",
                got: shown(&value),
            })?,
        };
        let faults = match plan.remove("fault") {
            None => Vec::new(),
            Some(Value::Array(faults)) => faults,
            Some(other) => {
                let expected = "a list of faults: [[fault]] in TOML";
                return Err(PlanError::BadValue { key: "fault", expected, got: shown(&other) });
            }
        };
        if let Some(key) = plan.keys().next() {
            return Err(PlanError::UnknownKey { key: cut(key, SHOWN) });
        }
        if faults.len() > MAX_FAULTS {
            return Err(PlanError::TooMany { actual: faults.len() });
        }
        let numbered = faults.into_iter().enumerate();
        let read = numbered
            .map(|(at, fault)| fault_of(fault).map_err(|reason| PlanError::Fault { number: at + 1, reason }))
            .collect::<Result<_, _>>()?;
        Ok(Self { seed, faults: read })
    }
}

fn of_toml(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        format!("line {line}: {}", error.message())
    })
}

/// The keys of a fault; each is taken once.
struct Keys {
    left: Map<String, Value>,
    taken: Vec<&'static str>,
}

impl Keys {
    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.taken.push(key);
        self.left.remove(key)
    }

    fn take_as<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, FaultError> {
        self.take(key).map(|value| read(&value).ok_or_else(|| bad(key, expected, &shown(&value)))).transpose()
    }

    fn moment(&mut self, key: &'static str) -> Result<Option<PlanMoment>, FaultError> {
        self.take_as(key, PlanMoment::EXPECTED, PlanMoment::of_json)
    }

    /// A length of time: above 0.
    fn length(&mut self, key: &'static str) -> Result<Option<PlanMoment>, FaultError> {
        let expected = format!("{} above 0", PlanMoment::EXPECTED);
        self.take_as(key, &expected, |value| PlanMoment::of_json(value).filter(|length| !length.is_zero()))
    }

    /// How long something is held, ms.
    fn hold_ms(&mut self, key: &'static str, least: u64) -> Result<Option<u64>, FaultError> {
        let expected = if least > 0 {
            "a duration with a unit, above 0 and at most 5m"
        } else {
            "a duration with a unit, at most 5m"
        };
        let range = least..=MAX_HOLD_MS;
        self.take_as(key, expected, |value| duration_ms(value.as_str()?).filter(|ms| range.contains(ms)))
    }

    fn status(&mut self) -> Result<Option<u16>, FaultError> {
        let read = |value: &Value| value.as_u64().filter(|code| (400..=599).contains(code)).map(|code| code as u16);
        self.take_as("status", "an HTTP status from 400 to 599", read)
    }

    fn retry_after_ms(&mut self) -> Result<Option<u64>, FaultError> {
        self.take_as("retry-after", "a duration with a unit, such as \"5s\"", |value| duration_ms(value.as_str()?))
    }

    fn probability(&mut self, key: &'static str) -> Result<Option<f64>, FaultError> {
        let read = |value: &Value| value.as_f64().filter(|number| *number > 0.0 && *number <= 1.0);
        self.take_as(key, "a number above 0 and at most 1", read)
    }

    fn glob(&mut self, key: &'static str) -> Result<Option<Glob>, FaultError> {
        let expected = format!("a pattern of 1 to {MAX_GLOB} characters");
        self.take_as(key, &expected, |value| Glob::new(value.as_str()?))
    }

    /// Nothing may be left.
    fn finish(self, kind: &'static str) -> Result<(), FaultError> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(key) => Err(FaultError::UnknownKey { key: cut(key, SHOWN), kind, takes: self.taken.join(", ") }),
        }
    }
}

fn fault_of(value: Value) -> Result<PlannedFault, FaultError> {
    let Value::Object(given) = value else { return Err(bad("fault", "a table", &shown(&value))) };
    let mut keys = Keys { left: given.clone(), taken: Vec::new() };
    let kind = match keys.take("do") {
        Some(Value::String(name)) => {
            FaultKind::of_name(&name).ok_or_else(|| bad_kind(&format!("{:?}", cut(&name, SHOWN))))
        }
        Some(other) => Err(bad_kind(&shown(&other))),
        None => Err(bad_kind("nothing")),
    }?;
    let trigger = trigger(&mut keys, kind)?;
    let who = match keys.take("who") {
        None => Who::default(),
        Some(Value::Object(who)) => who_of(who)?,
        Some(other) => return Err(bad("who", "a table such as { share = 0.1 }", &shown(&other))),
    };
    let (lasts, times) = lasting(&mut keys, kind, trigger.chance.is_some())?;
    let action = action(&mut keys, kind, lasts)?;
    keys.finish(kind.name())?;
    let fault = PlannedFault { trigger, who, action, lasts, times, given };
    check_trigger(&fault)?;
    check_who(&fault)?;
    Ok(fault)
}

fn trigger(keys: &mut Keys, kind: FaultKind) -> Result<Trigger, FaultError> {
    let trigger = Trigger {
        at: keys.moment("at")?,
        every: keys.length("every")?,
        chance: keys.probability("chance")?,
        until: keys.length("until")?,
    };
    if trigger.at.is_none() && trigger.every.is_none() && trigger.chance.is_none() {
        return misfit("expected at, every or chance: when does it fire?".to_owned());
    }
    if trigger.chance.is_some() && kind == FaultKind::ExpireToken {
        return misfit("chance: expire-token takes at or every".to_owned());
    }
    Ok(trigger)
}

fn who_of(who: Map<String, Value>) -> Result<Who, FaultError> {
    let mut keys = Keys { left: who, taken: Vec::new() };
    let connection = |value: &Value| Uuid::try_parse(value.as_str()?).ok();
    let who = Who {
        share: keys.probability("share")?,
        key: keys.glob("key")?,
        group: keys.glob("group")?,
        connection: keys.take_as("connection", "a connection id, as in the message connected", connection)?,
        hub: keys.glob("hub")?,
    };
    keys.finish("who")?;
    Ok(who)
}

/// How long, and how often for each client.
fn lasting(
    keys: &mut Keys,
    kind: FaultKind,
    has_chance: bool,
) -> Result<(Option<PlanMoment>, Option<u32>), FaultError> {
    let count = |value: &Value| value.as_u64().and_then(|times| u32::try_from(times).ok()).filter(|times| *times > 0);
    let of_moment = matches!(kind, FaultKind::Reset | FaultKind::ResetMidFrame | FaultKind::Close);
    let lasts = if of_moment || kind == FaultKind::ExpireToken { None } else { keys.length("for")? };
    let counts = match kind.class() {
        FaultClass::Frames => kind != FaultKind::Silence,
        FaultClass::Acks | FaultClass::Requests => true,
        FaultClass::Connection => kind == FaultKind::ExpireToken,
    };
    let times = if counts { keys.take_as("times", "an integer from 1 on", count)? } else { None };
    let lasts = match (kind, kind.class()) {
        (FaultKind::Stall | FaultKind::Silence, _) if lasts.is_none() => {
            return Err(bad("for", &format!("how long the {} lasts", kind.name()), "nothing"));
        }
        (_, FaultClass::Frames) | (FaultKind::PingFlood, _) => lasts.or(Some(PlanMoment::Ticks(1))),
        (_, FaultClass::Acks | FaultClass::Requests) if lasts.is_none() && times.is_none() && !has_chance => {
            return misfit(format!("expected for or times: how long does {} last?", kind.name()));
        }
        _ => lasts,
    };
    Ok((lasts, if kind == FaultKind::ExpireToken { times.or(Some(1)) } else { times }))
}

fn action(keys: &mut Keys, kind: FaultKind, lasts: Option<PlanMoment>) -> Result<FaultAction, FaultError> {
    let by_ms = |keys: &mut Keys| {
        let by_ms = keys.hold_ms("by", 1)?;
        by_ms.ok_or_else(|| bad("by", "a duration with a unit", "nothing"))
    };
    Ok(match kind {
        FaultKind::Reset => FaultAction::Reset,
        FaultKind::ResetMidFrame => FaultAction::ResetMidFrame,
        FaultKind::Close => close(keys)?,
        FaultKind::Stall => match lasts {
            Some(PlanMoment::Ms(for_ms)) => FaultAction::Stall { for_ms },
            _ => {
                return Err(bad("for", "a duration with a unit: a stall ends by the time of day", "a number of ticks"));
            }
        },
        FaultKind::Delay => {
            FaultAction::Delay { by_ms: by_ms(keys)?, jitter_ms: keys.hold_ms("jitter", 0)?.unwrap_or(0) }
        }
        FaultKind::Drop => FaultAction::Drop,
        FaultKind::Duplicate => FaultAction::Duplicate,
        FaultKind::Reorder => FaultAction::Reorder,
        FaultKind::Corrupt => FaultAction::Corrupt,
        FaultKind::Truncate => FaultAction::Truncate,
        FaultKind::Split => FaultAction::Split,
        FaultKind::Silence => FaultAction::Silence,
        FaultKind::RefuseUpgrade => {
            FaultAction::RefuseUpgrade { status: keys.status()?.unwrap_or(503), retry_after_ms: keys.retry_after_ms()? }
        }
        FaultKind::RefuseNegotiate => FaultAction::RefuseNegotiate(negotiate(keys)?),
        FaultKind::RefuseRecovery => FaultAction::RefuseRecovery,
        FaultKind::ExpireToken => FaultAction::ExpireToken,
        FaultKind::NoAck => FaultAction::NoAck,
        FaultKind::LateAck => FaultAction::LateAck { by_ms: by_ms(keys)? },
        FaultKind::PingFlood => {
            let expected = format!("an integer from 1 to {MAX_PINGS}");
            let read = |value: &Value| value.as_u64().filter(|count| (1..=MAX_PINGS).contains(count));
            FaultAction::PingFlood { count: keys.take_as("count", &expected, read)?.unwrap_or(1000) as u32 }
        }
    })
}

fn close(keys: &mut Keys) -> Result<FaultAction, FaultError> {
    // RFC 6455 §7.4: 1004 to 1006 and 1015 are never sent, 1016 to 2999 are reserved.
    let is_sent = |code: &u64| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    let code =
        keys.take_as("code", "a close code that may be sent: 1000 to 1003, 1007 to 1014, 3000 to 4999", |value| {
            value.as_u64().filter(is_sent).map(|code| code as u16)
        })?;
    let reason = keys.take_as("reason", &format!("a text of at most {MAX_REASON} bytes"), |value| {
        value.as_str().filter(|text| text.len() <= MAX_REASON).map(Box::from)
    })?;
    Ok(FaultAction::Close { code: code.unwrap_or(1011), reason: reason.unwrap_or_else(|| "fault on demand".into()) })
}

fn negotiate(keys: &mut Keys) -> Result<NegotiateFault, FaultError> {
    let slow_ms = keys.hold_ms("slow", 1)?;
    let (status, retry_after_ms) = (keys.status()?, keys.retry_after_ms()?);
    match slow_ms {
        Some(_) if status.is_some() || retry_after_ms.is_some() => {
            misfit("slow: a slow negotiate is not refused; leave status and retry-after out".to_owned())
        }
        Some(by_ms) => Ok(NegotiateFault::Slow { by_ms }),
        None => Ok(NegotiateFault::Refused { status: status.unwrap_or(429), retry_after_ms }),
    }
}

fn check_trigger(fault: &PlannedFault) -> Result<(), FaultError> {
    let Trigger { at, every, chance, until } = &fault.trigger;
    if every.is_some() && chance.is_some() {
        return misfit("expected every or chance, got both".to_owned());
    }
    if until.is_some() && every.is_none() && chance.is_none() {
        return misfit("until: expected with every or chance only; a fault that fires once has for".to_owned());
    }
    if let (Some(at), Some(every)) = (at, every)
        && at.exceeds(*every).is_none()
    {
        return misfit("at and every: expected two durations or two numbers of ticks, got one of each".to_owned());
    }
    if let (Some(lasts), Some(every)) = (&fault.lasts, every)
        && lasts.exceeds(*every) == Some(true)
    {
        return misfit("for: expected at most every, or it would never end".to_owned());
    }
    let draws_each_tick = chance.is_some() && !fault.draws_each();
    if draws_each_tick && !matches!(fault.action, FaultAction::Stall { .. }) && fault.given.contains_key("for") {
        return misfit("for: a chance is drawn at each tick for that tick; take at or every for more".to_owned());
    }
    Ok(())
}

/// Refuses what could not strike anybody.
fn check_who(fault: &PlannedFault) -> Result<(), FaultError> {
    let (kind, who) = (fault.action.kind(), &fault.who);
    if kind == FaultKind::Silence && who.group.is_none() {
        return misfit("who: silence is of a group: expected who = { group = \"…\" }".to_owned());
    }
    if who.hub.as_ref().is_some_and(|hub| hub.is_exactly(STREAMS_NAME)) && !kind.is_for_streams() {
        return misfit(format!("who: hub: {} cannot strike clients of /ws", kind.name()));
    }
    let is_request = kind.class() == FaultClass::Requests || kind == FaultKind::ExpireToken;
    if is_request && who.group.is_some() {
        return misfit(format!("who: group: {} strikes clients that are in no group yet", kind.name()));
    }
    if is_request && who.connection.is_some() && kind != FaultKind::RefuseRecovery {
        return misfit(format!("who: connection: {} strikes clients that have no connection yet", kind.name()));
    }
    Ok(())
}

fn bad(key: &str, expected: &str, got: &str) -> FaultError {
    FaultError::BadValue { key: key.to_owned(), expected: expected.to_owned(), got: got.to_owned() }
}

fn bad_kind(got: &str) -> FaultError {
    let names = FaultKind::ALL.map(FaultKind::name).join(", ");
    bad("do", &format!("one of {names}"), got)
}

fn misfit<T>(reason: String) -> Result<T, FaultError> {
    Err(FaultError::Misfit { reason })
}

fn shown(value: &Value) -> String {
    cut(&value.to_string(), SHOWN)
}

fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn toml_plan(text: &str) -> Result<FaultPlan, String> {
        FaultPlan::read(text.as_bytes(), PlanSyntax::Toml).map_err(|error| error.to_string())
    }

    /// What is said about a plan of one fault.
    fn refused(fault: &str) -> String {
        toml_plan(&format!("[[fault]]\n{fault}")).expect_err(fault)
    }

    fn read(fault: &str) -> PlannedFault {
        toml_plan(&format!("[[fault]]\n{fault}")).unwrap_or_else(|error| panic!("{fault}: {error}")).faults[0].clone()
    }

    #[test]
    fn toml_and_json_of_the_same_tree_are_the_same_plan() {
        let toml = "seed = 7\n[[fault]]\nat = \"10s\"\nwho = { share = 0.1, key = \"k*\" }\ndo = \"reset\"\n\
                    [[fault]]\nevery = 5\nfor = 2\ndo = \"delay\"\nby = \"100ms\"\n";
        let json = json!({"seed": 7, "fault": [
            {"at": "10s", "who": {"share": 0.1, "key": "k*"}, "do": "reset"},
            {"every": 5, "for": 2, "do": "delay", "by": "100ms"},
        ]});
        let of_json = FaultPlan::read(json.to_string().as_bytes(), PlanSyntax::Json).unwrap();
        assert_eq!(toml_plan(toml).unwrap(), of_json);
        assert_eq!(of_json.seed, 7);
        assert_eq!(of_json.faults[0].trigger.at, Some(PlanMoment::Ms(10_000)));
        assert_eq!(of_json.faults[1].action, FaultAction::Delay { by_ms: 100, jitter_ms: 0 });
        let hidden = json!(of_json.faults_json(false));
        assert_eq!((&hidden[0]["who"]["key"], &hidden[0]["at"]), (&json!("***"), &json!("10s")));
        assert_eq!(json!({"seed": 7, "fault": of_json.faults_json(true)}), json, "and can be put again");
    }

    #[test]
    fn an_empty_plan_has_no_faults() {
        assert_eq!(toml_plan("").unwrap(), FaultPlan { seed: 0, faults: Box::default() });
    }

    #[test]
    fn every_kind_can_be_ordered_and_has_its_defaults() {
        let of = |kind: &str, more: &str| read(&format!("at = 1\ndo = \"{kind}\"\n{more}"));
        let mut seen = 0;
        for kind in FaultKind::ALL {
            let more = match kind {
                FaultKind::Silence => "for = 3\nwho = { group = \"*\" }",
                FaultKind::Delay => "by = \"1s\"",
                FaultKind::LateAck => "by = \"1s\"\ntimes = 1",
                FaultKind::Stall
                | FaultKind::NoAck
                | FaultKind::RefuseUpgrade
                | FaultKind::RefuseNegotiate
                | FaultKind::RefuseRecovery => "for = \"1s\"",
                _ => "",
            };
            assert_eq!(of(kind.name(), more).action.kind(), kind);
            seen += 1;
        }
        assert_eq!(seen, 19);
        let close = FaultAction::Close { code: 1011, reason: "fault on demand".into() };
        assert_eq!(of("close", "").action, close);
        assert_eq!(of("drop", "").lasts, Some(PlanMoment::Ticks(1)));
        assert_eq!(of("ping-flood", "").action, FaultAction::PingFlood { count: 1000 });
        assert_eq!(of("expire-token", "").times, Some(1));
        let refused = NegotiateFault::Refused { status: 429, retry_after_ms: None };
        assert_eq!(of("refuse-negotiate", "times = 2").action, FaultAction::RefuseNegotiate(refused));
        let slow = NegotiateFault::Slow { by_ms: 3000 };
        assert_eq!(of("refuse-negotiate", "times = 2\nslow = \"3s\"").action, FaultAction::RefuseNegotiate(slow));
        let upgrade = FaultAction::RefuseUpgrade { status: 503, retry_after_ms: Some(5000) };
        assert_eq!(of("refuse-upgrade", "times = 1\nretry-after = \"5s\"").action, upgrade);
    }

    #[test]
    fn what_is_wrong_is_said_with_the_number_of_the_fault_and_the_key() {
        let first = "[[fault]]\nat = 1\ndo = \"reset\"\n";
        let second = toml_plan(&format!("{first}[[fault]]\nat = \"soon\"\ndo = \"reset\"\n")).unwrap_err();
        assert_eq!(
            second,
            "fault 2: at: expected a duration with a unit such as \"10s\", or a number of ticks, got \"soon\""
        );
        for (fault, said) in [
            ("do = \"reset\"", "expected at, every or chance"),
            ("at = 1", "do: expected one of reset, reset-mid-frame"),
            ("at = 1\ndo = \"explode\"", "got \"explode\""),
            ("at = 1\ndo = \"reset\"\ncode = 1000", "unknown key \"code\"; reset takes do, at, every"),
            ("at = 1\ndo = \"close\"\ncode = 1006", "code: expected a close code that may be sent"),
            ("at = 1\ndo = \"reset\"\nfor = 3", "unknown key \"for\""),
            ("at = 1\ndo = \"stall\"", "for: expected how long the stall lasts, got nothing"),
            ("at = 1\ndo = \"stall\"\nfor = 3", "for: expected a duration with a unit"),
            ("at = 1\ndo = \"delay\"", "by: expected a duration with a unit, got nothing"),
            ("at = 1\ndo = \"delay\"\nby = \"1h\"", "by: expected a duration with a unit, above 0 and at most 5m"),
            ("at = 1\ndo = \"drop\"\ntimes = 0", "times: expected an integer from 1 on, got 0"),
            ("at = 1\ndo = \"drop\"\nwho = { share = 1.5 }", "share: expected a number above 0 and at most 1, got 1.5"),
            ("at = 1\ndo = \"drop\"\nwho = { name = \"x\" }", "unknown key \"name\"; who takes share, key"),
            ("at = 1\ndo = \"drop\"\nwho = { connection = \"x\" }", "connection: expected a connection id"),
            ("at = 1\ndo = \"drop\"\nwho = 3", "who: expected a table such as"),
            ("at = 1\nevery = \"1s\"\ndo = \"drop\"", "at and every: expected two durations"),
            ("every = 2\nfor = 3\ndo = \"drop\"", "for: expected at most every"),
            ("every = 2\nchance = 0.1\ndo = \"drop\"", "expected every or chance, got both"),
            ("at = 2\nuntil = 3\ndo = \"drop\"", "until: expected with every or chance only"),
            ("chance = 0.1\nfor = 3\ndo = \"drop\"", "for: a chance is drawn at each tick"),
            ("at = 1\nfor = 3\ndo = \"silence\"", "silence is of a group"),
            ("at = 1\ndo = \"no-ack\"", "expected for or times: how long does no-ack last?"),
            ("at = 1\ntimes = 1\ndo = \"no-ack\"\nwho = { hub = \"ws\" }", "no-ack cannot strike clients of /ws"),
            ("at = 1\ntimes = 1\ndo = \"refuse-upgrade\"\nwho = { group = \"*\" }", "in no group yet"),
            ("at = 1\ndo = \"ping-flood\"\ncount = 10001", "count: expected an integer from 1 to 10000, got 10001"),
            ("at = 1\ntimes = 1\ndo = \"refuse-negotiate\"\nslow = \"1s\"\nstatus = 500", "slow: a slow negotiate"),
            ("chance = 0.5\ndo = \"expire-token\"", "chance: expire-token takes at or every"),
        ] {
            let refused = refused(fault);
            assert!(refused.starts_with("fault 1: ") && refused.contains(said), "{fault}: {refused}");
        }
        for (plan, said) in [
            ("sed = 1", "unknown key \"sed\"; a plan has seed and fault"),
            ("seed = -1", "seed: expected an integer from 0 on, got -1"),
            ("fault = 1", "fault: expected a list of faults"),
            ("[[fault]", "expected a plan of faults as TOML: line 1"),
            ("seed = 1\nseed = 2", "line 2"),
        ] {
            let refused = toml_plan(plan).unwrap_err();
            assert!(refused.contains(said), "{plan}: {refused}");
        }
        let many = "[[fault]]\nat = 1\ndo = \"reset\"\n".repeat(65);
        assert_eq!(toml_plan(&many).unwrap_err(), "expected at most 64 faults, got 65");
        assert!(toml_plan(&"#".repeat(MAX_PLAN + 1)).unwrap_err().contains("65536 bytes, got 65537"));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused_in_a_few_words(text in "\\PC{0,80}", key in "[a-z-]{1,8}", number in any::<i64>()) {
            let plans = [
                text.clone(),
                format!("[[fault]]\n{key} = {number}\n"),
                format!("[[fault]]\nat = {number}\ndo = \"drop\"\n"),
                format!("[[fault]]\nevery = 1\ndo = \"{key}\"\n"),
            ];
            for plan in plans {
                for syntax in [PlanSyntax::Toml, PlanSyntax::Json] {
                    if let Err(error) = FaultPlan::read(plan.as_bytes(), syntax) {
                        prop_assert!(error.to_string().len() < 1000, "{}", error);
                    }
                }
            }
        }

        #[test]
        fn a_plan_that_was_read_is_read_again_from_what_it_shows(
            seed in 0..=i64::MAX as u64, at in 0..1000u64, thousandths in 1..=1000u32, kind in 0..19usize,
        ) {
            let kind = FaultKind::ALL[kind].name();
            // Not any float: serde_json reads some back as their neighbours.
            let share = f64::from(thousandths) / 1000.0;
            let fault = json!({"at": at, "do": kind, "who": {"share": share, "group": "*"}});
            if let Ok(plan) = FaultPlan::of_value(json!({"seed": seed, "fault": [fault]})) {
                let again = json!({"seed": plan.seed, "fault": plan.faults_json(true)});
                prop_assert_eq!(FaultPlan::of_value(again), Ok(plan));
            }
        }
    }
}
