//! Keys and tokens: where a request carries them. They are credentials and never logged.
//!
//! A token is `{key}:{uuid}` and is not verified: any non-empty one opens a connection, and the key
//! names the client.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use ring::digest::{SHA256, digest};

/// The longest token that is kept, bytes.
pub const MAX_TOKEN: usize = 4096;

/// The longest key that negotiate and REST take, bytes. GexBot's have some 40; a token, which is a key with more
/// behind it, keeps well below [`MAX_TOKEN`].
pub const MAX_KEY: usize = 1024;

/// A key in what is kept between requests: small however long the key is, and no secret that a dump of the memory
/// would show.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyDigest([u8; 16]);

impl KeyDigest {
    /// The first half of the key's SHA-256: nobody finds two keys that share it.
    pub fn of(key: &str) -> Self {
        let digest = digest(&SHA256, key.as_bytes());
        Self(*digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes"))
    }
}

/// The key as it came, if it is not too long.
pub fn checked_key(key: &str) -> Result<&str, LongKey> {
    if key.len() <= MAX_KEY { Ok(key) } else { Err(LongKey { actual: key.len() }) }
}

/// A key that nobody was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a key of at most {MAX_KEY} bytes, got {actual}")]
pub struct LongKey {
    /// Bytes of the key.
    pub actual: usize,
}

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

/// The token of an `Authorization: Bearer` header.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
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
    fn a_long_key_is_refused_and_one_that_is_kept_has_sixteen_bytes() {
        let longest = "k".repeat(MAX_KEY);
        assert!(checked_key(&longest).is_ok());
        assert_eq!(checked_key(&format!("{longest}k")), Err(LongKey { actual: MAX_KEY + 1 }));
        assert_eq!(size_of::<KeyDigest>(), 16);
        assert!(KeyDigest::of("a") == KeyDigest::of("a") && KeyDigest::of("a") != KeyDigest::of("b"));
    }

    #[test]
    fn an_empty_parameter_counts_as_missing() {
        assert_eq!(parameter(Some("a=1&key=%41%3A+b"), "key").as_deref(), Some("A: b"));
        assert_eq!(parameter(Some("key="), "key"), None);
        assert_eq!(parameter(None, "key"), None);
    }
}
