//! Settings of the Kafka source, and of whoever else talks to brokers.

use std::fmt;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;

/// The topic whose messages feed the orderflow hub, not a channel.
pub const ORDERFLOW_TOPIC: &str = "orderflow";

/// Settings of the Kafka source.
#[derive(Debug, Clone, clap::Args)]
pub struct KafkaOptions {
    /// Kafka brokers to read from, host:port, comma-separated; without any, nothing is read
    #[arg(long, env = "WS_KAFKA_BROKERS", value_delimiter = ',', value_name = "BROKERS", value_parser = broker)]
    pub kafka_brokers: Vec<String>,
    /// Topics, comma-separated. Each is a channel of /ws; one named as a trading stream feeds that; one
    /// named orderflow feeds the orderflow hub in place of the recorded day
    #[arg(long, env = "WS_KAFKA_TOPICS", value_delimiter = ',', default_value = "lines,order_book,analytics")]
    #[arg(value_name = "TOPICS", value_parser = topic)]
    pub kafka_topics: Vec<String>,
    /// Kafka consumer group. Every node gets every message: its own group is GROUP-NODE
    #[arg(long, env = "WS_KAFKA_GROUP_ID", default_value = "ws-realtime", value_name = "GROUP", value_parser = name)]
    pub kafka_group_id: String,
    /// What tells this node from others of its kind, and must stay the same over a restart [default:
    /// the host's name]
    #[arg(long, env = "FLOWCAST_NODE_ID", value_name = "NODE", value_parser = name)]
    pub node_id: Option<String>,
    /// Read with one group for all nodes: each message then reaches the clients of one node only
    #[arg(long, env = "FLOWCAST_KAFKA_SHARED_GROUP", default_value_t = false, value_parser = clap::value_parser!(bool))]
    #[arg(action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub kafka_shared_group: bool,
    /// Where a node starts that has read before: where it left off, or behind the newest message
    #[arg(long, env = "FLOWCAST_KAFKA_START", value_enum, default_value_t = Start::Committed, value_name = "WHERE")]
    pub kafka_start: Start,
    /// Largest message that is passed on, bytes; a larger one is skipped
    #[arg(long, env = "FLOWCAST_KAFKA_MAX_MESSAGE_BYTES", default_value_t = 1 << 20, value_name = "BYTES")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=64 << 20))]
    pub kafka_max_message_bytes: usize,
    /// Messages fetched ahead, bytes in all
    #[arg(long, env = "FLOWCAST_KAFKA_QUEUE_BYTES", default_value_t = 4 << 20, value_name = "BYTES")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(64 << 10..=1 << 30))]
    pub kafka_queue_bytes: usize,
    /// Messages that waited while this node or the broker was away are passed on at most this many
    /// times as fast as they were made, so that clients keep up; faster where all would take more than
    /// a minute; 0: at once
    #[arg(long, env = "FLOWCAST_KAFKA_CATCH_UP_SPEED", default_value_t = 10, value_name = "FACTOR")]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub kafka_catch_up_speed: u32,
    /// First pause before a lost broker is tried again; it doubles up to --kafka-backoff-max
    #[arg(long, env = "FLOWCAST_KAFKA_BACKOFF", default_value = "250ms", value_name = "DURATION", value_parser = pause)]
    pub kafka_backoff: Duration,
    /// Longest pause before a lost broker is tried again
    #[arg(long, env = "FLOWCAST_KAFKA_BACKOFF_MAX", default_value = "10s", value_name = "DURATION", value_parser = pause)]
    pub kafka_backoff_max: Duration,
    /// How often new topics and partitions are looked for, and the broker is asked whether it is there
    #[arg(long, env = "FLOWCAST_KAFKA_REFRESH", default_value = "5s", value_name = "DURATION", value_parser = pause)]
    pub kafka_refresh: Duration,
    /// Tickers the orderflow topic may bring
    #[arg(long, env = "FLOWCAST_KAFKA_MAX_TICKERS", default_value_t = 10_000, value_name = "TICKERS")]
    pub kafka_max_tickers: usize,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub security: SecurityOptions,
}

/// How brokers are spoken to.
#[derive(Debug, Clone, clap::Args)]
pub struct SecurityOptions {
    /// How brokers are spoken to; those with TLS (ssl, sasl_ssl) need the feature kafka-ssl
    #[arg(long, env = "WS_KAFKA_SECURITY_PROTOCOL", value_enum, default_value_t = SecurityProtocol::Plaintext)]
    #[arg(ignore_case = true, value_name = "PROTOCOL")]
    pub kafka_security_protocol: SecurityProtocol,
    /// How user name and password are proved; SCRAM needs the feature kafka-ssl
    #[arg(long, env = "WS_KAFKA_SASL_MECHANISM", value_enum, default_value_t = Mechanism::Plain)]
    #[arg(ignore_case = true, value_name = "MECHANISM")]
    pub kafka_sasl_mechanism: Mechanism,
    /// User name, for the protocols with SASL
    #[arg(long, env = "WS_KAFKA_SASL_USERNAME", value_name = "NAME")]
    pub kafka_sasl_username: Option<String>,
    /// Password, for the protocols with SASL
    #[arg(long, env = "WS_KAFKA_SASL_PASSWORD", hide_env_values = true, value_name = "PASSWORD")]
    pub kafka_sasl_password: Option<Secret>,
    /// File or folder of the certificates that vouch for the brokers, PEM [default: the system's]
    #[arg(long, env = "WS_KAFKA_SSL_CA_LOCATION", value_name = "PATH")]
    pub kafka_ssl_ca_location: Option<String>,
}

/// A text that is in no log, whoever prints it.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The text, for whom it is meant.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a node starts that has read before. One that has not starts behind the newest message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Start {
    /// Where it left off.
    Committed,
    /// Behind the newest message; what came meanwhile is skipped.
    Latest,
}

/// Kafka's `security.protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum SecurityProtocol {
    /// Neither encrypted nor proved.
    Plaintext,
    /// TLS.
    Ssl,
    /// A user name and password, in the open.
    SaslPlaintext,
    /// A user name and password over TLS.
    SaslSsl,
}

impl SecurityProtocol {
    /// As librdkafka calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    /// Whether a user name and password are proved.
    pub const fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }

    /// Whether it is encrypted.
    pub const fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }
}

/// Kafka's `sasl.mechanism`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mechanism {
    /// The password as it is: only sensible over TLS.
    #[value(name = "PLAIN")]
    Plain,
    /// RFC 5802 with SHA-256.
    #[value(name = "SCRAM-SHA-256")]
    ScramSha256,
    /// RFC 5802 with SHA-512.
    #[value(name = "SCRAM-SHA-512")]
    ScramSha512,
}

impl Mechanism {
    /// As Kafka calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl KafkaOptions {
    /// Whether anything is to be read.
    pub fn is_configured(&self) -> bool {
        !self.kafka_brokers.is_empty()
    }

    /// Whether the orderflow hub is fed from here, and so not from the recorded day.
    pub fn feeds_orderflow(&self) -> bool {
        self.is_configured() && self.kafka_topics.iter().any(|topic| topic == ORDERFLOW_TOPIC)
    }

    /// The topics that are channels of `/ws`: they exist with or without a broker.
    pub fn channels(&self) -> impl Iterator<Item = &str> {
        self.kafka_topics.iter().map(String::as_str).filter(|&topic| topic != ORDERFLOW_TOPIC)
    }

    /// This node's name.
    pub fn node(&self) -> String {
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        self.node_id.clone().unwrap_or_else(host)
    }

    /// The consumer group whose offsets this node keeps.
    pub fn group(&self) -> String {
        if self.kafka_shared_group {
            self.kafka_group_id.clone()
        } else {
            format!("{}-{}", self.kafka_group_id, self.node())
        }
    }

    /// What no setting can tell alone. `Err` says what is accepted.
    pub fn check(&self) -> Result<(), String> {
        if !self.is_configured() {
            return Ok(());
        }
        if cfg!(not(feature = "kafka")) {
            return Err(
                "--kafka-brokers (WS_KAFKA_BROKERS): expected none, for this flowcast was built without Kafka; \
                        build it with --features kafka"
                    .to_owned(),
            );
        }
        let mut topics: Vec<_> = self.kafka_topics.iter().collect();
        topics.sort_unstable();
        if let Some(twice) = topics.windows(2).find_map(|pair| (pair[0] == pair[1]).then_some(pair[0])) {
            return Err(format!("--kafka-topics (WS_KAFKA_TOPICS): expected each topic once, got {twice} twice"));
        }
        self.security.check()
    }
}

impl SecurityOptions {
    /// What no setting can tell alone. `Err` says what is accepted.
    pub fn check(&self) -> Result<(), String> {
        let protocol = self.kafka_security_protocol;
        let needs_tls = protocol.has_tls() || (protocol.has_sasl() && self.kafka_sasl_mechanism != Mechanism::Plain);
        if needs_tls && cfg!(not(feature = "kafka-ssl")) {
            return Err(format!(
                "--kafka-security-protocol (WS_KAFKA_SECURITY_PROTOCOL): {} with {} needs a flowcast built with \
                 --features kafka-ssl",
                protocol.name(),
                self.kafka_sasl_mechanism.name()
            ));
        }
        let proof = self.kafka_sasl_username.is_some() && self.kafka_sasl_password.is_some();
        if protocol.has_sasl() && !proof {
            return Err(format!(
                "--kafka-sasl-username and --kafka-sasl-password (WS_KAFKA_SASL_USERNAME, WS_KAFKA_SASL_PASSWORD): \
                 expected both with {}, got not both",
                protocol.name()
            ));
        }
        if !protocol.has_sasl() && (self.kafka_sasl_username.is_some() || self.kafka_sasl_password.is_some()) {
            return Err(format!(
                "--kafka-security-protocol (WS_KAFKA_SECURITY_PROTOCOL): expected sasl_plaintext or sasl_ssl with a \
                 user name or password, got {}",
                protocol.name()
            ));
        }
        Ok(())
    }
}

pub(crate) fn broker(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').map(|(host, port)| (host.is_empty(), port.parse::<u16>()));
    match port {
        Some((false, Ok(_))) if !text.contains(char::is_whitespace) => Ok(text.to_owned()),
        _ => Err("expected host:port, such as localhost:9092".to_owned()),
    }
}

/// Kafka's own rule. A name that begins with `^` would be a pattern to librdkafka.
pub(crate) fn topic(text: &str) -> Result<String, String> {
    let valid = (1..=249).contains(&text.len())
        && ![".", ".."].contains(&text)
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if valid { Ok(text.to_owned()) } else { Err("expected 1 to 249 letters, digits and `._-`".to_owned()) }
}

fn name(text: &str) -> Result<String, String> {
    let valid = (1..=200).contains(&text.len()) && !text.contains(|c: char| c.is_control() || c.is_whitespace());
    if valid { Ok(text.to_owned()) } else { Err("expected 1 to 200 characters without blanks".to_owned()) }
}

/// A pause between two tries.
pub(crate) fn pause(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(pause) if (Duration::from_millis(10)..=Duration::from_hours(1)).contains(&pause) => Ok(pause),
        _ => Err("expected a duration with a unit from 10ms to 1h, such as 250ms or 5s".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct TestSettings {
        #[command(flatten)]
        kafka: KafkaOptions,
    }

    fn options(line: &str) -> Result<KafkaOptions, String> {
        let line = TestSettings::try_parse_from(std::iter::once("x").chain(line.split_whitespace()));
        line.map(|line| line.kafka).map_err(|error| error.to_string())
    }

    #[test]
    fn every_node_has_a_group_of_its_own_unless_it_is_shared() {
        assert_eq!(options("--node-id n1").unwrap().group(), "ws-realtime-n1");
        assert_eq!(options("--node-id n1 --kafka-group-id g --kafka-shared-group").unwrap().group(), "g");
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(options("").unwrap().group(), format!("ws-realtime-{}", host.trim()));
    }

    #[test]
    fn the_orderflow_topic_is_no_channel_and_feeds_the_hub_only_with_a_broker() {
        let without = options("--kafka-topics lines,orderflow,signals").unwrap();
        assert!(without.channels().eq(["lines", "signals"]));
        assert!(!without.feeds_orderflow());
        assert!(options("--kafka-topics orderflow --kafka-brokers b:1").unwrap().feeds_orderflow());
        assert!(!options("--kafka-brokers b:1").unwrap().feeds_orderflow());
    }

    #[test]
    fn names_that_kafka_would_refuse_are_refused_at_once() {
        assert!(options("--kafka-brokers a:1,[::1]:2,c.d:65535").is_ok());
        for line in [
            "--kafka-brokers localhost",
            "--kafka-brokers :9092",
            "--kafka-brokers a:b",
            "--kafka-topics ^all.*",
            "--kafka-topics a/b",
            "--kafka-topics a,,b",
            "--kafka-topics ..",
            "--kafka-backoff 1",
            "--kafka-refresh 0s",
        ] {
            let error = options(line).expect_err(line);
            assert!(error.contains("expected"), "{error}");
        }
    }

    #[test]
    #[cfg(feature = "kafka")]
    fn settings_that_contradict_each_other_are_refused_with_the_way_out() {
        let check = |line: &str| options(line).unwrap().check();
        assert_eq!(check("--kafka-security-protocol sasl_plaintext"), Ok(()), "no broker, nothing to refuse");
        assert_eq!(check("--kafka-brokers a:1"), Ok(()));
        let sasl = "--kafka-brokers a:1 --kafka-security-protocol SASL_PLAINTEXT";
        assert!(check(sasl).unwrap_err().contains("WS_KAFKA_SASL_PASSWORD"));
        assert_eq!(check(&format!("{sasl} --kafka-sasl-username u --kafka-sasl-password p")), Ok(()));
        let open = check("--kafka-brokers a:1 --kafka-sasl-username u --kafka-sasl-password p");
        assert!(open.unwrap_err().contains("expected sasl_plaintext or sasl_ssl"));
        assert!(check("--kafka-brokers a:1 --kafka-topics a,b,a").unwrap_err().contains("got a twice"));
        let tls = check("--kafka-brokers a:1 --kafka-security-protocol ssl");
        assert_eq!(tls.is_ok(), cfg!(feature = "kafka-ssl"), "{tls:?}");
    }

    #[test]
    #[cfg(not(feature = "kafka"))]
    fn without_kafka_a_broker_is_refused() {
        assert!(options("--kafka-brokers a:1").unwrap().check().unwrap_err().contains("--features kafka"));
    }

    #[test]
    fn a_password_is_never_printed() {
        let options = options("--kafka-sasl-password hunter2").unwrap();
        assert!(!format!("{options:?}").contains("hunter2"));
        assert_eq!(options.security.kafka_sasl_password.unwrap().reveal(), "hunter2");
    }
}
