//! Keys and tokens: where a request carries them. They are credentials and never logged.
//!
//! A token is `{key}:{uuid}` and is not verified: any non-empty one opens a connection, and the key
//! names the client.

use http::HeaderMap;
use http::header::AUTHORIZATION;

/// The longest token that is kept, bytes.
pub const MAX_TOKEN: usize = 4096;

/// The credential of an `Authorization: Basic K`, `Bearer K` or bare `K` header. GexBot's clients send the raw
/// key after `Basic`, not base64 (`docs/protocols/gexbot.md`, "Credentials and errors").
pub fn credential(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?.trim();
    let is_scheme = |word: &str| word.eq_ignore_ascii_case("basic") || word.eq_ignore_ascii_case("bearer");
    let credential = match value.split_once(' ') {
        Some((scheme, credential)) if is_scheme(scheme) => credential.trim(),
        None if !is_scheme(value) => value,
        _ => return None,
    };
    Some(credential).filter(|credential| !credential.is_empty())
}

/// The key in a token: what stands before the first `:`.
pub fn key_of(token: &str) -> &str {
    token.split(':').next().unwrap_or(token)
}

/// The value of a query parameter, percent-decoded; `None` if it is missing or empty.
pub fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    form_urlencoded::parse(query?.as_bytes())
        .find(|(key, value)| key == name && !value.is_empty())
        .map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn basic_and_bearer_carry_the_raw_key_and_it_may_stand_alone() {
        for value in ["Basic key", "Bearer key", "bearer  key ", "key"] {
            assert_eq!(credential(&header(value)), Some("key"), "{value}");
        }
        for value in ["", "Basic", "Basic ", "bearer", "Digest key"] {
            assert_eq!(credential(&header(value)), None, "{value}");
        }
    }

    #[test]
    fn the_key_is_the_part_before_the_first_colon() {
        assert_eq!([key_of("k:1:2"), key_of("k"), key_of(":x")], ["k", "k", ""]);
    }

    #[test]
    fn an_empty_parameter_counts_as_missing() {
        assert_eq!(parameter(Some("a=1&key=%41%3A+b"), "key").as_deref(), Some("A: b"));
        assert_eq!(parameter(Some("key="), "key"), None);
        assert_eq!(parameter(None, "key"), None);
    }
}
