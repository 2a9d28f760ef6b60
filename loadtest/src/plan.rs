//! What a run will do, decided and checked before the first socket is opened.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cli::{LedgerUse, Negotiate, RunArgs, SlowPolicy};
use crate::clock::SECOND;
use crate::membership::{GroupsError, Hub, unprefixed};
use crate::negotiate::Wish;
use crate::sequence::publisher;
use crate::verify::Key;
use crate::wire::dialect::Dialect;
use crate::wire::form::{Profile, Protocol};
use crate::wire::streams::is_topic;

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Reads whatever comes, at once; only these count for latency and for "0 lost".
    Attentive,
    /// Reads a little now and then.
    Slow,
    /// Stops reading once it is up.
    Stalled,
    /// Resets its connection again and again.
    Resetting,
}

/// Shares of the clients, in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mix {
    /// Of stalled clients.
    pub stalled: f64,
    /// Of slow clients.
    pub slow: f64,
    /// Of resetting clients.
    pub resetting: f64,
}

/// What is wrong with the arguments. All are the user's to fix.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// A number that makes no run.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// Shares that are no shares.
    #[error("--stalled, --slow and --reset are percentages and may be 100 together, not {0}")]
    Mix(f64),
    /// The stream protocol is another endpoint.
    #[error("--protocols streams cannot be mixed with others")]
    Streams,
    /// The sequence to verify cannot be had.
    #[error("{0}")]
    Sequence(&'static str),
    /// A group list that means nothing.
    #[error("--groups: {0}")]
    Groups(#[from] GroupsError),
    /// A way of negotiating that the rest does not go with.
    #[error("{0}")]
    Negotiate(&'static str),
}

/// Everything the workers need to know.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "settings that have nothing to do with one another")]
pub struct Plan {
    /// Clients of this process; each has a connection per hub ([`Plan::hubs_of`]).
    pub clients: u32,
    /// The number of the first of them in the whole run.
    pub first_client: u32,
    /// Protocols, in turn.
    pub protocols: Vec<Protocol>,
    /// The generation of the clients.
    pub profile: Profile,
    /// The prefix of group names that every negotiation must repeat.
    pub prefix: String,
    /// Whole group names, sorted: the order in which a replay publishes them.
    pub groups: Vec<String>,
    /// Groups per client; 0 for all.
    pub groups_per_client: u32,
    /// The hubs of the run, and which groups go there.
    pub hubs: Vec<Hub>,
    /// The session whose clock the clients follow.
    pub session: Option<String>,
    /// Whether the server joins the groups when a socket connects.
    pub server_joins: bool,
    /// Shares of misbehaving clients.
    pub mix: Mix,
    /// Channels of the stream protocol; those with a sequence to verify are the groups.
    pub channels: Vec<String>,
    /// Symbols of its trading streams.
    pub symbols: Vec<String>,
    /// Whether its clients that come back ask for what they missed.
    pub resumes: bool,
    /// What its slow and stalled clients ask for.
    pub slow_policy: Option<SlowPolicy>,
    /// What the server speaks in place of the stream protocol.
    pub dialect: Option<Dialect>,
    /// New connections per second in this process.
    pub ramp: u32,
    /// Receiving threads.
    pub workers: u32,
    /// Source addresses to bind, in turn; empty for the kernel's choice.
    pub source_addresses: Vec<IpAddr>,
    /// How long a client may take to come up, in ns.
    pub setup_timeout_ns: u64,
    /// How often a reliable client acknowledges, in ns; 0 for never.
    pub sequence_ack_ns: u64,
    /// Bytes per second of slow clients.
    pub slow_rate: u32,
    /// Mean stay of resetting clients, in ns.
    pub reset_after_ns: u64,
    /// The hashes of the clients' keys, where each has its own.
    pub users: Vec<u64>,
    /// Where the orders are, if what is published is known from elsewhere.
    pub orders_url: Option<String>,
    /// Whether faults are expected that were ordered from the server.
    pub expects_faults: bool,
    /// Whether dropped clients come back.
    pub reconnects: bool,
    /// Whether there is a tick ledger.
    pub has_ledger: bool,
    /// How far off ledger times may be in our clock.
    pub clock_error_ns: u64,
}

/// What one client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    /// Index into [`Plan::protocols`].
    pub form: u32,
    /// How it behaves.
    pub class: Class,
}

/// Checks what can be checked without asking the server.
pub fn check(args: &RunArgs) -> Result<(), PlanError> {
    for (value, name) in [
        (args.connections, "--connections"),
        (args.ramp, "--ramp"),
        (args.workers.unwrap_or(1), "--workers"),
        (args.processes.unwrap_or(1), "--processes"),
        (args.slow_rate, "--slow-rate"),
        (args.negotiators as u32, "--negotiators"),
    ] {
        if value == 0 {
            return Err(PlanError::Zero(name));
        }
    }
    if args.duration.is_zero() {
        return Err(PlanError::Zero("--duration"));
    }
    let shares = [args.stalled, args.slow, args.reset];
    let sum: f64 = shares.iter().sum();
    if shares.iter().any(|share| !(0.0..=100.0).contains(share)) || sum > 100.0 {
        return Err(PlanError::Mix(sum));
    }
    let is_streams = args.protocols.contains(&Protocol::Streams);
    if is_streams && args.protocols.len() > 1 {
        return Err(PlanError::Streams);
    }
    if args.negotiate == Negotiate::Post && (is_streams || args.url.starts_with("ws")) {
        return Err(PlanError::Negotiate(
            "--negotiate post needs an http(s):// URL, and another protocol than streams",
        ));
    }
    if args.faults.is_some() && args.ledger == LedgerUse::Off {
        return Err(PlanError::Negotiate("--faults expected needs the tick ledger, in which the orders are"));
    }
    if args.faults.is_some() && is_streams && args.streams.publish_rate == 0 {
        return Err(PlanError::Sequence("--faults expected needs --publish-rate on the JSON streams"));
    }
    if args.faults.is_some() && args.streams.policy.is_some() {
        return Err(PlanError::Sequence("--faults expected and --policy: what a policy leaves out is not ordered"));
    }
    if args.session.is_some() && is_streams {
        return Err(PlanError::Negotiate(
            "--session is for clients of the hubs: the JSON streams follow the common clock",
        ));
    }
    if args.negotiate == Negotiate::Post && args.groups == ["none"] {
        return Err(PlanError::Negotiate("--negotiate post needs --groups: the server refuses an empty list"));
    }
    let has_spot = || args.groups.iter().any(|name| name == "spot" || name.ends_with("_spot"));
    if args.negotiate == Negotiate::Post && args.groups_per_connection > 0 && has_spot() {
        return Err(PlanError::Negotiate("--groups-per-connection would part spot groups from those that need them"));
    }
    check_sequence(args, is_streams).map_err(PlanError::Sequence)
}

/// What was said about a sequence on the JSON streams.
fn check_sequence(args: &RunArgs, is_streams: bool) -> Result<(), &'static str> {
    let streams = &args.streams;
    let publishes = streams.publish_rate > 0;
    if (publishes || streams.external_producer) && !is_streams {
        return Err("--publish-rate and --external-producer go with --protocols streams");
    }
    if publishes && streams.external_producer {
        return Err("--publish-rate and --external-producer: only one of them can give the numbers");
    }
    if (publishes || streams.external_producer) && !streams.channels.iter().any(|name| is_topic(name)) {
        return Err("a sequence needs --channels with a topic, such as lines: trading streams carry no numbers");
    }
    if streams.dialect.is_some() && (streams.channels.len() != 1 || streams.resume || streams.policy.is_some()) {
        return Err("--dialect goes with one of --channels, and neither with --resume nor with --policy");
    }
    if (streams.resume || streams.policy.is_some()) && !(publishes || streams.external_producer) {
        return Err("--resume and --policy need a sequence: --publish-rate or --external-producer");
    }
    if streams.resume && args.reset <= 0.0 && !args.reconnect && args.faults.is_none() {
        return Err("--resume needs clients that come back: --reset, --reconnect or --faults expected");
    }
    if streams.policy.is_some() && args.slow <= 0.0 && args.stalled <= 0.0 {
        return Err("--policy is for slow clients: --slow or --stalled");
    }
    if streams.publish_bytes < publisher::MIN_BYTES || streams.publish_bytes > publisher::MAX_BYTES {
        return Err("--publish-bytes must be from 80 to 262144");
    }
    if !streams.symbols.is_empty() && streams.channels.iter().all(|name| is_topic(name)) {
        return Err("--symbols needs --channels with a trading stream");
    }
    Ok(())
}

impl Plan {
    /// What client `number` does. Each class has its share exactly, scattered over the numbers.
    pub fn role(&self, number: u32) -> Role {
        let form = number % self.protocols.len() as u32;
        let count = u64::from(self.clients);
        let place = u64::from(number - self.first_client) * stride(count) % count;
        let is_below = |share: f64| (place as f64) < (f64::from(self.clients) * share / 100.0).round();
        let Mix { stalled, slow, resetting } = self.mix;
        let class = if is_below(stalled) {
            Class::Stalled
        } else if is_below(stalled + slow) {
            Class::Slow
        } else if is_below(stalled + slow + resetting) {
            Class::Resetting
        } else {
            Class::Attentive
        };
        Role { form, class }
    }

    /// The groups of client `number`, by number and in order.
    pub fn groups_of(&self, number: u32) -> Vec<u32> {
        let count = self.groups.len() as u32;
        let each = self.groups_per_client;
        if count == 0 || each == 0 || each >= count {
            return (0..count).collect();
        }
        let first = (u64::from(number) * u64::from(each) % u64::from(count)) as u32;
        let mut groups: Vec<u32> = (0..each).map(|step| (first + step) % count).collect();
        groups.sort_unstable();
        groups
    }

    /// The groups that a client's connection joins at its hub.
    pub fn groups_at(&self, connection: u32) -> Vec<u32> {
        let hub = &self.hubs[self.hub_of(connection) as usize];
        let mut groups = self.groups_of(self.client_of(connection));
        groups.retain(|&group| hub.carries[group as usize]);
        groups
    }

    /// The hubs that a client has a connection to, in order: those with a group of it. Without any group it
    /// holds one connection.
    pub fn hubs_of(&self, client: u32) -> Vec<u32> {
        let groups = self.groups_of(client);
        let is_needed = |hub: &u32| groups.iter().any(|&group| self.hubs[*hub as usize].carries[group as usize]);
        let hubs = 0..self.hubs.len() as u32;
        if groups.is_empty() { hubs.take(1).collect() } else { hubs.filter(is_needed).collect() }
    }

    /// What a client asks for when it negotiates for its connections to `hubs`.
    pub fn wish(&self, client: u32, first: usize, hubs: &[u32]) -> Wish {
        let names = |groups: Vec<u32>| groups.into_iter().map(|group| self.groups[group as usize].clone()).collect();
        let groups: Vec<String> = if self.server_joins { names(self.groups_of(client)) } else { Vec::new() };
        Wish {
            client,
            first,
            hubs: hubs.iter().map(|&hub| self.hubs[hub as usize].name.clone()).collect(),
            groups: unprefixed(&groups, &self.prefix),
        }
    }

    /// The number of a client's connection to a hub, unique in the run.
    pub fn connection(&self, client: u32, hub: u32) -> u32 {
        client * self.hubs.len() as u32 + hub
    }

    /// The hash of a client's key, where it has its own.
    pub fn user_of(&self, client: u32) -> Option<u64> {
        self.users.get(client.checked_sub(self.first_client)? as usize).copied()
    }

    /// Whose connection it is.
    pub fn client_of(&self, connection: u32) -> u32 {
        connection / self.hubs.len() as u32
    }

    /// Which of the run's hubs it is connected to.
    pub fn hub_of(&self, connection: u32) -> u32 {
        connection % self.hubs.len() as u32
    }

    /// The clients of one worker.
    pub fn clients_of(&self, worker: u32) -> impl Iterator<Item = u32> + use<> {
        let (first, end, step) = (self.first_client, self.first_client + self.clients, self.workers);
        (first + worker..end).step_by(step as usize)
    }

    /// All connections of this process.
    pub fn connections(&self) -> u32 {
        if self.groups_per_client == 0 || self.hubs.len() == 1 {
            return self.clients * self.hubs_of(self.first_client).len() as u32;
        }
        (self.first_client..self.first_client + self.clients).map(|client| self.hubs_of(client).len() as u32).sum()
    }

    /// How publications are told apart in each form.
    pub fn keys(&self) -> Vec<Key> {
        let key = |protocol: &Protocol| {
            let is_numbered = protocol.is_reliable() || *protocol == Protocol::Streams;
            if is_numbered && self.has_ledger { Key::Sequence } else { Key::Payload }
        };
        self.protocols.iter().map(key).collect()
    }

    /// When the ramp must be over: three times its ideal length and the setup of the last client.
    pub fn ramp_deadline(&self) -> Duration {
        let ideal_ns = u64::from(self.connections()) * SECOND / u64::from(self.ramp);
        Duration::from_nanos(3 * ideal_ns + 2 * self.setup_timeout_ns)
    }
}

/// A step that visits every place of `count` once, far from the one before: near the golden section
/// and without a common divisor.
fn stride(count: u64) -> u64 {
    let has_common_divisor = |step: u64| {
        let (mut a, mut b) = (count, step);
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a != 1
    };
    let golden = (count as f64 * 0.618) as u64;
    (golden.max(1)..=count).find(|&step| !has_common_divisor(step)).unwrap_or(1)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::membership::{Wanted, hubs_of_groups};

    /// A plan to be adapted.
    pub(crate) fn plan(clients: u32, groups: &[&str]) -> Plan {
        Plan {
            clients,
            first_client: 0,
            protocols: vec![Protocol::Json, Protocol::JsonReliable, Protocol::Protobuf, Protocol::ProtobufReliable],
            profile: Profile::V2,
            prefix: "blue".to_owned(),
            groups: groups.iter().map(ToString::to_string).collect(),
            groups_per_client: 0,
            hubs: vec![Hub::of_all("orderflow", groups.len())],
            session: None,
            server_joins: false,
            mix: Mix::default(),
            channels: Vec::new(),
            symbols: Vec::new(),
            resumes: false,
            slow_policy: None,
            dialect: None,
            ramp: 1_000,
            workers: 1,
            source_addresses: Vec::new(),
            setup_timeout_ns: 5 * SECOND,
            sequence_ack_ns: SECOND,
            slow_rate: 1_024,
            reset_after_ns: SECOND,
            users: Vec::new(),
            orders_url: None,
            expects_faults: false,
            reconnects: false,
            has_ledger: true,
            clock_error_ns: 0,
        }
    }

    #[test]
    fn classes_have_their_shares_in_every_protocol() {
        let plan = Plan { mix: Mix { stalled: 10.0, slow: 5.0, resetting: 1.0 }, ..plan(1_000, &[]) };
        let count = |class| (0..1_000).filter(|&number| plan.role(number).class == class).count();
        assert_eq!(count(Class::Stalled), 100);
        assert_eq!(count(Class::Slow), 50);
        assert_eq!(count(Class::Resetting), 10);
        let of_a_protocol = (0..1_000).step_by(4).filter(|&n| plan.role(n).class == Class::Stalled).count();
        assert!((20..=30).contains(&of_a_protocol), "{of_a_protocol}");
    }

    #[test]
    fn groups_are_spread_and_sorted() {
        let plan = Plan { groups_per_client: 2, ..plan(4, &["a", "b", "c"]) };
        assert_eq!(plan.groups_of(0), [0, 1]);
        assert_eq!(plan.groups_of(1), [0, 2]);
        assert_eq!(plan.groups_of(2), [1, 2]);
    }

    #[test]
    fn a_client_has_a_connection_to_each_hub_of_its_groups() {
        let typed = ["classic/*", "state/*", "orderflow/*", "SPX", "NDX"].map(str::to_owned);
        let groups = Wanted::typed(&typed).unwrap().groups("blue", None).unwrap();
        let names: Vec<&str> = groups.iter().map(String::as_str).collect();
        let hubs = hubs_of_groups(&groups).unwrap();
        let plan = Plan { hubs, first_client: 3, ..plan(2_000, &names) };
        let hub_names: Vec<&str> = plan.hubs.iter().map(|hub| hub.name.as_str()).collect();
        assert_eq!(hub_names, ["classic", "orderflow", "state_gex", "state_greeks_one", "state_greeks_zero"]);
        assert_eq!((plan.connections(), plan.hubs_of(3)), (10_000, vec![0, 1, 2, 3, 4]));
        let joined: usize = plan.hubs_of(7).into_iter().map(|hub| plan.groups_at(plan.connection(7, hub)).len()).sum();
        assert_eq!(joined, 30, "each group once");
        let few = Plan { groups_per_client: 1, ..plan };
        assert_eq!(few.connections(), 2_000, "a client of one group has one connection");
    }

    #[test]
    fn workers_share_the_clients_without_overlap() {
        let plan = Plan { workers: 3, first_client: 10, ..plan(8, &[]) };
        let mut all: Vec<u32> = (0..3).flat_map(|worker| plan.clients_of(worker)).collect();
        all.sort_unstable();
        assert_eq!(all, (10..18).collect::<Vec<_>>());
    }
}
