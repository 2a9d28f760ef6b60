//! Settings of the Kafka source; those of `flowcast publish` share the connection's.

use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use secrecy::SecretString;

/// The topic whose messages feed the orderflow hub, not a channel.
pub const ORDERFLOW_TOPIC: &str = "orderflow";

/// Settings of the Kafka source.
#[derive(Debug, Clone, clap::Args)]
pub struct KafkaOptions {
    /// Kafka brokers to read from, host:port, comma-separated; without any, Kafka is not used
    #[arg(long, env = "WS_KAFKA_BROKERS", value_delimiter = ',', value_name = "BROKERS", value_parser = broker)]
    pub kafka_brokers: Vec<String>,
    /// Topics, comma-separated. Each is a channel of /ws; one with the name of a trading stream feeds that
    /// stream; orderflow feeds the orderflow hub in place of the recorded day
    #[arg(long, env = "WS_KAFKA_TOPICS", value_delimiter = ',', default_value = "lines,order_book,analytics")]
    #[arg(value_name = "TOPICS", value_parser = topic)]
    pub kafka_topics: Vec<String>,
    /// Prefix of the Kafka consumer group. Every node gets every message, so each has a group of its own,
    /// GROUP-NODE
    #[arg(long, env = "WS_KAFKA_GROUP_ID", default_value = "ws-realtime", value_name = "GROUP", value_parser = name)]
    pub kafka_group_id: String,
    /// This node's name: different from those of all other nodes, and the same after a restart [default:
    /// the host's name]
    #[arg(long, env = "FLOWCAST_NODE_ID", value_name = "NODE", value_parser = name)]
    pub node_id: Option<String>,
    /// Use one consumer group for all nodes: each message then reaches the clients of one node only
    #[arg(long, env = "FLOWCAST_KAFKA_SHARED_GROUP", default_value_t = false, value_parser = clap::value_parser!(bool))]
    #[arg(action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub kafka_shared_group: bool,
    /// Where a node that has read before starts: where it left off, or after the newest message
    #[arg(long, env = "FLOWCAST_KAFKA_START", value_enum, default_value_t = Start::Committed, value_name = "WHERE")]
    pub kafka_start: Start,
    /// Largest message that is passed on, bytes; larger ones are skipped and counted
    #[arg(long, env = "FLOWCAST_KAFKA_MAX_MESSAGE_BYTES", default_value_t = 1 << 20, value_name = "BYTES")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=64 << 20))]
    pub kafka_max_message_bytes: usize,
    /// Bytes of messages fetched ahead, for all topics together
    #[arg(long, env = "FLOWCAST_KAFKA_QUEUE_BYTES", default_value_t = 4 << 20, value_name = "BYTES")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(64 << 10..=1 << 30))]
    pub kafka_queue_bytes: usize,
    /// After an outage of this node or the broker, the backlog is passed on at most this many times as fast as
    /// it was produced, so that clients keep up; faster if that would take more than a minute; 0: at once
    #[arg(long, env = "FLOWCAST_KAFKA_CATCH_UP_SPEED", default_value_t = 10, value_name = "FACTOR")]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub kafka_catch_up_speed: u32,
    /// Messages a second at most that are read back at the start, for clients of /ws that come back; 0: no limit
    #[arg(long, env = "FLOWCAST_KAFKA_REREAD_RATE", default_value_t = 20_000, value_name = "MESSAGES")]
    pub kafka_reread_rate: u32,
    /// First pause before a lost broker is tried again; it doubles up to --kafka-backoff-max
    #[arg(long, env = "FLOWCAST_KAFKA_BACKOFF", default_value = "250ms", value_name = "DURATION", value_parser = pause)]
    pub kafka_backoff: Duration,
    /// Longest pause before a lost broker is tried again
    #[arg(long, env = "FLOWCAST_KAFKA_BACKOFF_MAX", default_value = "10s", value_name = "DURATION", value_parser = pause)]
    pub kafka_backoff_max: Duration,
    /// How often the broker is asked for new topics and partitions, which also shows whether it answers
    #[arg(long, env = "FLOWCAST_KAFKA_REFRESH", default_value = "5s", value_name = "DURATION", value_parser = pause)]
    pub kafka_refresh: Duration,
    /// Tickers that the orderflow topic may bring; records of further ones are skipped
    #[arg(long, env = "FLOWCAST_KAFKA_MAX_TICKERS", default_value_t = 10_000, value_name = "TICKERS")]
    pub kafka_max_tickers: usize,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub security: SecurityOptions,
}

/// How flowcast connects to the brokers.
#[derive(Debug, Clone, clap::Args)]
pub struct SecurityOptions {
    /// How to connect to the brokers; ssl and sasl_ssl need a flowcast built with the feature kafka-ssl
    #[arg(long, env = "WS_KAFKA_SECURITY_PROTOCOL", value_enum, default_value_t = SecurityProtocol::Plaintext)]
    #[arg(ignore_case = true, value_name = "PROTOCOL")]
    pub kafka_security_protocol: SecurityProtocol,
    /// How to log in with user name and password; SCRAM needs the feature kafka-ssl
    #[arg(long, env = "WS_KAFKA_SASL_MECHANISM", value_enum, default_value_t = Mechanism::Plain)]
    #[arg(ignore_case = true, value_name = "MECHANISM")]
    pub kafka_sasl_mechanism: Mechanism,
    /// User name, for the protocols with SASL
    #[arg(long, env = "WS_KAFKA_SASL_USERNAME", value_name = "NAME")]
    pub kafka_sasl_username: Option<String>,
    /// Password, for the protocols with SASL
    #[arg(long, env = "WS_KAFKA_SASL_PASSWORD", hide_env_values = true, value_name = "PASSWORD")]
    pub kafka_sasl_password: Option<SecretString>,
    /// File or folder with the certificates of the brokers' authority, PEM [default: the system's]
    #[arg(long, env = "WS_KAFKA_SSL_CA_LOCATION", value_name = "PATH")]
    pub kafka_ssl_ca_location: Option<String>,
}

/// Where a node starts that has read before. Any other starts after the newest message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Start {
    /// Where it left off.
    Committed,
    /// After the newest message; what came while it was away is skipped.
    Latest,
}

/// Kafka's `security.protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum SecurityProtocol {
    /// Neither encryption nor a login.
    Plaintext,
    /// TLS without a login.
    Ssl,
    /// A login without encryption.
    SaslPlaintext,
    /// A login over TLS.
    SaslSsl,
}

impl SecurityProtocol {
    /// Its name in librdkafka's `security.protocol`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    /// Whether there is a login.
    pub const fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }

    /// Whether the connection is encrypted.
    pub const fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }
}

/// Kafka's `sasl.mechanism`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mechanism {
    /// Sends the password itself, so use it over TLS.
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
    /// Its name in librdkafka's `sasl.mechanism`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl KafkaOptions {
    /// Whether Kafka is used at all.
    pub fn is_configured(&self) -> bool {
        !self.kafka_brokers.is_empty()
    }

    /// Whether Kafka feeds the orderflow hub, in place of the recorded day.
    pub fn feeds_orderflow(&self) -> bool {
        self.is_configured() && self.kafka_topics.iter().any(|topic| topic == ORDERFLOW_TOPIC)
    }

    /// The topics that are channels of `/ws`; the channels exist with or without a broker.
    pub fn channels(&self) -> impl Iterator<Item = &str> {
        self.kafka_topics.iter().map(String::as_str).filter(|&topic| topic != ORDERFLOW_TOPIC)
    }

    /// This node's name: `--node-id`, or the host's name.
    pub fn node(&self) -> String {
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        self.node_id.clone().unwrap_or_else(host)
    }

    /// The consumer group that keeps this node's offsets.
    pub fn group(&self) -> String {
        if self.kafka_shared_group {
            self.kafka_group_id.clone()
        } else {
            format!("{}-{}", self.kafka_group_id, self.node())
        }
    }

    /// Checks settings against each other. `Err` says what is accepted.
    pub fn check(&self) -> Result<(), String> {
        if !self.is_configured() {
            return Ok(());
        }
        if cfg!(not(feature = "kafka")) {
            return Err(
                "--kafka-brokers (WS_KAFKA_BROKERS): this flowcast was built without Kafka; build it with --features \
                 kafka"
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
    /// Checks settings against each other. `Err` says what is accepted.
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
                 {} needs both",
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

/// Kafka's own rule for names. To librdkafka a name that begins with `^` would be a pattern.
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

/// A pause of 10 ms to an hour.
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
    use secrecy::ExposeSecret as _;

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
        assert_eq!(options.security.kafka_sasl_password.unwrap().expose_secret(), "hunter2");
    }
}
