//! JSON Web Tokens: who may use the JSON streams, and for what.
//!
//! Each key has one algorithm, so that a token cannot choose a weaker one. Tokens and secrets are credentials: no error
//! and no log line contains them.

use std::collections::HashSet;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Uri;
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, EncodingKey, Header, Validation, decode, decode_header, encode};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::engine::system_clock;
use crate::server::http::jwt_crypto;
use crate::server::http::token_keys::{KeyFileError, KeySources, TokenKey};
use crate::server::shard::grant::{Grant, LEEWAY_SECONDS};

/// The role that may publish.
pub const PUBLISHER: &str = "publisher";

/// Who may use the JSON streams.
#[derive(Debug, Clone, clap::Args)]
pub struct AuthOptions {
    /// Secret of the tokens for /ws (JSON Web Tokens, HS256). Without it, and without public keys, everybody may connect
    /// and nobody may publish
    #[arg(long, env = "WS_AUTH_SECRET", hide_env_values = true, value_name = "SECRET", value_parser = secret)]
    pub auth_secret: Option<SecretString>,
    /// A secret whose tokens are accepted too, while clients change from it to WS_AUTH_SECRET
    #[arg(long, env = "WS_AUTH_SECRET_PREVIOUS", hide_env_values = true, value_name = "SECRET", value_parser = secret)]
    pub auth_secret_previous: Option<SecretString>,
    /// File with the secret in its first line and, if there is one, the previous secret in its second, in place of
    /// WS_AUTH_SECRET; read again when it changes, and on SIGHUP
    #[arg(long, env = "WS_AUTH_SECRET_FILE", value_name = "FILE")]
    pub auth_secret_file: Option<PathBuf>,
    /// File with public keys (a JSON Web Key Set) whose tokens are accepted, RS256 and ES256; read again when it changes, and
    /// on SIGHUP
    #[arg(long, env = "WS_AUTH_JWKS_FILE", value_name = "FILE")]
    pub auth_jwks_file: Option<PathBuf>,
    /// Audience that the claim `aud` of a token must name; without it `aud` is ignored
    #[arg(long, env = "FLOWCAST_AUTH_AUDIENCE", value_name = "AUDIENCE", value_parser = audience)]
    pub auth_audience: Option<String>,
    /// Origins of the web pages that may connect to /ws, comma-separated; all by default, or with *
    #[arg(long, env = "WS_ALLOWED_ORIGINS", value_delimiter = ',', value_name = "ORIGINS", value_parser = origin)]
    pub allowed_origins: Vec<String>,
    /// Serve live data from Kafka to everybody, without WS_AUTH_SECRET
    #[arg(long, env = "FLOWCAST_ALLOW_ANONYMOUS", default_value_t = false, value_parser = clap::value_parser!(bool))]
    #[arg(action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub allow_anonymous: bool,
}

impl AuthOptions {
    /// Whether the settings name a key that tokens are signed with.
    pub fn has_keys(&self) -> bool {
        self.auth_secret.is_some() || self.auth_secret_file.is_some() || self.auth_jwks_file.is_some()
    }

    /// The files of keys.
    pub fn key_files(&self) -> Vec<PathBuf> {
        self.auth_secret_file.iter().chain(&self.auth_jwks_file).cloned().collect()
    }

    /// Checks settings against each other. `Err` says what is accepted.
    pub fn check(&self) -> Result<(), String> {
        if self.auth_secret.is_some() && self.auth_secret_file.is_some() {
            return Err(
                "--auth-secret and --auth-secret-file (WS_AUTH_SECRET, WS_AUTH_SECRET_FILE): expected one of them"
                    .to_owned(),
            );
        }
        if self.auth_secret_previous.is_some() && self.auth_secret.is_none() {
            return Err("--auth-secret-previous (WS_AUTH_SECRET_PREVIOUS): expected WS_AUTH_SECRET with it".to_owned());
        }
        Ok(())
    }
}

/// A secret from the command line.
pub fn secret(text: &str) -> Result<SecretString, String> {
    if text.trim().is_empty() { Err("expected a secret that is not empty".to_owned()) } else { Ok(text.into()) }
}

/// An audience. A blank one would be no token's.
fn audience(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() { Err("expected an audience that is not empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// An origin as browsers write it: scheme, host, and a port if it is not the scheme's own (RFC 6454 §6.2). What no
/// browser writes would lock the page out that is meant.
fn origin(text: &str) -> Result<String, String> {
    let text = text.trim();
    if matches!(text, "*" | "null") {
        return Ok(text.to_owned());
    }
    let refused = || "expected an origin such as https://app.example, or *".to_owned();
    let uri: Uri = text.parse().map_err(|_| refused())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(refused()) };
    if uri.path() != "/" || uri.query().is_some() || text.contains(['#', '*', '@']) || authority.host().is_empty() {
        return Err(refused());
    }
    let port = match (scheme, authority.port_u16()) {
        ("http", Some(80)) | ("https", Some(443)) | (_, None) => String::new(),
        (_, Some(port)) => format!(":{port}"),
    };
    Ok(format!("{scheme}://{}{port}", authority.host()).to_ascii_lowercase())
}

/// The claims of a token. Times are Unix seconds and may have fractions (RFC 7519 §2).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claims {
    /// Subject: the name of the client or publisher.
    pub sub: String,
    /// When the token expires; `None`: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<f64>,
    /// When it was made; a time in the future is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<f64>,
    /// Channels that may be subscribed to; all if missing. A publisher publishes to these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<Vec<Box<str>>>,
    /// [`PUBLISHER`], which may publish; anything else, or nothing, may not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Audience: a text or a list of texts. Compared only if the server has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<Value>,
}

impl Claims {
    /// What a connection with this token may do.
    pub fn grant(self) -> Grant {
        let expires_unix_s = self.exp.and_then(|exp| NonZeroU64::new(exp.max(1.0) as u64));
        Grant { channels: self.channels.map(Into::into), expires_unix_s }
    }
}

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Neither the query nor the header has one.
    #[error("missing token: expected ?token=JWT or Authorization: Bearer JWT")]
    Missing,
    /// It is not a JWT, or not signed with a key of the server's.
    #[error("invalid token: expected a JWT signed with this server's secret (HS256) or one of its keys (RS256, ES256)")]
    Invalid,
    /// `exp` is more than a minute ago.
    #[error("the token has expired")]
    Expired,
    /// `nbf` or `iat` is more than a minute ahead.
    #[error("the token is not valid yet")]
    NotYet,
    /// `aud` is missing or names another audience.
    #[error("the token is for another audience")]
    Audience,
    /// It has no `sub`, or a claim of the wrong type.
    #[error(
        "invalid claims: expected a text sub, exp, nbf and iat in Unix seconds, channels as a list of texts and role as a text"
    )]
    Claims,
    /// It has extensions that must be understood (RFC 7515 §4.1.11), and this server understands none.
    #[error("invalid token: expected no critical header parameters (crit)")]
    Critical,
}

/// Checks tokens and the origins of pages.
pub struct Authority {
    /// The keys that a token may be signed with; `None`: tokens are not asked for.
    keys: Option<ArcSwap<Vec<TokenKey>>>,
    sources: KeySources,
    /// One for each algorithm: the library allows no two kinds of keys in one.
    validations: [Validation; 3],
    origins: Vec<String>,
}

impl Authority {
    /// Takes keys, audience and origins from the settings. Warns if a secret is short.
    pub fn new(options: &AuthOptions) -> Result<Self, KeyFileError> {
        jwt_crypto::install();
        let secrets = [&options.auth_secret, &options.auth_secret_previous].into_iter().flatten().cloned().collect();
        let (secret_file, key_set) = (options.auth_secret_file.clone(), options.auth_jwks_file.clone());
        let sources = KeySources { secrets, secret_file, key_set };
        let keys = options.has_keys().then(|| sources.read()).transpose()?.map(ArcSwap::from_pointee);
        let validation = |algorithm| validation(algorithm, options.auth_audience.as_deref());
        let validations = [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256].map(validation);
        Ok(Self { keys, sources, validations, origins: options.allowed_origins.clone() })
    }

    /// Reads the files of keys again. If that fails, the keys before stay. Connections stay as they are.
    pub fn reload(&self) -> Result<(), KeyFileError> {
        if let Some(held) = &self.keys {
            held.store(Arc::new(self.sources.read()?));
        }
        Ok(())
    }

    /// Whether everybody may connect without a token.
    pub fn is_open(&self) -> bool {
        self.keys.is_none()
    }

    /// The claims of a good token. `None`: this server does not ask for tokens.
    pub fn check(&self, token: Option<&str>) -> Result<Option<Claims>, TokenError> {
        let Some(keys) = &self.keys else { return Ok(None) };
        let token = token.ok_or(TokenError::Missing)?;
        // To the library a bad header and bad claims are one error; for whoever made the token they are two. And it does
        // not look at `crit`.
        if header_of(token).ok_or(TokenError::Invalid)?.contains_key("crit") {
            return Err(TokenError::Critical);
        }
        let header = decode_header(token).map_err(|_| TokenError::Invalid)?;
        let validation = self.validations.iter().find(|validation| validation.algorithms.contains(&header.alg));
        let validation = validation.ok_or(TokenError::Invalid)?;
        let keys = keys.load();
        // A token may name its key; a secret has no name.
        let is_meant = |key: &&TokenKey| {
            key.algorithm == header.alg && (key.id.is_none() || header.kid.is_none() || key.id == header.kid)
        };
        let decoded = keys.iter().filter(is_meant).map(|key| decode::<Claims>(token, &key.key, validation));
        // What another key has signed is judged by that one.
        let is_judged = |decoded: &Result<_, Error>| !matches!(decoded, Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature));
        let decoded = { decoded }.find(is_judged).unwrap_or_else(|| Err(ErrorKind::InvalidSignature.into()));
        let claims = decoded.map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => TokenError::Expired,
            ErrorKind::ImmatureSignature => TokenError::NotYet,
            ErrorKind::InvalidAudience => TokenError::Audience,
            ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => TokenError::Audience,
            ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) | ErrorKind::Json(_) => {
                TokenError::Claims
            }
            _ => TokenError::Invalid,
        })?;
        let claims = claims.claims;
        let now = system_clock::unix_ns() as f64 / 1e9;
        if claims.iat.is_some_and(|iat| iat > now + LEEWAY_SECONDS as f64) {
            return Err(TokenError::NotYet);
        }
        Ok(Some(claims))
    }

    /// Whether a browser's page of this origin may connect.
    pub fn allows_origin(&self, origin: &str) -> bool {
        let allowed = |known: &String| known == "*" || known.eq_ignore_ascii_case(origin);
        self.origins.is_empty() || self.origins.iter().any(allowed)
    }
}

/// The header of a token, unchecked.
fn header_of(token: &str) -> Option<Map<String, Value>> {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()?;
    serde_json::from_slice(&header).ok()
}

fn validation(algorithm: Algorithm, audience: Option<&str>) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = LEEWAY_SECONDS;
    validation.validate_nbf = true;
    validation.required_spec_claims = HashSet::from(["sub".to_owned()]);
    match audience {
        Some(audience) => {
            validation.set_audience(&[audience]);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        None => validation.validate_aud = false,
    }
    validation
}

/// Signs the claims; returns the token.
pub fn sign(claims: &Claims, secret: &[u8]) -> Result<String, jsonwebtoken::errors::Error> {
    jwt_crypto::install();
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn authority(audience: Option<&str>) -> Authority {
        Authority::new(&AuthOptions {
            auth_secret: Some("secret".into()),
            auth_audience: audience.map(str::to_owned),
            allowed_origins: vec!["https://a.example".to_owned()],
            ..options()
        })
        .unwrap()
    }

    fn options() -> AuthOptions {
        AuthOptions {
            auth_secret: None,
            auth_secret_previous: None,
            auth_secret_file: None,
            auth_jwks_file: None,
            auth_audience: None,
            allowed_origins: Vec::new(),
            allow_anonymous: false,
        }
    }

    fn token(claims: &Value) -> String {
        signed(claims, Algorithm::HS256, "secret")
    }

    fn signed(claims: &Value, algorithm: Algorithm, secret: &str) -> String {
        jwt_crypto::install();
        encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }

    fn checked(claims: &Value) -> Result<Option<Claims>, TokenError> {
        authority(None).check(Some(&token(claims)))
    }

    fn now() -> u64 {
        system_clock::unix_ns() / 1_000_000_000
    }

    #[test]
    fn a_token_needs_a_sub_and_nothing_else() {
        assert_eq!(checked(&json!({"sub": "me"})).unwrap().unwrap().grant(), Grant::default());
        for claims in [
            json!({}),
            json!({"sub": 7}),
            json!({"sub": "me", "exp": "soon"}),
            json!({"sub": "me", "exp": 1e300}),
            json!({"sub": "me", "nbf": "now"}),
            json!({"sub": "me", "nbf": -1}),
            json!({"sub": "me", "iat": [1]}),
            json!({"sub": "me", "channels": "all"}),
            json!(7),
        ] {
            assert_eq!(checked(&claims).unwrap_err(), TokenError::Claims, "{claims}");
        }
        assert_eq!(authority(None).check(None).unwrap_err(), TokenError::Missing);
    }

    #[test]
    fn a_secret_verifies_hs256_and_nothing_else() {
        let claims = json!({"sub": "me"});
        for bad in [
            signed(&claims, Algorithm::HS256, "other"),
            signed(&claims, Algorithm::HS384, "secret"),
            "eyJhbGciOiJub25lIn0.eyJzdWIiOiJtZSJ9.".to_owned(),
            "a.b.c".to_owned(),
            String::new(),
        ] {
            assert_eq!(authority(None).check(Some(&bad)).unwrap_err(), TokenError::Invalid, "{bad}");
        }
    }

    #[test]
    fn either_secret_is_accepted_while_clients_change_and_a_file_may_change_both() {
        let claims = json!({"sub": "me"});
        let by = |secret: &str| signed(&claims, Algorithm::HS256, secret);
        let both =
            AuthOptions { auth_secret: Some("new".into()), auth_secret_previous: Some("old".into()), ..options() };
        let authority = Authority::new(&both).unwrap();
        assert!(authority.check(Some(&by("new"))).is_ok() && authority.check(Some(&by("old"))).is_ok());
        assert_eq!(authority.check(Some(&by("older"))).unwrap_err(), TokenError::Invalid);
        let expired = signed(&json!({"sub": "me", "exp": now() - 100}), Algorithm::HS256, "old");
        assert_eq!(authority.check(Some(&expired)).unwrap_err(), TokenError::Expired, "not: invalid");

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secrets");
        std::fs::write(&file, "old\n").unwrap();
        let authority = Authority::new(&AuthOptions { auth_secret_file: Some(file.clone()), ..options() }).unwrap();
        assert!(authority.check(Some(&by("old"))).is_ok() && authority.check(Some(&by("new"))).is_err());
        std::fs::write(&file, "new\nold\n").unwrap();
        authority.reload().unwrap();
        assert!(authority.check(Some(&by("old"))).is_ok() && authority.check(Some(&by("new"))).is_ok());
        for bad in ["", "\nold", "a\nb\nc"] {
            std::fs::write(&file, bad).unwrap();
            let error = authority.reload().unwrap_err().to_string();
            assert!(error.contains("first line") && !error.contains("old"), "{error}");
        }
        std::fs::remove_file(&file).unwrap();
        assert!(authority.reload().is_err());
        assert!(authority.check(Some(&by("new"))).is_ok(), "the last good ones stay");
    }

    #[test]
    fn times_are_honoured_with_a_minute_of_leeway() {
        let with = |name: &str, at: u64| checked(&json!({"sub": "me", name: at})).map(|_| ());
        assert_eq!(with("exp", now() - 50), Ok(()));
        assert_eq!(with("exp", now() - 70), Err(TokenError::Expired));
        for name in ["nbf", "iat"] {
            assert_eq!(with(name, now() + 50), Ok(()));
            assert_eq!(with(name, now() + 70), Err(TokenError::NotYet));
        }
    }

    #[test]
    fn the_audience_counts_only_where_one_is_configured() {
        let claims = json!({"sub": "me", "aud": "them"});
        assert!(checked(&claims).is_ok());
        assert_eq!(authority(Some("us")).check(Some(&token(&claims))).unwrap_err(), TokenError::Audience);
        assert_eq!(authority(Some("us")).check(Some(&token(&json!({"sub": "me"})))).unwrap_err(), TokenError::Audience);
        assert!(authority(Some("them")).check(Some(&token(&claims))).is_ok());
    }

    #[test]
    fn origins_are_compared_without_case() {
        assert!(authority(None).allows_origin("HTTPS://A.example"));
        assert!(!authority(None).allows_origin("https://b.example"));
    }

    #[test]
    fn an_origin_is_kept_as_browsers_write_it_and_what_none_writes_is_refused() {
        for (text, kept) in [
            (" https://A.example ", "https://a.example"),
            ("https://a.example/", "https://a.example"),
            ("https://a.example:443", "https://a.example"),
            ("http://a.example:443", "http://a.example:443"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
            ("*", "*"),
            ("null", "null"),
        ] {
            assert_eq!(origin(text).unwrap(), kept, "{text:?}");
        }
        for text in [
            "",
            " ",
            "a.example",
            "a.example:443",
            "//a.example",
            "https://",
            "https://a.example/app",
            "https://*.example",
            "https://bücher.example",
            "https://a.example#x",
        ] {
            assert!(origin(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn debug_output_hides_the_secret() {
        let hush = || Some("hush".into());
        let options = AuthOptions { auth_secret: hush(), auth_secret_previous: hush(), ..options() };
        assert!(!format!("{options:?}").contains("hush"));
    }
}
