//! What is found out before the first client starts: where the server is, which groups there are,
//! whether there is a tick ledger, and what the machine allows.

use std::time::Duration;

use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

use crate::cli::{LedgerUse, Negotiate, RunArgs};
use crate::http::{CertificateError, Http, HttpError, Trust};
use crate::ledger::offset::Offset;
use crate::limits::{self, LimitError};
use crate::membership::{self, Hub, Wanted, hubs_of_groups};
use crate::negotiate::{Grant, NegotiateError, Negotiator, SocketUrl, Wish, client_key, stream_client_id};
use crate::plan::{Mix, Plan, PlanError, check};
use crate::reference::{LedgerSource, Reference};
use crate::sequence::publisher::Publishing;
use crate::sequence::token::{self, TokenError};
use crate::wire::form::{Profile, Protocol};
use crate::wire::streams::is_topic;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a run cannot begin. All are the user's to fix, or the server's.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// The arguments make no run.
    #[error("{0}")]
    Plan(#[from] PlanError),
    /// The server gives no socket.
    #[error("{0}")]
    Negotiate(#[from] NegotiateError),
    /// The server does not answer.
    #[error("{0}")]
    Http(#[from] HttpError),
    /// The ledger was required and is not there.
    #[error("there is no tick ledger, and the run requires one: {0}")]
    NoLedger(HttpError),
    /// The machine is too small.
    #[error("{0}")]
    Limit(#[from] LimitError),
    /// No token.
    #[error("{0}")]
    Token(#[from] TokenError),
    /// `--ca-file` cannot be used.
    #[error("{0}")]
    Certificates(#[from] CertificateError),
}

/// What a run begins with.
#[derive(Debug)]
pub struct Preflight {
    /// What will be done.
    pub plan: Plan,
    /// Whom TLS trusts.
    pub trust: Trust,
    /// How clients get their socket; `None` when the socket was given.
    pub negotiator: Option<Negotiator>,
    /// The sockets of the first negotiation, or the given one.
    pub grant: Grant,
    /// What will say what was published, if anything does.
    pub reference: Option<Reference>,
    /// What the reader of the report should know.
    pub notes: Vec<String>,
}

#[derive(Deserialize)]
struct Tickers {
    #[serde(default)]
    stocks: Vec<String>,
    #[serde(default)]
    indexes: Vec<String>,
    #[serde(default)]
    futures: Vec<String>,
}

/// What clients connect to and join.
struct Target {
    negotiator: Option<Negotiator>,
    grant: Grant,
    profile: Profile,
    groups: Vec<String>,
    hubs: Vec<Hub>,
}

/// Finds everything out; takes a few requests to the server.
pub fn preflight(args: &RunArgs) -> Result<Preflight, PreflightError> {
    check(args)?;
    let trust = trust(args)?;
    let http = Http::new(&trust, REQUEST_TIMEOUT);
    let mut notes = Vec::new();
    let is_streams = args.protocols.contains(&Protocol::Streams);
    let target = if is_streams || !args.url.starts_with("http") {
        given(args, &http, is_streams)?
    } else {
        negotiated(args, &http)?
    };
    let reference = reference(args, &http, &trust, &target.grant, &mut notes)?;
    let Target { negotiator, grant, profile, groups, hubs } = target;
    let mut plan = plan(args, profile, &grant, (groups, hubs), reference.as_ref());
    let connections = plan.connections();
    notes.extend(limits::raise_file_limit(u64::from(connections))?);
    let before = args.first_client * plan.hubs.len() as u32;
    let address = grant.sockets[0].address.ip();
    plan.source_addresses =
        limits::source_addresses(connections, before, before + connections, address, &args.source_addresses)?;
    if let Some(first) = plan.source_addresses.first() {
        notes.push(format!(
            "connections are spread over {} source addresses, from {first}",
            plan.source_addresses.len()
        ));
    }
    Ok(Preflight { plan, trust, negotiator, grant, reference, notes })
}

/// The socket is given: all groups are joined there.
fn given(args: &RunArgs, http: &Http, is_streams: bool) -> Result<Target, PreflightError> {
    let socket = socket(args)?;
    let profile = Profile::of_socket_path(&socket.path);
    let groups = if is_streams {
        let is_sequenced = args.streams.publish_rate > 0 || args.streams.external_producer;
        if is_sequenced { topics(args) } else { Vec::new() }
    } else {
        groups(args, http, &args.prefix)?
    };
    let path = socket.path.split('?').next().unwrap_or_default();
    let hub = Hub::of_all(path.rsplit('/').next().unwrap_or_default(), groups.len());
    let grant = Grant { sockets: vec![socket], prefix: args.prefix.clone() };
    Ok(Target { negotiator: None, grant, profile, groups, hubs: vec![hub] })
}

/// The server tells where the sockets are.
fn negotiated(args: &RunArgs, http: &Http) -> Result<Target, PreflightError> {
    let mut negotiator =
        Negotiator::new(http.clone(), &http_base(&args.url), args.api, &args.key).on_session(args.session.as_deref());
    let is_post = args.negotiate == Negotiate::Post;
    let prefix = match negotiator.prefix() {
        // A server may know POST only.
        Err(NegotiateError::Http(HttpError::Status { .. })) if is_post => args.prefix.clone(),
        prefix => prefix?,
    };
    let groups = groups(args, http, &prefix)?;
    let hubs = match &args.hub {
        Some(name) => vec![Hub::of_all(name, groups.len())],
        // Connections without groups are held at the hub that every server has.
        None if groups.is_empty() => vec![Hub::of_all("orderflow", 0)],
        None => hubs_of_groups(&groups).map_err(PlanError::from)?,
    };
    if is_post {
        negotiator = negotiator.joining(&prefix);
    }
    let wish = Wish {
        client: args.first_client,
        first: 0,
        hubs: hubs.iter().map(|hub| hub.name.clone()).collect(),
        groups: if is_post { membership::unprefixed(&groups, &prefix) } else { Vec::new() },
    };
    let grant = negotiator.negotiate(&wish)?;
    if args.faults.is_some() {
        negotiator = negotiator.with_own_keys();
    }
    Ok(Target { negotiator: Some(negotiator), grant, profile: args.api, groups, hubs })
}

/// Whole group names.
fn groups(args: &RunArgs, http: &Http, prefix: &str) -> Result<Vec<String>, PreflightError> {
    let wanted = Wanted::typed(&args.groups).map_err(PlanError::from)?;
    let tickers = if wanted.needs_tickers() { tickers(http, &http_base(&args.url))? } else { None };
    Ok(wanted.groups(prefix, tickers.as_deref()).map_err(PlanError::from)?)
}

/// What will say what was published.
fn reference(
    args: &RunArgs,
    http: &Http,
    trust: &Trust,
    grant: &Grant,
    notes: &mut Vec<String>,
) -> Result<Option<Reference>, PreflightError> {
    Ok(match args.ledger {
        _ if args.streams.publish_rate > 0 => Some(Reference::Publisher(publishing(args, trust)?)),
        _ if args.streams.external_producer => Some(Reference::Producer { last_seq: args.streams.last_seq }),
        _ if args.protocols.contains(&Protocol::Streams) => {
            notes.push(
                "the stream protocol has no ledger: messages are counted and checked for shape, loss cannot be seen"
                    .to_owned(),
            );
            None
        }
        LedgerUse::Off => None,
        LedgerUse::Auto | LedgerUse::Require => {
            let url = format!("{}/ticks", http_base(&args.url));
            match Offset::estimate(http, &url, Some(grant.sockets[0].address)) {
                Ok(offset) => Some(Reference::Ledger(LedgerSource { url, http: http.clone(), offset })),
                Err(error) if args.ledger == LedgerUse::Require || args.faults.is_some() => {
                    return Err(PreflightError::NoLedger(error));
                }
                Err(error) => {
                    notes.push(format!(
                        "no tick ledger ({error}): every frame is decoded, clients are compared with each other"
                    ));
                    None
                }
            }
        }
    })
}

fn plan(
    args: &RunArgs,
    profile: Profile,
    grant: &Grant,
    (groups, hubs): (Vec<String>, Vec<Hub>),
    reference: Option<&Reference>,
) -> Plan {
    Plan {
        clients: args.connections,
        first_client: args.first_client,
        protocols: args.protocols.clone(),
        profile,
        prefix: grant.prefix.clone(),
        // A subscription names all channels.
        groups_per_client: if args.protocols.contains(&Protocol::Streams) { 0 } else { args.groups_per_connection },
        groups,
        hubs,
        session: args.session.clone(),
        server_joins: args.negotiate == Negotiate::Post,
        mix: Mix { stalled: args.stalled, slow: args.slow, resetting: args.reset },
        channels: args.streams.channels.clone(),
        symbols: args.streams.symbols.clone(),
        resumes: args.streams.resume,
        slow_policy: args.streams.policy,
        dialect: args.streams.dialect,
        ramp: args.ramp,
        workers: args.workers.unwrap_or_else(default_workers).min(args.connections),
        source_addresses: Vec::new(),
        setup_timeout_ns: args.setup_timeout.as_nanos() as u64,
        sequence_ack_ns: args.sequence_ack_interval.as_nanos() as u64,
        slow_rate: args.slow_rate,
        reset_after_ns: args.reset_after.as_nanos() as u64,
        users: if args.faults.is_some() { users(args) } else { Vec::new() },
        orders_url: args
            .faults
            .filter(|_| args.protocols.contains(&Protocol::Streams))
            .map(|_| format!("{}/ticks", http_base(&args.url))),
        expects_faults: args.faults.is_some(),
        reconnects: args.reconnect || args.faults.is_some(),
        has_ledger: reference.is_some(),
        clock_error_ns: match reference {
            Some(Reference::Ledger(ledger)) => ledger.offset.error_ns,
            _ => 0,
        },
    }
}

/// The hashes by which the server's entries of faults name the clients' keys.
fn users(args: &RunArgs) -> Vec<u64> {
    let clients = args.first_client..args.first_client + args.connections;
    let is_streams = args.protocols.contains(&Protocol::Streams);
    let name = |client| if is_streams { stream_client_id(client) } else { client_key(&args.key, client) };
    clients.map(|client| xxh3_64(name(client).as_bytes())).collect()
}

/// The channels that carry a publisher's payloads, sorted.
fn topics(args: &RunArgs) -> Vec<String> {
    let mut topics: Vec<String> = args.streams.channels.iter().filter(|name| is_topic(name)).cloned().collect();
    topics.sort();
    topics.dedup();
    topics
}

/// What the swarm's own publisher needs; several processes share one, in their parent.
pub fn publishing(args: &RunArgs, trust: &Trust) -> Result<Publishing, PreflightError> {
    let mut http = Http::new(trust, REQUEST_TIMEOUT);
    if let Some(token) = token::of_publisher(args)? {
        http = http.with_authorization(format!("Bearer {token}"));
    }
    Ok(Publishing {
        url: format!("{}/api/publish", http_base(&args.url)),
        http,
        channels: topics(args),
        rate: args.streams.publish_rate,
        bytes: args.streams.publish_bytes,
    })
}

/// Whom TLS trusts.
pub fn trust(args: &RunArgs) -> Result<Trust, CertificateError> {
    args.ca_file.as_ref().map_or_else(|| Ok(Trust::default()), |path| Trust::from_file(path))
}

/// The server's tickers; `None` where it lists none.
fn tickers(http: &Http, base: &str) -> Result<Option<Vec<String>>, HttpError> {
    match http.get_json::<Tickers>(&format!("{base}/tickers")) {
        Ok(Tickers { stocks, indexes, futures }) => Ok(Some([stocks, indexes, futures].concat())),
        Err(HttpError::Status { .. } | HttpError::Json { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where plain HTTP goes: the URL itself, or the host of a socket URL.
fn http_base(url: &str) -> String {
    match url.split_once("://") {
        Some(("ws" | "wss", rest)) => {
            let authority = rest.split(['/', '?']).next().unwrap_or(rest);
            let scheme = if url.starts_with("wss") { "https" } else { "http" };
            format!("{scheme}://{authority}")
        }
        _ => url.trim_end_matches('/').to_owned(),
    }
}

/// The socket that was given; of the stream protocol with the clients' token if there is one, and at
/// `/ws` where only the server was given.
fn socket(args: &RunArgs) -> Result<SocketUrl, PreflightError> {
    if !args.protocols.contains(&Protocol::Streams) {
        return Ok(SocketUrl::parse(&args.url)?);
    }
    let mut socket = match args.url.strip_prefix("http") {
        Some(rest) => SocketUrl::parse(&format!("ws{}/ws", rest.trim_end_matches('/')))?,
        None => SocketUrl::parse(&args.url)?,
    };
    // After parsing, whose errors repeat the URL.
    if let Some(token) = token::of_clients(args)? {
        let separator = if socket.path.contains('?') { '&' } else { '?' };
        socket.path = format!("{}{separator}token={token}", socket.path);
    }
    Ok(socket)
}

/// Half of the processors: the server beside us needs the others.
fn default_workers() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| (count.get() / 2).max(1) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_url_tells_where_plain_http_goes() {
        assert_eq!(http_base("ws://h:1/client/hubs/x?access_token=y"), "http://h:1");
        assert_eq!(http_base("wss://h/x"), "https://h");
        assert_eq!(http_base("http://h:1/"), "http://h:1");
    }
}
