//! Settings of all feeds together.

use std::str::FromStr;
use std::time::Duration;

use super::feed_settings::FeedSettings;

/// Records that may wait for an in-process subscriber before it is dropped, unless it asks for others.
/// `serve` has no such subscriber: the prices for its clients take the merged stream.
pub const SUBSCRIBER_BUFFER: usize = 1024;

/// In-process subscribers at once, unless an embedder sets another limit.
const SUBSCRIBERS: usize = 1024;

/// Settings of all broker feeds together; what belongs to one stands in its `[[feeds]]` block.
#[derive(Debug, Clone, clap::Args)]
pub struct BrokerOptions {
    #[arg(skip)]
    #[expect(missing_docs, reason = "clap would print it as help: the `[[feeds]]` of the settings file")]
    pub feeds: Vec<FeedSettings>,
    /// Records that may wait for the merged stream; more make the broker feeds wait
    #[arg(long, env = "FLOWCAST_FEED_BUFFER", default_value_t = 4096, value_name = "RECORDS")]
    #[arg(value_parser = count(1, 1 << 20))]
    pub feed_buffer: usize,
    #[arg(skip = SUBSCRIBER_BUFFER)]
    #[expect(
        missing_docs,
        reason = "clap would print it as help: records that may wait for one in-process subscriber"
    )]
    pub feed_client_buffer: usize,
    /// Feed events kept for a slow listener
    #[arg(long, env = "FLOWCAST_FEED_EVENT_BUFFER", default_value_t = 256, value_name = "EVENTS")]
    #[arg(value_parser = count(1, 1 << 16))]
    pub feed_event_buffer: usize,
    /// Symbols that may be subscribed at the brokers at once
    #[arg(long, env = "FLOWCAST_FEED_MAX_SYMBOLS", default_value_t = 10_000, value_name = "SYMBOLS")]
    #[arg(value_parser = count(1, 100_000))]
    pub feed_max_symbols: usize,
    #[arg(skip = SUBSCRIBERS)]
    #[expect(missing_docs, reason = "clap would print it as help: in-process subscribers at once")]
    pub feed_max_subscribers: usize,
    /// How long a symbol's first feed may be silent before another feed's records are used
    #[arg(long, env = "FLOWCAST_FEED_FAILOVER_SILENCE", default_value = "10s", value_name = "DURATION")]
    #[arg(value_parser = duration)]
    pub feed_failover_silence: Duration,
    /// How long a symbol that nobody wants stays subscribed at the brokers; `never`: it is never unsubscribed
    #[arg(long, env = "FLOWCAST_FEED_UNSUBSCRIBE_GRACE", default_value = "30s", value_name = "DURATION")]
    pub feed_unsubscribe_grace: Grace,
    /// Which configured symbols are subscribed at the brokers: all, or those some client of /ws has
    /// subscribed to
    #[arg(long, env = "FLOWCAST_FEED_DEMAND", value_enum, default_value_t = Demand::All, value_name = "WHICH")]
    pub feed_demand: Demand,
}

/// Which symbols are subscribed at the brokers for the JSON streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Demand {
    /// Every configured one, all the time.
    All,
    /// Those that some client of /ws has subscribed to.
    Clients,
}

/// How long a symbol nobody wants stays subscribed; `None`: for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grace(pub Option<Duration>);

impl FromStr for Grace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "never" => Ok(Self(None)),
            "0" | "0s" => Ok(Self(Some(Duration::ZERO))),
            text => duration(text).map(|grace| Self(Some(grace))),
        }
    }
}

impl Default for BrokerOptions {
    /// The defaults of the command line, for tests and embedders.
    fn default() -> Self {
        use clap::{Args, FromArgMatches};
        let command =
            Self::augment_args(clap::Command::new("feeds").no_binary_name(true)).mut_args(|arg| arg.env(None));
        let matches = command.get_matches_from([""; 0]);
        Self::from_arg_matches(&matches).expect("every setting has a default")
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).ok();
    let duration = duration.filter(|duration| (Duration::from_millis(1)..=Duration::from_hours(24)).contains(duration));
    duration.ok_or_else(|| "expected a duration such as 500ms, from 1ms to 24h".to_owned())
}

fn count(from: u64, to: u64) -> impl clap::builder::TypedValueParser<Value = usize> {
    use clap::builder::TypedValueParser as _;
    clap::value_parser!(u64).range(from..=to).map(|number| number as usize)
}
