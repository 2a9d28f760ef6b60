//! Settings of the requests that steer the server.

use secrecy::SecretString;

use super::jwt::secret;

/// Settings of the requests that steer the server.
#[derive(Debug, Clone, clap::Args)]
pub struct ControlOptions {
    /// Whether requests may steer the server, such as PATCH /replay; off answers them with 403
    #[arg(long, env = "FLOWCAST_CONTROL", value_enum, default_value_t = Control::On, value_name = "CONTROL")]
    pub control: Control,
    /// Token of the requests that steer the server, as Authorization: Bearer TOKEN. Without it they are accepted from
    /// this machine only
    #[arg(long, env = "FLOWCAST_CONTROL_TOKEN", hide_env_values = true, value_name = "TOKEN", value_parser = secret)]
    pub control_token: Option<SecretString>,
    /// Origins of the web pages on other hosts that may steer the server, such as https://lab.example,
    /// comma-separated; none by default
    #[arg(long, env = "FLOWCAST_CONTROL_ORIGIN", value_delimiter = ',', value_name = "ORIGINS", value_parser = origin)]
    pub control_origin: Vec<String>,
    /// Names of this server in the Host header of requests that steer it, comma-separated, besides localhost and
    /// addresses. Any other name is refused, since a web page could have pointed it here
    #[arg(long, env = "FLOWCAST_CONTROL_HOST", value_delimiter = ',', value_name = "HOSTS", value_parser = host)]
    pub control_host: Vec<String>,
    /// Largest number of requests that steer the server, a second; further ones are answered with 429
    #[arg(long, env = "FLOWCAST_CONTROL_RATE", default_value_t = 20, value_name = "REQUESTS")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub control_rate: u32,
}

/// Whether requests may steer the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Control {
    /// Those that are allowed to.
    On,
    /// None.
    Off,
}

fn origin(text: &str) -> Result<String, String> {
    let text = text.trim();
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains(['/', '*', '@', ' ']) => Ok(text.to_ascii_lowercase()),
        _ => Err("expected an origin such as https://lab.example, without a path".to_owned()),
    }
}

fn host(text: &str) -> Result<String, String> {
    let text = text.trim();
    let is_name = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if is_name {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("expected a name such as feed.example, without a port".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_a_scheme_and_no_path_and_a_host_has_neither() {
        assert_eq!(origin("https://Lab.example:8443"), Ok("https://lab.example:8443".to_owned()));
        for text in ["", "*", "lab.example", "https://", "https://lab.example/", "https://*.example", "ftp://a"] {
            assert!(origin(text).is_err(), "{text}");
        }
        assert_eq!(host(" Feed.example"), Ok("feed.example".to_owned()));
        for text in ["", "*", "feed.example:80", "https://a", "a b"] {
            assert!(host(text).is_err(), "{text}");
        }
    }
}
