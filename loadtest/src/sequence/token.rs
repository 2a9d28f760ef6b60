//! JSON Web Tokens for the run's clients and its publisher, made from the server's secret.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::Serialize;

use crate::cli::RunArgs;
use crate::clock::{SECOND, unix_ns};

/// How long a token is good beyond the run, in seconds.
const SPARE_SECONDS: u64 = 3_600;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The claims are no JSON.
    #[error("no token could be made: {0}")]
    Claims(#[from] serde_json::Error),
    /// It would break the request that carries it.
    #[error("a token holds other characters than a JWT does (letters, digits, - _ .)")]
    Characters,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
}

/// The clients' token: the one given, else one made from the secret, else none.
pub fn of_clients(args: &RunArgs) -> Result<Option<String>, TokenError> {
    match &args.streams.token {
        Some(token) => checked(token).map(Some),
        None => minted(args, "swarm", None),
    }
}

/// The publisher's token: the one given, else one made from the secret, else the clients'.
pub fn of_publisher(args: &RunArgs) -> Result<Option<String>, TokenError> {
    let streams = &args.streams;
    if let Some(token) = &streams.publish_token {
        return checked(token).map(Some);
    }
    match minted(args, "swarm-publisher", Some("publisher"))? {
        None => of_clients(args),
        minted => Ok(minted),
    }
}

fn checked(token: &str) -> Result<String, TokenError> {
    let is_of_jwt = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if token.bytes().all(is_of_jwt) { Ok(token.to_owned()) } else { Err(TokenError::Characters) }
}

fn minted(args: &RunArgs, sub: &str, role: Option<&str>) -> Result<Option<String>, TokenError> {
    let Some(secret) = &args.streams.secret else { return Ok(None) };
    let now = unix_ns() / SECOND;
    let ramp_seconds = u64::from(args.connections / args.ramp.max(1)) * 3;
    let exp = now + ramp_seconds + args.duration.as_secs() + args.drain.as_secs() + SPARE_SECONDS;
    let claims = Claims { sub, iat: now, exp, role };
    Ok(Some(signed(&serde_json::to_string(&claims)?, secret)))
}

/// A JWT with these claims, signed with HS256 (RFC 7515 §3.1, RFC 7518 §3.2).
fn signed(claims: &str, secret: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let content = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), content.as_bytes());
    format!("{content}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::Value;

    use super::*;
    use crate::cli::Cli;

    fn args(more: &[&str]) -> RunArgs {
        let mut run = Cli::parse_from([&["swarm"], more].concat()).run;
        // Whatever the surroundings hold.
        if !more.contains(&"--secret") {
            run.streams.secret = None;
        }
        run
    }

    fn part(token: &str, number: usize) -> Value {
        let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(number).unwrap()).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn a_token_has_the_signature_that_other_implementations_make() {
        // The example of https://jwt.io.
        let claims = r#"{"sub":"1234567890","name":"John Doe","iat":1516239022}"#;
        let token = signed(claims, "your-256-bit-secret");
        assert!(token.ends_with(".SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"), "{token}");
    }

    #[test]
    fn only_the_publishers_token_may_publish_and_both_outlive_the_run() {
        let args = args(&["--secret", "s", "--duration", "2h"]);
        let (client, publisher) = (of_clients(&args).unwrap().unwrap(), of_publisher(&args).unwrap().unwrap());
        assert_eq!(part(&client, 0)["alg"], "HS256");
        assert_eq!(part(&client, 1)["role"], Value::Null);
        assert_eq!(part(&publisher, 1)["role"], "publisher");
        let claims = part(&client, 1);
        assert!(claims["exp"].as_u64().unwrap() > claims["iat"].as_u64().unwrap() + 7_200);
    }

    #[test]
    fn a_given_token_goes_before_the_secret_and_without_either_there_is_none() {
        let given = args(&["--secret", "s", "--token", "mine"]);
        assert_eq!(of_clients(&given).unwrap().as_deref(), Some("mine"));
        assert_ne!(of_publisher(&given).unwrap().as_deref(), Some("mine"));
        let alone = args(&["--token", "mine"]);
        assert_eq!(of_publisher(&alone).unwrap().as_deref(), Some("mine"));
        assert_eq!(of_clients(&args(&[])).unwrap(), None);
        assert!(matches!(of_clients(&args(&["--token", "a\r\nb"])), Err(TokenError::Characters)));
    }
}
