//! What clients of the JSON streams ask for.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use super::checks::{is_symbol, object};
use super::position::Since;
use super::slow_policy::SlowPolicy;

/// Channels one request may name.
const MAX_CHANNELS: usize = 256;

/// A request. Names are as the client wrote them, not known to exist.
#[derive(Debug, PartialEq, Eq)]
pub enum StreamRequest<'a> {
    /// Answered with a pong.
    Ping,
    /// Send these channels from now on.
    Subscribe(Selection<'a>),
    /// Stop sending these channels.
    Unsubscribe(Selection<'a>),
}

/// Channels, symbols in them, and how they are to be sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Selection<'a> {
    /// At least one, at most 256.
    pub channels: Vec<Cow<'a, str>>,
    /// `None`: every symbol. Otherwise at least one, each a valid symbol.
    pub symbols: Option<Vec<Cow<'a, str>>>,
    /// What the client has of some of the channels already; only in a `subscribe`.
    pub since: Vec<(Box<str>, Since)>,
    /// What becomes of these subscriptions if the client is slow; only in a `subscribe`.
    pub policy: Option<SlowPolicy>,
}

/// The codes of error messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// The message is not a valid request.
    InvalidMessage,
    /// A request whose `type` this server does not know.
    UnknownType,
    /// A channel that this server does not have.
    UnknownChannel,
    /// A channel that the client's token does not allow.
    ForbiddenChannel,
    /// More symbols or filters than allowed.
    LimitExceeded,
    /// A message over `--max-request-bytes`.
    TooLarge,
}

impl ErrorCode {
    /// The code on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidMessage => "invalid_message",
            Self::UnknownType => "unknown_type",
            Self::UnknownChannel => "unknown_channel",
            Self::ForbiddenChannel => "forbidden_channel",
            Self::LimitExceeded => "limit_exceeded",
            Self::TooLarge => "too_large",
        }
    }
}

/// Why a request is refused: a code for programs, and a text for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{words}")]
pub struct RequestError {
    /// What programs go by; never renamed.
    pub code: ErrorCode,
    /// What was expected and what came; at most 200 characters.
    pub words: String,
}

impl RequestError {
    /// Cuts `words` to 200 characters, since they may quote the client.
    pub fn new(code: ErrorCode, words: impl Into<String>) -> Self {
        const LIMIT: usize = 200;
        let mut words = words.into();
        if let Some((end, _)) = words.char_indices().nth(LIMIT) {
            words.truncate(end);
            words.push('…');
        }
        Self { code, words }
    }

    fn invalid(reason: impl std::fmt::Display) -> Self {
        Self::new(ErrorCode::InvalidMessage, format!("Invalid message format: {reason}"))
    }
}

/// A message of any type; keys we do not know are ignored.
#[derive(Deserialize)]
struct RawRequest<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    channel: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    channels: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow, default)]
    symbols: Option<Vec<Cow<'a, str>>>,
    #[serde(default)]
    since: Option<Value>,
    #[serde(borrow, default)]
    policy: Option<Cow<'a, str>>,
    #[serde(default)]
    max_rate: Option<f64>,
}

impl<'a> StreamRequest<'a> {
    /// Parses one text message.
    pub fn parse(text: &'a str) -> Result<Self, RequestError> {
        let raw: RawRequest<'a> = object(text).map_err(RequestError::invalid)?;
        match &*raw.kind {
            "ping" => Ok(Self::Ping),
            "subscribe" => Ok(Self::Subscribe(raw.selection()?)),
            "unsubscribe" => {
                Ok(Self::Unsubscribe(RawRequest { since: None, policy: None, max_rate: None, ..raw }.selection()?))
            }
            other => Err(RequestError::new(
                ErrorCode::UnknownType,
                format!("expected the type ping, subscribe or unsubscribe, got {other:?}"),
            )),
        }
    }
}

impl<'a> RawRequest<'a> {
    fn selection(self) -> Result<Selection<'a>, RequestError> {
        let channels: Vec<_> = self.channels.into_iter().flatten().chain(self.channel).collect();
        if channels.is_empty() {
            return Err(RequestError::invalid("expected channels or channel"));
        }
        if channels.len() > MAX_CHANNELS {
            let words = format!("expected at most {MAX_CHANNELS} channels in a request, got {}", channels.len());
            return Err(RequestError::new(ErrorCode::LimitExceeded, words));
        }
        if let Some(symbols) = &self.symbols {
            if symbols.is_empty() {
                return Err(RequestError::invalid("expected at least one symbol, or no symbols for all of them"));
            }
            if let Some(bad) = symbols.iter().find(|symbol| !is_symbol(symbol)) {
                return Err(RequestError::invalid(format!(
                    "expected symbols of 1 to 64 bytes without commas, got {bad:?}"
                )));
            }
        }
        let since = self.since.map_or(Ok(Vec::new()), |since| Since::parse_all(&since, &channels));
        let policy = SlowPolicy::asked(self.policy.as_deref(), self.max_rate);
        Ok(Selection {
            channels,
            symbols: self.symbols,
            since: since.map_err(RequestError::invalid)?,
            policy: policy.map_err(RequestError::invalid)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn code(text: &str) -> ErrorCode {
        StreamRequest::parse(text).unwrap_err().code
    }

    #[test]
    fn the_requests_of_the_documents_are_understood() {
        let selection = |channels: &[&'static str], symbols: Option<&[&'static str]>| Selection {
            channels: channels.iter().map(|&name| name.into()).collect(),
            symbols: symbols.map(|symbols| symbols.iter().map(|&symbol| symbol.into()).collect()),
            ..Selection::default()
        };
        let parsed = |text| StreamRequest::parse(text).unwrap();
        assert_eq!(parsed(r#"{"type":"ping"}"#), StreamRequest::Ping);
        assert_eq!(
            parsed(r#"{"type":"subscribe","channels":["lines","order_book"]}"#),
            StreamRequest::Subscribe(selection(&["lines", "order_book"], None))
        );
        assert_eq!(
            parsed(r#"{"id":7,"type":"unsubscribe","channel":"price_updates","symbols":["AAPL"]}"#),
            StreamRequest::Unsubscribe(selection(&["price_updates"], Some(&["AAPL"])))
        );
    }

    #[test]
    fn what_is_no_request_is_an_invalid_message() {
        let texts = [
            "",
            "[]",
            r#"["ping"]"#,
            "{",
            r#""ping""#,
            "{}",
            r#"{"type":7}"#,
            r#"{"type":"subscribe"}"#,
            r#"{"type":"subscribe","channels":[]}"#,
            r#"{"type":"subscribe","channels":"lines"}"#,
            r#"{"type":"subscribe","channel":"price_updates","symbols":[]}"#,
            r#"{"type":"subscribe","channel":"price_updates","symbols":["A,B"]}"#,
            r#"{"type":"subscribe","channel":"lines","since":NaN}"#,
            r#"{"type":"subscribe","channel":"lines","since":{"epoch":"e","seq":-1}}"#,
            r#"{"type":"subscribe","channel":"lines","policy":"lossy"}"#,
            r#"{"type":"subscribe","channel":"lines","policy":7}"#,
            r#"{"type":"subscribe","channel":"lines","max_rate":"2"}"#,
        ];
        for text in texts {
            assert_eq!(code(text), ErrorCode::InvalidMessage, "{text}");
        }
        assert_eq!(code(r#"{"type":"publish"}"#), ErrorCode::UnknownType);
        let many = vec!["lines"; 257];
        let text = serde_json::json!({"type": "subscribe", "channels": many}).to_string();
        assert_eq!(code(&text), ErrorCode::LimitExceeded);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_words_are_short(text in ".{0,300}") {
            if let Err(error) = StreamRequest::parse(&text) {
                prop_assert!(error.words.chars().count() <= 201);
            }
            let kind = serde_json::json!({ "type": text }).to_string();
            let _ = StreamRequest::parse(&kind);
        }
    }
}
