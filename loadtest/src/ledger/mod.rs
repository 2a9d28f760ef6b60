//! The tick ledger: what the server says it published, when it was due and when it was done.
//!
//! `GET /ticks` as the server documents it; times are `CLOCK_MONOTONIC` of the server's host and are
//! turned into the client's clock here ([`offset`]), so that nothing behind this module knows of two
//! clocks. [`follow`] keeps reading it while the swarm runs.

pub mod epochs;
pub mod follow;
pub mod offset;

use std::collections::{BTreeMap, HashMap};

use std::sync::Arc;

use serde::Deserialize;

use self::offset::Offset;
use crate::orders::order::{Order, WireOrder};
use crate::verify::slot::LedgerTimes;
use crate::wire::form::Profile;

/// One tick of the replay clock, as far as the run's groups are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Position in the ledger; consecutive.
    pub seq: u64,
    /// The tick's times, in the client's clock.
    pub times: LedgerTimes,
    /// Publications in the run's groups.
    pub publications: Vec<Publication>,
    /// With this tick everything published until then is known, in the client's clock.
    pub heard_ns: u64,
    /// The epoch of the replay clock that begins here.
    pub opens: Option<EpochOpening>,
    /// Faults that were ordered; a tick with any publishes nothing.
    pub orders: Vec<Arc<Order>>,
}

/// A jump of the replay clock, or another pace.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct EpochOpening {
    /// The epoch's number.
    pub epoch: u64,
    /// Why: `start`, `seek`, `step_back`, `loop`, `load` or `pace`.
    pub cause: String,
    /// Where the clock stood, as the server writes times of records.
    #[serde(default)]
    pub from: Option<String>,
    /// Where it goes on.
    #[serde(default)]
    pub to: Option<String>,
}

/// Whose ticks count for a run.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// The run's groups.
    pub groups: Groups,
    /// The session whose clock its clients follow; `None` for the common clock. Groups of all sessions have the
    /// same names.
    pub session: Option<String>,
    /// Whether only orders are wanted, those for clients of `/ws`: somebody else says what was published.
    pub has_orders_only: bool,
}

/// One publication in one of the run's groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The group's number in the plan.
    pub group: u32,
    /// The hub's counter.
    pub sequence_id: u64,
    /// The record's own time.
    pub record_timestamp: i64,
    /// xxh3-64 of `Any.value` per profile ([`Profile::index`]), for profiles in use.
    pub hashes: [Option<u64>; 2],
}

/// The run's groups by name.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    numbers: HashMap<String, u32>,
}

impl Groups {
    /// Numbers groups in the order given.
    pub fn new(names: &[String]) -> Self {
        Self { numbers: names.iter().zip(0..).map(|(name, number)| (name.clone(), number)).collect() }
    }

    /// The number of a group of the run.
    pub fn number(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }
}

/// What the server says about its clock and the reach of its ledger.
#[derive(Clone, Debug, Deserialize)]
pub struct Now {
    /// Both clocks at the time of the answer.
    pub now: Clocks,
    /// The newest position.
    #[serde(default)]
    pub newest: u64,
}

/// Two clocks read at one moment.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Clocks {
    /// `CLOCK_MONOTONIC` of the server's host.
    pub monotonic_ns: u64,
}

/// A tick as the server writes it.
#[derive(Debug, Deserialize)]
pub(crate) struct WireTick {
    seq: u64,
    ordinal: u64,
    scheduled_ns: u64,
    published_ns: u64,
    #[serde(default)]
    epoch: u64,
    #[serde(default)]
    session: Option<String>,
    #[serde(default)]
    opens: Option<EpochOpening>,
    #[serde(default)]
    faults: Vec<WireOrder>,
    publications: Vec<WirePublication>,
}

#[derive(Debug, Deserialize)]
struct WirePublication {
    group: String,
    sequence_id: u64,
    record_timestamp: i64,
    #[serde(default)]
    payloads: BTreeMap<String, String>,
}

/// Why a ledger entry cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TickError {
    /// Not the JSON of a tick.
    #[error("the ledger sent a tick that is not the JSON expected: {0}")]
    Json(#[from] serde_json::Error),
    /// A frame id that is not 16 hex digits.
    #[error("the ledger sent a frame id that is not 16 hex digits: {0:?}")]
    Hash(String),
}

impl WireTick {
    fn resolve(self, scope: &Scope, offset: &Offset) -> Result<Tick, TickError> {
        let is_ours = self.session == scope.session;
        let mut publications = Vec::with_capacity(self.publications.len());
        for publication in self.publications.into_iter().filter(|_| is_ours) {
            let Some(group) = scope.groups.number(&publication.group) else { continue };
            let mut hashes = [None; 2];
            for profile in Profile::ALL {
                if let Some(hex) = publication.payloads.get(profile.ledger_key()) {
                    hashes[profile.index()] = Some(parse_hash(hex)?);
                }
            }
            publications.push(Publication {
                group,
                sequence_id: publication.sequence_id,
                record_timestamp: publication.record_timestamp,
                hashes,
            });
        }
        let times = LedgerTimes {
            tick: self.ordinal,
            scheduled_ns: offset.to_client(self.scheduled_ns),
            published_ns: offset.to_client(self.published_ns),
            epoch: if is_ours { self.epoch } else { 0 },
            opens_epoch: false,
        };
        let opens = self.opens.filter(|_| is_ours);
        let has_orders = !self.faults.is_empty();
        // A client of /ws may be called like one of the hubs.
        let orders = self.faults.into_iter().filter(|order| order.is_of_streams() == scope.has_orders_only);
        let orders: Vec<_> =
            orders.filter_map(|order| order.resolve(&scope.groups, self.published_ns, offset).map(Arc::new)).collect();
        // Entries of faults and of publications come from different threads.
        let heard_ns = if has_orders { 0 } else { times.published_ns };
        Ok(Tick { seq: self.seq, times, publications, heard_ns, opens, orders })
    }
}

fn parse_hash(hex: &str) -> Result<u64, TickError> {
    // `from_str_radix` would take a sign.
    let is_hex = hex.len() == 16 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    let value = if is_hex { u64::from_str_radix(hex, 16).ok() } else { None };
    value.ok_or_else(|| TickError::Hash(hex.to_owned()))
}

/// Reads one tick.
pub fn parse_tick(json: &str, scope: &Scope, offset: &Offset) -> Result<Tick, TickError> {
    serde_json::from_str::<WireTick>(json)?.resolve(scope, offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: &str = r#"{"seq":7,"ordinal":40,"scheduled_ns":1000,"published_ns":1100,
        "scheduled_unix_ns":5,"published_unix_ns":6,"publications":[
        {"group":"blue_SPX_orderflow_orderflow","sequence_id":9,"record_timestamp":3,"subscribers":2,
         "payloads":{"2026-04":"00000000000000ff"}},
        {"group":"elsewhere","sequence_id":10,"record_timestamp":3,"subscribers":2,"payloads":{}}]}"#;

    #[test]
    fn a_tick_is_reduced_to_the_groups_of_the_run_and_the_clock_of_the_client() {
        let tick = parse_tick(TICK, &scope(None), &offset()).unwrap();
        let expected = LedgerTimes { tick: 40, scheduled_ns: 600, published_ns: 700, ..LedgerTimes::default() };
        assert_eq!(tick.times, expected);
        let [publication] = tick.publications.as_slice() else { panic!("one group of the run") };
        assert_eq!(publication.hashes, [None, Some(255)]);
    }

    #[test]
    fn a_tick_of_another_session_publishes_nothing_for_the_run() {
        let of_lab = TICK.replace("\"ordinal\"", r#""epoch":3,"session":"lab","ordinal""#);
        let tick = parse_tick(&of_lab, &scope(None), &offset()).unwrap();
        assert_eq!((tick.publications.len(), tick.times.epoch, tick.heard_ns), (0, 0, 700));
        let tick = parse_tick(&of_lab, &scope(Some("lab")), &offset()).unwrap();
        assert_eq!((tick.publications.len(), tick.times.epoch), (1, 3));
        assert_eq!(parse_tick(TICK, &scope(Some("lab")), &offset()).unwrap().publications, []);
    }

    #[test]
    fn orders_for_clients_of_the_other_wires_are_not_the_runs() {
        let orders_of = |hub: &str, has_orders_only: bool| {
            let entry = r#"{"plan":1,"fault":1,"do":"reset","tick":4,"hub":"HUB","user":"00000000000000ff","nth":1}"#;
            let faults = format!(r#""faults":[{}],"ordinal""#, entry.replace("HUB", hub));
            let scope = Scope { has_orders_only, ..scope(None) };
            parse_tick(&TICK.replace("\"ordinal\"", &faults), &scope, &offset()).unwrap().orders.len()
        };
        assert_eq!((orders_of("orderflow", false), orders_of("ws", false)), (1, 0));
        assert_eq!((orders_of("orderflow", true), orders_of("ws", true)), (0, 1));
    }

    fn scope(session: Option<&str>) -> Scope {
        let groups = Groups::new(&["blue_SPX_orderflow_orderflow".to_owned()]);
        Scope { groups, session: session.map(str::to_owned), has_orders_only: false }
    }

    fn offset() -> Offset {
        Offset { server_minus_client_ns: 400, ..Offset::same_clock() }
    }

    #[test]
    fn a_frame_id_must_be_sixteen_hex_digits() {
        assert!(parse_hash("0123456789abcdef").is_ok());
        assert!(parse_hash("+123456789abcdef").is_err());
        assert!(parse_hash("ff").is_err());
        assert!(parse_hash("0123456789abcdeg").is_err());
    }
}
