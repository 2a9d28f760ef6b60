//! What `flowcast tail` is told on the command line.

use std::path::PathBuf;

use crate::commands::control_client::ControlToken;
use crate::commands::hub_client::{self, HubRequest};
use crate::wire::payload::Profile;

/// The API key where none is given.
const DEFAULT_KEY: &str = "flowcast-tail";

/// What to subscribe to, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct TailOptions {
    /// Server to subscribe to: an http(s):// URL without a path, or host:port, where tail negotiates; or a hub's
    /// ws(s):// URL with its access_token [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Groups to join: tickers such as SPX, for their orderflow; package/category, package/* or spot, for the
    /// tickers in the list, or for all if it has none; or whole names such as blue_SPX_classic_gex_full. By default
    /// the orderflow of all tickers. A URL may come first, without --url
    #[arg(value_name = "[URL] GROUP")]
    pub words: Vec<String>,
    /// The same list, separated by commas, such as 'classic/gex_full,state/gamma_zero,SPX'
    #[arg(long, value_name = "GROUPS", value_delimiter = ',')]
    pub groups: Vec<String>,
    /// API key
    #[arg(long, env = "GEXBOT_API_KEY", default_value = DEFAULT_KEY, hide_env_values = true)]
    pub key: String,
    /// Generation of the API: 2025-11 negotiates at /negotiate, 2026-04 at /v2/negotiate
    #[arg(long, value_enum, default_value_t = Profile::V2026_04)]
    pub profile: Profile,
    /// Subprotocol to ask for
    #[arg(long, default_value = "protobuf.webpubsub.azure.v1", value_parser = hub_client::subprotocols())]
    pub subprotocol: String,
    /// Stop after this many records
    #[arg(long, value_name = "RECORDS")]
    pub count: Option<u64>,
    /// Store every message of the service unchanged, one JSON line each
    #[arg(long, value_name = "FILE")]
    pub capture: Option<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub token: ControlToken,
}

impl TailOptions {
    /// What the hubs are asked for.
    pub(super) fn request(&self) -> anyhow::Result<HubRequest> {
        let (url, words) = hub_client::place(self.url.as_deref(), &self.words, &self.groups)?;
        // Two tails of one user must not end each other.
        let is_default = self.key == DEFAULT_KEY;
        let slot_key = if is_default { format!("{DEFAULT_KEY}-{}", std::process::id()) } else { self.key.clone() };
        Ok(HubRequest {
            url,
            words,
            key: self.key.clone(),
            slot_key,
            profile: self.profile,
            subprotocol: self.subprotocol.clone(),
            offered_only: false,
            silence: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: TailOptions,
    }

    #[test]
    fn the_url_may_be_a_flag_the_first_word_or_left_out() {
        let place = |line: &str| {
            let options = Cli::parse_from(["tail"].into_iter().chain(line.split_whitespace())).options;
            options.request().map(|request| format!("{} {}", request.url, request.words.join("+"))).ok()
        };
        for (line, expected) in [
            ("", "http://127.0.0.1:8080 "),
            ("SPX NDX", "http://127.0.0.1:8080 SPX+NDX"),
            ("http://a SPX", "http://a SPX"),
            ("--url http://a", "http://a "),
            ("SPX --url ws://a NDX", "ws://a SPX+NDX"),
            ("localhost:1 SPX", "localhost:1 SPX"),
            ("classic/gex_full SPX", "http://127.0.0.1:8080 classic/gex_full+SPX"),
            ("http://a --groups classic/gex_full,spot", "http://a classic/gex_full+spot"),
        ] {
            assert_eq!(place(line).as_deref(), Some(expected), "{line}");
        }
        assert_eq!(place("http://a --url http://b"), None, "not two");
    }
}
