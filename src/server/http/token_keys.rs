//! The keys that tokens may be signed with: secrets (HS256), and public keys in a JSON Web Key Set (RS256, ES256).

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use secrecy::{ExposeSecret, SecretString};

/// Bytes of the shortest secret that is as strong as the signature (RFC 7518 §3.2).
const STRONG_SECRET: usize = 32;

/// Bytes of the longest file that is read.
const MAX_FILE: u64 = 256 << 10;

/// Keys of the largest set: a token that names none is tried with each.
const MAX_KEYS: usize = 64;

/// Bytes of an RSA modulus: from 2048 bits, below which RS256 is not safe (RFC 7518 §3.3), to 8192.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;

/// One key.
pub struct TokenKey {
    /// The `kid` that a token may name it by.
    pub id: Option<String>,
    /// The only algorithm that it is used with: a token cannot choose another.
    pub algorithm: Algorithm,
    /// The key itself.
    pub key: DecodingKey,
}

/// Why a file of secrets or keys cannot be used. The operator must fix it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum KeyFileError {
    /// The system refuses it.
    #[error("cannot read the keys in {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    /// It holds something else.
    #[error("expected the secret in the first line of {}, and the previous one or nothing in the second", path.display())]
    Lines { path: PathBuf },
    /// A key in it could be guessed.
    #[error("expected keys of at least {least} bytes in the lines of {}, got {actual}", path.display())]
    Short { path: PathBuf, least: usize, actual: usize },
    /// It is no set of keys.
    #[error("expected a JSON Web Key Set in {} ({{\"keys\":[…]}}, at most {MAX_KEYS} keys): {reason}", path.display())]
    NoSet { path: PathBuf, reason: String },
    /// A key would verify nothing.
    #[error("{}: key {key}: expected {expected}", path.display())]
    BadKey { path: PathBuf, key: String, expected: &'static str },
    /// It has keys, but none for this.
    #[error("{}: expected a public key for signatures, RSA (RS256) or P-256 (ES256), and found none", path.display())]
    NoKey { path: PathBuf },
}

/// Where the keys come from. Files are read again when they change.
#[derive(Debug)]
pub struct KeySources {
    /// Secrets from the command line or the environment.
    pub secrets: Vec<SecretString>,
    /// The file of secrets.
    pub secret_file: Option<PathBuf>,
    /// The file of public keys.
    pub key_set: Option<PathBuf>,
}

impl KeySources {
    /// All keys. Warns of secrets that could be guessed.
    pub fn read(&self) -> Result<Vec<TokenKey>, KeyFileError> {
        let of_file = self.secret_file.as_deref().map(secrets_of).transpose()?.unwrap_or_default();
        let mut keys: Vec<TokenKey> = self.secrets.iter().chain(&of_file).map(of_secret).collect();
        if let Some(path) = &self.key_set {
            keys.extend(public_keys(path)?);
        }
        Ok(keys)
    }
}

fn of_secret(secret: &SecretString) -> TokenKey {
    let secret = secret.expose_secret();
    if secret.len() < STRONG_SECRET {
        tracing::warn!(
            bytes = secret.len(),
            "WS_AUTH_SECRET is short and could be guessed: expected at least {STRONG_SECRET} bytes"
        );
    }
    TokenKey { id: None, algorithm: Algorithm::HS256, key: DecodingKey::from_secret(secret.as_bytes()) }
}

fn read(path: &Path) -> Result<String, KeyFileError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
    read.map_err(|error| KeyFileError::Read { path: path.to_owned(), error })?;
    Ok(text)
}

/// The secrets in a file: the one that signs, then the one that is accepted too.
pub fn secrets_of(path: &Path) -> Result<Vec<SecretString>, KeyFileError> {
    let text = SecretString::from(read(path)?);
    let lines: Vec<&str> = text.expose_secret().lines().map(str::trim_end).collect();
    match lines[..] {
        [first] | [first, ""] if !first.is_empty() => Ok(vec![first.into()]),
        [first, second] if !first.is_empty() => Ok(vec![first.into(), second.into()]),
        _ => Err(KeyFileError::Lines { path: path.to_owned() }),
    }
}

/// The keys of a set that can verify RS256 or ES256. Others are left out: a set may be for other uses, too.
fn public_keys(path: &Path) -> Result<Vec<TokenKey>, KeyFileError> {
    let no_set = |reason: String| KeyFileError::NoSet { path: path.to_owned(), reason };
    let set: JwkSet = serde_json::from_str(&read(path)?).map_err(|error| no_set(error.to_string()))?;
    if set.keys.len() > MAX_KEYS {
        return Err(no_set(format!("it has {}", set.keys.len())));
    }
    let mut keys = Vec::new();
    for (number, jwk) in set.keys.iter().enumerate() {
        let named = || jwk.common.key_id.clone().unwrap_or_else(|| format!("number {}", number + 1));
        let key = public_key(jwk);
        let key = key.map_err(|expected| KeyFileError::BadKey { path: path.to_owned(), key: named(), expected })?;
        keys.extend(key);
    }
    if keys.is_empty() {
        return Err(KeyFileError::NoKey { path: path.to_owned() });
    }
    tracing::info!(file = %path.display(), keys = keys.len(), left_out = set.keys.len() - keys.len(), "public keys read");
    Ok(keys)
}

/// A key of the set, if it is one for RS256 or ES256. `Err` says what was expected.
fn public_key(jwk: &Jwk) -> Result<Option<TokenKey>, &'static str> {
    if jwk.common.public_key_use.as_ref().is_some_and(|of| *of != PublicKeyUse::Signature) {
        return Ok(None);
    }
    let (algorithm, expected) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, "n and e in base64url, with 2048 to 8192 bits of n"),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, "x and y in base64url, 32 bytes each")
        }
        _ => return Ok(None),
    };
    // A key that names another algorithm, such as PS256, is not ours.
    if jwk.common.key_algorithm.is_some_and(|named| named.to_string() != format!("{algorithm:?}")) {
        return Ok(None);
    }
    let key = DecodingKey::from_jwk(jwk).map_err(|_| expected)?;
    let is_whole = match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => MODULUS.contains(&n.len()) && !e.is_empty(),
        DecodingKeyKind::SecretOrDer(point) => point.len() == 65,
    };
    if !is_whole {
        return Err(expected);
    }
    Ok(Some(TokenKey { id: jwk.common.key_id.clone(), algorithm, key }))
}
