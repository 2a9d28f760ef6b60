//! JSON Web Tokens for the run's clients and its publisher, made from the server's secret.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;

use crate::cli::RunArgs;
use crate::clock::{SECOND, unix_ns};

/// How long a token is good beyond the run, in seconds.
const SPARE_SECONDS: u64 = 3_600;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[error("no token could be made from the secret: {0}")]
pub struct TokenError(#[from] jsonwebtoken::errors::Error);

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
    let streams = &args.streams;
    streams.token.clone().map_or_else(|| minted(args, "swarm", None), |token| Ok(Some(token)))
}

/// The publisher's token: the one given, else one made from the secret, else the clients'.
pub fn of_publisher(args: &RunArgs) -> Result<Option<String>, TokenError> {
    let streams = &args.streams;
    if streams.publish_token.is_some() {
        return Ok(streams.publish_token.clone());
    }
    Ok(minted(args, "swarm-publisher", Some("publisher"))?.or_else(|| streams.token.clone()))
}

fn minted(args: &RunArgs, sub: &str, role: Option<&str>) -> Result<Option<String>, TokenError> {
    let Some(secret) = &args.streams.secret else { return Ok(None) };
    let now = unix_ns() / SECOND;
    let ramp_seconds = u64::from(args.connections / args.ramp.max(1)) * 3;
    let exp = now + ramp_seconds + args.duration.as_secs() + args.drain.as_secs() + SPARE_SECONDS;
    let claims = Claims { sub, iat: now, exp, role };
    let key = EncodingKey::from_secret(secret.as_bytes());
    Ok(Some(encode(&Header::new(Algorithm::HS256), &claims, &key)?))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
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
    }
}
