//! Why a REST request is refused.

use std::io;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::RETRY_AFTER;

use crate::server::http::app::error;
use crate::server::http::auth::LongKey;

/// Characters of a caller's text that an answer repeats.
const SHOWN: usize = 64;

/// Why a REST request is refused. Some texts are those of the vendor or its imitations, word for word
/// (`docs/protocols/gexbot.md`, "Credentials and errors" and "The fakers").
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum RestRefusal {
    /// No key in `Authorization` or `?key=`.
    #[error("Authorization header not found.")]
    NoKey,
    /// No key is so long.
    #[error(transparent)]
    LongKey(LongKey),
    /// The server publishes live data only.
    #[error("this server replays no recorded day, so it has no records to answer with")]
    NoDay,
    /// The path is not UTF-8.
    #[error("expected a path in UTF-8")]
    BadPath,
    /// Neither vocabulary has such a category.
    #[error("Invalid type parameter: {name} (expected {expected})")]
    UnknownCategory { name: String, expected: &'static str },
    /// There is no such package.
    #[error("unknown package {name} (expected classic, state or orderflow)")]
    UnknownPackage { name: String },
    /// Only GEX records have majors and maxchange.
    #[error("{category} has no {excerpt}: only GEX categories have it (gex_full, gex_zero, gex_one)")]
    NoExcerpt { category: String, excerpt: &'static str },
    /// The day has no such series.
    #[error("Data not found for {name}")]
    NoData { name: String },
    /// The key has had every record, and the day does not begin again.
    #[error("No more data available")]
    Exhausted,
    /// One request looks at no more bad lines, or bytes of them.
    #[error("{name}: none of {lines} lines in a row is a record; flowcast's log names the first bad ones")]
    NoRecord { name: String, lines: usize },
    /// The rest of the file is not indexed yet.
    #[error("{name} is still being read; ask again in a second")]
    NotIndexed { name: String },
    /// The disk's error; the answer does not tell the path.
    #[error("{name} cannot be read: {source}")]
    Unreadable { name: String, source: io::Error },
    /// Not the name of a day's folder.
    #[error("invalid date format: {date} (expected YYYY-MM-DD)")]
    BadDate { date: String },
    /// Not the name of a ticker's folder.
    #[error("invalid ticker: {ticker} (expected at most 64 letters, digits, _, ., - or ^)")]
    BadTicker { ticker: String },
    /// The day has no such file.
    #[error("File not found: {name}")]
    NoFile { name: String },
    /// The limit of readers is reached.
    #[error("too many readers of positions and ticks (--max-tick-readers)")]
    TooManyReaders,
    /// A bug of ours.
    #[error("the request failed; flowcast's log says why")]
    Failed,
}

impl RestRefusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoKey
            | Self::LongKey(_)
            | Self::BadPath
            | Self::UnknownCategory { .. }
            | Self::BadDate { .. }
            | Self::BadTicker { .. } => StatusCode::BAD_REQUEST,
            Self::NoDay
            | Self::UnknownPackage { .. }
            | Self::NoExcerpt { .. }
            | Self::NoData { .. }
            | Self::Exhausted
            | Self::NoRecord { .. }
            | Self::NoFile { .. } => StatusCode::NOT_FOUND,
            Self::NotIndexed { .. } | Self::TooManyReaders => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreadable { .. } | Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for RestRefusal {
    fn into_response(self) -> Response {
        let (status, text) = (self.status(), self.to_string());
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::debug!(error = %text, "a REST request failed");
        }
        let answer = error(status, &text);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            return ([(RETRY_AFTER, "1")], answer).into_response();
        }
        answer
    }
}

/// A caller's text, short enough for an error.
pub fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The names in a path.
pub fn names<T>(path: Result<Path<T>, PathRejection>) -> Result<T, RestRefusal> {
    path.map(|Path(names)| names).map_err(|_| RestRefusal::BadPath)
}
