//! What `flowcast record` is told on the command line, and what it is to record.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::tz::TimeZone;
use secrecy::SecretString;

#[cfg(feature = "kafka")]
use super::kafka_recorder::TopicRequest;
use super::stream_recorder::RecordedChannels;
use crate::commands::hub_client::{self, HubRequest};
use crate::config;
use crate::source::broker::feed_settings::FeedSettings;
use crate::source::kafka::kafka_options::{self, SecurityOptions};
use crate::wire::gexbot::GroupName;
use crate::wire::payload::Profile;

/// What to record, and where to.
#[derive(Debug, Clone, clap::Args)]
pub struct RecordOptions {
    /// What to record: an http(s):// URL or host:port, whose hubs are negotiated for; a hub's ws(s):// URL with its
    /// access_token; or the ws(s):// URL of a /ws [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Of hubs, the groups: tickers, package/category, package/*, or whole names such as blue_SPX_classic_gex_full.
    /// By default everything that the server has. A URL may come first, without --url
    #[arg(value_name = "[URL] GROUP")]
    pub words: Vec<String>,
    /// The same list, separated by commas
    #[arg(long, value_name = "GROUPS", value_delimiter = ',')]
    pub groups: Vec<String>,
    /// API key of the hubs
    #[arg(long, env = "GEXBOT_API_KEY", default_value = "flowcast-record", hide_env_values = true)]
    pub key: String,
    /// Generation of the hubs' API
    #[arg(long, value_enum, default_value_t = Profile::V2026_04)]
    pub profile: Profile,
    /// Subprotocol to ask the hubs for
    #[arg(long, default_value = "protobuf.webpubsub.azure.v1", value_parser = hub_client::subprotocols())]
    pub subprotocol: String,
    /// Channels of a /ws
    #[arg(long, value_delimiter = ',', default_value = "price_updates,signals,trades,portfolio")]
    #[arg(value_name = "CHANNELS", value_parser = kafka_options::topic)]
    pub channels: Vec<String>,
    /// Token for a /ws
    #[arg(long, env = "FLOWCAST_RECORD_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<SecretString>,
    /// Record the prices of the broker feeds of this TOML file
    #[arg(long, value_name = "FILE")]
    pub feeds: Option<PathBuf>,
    /// Record topics of these Kafka brokers, host:port, comma-separated
    #[arg(long, value_delimiter = ',', value_name = "BROKERS", value_parser = kafka_options::broker)]
    pub brokers: Vec<String>,
    /// Topics to record; orderflow is recorded by ticker
    #[arg(long, value_delimiter = ',', value_name = "TOPICS", value_parser = kafka_options::topic)]
    pub topics: Vec<String>,
    /// Kafka consumer group that keeps how far the topics were recorded
    #[arg(long, default_value = "flowcast-record", value_name = "GROUP")]
    pub kafka_group: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub security: SecurityOptions,
    /// Folder of the recorded days
    #[arg(long, default_value = "./recorded", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Where the exchange is: a new day begins at its midnight [default: America/New_York; for feeds Asia/Kolkata]
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    pub time_zone: Option<TimeZone>,
    /// How often the files are brought to the disk: what a crash may cost
    #[arg(long, default_value = "1s", value_name = "DURATION", value_parser = kafka_options::pause)]
    pub sync: Duration,
    /// A connection on which nothing arrives for this long, not even a ping, is opened again
    #[arg(long, default_value = "2m", value_name = "DURATION", value_parser = kafka_options::pause)]
    pub silence: Duration,
    /// Stop after this many records
    #[arg(long, value_name = "RECORDS")]
    pub count: Option<u64>,
}

/// What is recorded.
pub enum Recorded {
    /// Groups of hubs.
    Hubs(HubRequest),
    /// Channels of a `/ws`.
    Streams(RecordedChannels),
    /// Prices of broker feeds.
    Feeds(Vec<FeedSettings>),
    /// Kafka topics.
    #[cfg(feature = "kafka")]
    Topics(TopicRequest),
}

/// What is recorded of a ticker: everything that has files.
const ALL_SERIES: [&str; 3] = ["classic/*", "state/*", "orderflow/*"];

impl RecordOptions {
    /// What the flags name.
    pub fn recorded(&self) -> anyhow::Result<Recorded> {
        let is_url = self.url.is_some() || !self.words.is_empty() || !self.groups.is_empty();
        let named = [is_url, self.feeds.is_some(), !self.brokers.is_empty()];
        let named = named.into_iter().filter(|&is_named| is_named).count();
        ensure!(named <= 1, "expected one thing to record: a URL, --feeds or --brokers; start a process for each");
        ensure!(self.topics.is_empty() || !self.brokers.is_empty(), "--topics needs --brokers");
        if let Some(file) = &self.feeds {
            let feeds = config::read(file)?.feeds;
            ensure!(!feeds.is_empty(), "{}: expected [[feeds]] blocks, got none", file.display());
            return Ok(Recorded::Feeds(feeds));
        }
        if !self.brokers.is_empty() {
            return self.kafka();
        }
        let (url, words) = hub_client::place(self.url.as_deref(), &self.words, &self.groups)?;
        if is_streams(&url) {
            ensure!(words.is_empty(), "expected --channels for a /ws, got groups: {}", words.join(" "));
            let (channels, token) = (self.channels.clone(), self.token.clone());
            return Ok(Recorded::Streams(RecordedChannels { url, channels, token, silence: self.silence }));
        }
        let is_series = |word: &String| word.contains('/') || word == "spot" || GroupName::parse(word).is_ok();
        let offered_only = !words.iter().any(is_series);
        let all = offered_only.then_some(ALL_SERIES).into_iter().flatten().map(str::to_owned);
        Ok(Recorded::Hubs(HubRequest {
            url,
            words: words.into_iter().chain(all).collect(),
            key: self.key.clone(),
            slot_key: self.key.clone(),
            profile: self.profile,
            subprotocol: self.subprotocol.clone(),
            offered_only,
            silence: Some(self.silence),
        }))
    }

    #[cfg(feature = "kafka")]
    fn kafka(&self) -> anyhow::Result<Recorded> {
        ensure!(!self.topics.is_empty(), "expected --topics with --brokers");
        self.security.check().map_err(anyhow::Error::msg)?;
        Ok(Recorded::Topics(TopicRequest {
            brokers: self.brokers.clone(),
            topics: self.topics.clone(),
            group: self.kafka_group.clone(),
            security: self.security.clone(),
        }))
    }

    #[cfg(not(feature = "kafka"))]
    #[expect(clippy::unused_self, reason = "with Kafka it is used")]
    fn kafka(&self) -> anyhow::Result<Recorded> {
        anyhow::bail!("this flowcast was built without Kafka; build it with --features kafka")
    }

    /// Where days end at midnight.
    pub fn zone(&self, recorded: &Recorded) -> anyhow::Result<TimeZone> {
        let usual = if matches!(recorded, Recorded::Feeds(_)) { "Asia/Kolkata" } else { "America/New_York" };
        match &self.time_zone {
            Some(zone) => Ok(zone.clone()),
            None => TimeZone::get(usual).with_context(|| format!("no time zone {usual}")),
        }
    }
}

/// Whether it is the URL of JSON streams and not of a hub.
fn is_streams(url: &str) -> bool {
    let place = url.split(['?', '#']).next().unwrap_or_default();
    let scheme = place.split_once("://").map(|(scheme, _)| scheme);
    matches!(scheme, Some("ws" | "wss")) && place.trim_end_matches('/').ends_with("/ws")
}

fn zone(text: &str) -> Result<TimeZone, String> {
    TimeZone::get(text).map_err(|_| "expected a time zone such as America/New_York or Asia/Kolkata".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: RecordOptions,
    }

    fn recorded(line: &str) -> Result<String, String> {
        let options = Cli::parse_from(["record"].into_iter().chain(line.split_whitespace())).options;
        let told = options.recorded().map_err(|error| error.to_string())?;
        Ok(match told {
            Recorded::Hubs(request) => {
                format!("hubs {} {} {}", request.url, request.words.join("+"), request.offered_only)
            }
            Recorded::Streams(request) => format!("streams {} {}", request.url, request.channels.join("+")),
            Recorded::Feeds(feeds) => format!("{} feeds", feeds.len()),
            #[cfg(feature = "kafka")]
            Recorded::Topics(request) => format!("topics {}", request.topics.join("+")),
        })
    }

    #[test]
    fn the_url_tells_hubs_from_streams() {
        for (line, expected) in [
            ("", "hubs http://127.0.0.1:8080 classic/*+state/*+orderflow/* true"),
            ("host:1 SPX", "hubs host:1 SPX+classic/*+state/*+orderflow/* true"),
            ("http://a SPX orderflow/*", "hubs http://a SPX+orderflow/* false"),
            (
                "ws://a/client/hubs/x?access_token=/ws blue_SPX_orderflow_orderflow",
                "hubs ws://a/client/hubs/x?access_token=/ws blue_SPX_orderflow_orderflow false",
            ),
            ("wss://a/ws?token=t", "streams wss://a/ws?token=t price_updates+signals+trades+portfolio"),
            ("--url ws://a/ws --channels lines", "streams ws://a/ws lines"),
        ] {
            assert_eq!(recorded(line).as_deref(), Ok(expected), "{line}");
        }
    }

    #[test]
    fn one_thing_is_recorded_at_a_time() {
        for (line, words) in [
            ("http://a --brokers b:1", "expected one thing to record"),
            ("ws://a/ws SPX", "expected --channels for a /ws"),
            ("--topics lines", "--topics needs --brokers"),
            #[cfg(feature = "kafka")]
            ("--brokers b:1", "expected --topics"),
        ] {
            let error = recorded(line).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
