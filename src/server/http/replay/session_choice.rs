//! The session that a client is on: what negotiate is asked for, and what the token says later.
//!
//! `negotiate?session=NAME` begins the session and puts its name at the end of the token, so it is in the WebSocket URL
//! that negotiate answers with, whichever SDK opens it. With `--sessions per-key` the key itself stands for a session.

use std::sync::Arc;

use ring::digest::{SHA256, digest};

use super::replay_refusal::ReplayRefusal;
use super::session_options::SessionPolicy;
use crate::replay::change::{Pace, Speed};
use crate::replay::moment::Moment;
use crate::replay::replays::{Replays, SessionError, SessionStart, is_session_name};
use crate::server::http::app::App;
use crate::server::http::auth;

/// Separates the session's name from the rest of a token.
const MARK: &str = ":session-";

/// A session, and where its clock begins if it does not exist.
#[derive(Debug, PartialEq)]
pub struct SessionChoice {
    /// Its name.
    pub name: String,
    start: SessionStart,
}

impl SessionChoice {
    /// What a request to negotiate asks for: `?session=NAME`, and with it `from`, `speed` and `state`. `None`: the
    /// clock that all share.
    pub fn of_query(query: Option<&str>, policy: SessionPolicy, key: &str) -> Result<Option<Self>, ReplayRefusal> {
        let start = start(query)?;
        // An empty name is a bad one, not a missing one.
        let named = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).find(|(key, _)| key == "session");
        let name = match (named, policy) {
            (Some((_, name)), _) => name.into_owned(),
            (None, SessionPolicy::PerKey) => name_of_key(auth::key_of(key)),
            (None, SessionPolicy::Named) if start == SessionStart::default() => return Ok(None),
            (None, SessionPolicy::Named) => {
                let expected = "expected ?session=NAME beside from, speed and state: they are of a session's own clock";
                return Err(ReplayRefusal::Bad { expected: expected.to_owned() });
            }
        };
        if is_session_name(&name) { Ok(Some(Self { name, start })) } else { Err(SessionError::BadName.into()) }
    }

    /// The session of a key with `--sessions per-key`, for a client that has not negotiated.
    pub fn of_key(key: &str) -> Self {
        Self { name: name_of_key(key), start: SessionStart::default() }
    }

    /// The token that says so.
    pub fn token(&self, token: &str) -> String {
        format!("{token}{MARK}{}", self.name)
    }

    /// Begins the session, unless it exists.
    pub async fn begin(&self, app: &App) -> Result<(), ReplayRefusal> {
        let clocks: Arc<dyn Replays> = app.replay.clocks().cloned().ok_or(ReplayRefusal::Live)?;
        let (name, start) = (self.name.clone(), self.start);
        let begun = tokio::task::spawn_blocking(move || clocks.begin_session(&name, start).map(drop)).await;
        Ok(begun.map_err(|_| ReplayRefusal::Failed)??)
    }
}

/// A token without its session, and the session's name.
pub fn split(token: &str) -> (&str, Option<&str>) {
    match token.rsplit_once(MARK) {
        Some((token, name)) if is_session_name(name) => (token, Some(name)),
        _ => (token, None),
    }
}

/// The session of a key with `--sessions per-key`: names are shown to everybody, keys are not.
pub fn name_of_key(key: &str) -> String {
    let digest = digest(&SHA256, key.as_bytes());
    digest.as_ref().iter().take(8).fold("key-".to_owned(), |name, byte| name + &format!("{byte:02x}"))
}

fn start(query: Option<&str>) -> Result<SessionStart, ReplayRefusal> {
    let bad = |key: &str, reason: String| ReplayRefusal::Bad { expected: format!("{key}: {reason}") };
    let parameter = |name| auth::parameter(query, name);
    let from = parameter("from").map(|from| from.parse::<Moment>().map_err(|error| bad("from", error.to_string())));
    let speed = parameter("speed").map(|speed| speed.parse::<Speed>().map_err(|error| bad("speed", error)));
    let is_paused = match parameter("state").as_deref() {
        None | Some("playing") => false,
        Some("paused") => true,
        Some(_) => return Err(bad("state", "expected playing or paused".to_owned())),
    };
    Ok(SessionStart { from: from.transpose()?, pace: speed.transpose()?.map(Pace::Recorded), is_paused })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(query: &str) -> Result<Option<SessionChoice>, String> {
        SessionChoice::of_query(Some(query), SessionPolicy::Named, "key").map_err(|refused| refused.to_string())
    }

    #[test]
    fn a_session_is_named_with_where_it_begins() {
        assert_eq!(choice("key=k"), Ok(None));
        let expected = |start| Ok(Some(SessionChoice { name: "a.b-c_1".to_owned(), start }));
        assert_eq!(choice("session=a.b-c_1"), expected(SessionStart::default()));
        let start = SessionStart {
            from: Some(Moment::Offset(jiff::SignedDuration::from_secs(30))),
            pace: Some(Pace::Recorded(Speed::Max)),
            is_paused: true,
        };
        assert_eq!(choice("session=a.b-c_1&from=%2B30s&speed=max&state=paused"), expected(start));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let long = format!("session={}", "n".repeat(1024));
        for query in ["session=", "session=a%20b", "session=a:b", "session=%C3%A4", "session=..%2F", &long] {
            assert_eq!(choice(query).unwrap_err(), SessionError::BadName.to_string(), "{query}");
        }
        for (query, start) in [
            ("session=a&speed=0", "speed: expected a speed above 0"),
            ("session=a&speed=NaN", "speed: expected a speed above 0"),
            ("session=a&from=soon", "from: expected a time such as"),
            ("session=a&state=stopped", "state: expected playing or paused"),
            ("speed=2", "expected ?session=NAME"),
        ] {
            assert!(choice(query).unwrap_err().starts_with(start), "{query}");
        }
    }

    #[test]
    fn a_token_carries_the_session_behind_whatever_it_was() {
        let session = choice("session=lab").unwrap().unwrap();
        for token in ["key:uuid", "a:b:uuid", "key:slot-id", ":session-:session-x y"] {
            let carried = session.token(token);
            assert_eq!(split(&carried), (token, Some("lab")));
            assert_eq!(split(token), (token, None));
        }
        let name = name_of_key("key");
        assert_eq!(SessionChoice::of_key(auth::key_of("key:uuid")).name, name);
        assert!(is_session_name(&name) && name.len() == 20 && !name.contains("keyk"), "{name}");
        assert_eq!(SessionChoice::of_query(None, SessionPolicy::PerKey, "key").unwrap().unwrap().name, name);
    }
}
