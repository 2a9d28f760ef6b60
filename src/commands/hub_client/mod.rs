//! A client of the hubs, for `tail` and `record`: negotiates, joins, decodes.
//!
//! [`hub_address`] finds the hubs of the groups that are [`wanted`]; a [`hub_connection`] joins them and gives each
//! record as a line of JSON.

pub(super) mod hub_address;
pub(super) mod hub_connection;
mod wanted;

use std::time::Duration;

use anyhow::bail;

use crate::wire::payload::Profile;
use crate::wire::webpubsub::SUBPROTOCOLS;

/// Which hubs and groups, and how they are spoken to.
#[derive(Debug, Clone)]
pub struct HubRequest {
    /// An http(s):// URL to negotiate at, or a hub's ws(s):// URL.
    pub url: String,
    /// Tickers, `package/category`, `package/*`, `spot`, whole group names.
    pub words: Vec<String>,
    /// The API key.
    pub key: String,
    /// The API key of a POST: each ends the sockets of the one before with the same key.
    pub slot_key: String,
    /// The generation of the API.
    pub profile: Profile,
    /// One of [`SUBPROTOCOLS`].
    pub subprotocol: String,
    /// Leaves out groups whose hub negotiate does not offer, in place of an error.
    pub offered_only: bool,
    /// A connection on which nothing arrives for this long counts as lost; `None`: it may be silent.
    pub silence: Option<Duration>,
}

/// The server that is asked where no URL is given.
const USUAL_URL: &str = "http://127.0.0.1:8080";

/// The URL and the groups that were typed. A first word with a `:` is a URL: no group has one.
pub fn place(url: Option<&str>, words: &[String], groups: &[String]) -> anyhow::Result<(String, Vec<String>)> {
    let (url, words) = match (url, words.split_first()) {
        (None, Some((first, words))) if first.contains(':') => (first.as_str(), words),
        (Some(_), Some((first, _))) if first.contains("://") => {
            bail!("expected the URL once, got --url and {first}")
        }
        (url, _) => (url.unwrap_or(USUAL_URL), words),
    };
    Ok((url.to_owned(), [words, groups].concat()))
}

/// The subprotocols, as values of a flag.
pub fn subprotocols() -> clap::builder::PossibleValuesParser {
    SUBPROTOCOLS.map(|(name, ..)| name).into()
}
