//! Settings: flag > environment > TOML file > default, each declared once, where its part lives.
//!
//! A TOML file's values become the defaults of the command line's arguments before it is parsed. So
//! every source of a value passes the same checks, and clap itself keeps the order.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, Command};

use crate::engine::hub::HubOptions;
use crate::server::http::faults::fault_options::FaultOptions;
use crate::server::http::http_options::HttpOptions;
use crate::server::http::jwt::AuthOptions;
use crate::server::http::listen::ListenOptions;
use crate::server::http::session_key::SessionKeyOptions;
use crate::server::shard::shard_options::ShardOptions;
use crate::source::broker::feed_options::BrokerOptions;
use crate::source::broker::feed_settings::{self, FeedSettings};
use crate::source::broker::setting_values::SettingsError;
use crate::source::kafka::kafka_options::KafkaOptions;
use crate::source::recorded::dataset::DatasetOptions;
use crate::source::recorded::player_options::ReplayOptions;
use crate::source::recorded::trading::TradingOptions;
use crate::source::recorded::window_options::WindowOptions;
use crate::streams::stream_options::StreamOptions;
use crate::wire::streams::Channels;

/// Everything `serve` can be told.
#[derive(Debug, Clone, clap::Args)]
#[expect(missing_docs, reason = "each part documents its own; clap would print it as help")]
pub struct ServeOptions {
    #[command(flatten, next_help_heading = "Listening")]
    pub listen: ListenOptions,
    #[command(flatten, next_help_heading = "Data")]
    pub dataset: DatasetOptions,
    #[command(flatten, next_help_heading = "Frames")]
    pub window: WindowOptions,
    #[command(flatten, next_help_heading = "Replay")]
    pub replay: ReplayOptions,
    #[command(flatten, next_help_heading = "Hub")]
    pub hub: HubOptions,
    #[command(flatten, next_help_heading = "HTTP")]
    pub http: HttpOptions,
    #[command(flatten, next_help_heading = "Connections")]
    pub shard: ShardOptions,
    #[command(flatten, next_help_heading = "Connections")]
    pub session_key: SessionKeyOptions,
    #[command(flatten, next_help_heading = "Faults on demand")]
    pub faults: FaultOptions,
    #[command(flatten, next_help_heading = "JSON streams")]
    pub streams: StreamOptions,
    #[command(flatten, next_help_heading = "JSON streams")]
    pub trading: TradingOptions,
    #[command(flatten, next_help_heading = "JSON streams")]
    pub auth: AuthOptions,
    #[command(flatten, next_help_heading = "Kafka")]
    pub kafka: KafkaOptions,
    #[command(flatten, next_help_heading = "Broker feeds")]
    pub broker: BrokerOptions,
    #[command(flatten, next_help_heading = "Names and times")]
    pub general: GeneralOptions,
}

impl ServeOptions {
    /// Whether the trading streams follow the recorded day: unless live data is configured.
    pub fn replays_trading(&self) -> bool {
        self.streams.enabled && self.trading.replay_trading.unwrap_or(!self.is_live())
    }

    /// Whether live data is configured.
    fn is_live(&self) -> bool {
        self.kafka.is_configured() || !self.broker.feeds.is_empty()
    }

    /// Whether a recorded day is loaded at all: unless Kafka feeds the orderflow hub.
    pub fn replays(&self) -> bool {
        !self.kafka.feeds_orderflow() && (self.http.ws_enabled || self.replays_trading())
    }
}

/// Settings that belong to no part alone.
#[derive(Debug, Clone, clap::Args)]
pub struct GeneralOptions {
    /// First part of every group's name, letters and digits: the blue of blue_SPX_orderflow_orderflow
    #[arg(long, env = "WS_GROUP_PREFIX", default_value = "blue", value_name = "PREFIX", value_parser = group_prefix)]
    pub group_prefix: String,
    /// Seconds a shutdown may take; then the connections that are still open are cut off
    #[arg(long, env = "WS_SHUTDOWN_TIMEOUT_SECONDS", default_value_t = 10, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub shutdown_timeout_seconds: u64,
}

fn group_prefix(text: &str) -> Result<String, String> {
    let valid = !text.is_empty() && text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if valid { Ok(text.to_owned()) } else { Err("expected 1 to 32 letters and digits, such as blue".to_owned()) }
}

/// Why the settings are refused. Nothing has been opened yet.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: expected a readable settings file (--config): {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// The file is not TOML.
    #[error("{path}:{line}: expected TOML: {reason}")]
    NotToml {
        path: PathBuf,
        line: usize,
        /// Without the line itself: a secret may stand there.
        reason: String,
    },
    /// A key that no setting has.
    #[error("{path}: {key}: expected the name of a setting, such as data-dir{}", hint(.similar.as_deref()))]
    UnknownKey { path: PathBuf, key: String, similar: Option<String> },
    /// A `[[feeds]]` block is refused.
    #[error("{path}: {reason}")]
    Feeds { path: PathBuf, reason: SettingsError },
    /// A value of a type no setting has.
    #[error("{path}: {key}: expected a string, number, boolean or list of them, got {actual}")]
    BadType { path: PathBuf, key: String, actual: &'static str },
}

fn hint(similar: Option<&str>) -> String {
    similar.map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

/// Settings that two parts must agree on. `Err` names them and what is accepted.
pub fn check(options: &ServeOptions) -> Result<(), String> {
    let keepalive = options.shard.keepalive;
    if keepalive.pong_timeout_seconds <= keepalive.ping_interval_seconds {
        return Err(format!(
            "--pong-timeout-seconds (FLOWCAST_PONG_TIMEOUT_SECONDS): expected more than --ping-interval-seconds ({}), got {}",
            keepalive.ping_interval_seconds, keepalive.pong_timeout_seconds
        ));
    }
    options.replay.check()?;
    let ServeOptions { http, shard, .. } = options;
    let bodies = "--request-bodies-bytes (FLOWCAST_REQUEST_BODIES_BYTES)";
    at_least(bodies, http.request_bodies_bytes, "--max-body-bytes", http.max_body_bytes)?;
    let unfinished = "--unfinished-bytes (FLOWCAST_UNFINISHED_BYTES)";
    at_least(unfinished, shard.unfinished_bytes, "--max-message-bytes", shard.max_message_bytes)?;
    options.kafka.check()?;
    options.auth.check()?;
    options.session_key.check()?;
    let channels = Channels::new(options.kafka.channels());
    if let Some((name, _)) = options.streams.channel_policy.iter().find(|(name, _)| channels.find(name).is_none()) {
        return Err(format!("--channel-policy (FLOWCAST_CHANNEL_POLICY): {}", channels.unknown(name)));
    }
    if options.kafka.is_configured() && !options.auth.has_keys() && !options.auth.allow_anonymous {
        return Err("WS_KAFKA_BROKERS is set and WS_AUTH_SECRET is not: anybody could read the live data. Set \
             WS_AUTH_SECRET, or --allow-anonymous if that is intended"
            .to_owned());
    }
    Ok(())
}

fn at_least(name: &str, bytes: usize, other: &str, least: usize) -> Result<(), String> {
    if bytes >= least {
        return Ok(());
    }
    Err(format!("{name}: expected at least {other} ({least}), got {bytes}"))
}

/// What a settings file holds.
pub struct SettingsFile {
    path: PathBuf,
    /// The `[[feeds]]` blocks.
    pub feeds: Vec<FeedSettings>,
    /// The keys that flags have too.
    flags: BTreeMap<String, toml::Value>,
}

impl SettingsFile {
    /// Whether it sets the setting of this flag, a name without the dashes before it.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.keys().any(|key| key.replace('_', "-") == flag)
    }
}

/// Reads a settings file and checks its `[[feeds]]`.
pub fn read(path: &Path) -> Result<SettingsFile, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let mut flags: BTreeMap<String, toml::Value> = toml::from_str(&text).map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        ConfigError::NotToml { path: path.to_owned(), line, reason: error.message().to_owned() }
    })?;
    let feeds = flags.remove("feeds").map(feed_settings::feeds).transpose();
    let feeds = feeds.map_err(|reason| ConfigError::Feeds { path: path.to_owned(), reason })?.unwrap_or_default();
    Ok(SettingsFile { path: path.to_owned(), feeds, flags })
}

/// Makes the file's values the defaults of `command`'s arguments. Keys are the flags' names, with
/// `-` or `_`.
pub fn with_file_defaults(mut command: Command, file: &SettingsFile) -> Result<Command, ConfigError> {
    let path = &file.path;
    for (key, value) in file.flags.clone() {
        let values =
            texts(&value).map_err(|actual| ConfigError::BadType { path: path.to_owned(), key: key.clone(), actual })?;
        let name = key.replace('_', "-");
        let Some(id) = flags(&command).find(|arg| flag(arg) == name).map(|arg| arg.get_id().clone()) else {
            let similar = flags(&command).map(flag).find(|flag| flag.contains(&name) || name.contains(flag.as_str()));
            return Err(ConfigError::UnknownKey { path: path.to_owned(), key, similar });
        };
        let is_list = flags(&command).any(|arg| *arg.get_id() == id && arg.get_value_delimiter().is_some());
        if !is_list && values.len() != 1 {
            return Err(ConfigError::BadType { path: path.to_owned(), key, actual: "a list" });
        }
        command = command.mut_arg(id, |arg| arg.default_values(values));
    }
    Ok(command)
}

fn flags(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| is_setting(arg))
}

/// Whether a settings file may set this argument: all but `--config`, `--help` and their like.
pub fn is_setting(arg: &Arg) -> bool {
    arg.get_env().is_some() && arg.get_id() != "config"
}

/// The flag's name, without the dashes before it: also the key in a settings file.
pub fn flag(arg: &Arg) -> String {
    arg.get_long().unwrap_or_default().to_owned()
}

/// A TOML value as it would stand on the command line.
fn texts(value: &toml::Value) -> Result<Vec<OsString>, &'static str> {
    match value {
        toml::Value::String(text) => Ok(vec![text.into()]),
        toml::Value::Integer(number) => Ok(vec![number.to_string().into()]),
        toml::Value::Float(number) => Ok(vec![number.to_string().into()]),
        toml::Value::Boolean(boolean) => Ok(vec![boolean.to_string().into()]),
        toml::Value::Datetime(date) => Ok(vec![date.to_string().into()]),
        toml::Value::Array(items) => {
            let items: Vec<Vec<OsString>> = items.iter().map(texts).collect::<Result<_, _>>()?;
            Ok(items.into_iter().flatten().collect())
        }
        toml::Value::Table(_) => Err("a table"),
    }
}
