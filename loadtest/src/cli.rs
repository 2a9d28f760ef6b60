//! The command line, as typed. What it means is decided in [`crate::plan`].

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::wire::dialect::Dialect;
use crate::wire::form::{Profile, Protocol};

/// Opens many WebSocket connections, verifies every frame each of them receives against the server's
/// tick ledger, and measures latency from the scheduled tick.
///
/// Exit codes: 0 delivery is proven, and with `--claim latency` the latencies are valid too; 1 something
/// was lost, refused or broken; 2 the run could not take place (unreachable server, bad argument);
/// 3 nothing was found wrong, but the run does not prove what it claims (no ledger, or, with
/// `--claim latency`, the generator was the bottleneck).
#[derive(Debug, Parser)]
#[command(
    name = "swarm",
    version,
    args_conflicts_with_subcommands = true,
    args_override_self = true,
    max_term_width = 100
)]
pub struct Cli {
    /// Something else than a run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The run.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What the swarm can do beside running.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Adds the JSON reports of several runs (processes, generator hosts) up into one report.
    Merge(MergeArgs),
}

/// `swarm merge`
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// Reports written with `--json`.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Where results go.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Where results go, beside the table on the terminal.
#[derive(Clone, Debug, Args)]
pub struct OutputArgs {
    /// Writes everything as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes one self-contained page with plots.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Shows the verdict on the live page of this flowcast, such as http://127.0.0.1:8080.
    #[arg(long, value_name = "URL")]
    pub report_to: Option<String>,
    /// That server's control token, if it has one.
    #[arg(long, env = "FLOWCAST_CONTROL_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub control_token: Option<String>,
    /// No live line.
    #[arg(long, short)]
    pub quiet: bool,
}

/// What a run is for; it decides what an invalid measurement means. The later value asks for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// That nothing was lost: when the machine was too busy to measure latency, the report warns of it.
    Delivery,
    /// That, and the latencies: when the machine was too busy to measure them, the run ends with exit code 3.
    Latency,
}

impl Claim {
    /// For reports that do not say.
    pub fn of_old_reports() -> Self {
        Self::Latency
    }
}

/// Whether to verify against the tick ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LedgerUse {
    /// If the server has one.
    Auto,
    /// Fail if the server has none.
    Require,
    /// Compare clients with each other only, as against servers without a ledger.
    Off,
}

/// What faults mean that were ordered from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FaultsUse {
    /// They are expected, and proven.
    Expected,
}

/// How clients learn where their sockets are, and who joins their groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Negotiate {
    /// GET: clients join their groups themselves.
    Get,
    /// POST with the groups: the server joins them when the socket connects. Each client has a key of its
    /// own, since a POST ends the sockets of the one before it with the same key.
    Post,
}

/// The command line as it was typed, for reports: without the values of its credentials.
pub fn shown(arguments: impl Iterator<Item = String>) -> Vec<String> {
    const CREDENTIALS: [&str; 5] = ["--token", "--publish-token", "--secret", "--key", "--control-token"];
    let mut is_value = false;
    let hide = |argument: String| {
        if std::mem::take(&mut is_value) {
            return "***".to_owned();
        }
        is_value = CREDENTIALS.contains(&argument.as_str());
        match argument.split_once('=') {
            Some((name, _)) if CREDENTIALS.contains(&name) => format!("{name}=***"),
            // A socket URL may carry a token.
            _ => match argument.split_once("token=") {
                Some((before, _)) => format!("{before}token=***"),
                None => argument,
            },
        }
    };
    arguments.map(hide).collect()
}

/// What a subscription gets of the messages that its client is too slow for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlowPolicy {
    /// The newest ones, and word of which are left out: the two together must be all of them.
    Skip,
    /// The newest of each key: numbers rise.
    Latest,
}

/// `--protocols streams`: what clients subscribe to, and where the sequence comes from that is verified.
#[derive(Clone, Args)]
#[command(next_help_heading = "JSON streams (--protocols streams)")]
pub struct StreamArgs {
    /// Channels to subscribe to; none leaves it to the server.
    #[arg(long, value_delimiter = ',')]
    pub channels: Vec<String>,
    /// Symbols to subscribe to on trading streams among the channels; none for all.
    #[arg(long, value_delimiter = ',')]
    pub symbols: Vec<String>,
    /// The clients' JWT; without it one is made from the secret.
    #[arg(long, env = "SWARM_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// The publisher's JWT; without it one is made from the secret, and without that it is the clients'.
    #[arg(long, env = "SWARM_PUBLISH_TOKEN", hide_env_values = true)]
    pub publish_token: Option<String>,
    /// The server's secret, to make JWTs from.
    #[arg(long, env = "WS_AUTH_SECRET", hide_env_values = true)]
    pub secret: Option<String>,
    /// Messages per second to publish to each of the channels over HTTP, each with the next number;
    /// 0 for none.
    #[arg(long, value_name = "MESSAGES", default_value_t = 0)]
    pub publish_rate: u32,
    /// Bytes of each message's data, at least 80.
    #[arg(long, value_name = "BYTES", default_value_t = 300)]
    pub publish_bytes: usize,
    /// Somebody else on this host publishes `{"seq":n,"sent_ns":…}`, numbered without gap per channel,
    /// with readings of CLOCK_MONOTONIC.
    #[arg(long)]
    pub external_producer: bool,
    /// Clients that come back (`--reset`, `--reconnect`) ask for what they missed, and must get each message
    /// once.
    #[arg(long)]
    pub resume: bool,
    /// What slow and stalled clients ask for in place of being dropped.
    #[arg(long, value_enum)]
    pub policy: Option<SlowPolicy>,
    /// What the server at `--url ws://…` speaks, if it is not flowcast: then clients only subscribe to the one channel,
    /// and look for the external producer's payloads in what comes.
    #[arg(long, value_enum, requires = "external_producer")]
    pub dialect: Option<Dialect>,
    /// The last number the external producer gives, if it ends before the run does.
    #[arg(long, value_name = "SEQ", requires = "external_producer")]
    pub last_seq: Option<u64>,
}

impl std::fmt::Debug for StreamArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the credentials.
        let Self {
            channels, symbols, publish_rate, publish_bytes, external_producer, last_seq, resume, policy, ..
        } = self;
        f.debug_struct("StreamArgs")
            .field("channels", channels)
            .field("symbols", symbols)
            .field("publish_rate", publish_rate)
            .field("publish_bytes", publish_bytes)
            .field("external_producer", external_producer)
            .field("last_seq", last_seq)
            .field("resume", resume)
            .field("policy", policy)
            .finish_non_exhaustive()
    }
}

/// A URL in the form in which the rest takes it apart: the scheme in lower case (RFC 3986 §3.1), a path before the
/// query of a socket, and neither query nor fragment where paths are appended.
fn server_url(text: &str) -> Result<String, &'static str> {
    let expected = "expected http(s):// or ws(s)://";
    let (scheme, rest) = text.split_once("://").ok_or(expected)?;
    let scheme = scheme.to_ascii_lowercase();
    if !["http", "https", "ws", "wss"].contains(&scheme.as_str()) {
        return Err(expected);
    }
    let rest = rest.split('#').next().unwrap_or(rest);
    let rest = match rest.split_once('?') {
        Some((place, _)) if scheme.starts_with("http") => place.to_owned(),
        Some((authority, query)) if !authority.contains('/') => format!("{authority}/?{query}"),
        _ => rest.to_owned(),
    };
    Ok(format!("{scheme}://{rest}"))
}

/// The name of a session, as the server takes it.
fn session_name(text: &str) -> Result<String, &'static str> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(is_allowed) {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 64 letters, digits, '-', '_' and '.'")
    }
}

/// `swarm`
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Where clients negotiate (`http://…`; the JSON streams are then at `/ws`), or the socket itself
    /// (`ws://…`; the tick ledger is then looked for on the same host).
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", value_parser = server_url)]
    pub url: String,
    /// How many clients. A client has one socket for each hub that its groups belong to.
    #[arg(long, short, alias = "clients", default_value_t = 1_000)]
    pub connections: u32,
    /// Groups to join: whole group names; tickers, for their orderflow; or `package/category`,
    /// `package/*` and `spot` for the tickers beside them, or for all of the server's. Also `all` (the
    /// orderflow of all tickers) and `none`.
    #[arg(long, value_delimiter = ',', default_value = "all")]
    pub groups: Vec<String>,
    /// Groups each client joins, spread evenly; 0 for all of them.
    #[arg(long, default_value_t = 0)]
    pub groups_per_connection: u32,
    /// How long to measure once all clients are up.
    #[arg(long, short, default_value = "60s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// Protocols, spread evenly over the clients.
    #[arg(long, alias = "protocol", value_enum, value_delimiter = ',', default_value = "json.reliable")]
    pub protocols: Vec<Protocol>,
    /// The generation of clients: v1 negotiates at /negotiate, v2 at /v2/negotiate.
    #[arg(long, value_enum, default_value = "v2")]
    pub api: Profile,
    /// One hub for all groups, whether they belong to it or not; by default each group goes to its own.
    #[arg(long)]
    pub hub: Option<String>,
    /// The session of a replay whose clock clients follow: it is asked for with negotiate?session=NAME, and only its
    /// ticks count.
    #[arg(long, value_name = "NAME", value_parser = session_name)]
    pub session: Option<String>,
    /// How clients negotiate.
    #[arg(long, value_enum, default_value = "get")]
    pub negotiate: Negotiate,
    /// The API key; with `--negotiate post` client n has the key `KEY-n`.
    #[arg(long, env = "SWARM_KEY", hide_env_values = true, default_value = "swarm")]
    pub key: String,
    /// The group prefix where no negotiation tells it (`ws://` URLs, and servers without GET).
    #[arg(long, default_value = "blue")]
    pub prefix: String,
    /// New connections (sockets) per second.
    #[arg(long, default_value_t = 2_000)]
    pub ramp: u32,
    /// How long a client may take from connecting to its last join's ack.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub setup_timeout: Duration,
    /// How long to wait at the end for frames already published.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub drain: Duration,
    /// Percent of clients that stop reading once they are up.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub stalled: f64,
    /// Percent of clients that read slowly.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub slow: f64,
    /// What a slow client reads, in bytes per second.
    #[arg(long, default_value_t = 1_024)]
    pub slow_rate: u32,
    /// Percent of clients that reset their connection again and again.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub reset: f64,
    /// How long a resetting client stays, on average.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub reset_after: Duration,
    /// `expected`: faults that were ordered from the server (docs/faults.md) are no failures. The run proves that exactly
    /// these happened, and fails for anything without an order and for every order without effect. Client n has the
    /// key `KEY-n`, and clients come back as with --reconnect.
    #[arg(long, value_enum)]
    pub faults: Option<FaultsUse>,
    /// Come back after a drop as Azure's clients do: recover for 30 s, then connect anew.
    #[arg(long)]
    pub reconnect: bool,
    /// How often reliable clients acknowledge what they received; 0s for never.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub sequence_ack_interval: Duration,
    /// What the run is for. A busy machine makes latencies invalid, but not the proof of delivery.
    #[arg(long, value_enum, default_value = "delivery")]
    pub claim: Claim,
    /// Whether to verify against the tick ledger.
    #[arg(long, value_enum, default_value = "auto")]
    pub ledger: LedgerUse,
    /// Receiving threads; by default half the processors this process may use.
    #[arg(long)]
    pub workers: Option<u32>,
    /// Processes; by default as many as the limit of open files asks for.
    #[arg(long)]
    pub processes: Option<u32>,
    /// Negotiating threads per worker.
    #[arg(long, default_value_t = 4)]
    pub negotiators: usize,
    /// Source addresses to spread connections over; by default more than one only towards loopback
    /// and only when the ephemeral ports of one would not do.
    #[arg(long, value_delimiter = ',')]
    pub source_addresses: Vec<IpAddr>,
    /// Trust the certificates in this PEM file instead of Mozilla's.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// What is asked of the JSON stream protocol.
    #[command(flatten)]
    pub streams: StreamArgs,
    /// The server's process on this host, to report its CPU time and memory.
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Where results go.
    #[command(flatten)]
    pub output: OutputArgs,
    /// The number of the first client; set for the processes of one run.
    #[arg(long, hide = true, default_value_t = 0)]
    pub first_client: u32,
    /// Speaks to a parent process: one JSON line per second instead of tables.
    #[arg(long, hide = true)]
    pub child: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_needs_no_path_and_its_scheme_has_no_case() {
        for (typed, taken) in [
            ("ws://h:1?token=a/b", "ws://h:1/?token=a/b"),
            ("WSS://h/ws?token=a", "wss://h/ws?token=a"),
            ("http://h:1?x=1", "http://h:1"),
            ("HTTP://h:1/#top", "http://h:1/"),
        ] {
            assert_eq!(server_url(typed).unwrap(), taken);
        }
        assert!(server_url("h:1").is_err() && server_url("ftp://h").is_err());
    }

    #[test]
    fn a_session_has_a_name_that_the_server_takes() {
        assert!(session_name("a.b-c_1").is_ok());
        for name in ["", "a b", "a:b", &"n".repeat(65)] {
            assert!(session_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn credentials_do_not_reach_reports() {
        let typed = ["swarm", "--secret", "s1", "--token=s2", "--key", "s3", "--url", "ws://h/ws?token=s4", "-c", "5"];
        let shown = shown(typed.iter().map(ToString::to_string));
        let expected =
            ["swarm", "--secret", "***", "--token=***", "--key", "***", "--url", "ws://h/ws?token=***", "-c", "5"];
        assert_eq!(shown, expected);
    }
}
