//! `flowcast token`: makes a token for `/ws` and `POST /api/publish`.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::engine::system_clock;
use crate::server::http::jwt::{self, Claims};
use crate::server::http::token_keys::secrets_of;

/// What the token is to say.
#[derive(Debug, Clone, clap::Args)]
pub struct TokenOptions {
    /// Who the token is for
    #[arg(long, value_name = "NAME")]
    pub sub: String,
    /// How long the token is valid, such as 1h or 30m; `never` makes one that does not expire
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = ttl)]
    pub ttl: Ttl,
    /// Channels the token is for, comma-separated; all by default
    #[arg(long, value_delimiter = ',', value_name = "CHANNELS")]
    pub channels: Option<Vec<String>>,
    /// Role; `publisher` may publish over HTTP
    #[arg(long, value_name = "ROLE")]
    pub role: Option<String>,
    /// Audience; must match the server's --auth-audience
    #[arg(long, value_name = "AUDIENCE")]
    pub audience: Option<String>,
    /// The server's secret
    #[arg(long, env = "WS_AUTH_SECRET", hide_env_values = true, value_name = "SECRET", value_parser = jwt::secret)]
    #[arg(required_unless_present = "secret_file")]
    pub secret: Option<SecretString>,
    /// The server's file of secrets, whose first line signs
    #[arg(long, env = "WS_AUTH_SECRET_FILE", value_name = "FILE", conflicts_with = "secret")]
    pub secret_file: Option<PathBuf>,
}

/// How long a token is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// This long from now on.
    For(Duration),
    /// The token has no `exp`; only another secret ends it.
    Never,
}

fn ttl(text: &str) -> Result<Ttl, String> {
    if text == "never" {
        return Ok(Ttl::Never);
    }
    let ttl = humantime::parse_duration(text);
    ttl.map(Ttl::For).map_err(|error| format!("expected a duration such as 1h or 30m, or never: {error}"))
}

/// Signs a token with HS256; an error if a secret cannot be read, or the claims cannot be written as JSON.
pub fn token(options: &TokenOptions) -> anyhow::Result<String> {
    let secret = match (&options.secret, &options.secret_file) {
        (Some(secret), _) => secret.clone(),
        (None, Some(file)) => secrets_of(file)?.swap_remove(0),
        (None, None) => anyhow::bail!("expected --secret or --secret-file"),
    };
    let now = (system_clock::unix_ns() / 1_000_000_000) as f64;
    let claims = Claims {
        sub: options.sub.clone(),
        exp: match options.ttl {
            Ttl::For(ttl) => Some(now + ttl.as_secs_f64().floor()),
            Ttl::Never => None,
        },
        iat: Some(now),
        channels: options.channels.clone().map(|channels| channels.into_iter().map(Into::into).collect()),
        role: options.role.clone(),
        aud: options.audience.clone().map(Into::into),
    };
    Ok(jwt::sign(&claims, secret.expose_secret().as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::http::jwt::{AuthOptions, Authority, PUBLISHER};

    #[test]
    fn a_minted_token_is_accepted_and_says_what_was_asked() {
        let options = TokenOptions {
            sub: "me".to_owned(),
            ttl: Ttl::For(Duration::from_mins(1)),
            channels: Some(vec!["lines".to_owned()]),
            role: Some(PUBLISHER.to_owned()),
            audience: None,
            secret: Some("secret".into()),
            secret_file: None,
        };
        let authority = Authority::new(&AuthOptions {
            auth_secret: Some("secret".into()),
            auth_secret_previous: None,
            auth_secret_file: None,
            auth_jwks_file: None,
            auth_audience: None,
            allowed_origins: Vec::new(),
            allow_anonymous: false,
        })
        .unwrap();
        let claims = authority.check(Some(&token(&options).unwrap())).unwrap().unwrap();
        assert_eq!((claims.sub.as_str(), claims.role.as_deref()), ("me", Some(PUBLISHER)));
        let grant = claims.grant();
        assert!(grant.allows("lines") && !grant.allows("signals"));
        let now = system_clock::unix_ns() / 1_000_000_000;
        assert!((now + 58..=now + 60).contains(&grant.expires_unix_s.unwrap().get()));
    }
}
