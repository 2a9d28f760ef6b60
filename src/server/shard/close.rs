//! Every way a connection ends, in one table. `docs/closes.md` is the same table for those who write clients.

use std::borrow::Cow;

/// A way to end: a row of [`TABLE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// The client closed; its code is repeated.
    ByClient,
    /// The socket went away without a close frame.
    Gone,
    /// The client broke RFC 6455.
    BrokenFraming,
    /// It sent text where its subprotocol has binary frames, or the other way round.
    WrongFrameType,
    /// It sent what its subprotocol does not have.
    Malformed,
    /// It sent a message over `--max-message-bytes`.
    TooLarge,
    /// Its unfinished message is more than `--unfinished-bytes` has room for.
    NoRoom,
    /// It began a message and did not finish it.
    Unfinished,
    /// A plain Web PubSub connection fell too far behind.
    Slow,
    /// A connection of the JSON streams fell too far behind.
    SlowStream,
    /// A reliable connection fell too far behind; its session waits.
    SlowReliable,
    /// It sent requests and did not read the answers.
    UnreadAnswers,
    /// It left a ping unanswered.
    PongTimeout,
    /// It did not take the close frame within `--write-timeout-seconds`.
    WriteTimeout,
    /// The client recovered its session on another socket.
    Recovered,
    /// It asked for a session that cannot be recovered.
    NotRecovered,
    /// The client has negotiated again, and with that got new connections for its slot.
    Replaced,
    /// The replay session whose clock it was on has ended.
    ClockEnded,
    /// The server shuts down.
    Shutdown,
    /// The `exp` of its token has passed, leeway included.
    TokenExpired,
    /// More of its requests were refused than `--max-request-errors` allows in a minute.
    TooManyErrors,
    /// An operator closed it, on the live page or with `POST /live/connections/{id}/close`.
    ByOperator,
    /// A plan of faults resets it.
    FaultReset,
    /// A plan of faults closes it.
    FaultClose,
}

/// What the client sees at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// A close frame with this code.
    Code(u16),
    /// A close frame with the code that whoever closed it gave.
    Given,
    /// A close frame that repeats the client's own.
    Echo,
    /// No close frame: the socket is closed or reset.
    Nothing,
}

/// Whether the client should come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComeBack {
    /// At once, then with growing pauses.
    Yes,
    /// With its reconnection token, to go on where it was.
    Recovering,
    /// With a token that has not expired.
    WithNewToken,
    /// Once its code is fixed: it would only be closed again.
    AfterFix,
    /// The client is done, or has another connection already.
    No,
}

/// A row of [`TABLE`]: one way to end.
#[derive(Debug, Clone, Copy)]
pub struct CloseRow {
    /// Its name in the code.
    pub close: Close,
    /// Whether the client sees a close frame, and with which code.
    pub sight: Sight,
    /// The close reason; `None`: there is none, or it says what the client did wrong.
    pub reason: Option<&'static str>,
    /// The label `reason` of `flowcast_connections_closed_total`, and of the log line.
    pub counter: &'static str,
    /// What the client should do next.
    pub come_back: ComeBack,
}

const fn row(
    close: Close,
    sight: Sight,
    reason: Option<&'static str>,
    counter: &'static str,
    come_back: ComeBack,
) -> CloseRow {
    CloseRow { close, sight, reason, counter, come_back }
}

/// Rows of [`TABLE`], one per [`Close`].
pub const ROWS: usize = 24;

/// All of them, in the order of [`Close`].
pub const TABLE: [CloseRow; ROWS] = [
    row(Close::ByClient, Sight::Echo, None, "client", ComeBack::No),
    row(Close::Gone, Sight::Nothing, None, "gone", ComeBack::Yes),
    row(Close::BrokenFraming, Sight::Code(1002), None, "protocol", ComeBack::AfterFix),
    row(Close::WrongFrameType, Sight::Code(1003), None, "protocol", ComeBack::AfterFix),
    row(Close::Malformed, Sight::Code(1007), None, "protocol", ComeBack::AfterFix),
    row(Close::TooLarge, Sight::Code(1009), None, "protocol", ComeBack::AfterFix),
    row(Close::NoRoom, Sight::Code(1013), None, "unfinished", ComeBack::Yes),
    row(
        Close::Unfinished,
        Sight::Code(1008),
        Some("policy violation: a message was not finished in time"),
        "unfinished",
        ComeBack::AfterFix,
    ),
    row(Close::Slow, Sight::Code(1008), Some("slow consumer"), "lag", ComeBack::Yes),
    row(Close::SlowStream, Sight::Code(1008), Some("policy violation: slow consumer"), "lag", ComeBack::Yes),
    row(Close::SlowReliable, Sight::Nothing, None, "lag", ComeBack::Recovering),
    row(Close::UnreadAnswers, Sight::Code(1008), Some("too many answers were not read"), "replies", ComeBack::AfterFix),
    row(Close::PongTimeout, Sight::Nothing, None, "pong_timeout", ComeBack::Yes),
    row(Close::WriteTimeout, Sight::Nothing, None, "write_timeout", ComeBack::Yes),
    row(Close::Recovered, Sight::Nothing, None, "recovered", ComeBack::No),
    row(Close::NotRecovered, Sight::Code(1008), Some("no such session to recover"), "not_recovered", ComeBack::Yes),
    row(Close::Replaced, Sight::Code(1008), Some("another negotiate took this slot"), "replaced", ComeBack::No),
    row(Close::ClockEnded, Sight::Code(1001), Some("the replay session has ended"), "session_ended", ComeBack::No),
    row(Close::Shutdown, Sight::Code(1001), Some("the server is shutting down"), "shutdown", ComeBack::Yes),
    row(Close::TokenExpired, Sight::Code(4401), Some("token expired"), "token_expired", ComeBack::WithNewToken),
    row(
        Close::TooManyErrors,
        Sight::Code(1008),
        Some("policy violation: too many errors"),
        "errors",
        ComeBack::AfterFix,
    ),
    row(Close::ByOperator, Sight::Given, None, "operator", ComeBack::Yes),
    row(Close::FaultReset, Sight::Nothing, None, "fault", ComeBack::Yes),
    row(Close::FaultClose, Sight::Given, None, "fault", ComeBack::Yes),
];

/// The counters' labels, each once, in the order in which the metrics tell them.
pub const COUNTERS: [&str; 17] = [
    "client",
    "gone",
    "protocol",
    "unfinished",
    "lag",
    "replies",
    "pong_timeout",
    "write_timeout",
    "recovered",
    "not_recovered",
    "replaced",
    "session_ended",
    "shutdown",
    "token_expired",
    "errors",
    "operator",
    "fault",
];

impl Close {
    const fn row(self) -> &'static CloseRow {
        &TABLE[self as usize]
    }

    /// The name in logs and metrics.
    pub const fn counter(self) -> &'static str {
        self.row().counter
    }

    /// The row of what a client did wrong, by the code that its protocol has for it.
    fn of_violation(code: u16) -> Self {
        let is_violation = |row: &&CloseRow| row.sight == Sight::Code(code) && row.reason.is_none();
        TABLE.iter().find(is_violation).map_or(Self::BrokenFraming, |row| row.close)
    }
}

/// RFC 6455's "the server made a mistake", where a row has no code.
const NO_CODE: u16 = 1011;

/// A close frame: a row of the table that has a code, and its reason.
#[derive(Debug)]
pub struct CloseFrame {
    close: Close,
    /// The code of a row that has none of its own.
    given: Option<u16>,
    reason: Cow<'static, str>,
}

impl From<Close> for CloseFrame {
    fn from(close: Close) -> Self {
        Self { close, given: None, reason: close.row().reason.unwrap_or_default().into() }
    }
}

impl CloseFrame {
    /// For a client that broke the rules: which one, in words.
    pub fn violation(code: u16, reason: &dyn std::fmt::Display) -> Self {
        Self { close: Close::of_violation(code), given: None, reason: reason.to_string().into() }
    }

    /// What an operator tells a client. The caller has checked the code, and that the reason has at most 123 bytes.
    pub fn by_operator(code: u16, reason: String) -> Self {
        Self { close: Close::ByOperator, given: Some(code), reason: reason.into() }
    }

    /// As a plan of faults says.
    pub fn ordered(code: u16, reason: &str) -> Self {
        Self { close: Close::FaultClose, given: Some(code), reason: reason.to_owned().into() }
    }

    /// Whether the session of a reliable client ends with it. One that a plan of faults closes can be recovered, but after
    /// the two codes that the SDKs take as an end.
    pub fn ends_session(&self) -> bool {
        self.close != Close::FaultClose || matches!(self.code(), 1000 | 1008)
    }

    /// Its row of [`TABLE`].
    pub fn close(&self) -> Close {
        self.close
    }

    /// The code in the close frame.
    pub fn code(&self) -> u16 {
        match (self.given, self.close.row().sight) {
            (Some(code), _) | (None, Sight::Code(code)) => code,
            // No caller has such a row.
            (None, Sight::Given | Sight::Echo | Sight::Nothing) => NO_CODE,
        }
    }

    /// The reason in the close frame.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::webpubsub::Malformed;
    use crate::wire::websocket::Violation;

    /// The beginning of a row in `docs/closes.md`.
    fn cells(row: &CloseRow) -> String {
        let code = match row.sight {
            Sight::Code(code) => code.to_string(),
            Sight::Given => "given".to_owned(),
            Sight::Echo => "the client's own".to_owned(),
            Sight::Nothing => "none".to_owned(),
        };
        let reason = match (row.reason, row.sight) {
            (Some(reason), _) => format!("`{reason}`"),
            (None, Sight::Code(_)) => "says what was expected and what came".to_owned(),
            (None, Sight::Given) => "given".to_owned(),
            (None, _) => "none".to_owned(),
        };
        let come_back = match row.come_back {
            ComeBack::Yes => "yes",
            ComeBack::Recovering => "yes, with its reconnection token",
            ComeBack::WithNewToken => "yes, with a new token",
            ComeBack::AfterFix => "once its code is fixed",
            ComeBack::No => "no",
        };
        format!("| {code} | {reason} | `{}` | {come_back} |", row.counter)
    }

    #[test]
    fn the_page_for_clients_has_exactly_the_rows_of_the_table_in_its_order() {
        let page = include_str!("../../../docs/closes.md");
        let table = page.lines().filter(|line| line.starts_with('|')).skip(2);
        let rows: Vec<&str> = table.collect();
        assert_eq!(rows.len(), TABLE.len(), "{rows:#?}");
        for (line, row) in rows.iter().zip(&TABLE) {
            assert!(line.starts_with(&cells(row)), "expected {:?} first, got {line:?}", cells(row));
        }
    }

    #[test]
    fn every_row_stands_at_its_own_place_and_is_counted() {
        for (at, row) in TABLE.iter().enumerate() {
            assert_eq!(row.close as usize, at);
            assert!(COUNTERS.contains(&row.counter), "{row:?}");
        }
    }

    #[test]
    fn whatever_a_client_does_wrong_has_a_row_with_its_code() {
        let rfc = [Violation::Unmasked, Violation::NotUtf8, Violation::TooLarge { limit: 1 }].map(Violation::code);
        let frame = CloseFrame::violation(Violation::NoRoom.code(), &"words");
        assert_eq!((frame.code(), frame.close()), (1013, Close::NoRoom));
        let wrong_type = Malformed::WrongFrameType { expected: "text", actual: "binary" };
        let azure = [wrong_type, Malformed::BadGroupName(0)].map(|malformed| malformed.code());
        for code in rfc.into_iter().chain(azure) {
            let frame = CloseFrame::violation(code, &"words");
            assert_eq!((frame.code(), frame.reason(), frame.close().counter()), (code, "words", "protocol"));
        }
    }
}
