//! What `flowcast tail` is told on the command line.

use std::path::PathBuf;

use anyhow::bail;

use crate::commands::replay::ControlToken;
use crate::wire::payload::Profile;
use crate::wire::webpubsub::SUBPROTOCOLS;

/// The API key where none is given.
pub(super) const DEFAULT_KEY: &str = "flowcast-tail";

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
    #[arg(long, default_value = "protobuf.webpubsub.azure.v1", value_parser = subprotocols())]
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
    /// The URL and the groups that were typed. A first word with a `:` is a URL: no group has one.
    pub(super) fn place(&self) -> anyhow::Result<(String, Vec<String>)> {
        const USUAL: &str = "http://127.0.0.1:8080";
        let (url, words) = match (&self.url, self.words.split_first()) {
            (None, Some((first, words))) if first.contains(':') => (first.as_str(), words),
            (Some(_), Some((first, _))) if first.contains("://") => {
                bail!("expected the URL once, got --url and {first}")
            }
            (url, _) => (url.as_deref().unwrap_or(USUAL), self.words.as_slice()),
        };
        Ok((url.to_owned(), [words, &self.groups].concat()))
    }
}

fn subprotocols() -> clap::builder::PossibleValuesParser {
    SUBPROTOCOLS.map(|(name, ..)| name).into()
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
            options.place().map(|(url, groups)| format!("{url} {}", groups.join("+"))).ok()
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
