//! Who asks, and for which day: what every handler is given.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::request;

use super::rest_refusal::RestRefusal;
use super::rest_state::ServedDay;
use super::series::RecordedDay;
use crate::server::http::app::App;
use crate::server::http::auth;

/// A request to a server that serves a recorded day.
pub struct OnDay {
    pub app: Arc<App>,
    pub day: Arc<dyn RecordedDay>,
    /// Since when the day is served.
    pub since_unix_ns: u64,
}

/// The same, with a key.
pub struct Caller {
    pub app: Arc<App>,
    pub day: Arc<dyn RecordedDay>,
    /// Any non-empty text. A secret: see [`masked`].
    pub key: String,
}

impl FromRequestParts<Arc<App>> for OnDay {
    type Rejection = Response;

    async fn from_request_parts(_: &mut request::Parts, app: &Arc<App>) -> Result<Self, Response> {
        if let Some(unavailable) = app.unavailable() {
            return Err(unavailable);
        }
        let ServedDay { day, since_unix_ns } = app.rest.day().ok_or_else(|| RestRefusal::NoDay.into_response())?;
        Ok(Self { app: Arc::clone(app), day, since_unix_ns })
    }
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut request::Parts, app: &Arc<App>) -> Result<Self, Response> {
        let key = key(parts.uri.query(), &parts.headers).map_err(IntoResponse::into_response)?;
        let OnDay { app, day, .. } = OnDay::from_request_parts(parts, app).await?;
        Ok(Self { app, day, key })
    }
}

/// The key of a request: `?key=`, or the credential of `Authorization`, with `Basic`, `Bearer` or neither before
/// it.
fn key(query: Option<&str>, headers: &HeaderMap) -> Result<String, RestRefusal> {
    let parameter = auth::parameter(query, "key");
    let credential = || auth::credential(headers).map(str::to_owned);
    let key = parameter.or_else(credential).ok_or(RestRefusal::NoKey)?;
    auth::checked_key(&key).map_err(RestRefusal::LongKey)?;
    Ok(key)
}

/// A key as answers may show it: `abcd****`.
pub fn masked(key: &str) -> String {
    match key.char_indices().nth(4) {
        Some((end, _)) => format!("{}****", &key[..end]),
        None => "****".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;

    use super::*;

    fn header(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn a_key_comes_as_bearer_basic_bare_or_parameter() {
        for value in ["Bearer key", "Basic key", "basic  key ", "key", " key "] {
            assert_eq!(key(None, &header(value)).unwrap(), "key", "{value:?}");
        }
        assert_eq!(key(Some("key=a%20b"), &header("Bearer other")).unwrap(), "a b");
        for value in ["", "Bearer", "basic ", "Digest key", "a b"] {
            assert!(matches!(key(Some("key="), &header(value)), Err(RestRefusal::NoKey)), "{value:?}");
        }
        assert!(matches!(key(None, &header(&"k".repeat(auth::MAX_KEY + 1))), Err(RestRefusal::LongKey(_))));
    }

    #[test]
    fn a_masked_key_shows_four_characters_at_most() {
        assert_eq!(
            ["abcdefgh", "abcde", "abcd", "a", "äöüßx"].map(masked),
            ["abcd****", "abcd****", "****", "****", "äöüß****"]
        );
    }
}
