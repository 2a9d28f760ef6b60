//! One worker's orders, and what was seen of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::ending::{Effect, SeenEnding, match_endings};
use super::order::{Order, OrderKind, OrderedFrame, Target};
use super::outcome::OrderFacts;
use crate::verify::fault::{Fault, FaultKind, Faults};

/// The most orders that are kept; more, and the run is not verified.
const MAX_ORDERS: usize = 1_000_000;

/// How early a delayed frame may seem to be, for clocks that are read at different moments.
const EARLY_NS: u64 = 1_000_000;

/// How long after an order a lost connection may hide its effect.
const NEAR_NS: u64 = 5_000_000_000;

/// Which frame of which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameKey {
    /// The connection's number in the run.
    pub client: u32,
    /// The group's number in the plan.
    pub group: u32,
    /// The publication's number.
    pub sequence_id: u64,
}

/// What was ordered for one frame of one connection, and what came of it.
#[derive(Debug, Default)]
struct FrameOrders {
    orders: Vec<(OrderKind, OrderedFrame, Arc<Order>)>,
    /// When a right copy came, and how long after publishing.
    arrived: Option<(u64, u64)>,
    broken: u32,
    faults: BTreeMap<FaultKind, u32>,
}

impl FrameOrders {
    fn has(&self, is_wanted: impl Fn(OrderKind) -> bool) -> bool {
        self.orders.iter().any(|(kind, ..)| is_wanted(*kind))
    }

    fn faults(&self, kind: FaultKind) -> u32 {
        self.faults.get(&kind).copied().unwrap_or_default()
    }
}

/// What is known of one connection of a client, over all its sockets.
#[derive(Debug, Default)]
struct ConnectionOrders {
    orders: Vec<Arc<Order>>,
    endings: Vec<SeenEnding>,
    pings: u64,
    /// Frames that may come broken, in the order of their numbers.
    damaged: Vec<FrameKey>,
}

/// What the book has to know of a connection when it judges.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing {
    /// Whether it counts: clients that misbehave on purpose may miss anything.
    pub counts: bool,
    /// Whether its frames are numbered, so that an order over several groups can be seen.
    pub is_reliable: bool,
    /// How many groups it has joined.
    pub groups: usize,
}

/// What the book asks when it judges.
pub struct Judging<S, N, O> {
    /// Of a connection.
    pub standing: S,
    /// A connection's name, for people.
    pub name: N,
    /// The number by which orders name a publication of a group.
    pub ordered: O,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct OrderBook {
    // Orders for connections that no client of ours has had so far.
    waiting: HashMap<String, Vec<Arc<Order>>>,
    // Whose connection ids are.
    owners: HashMap<String, u32>,
    // Whose keys have which hash: the client, and whether it counts.
    users: HashMap<u64, (u32, bool)>,
    everyone: HashSet<(u32, u64, FrameKey)>,
    frames: HashMap<FrameKey, FrameOrders>,
    connections: BTreeMap<u32, ConnectionOrders>,
    // Requests of clients.
    requests: BTreeMap<u32, ConnectionOrders>,
    taken: usize,
    dropped: u64,
}

impl OrderBook {
    /// Says which client's key has this hash, and whether the client counts.
    pub fn add_user(&mut self, user: u64, client: u32, counts: bool) {
        self.users.insert(user, (client, counts));
    }

    /// Says whose a connection id is; its orders come into force.
    pub fn greet(&mut self, connection_id: &str, client: u32) {
        if self.owners.insert(connection_id.to_owned(), client).is_none() {
            for order in self.waiting.remove(connection_id).unwrap_or_default() {
                self.enter(client, &order);
            }
        }
    }

    /// Takes an order; `members` are the clients in a group.
    pub fn take(&mut self, order: &Arc<Order>, members: impl Fn(u32) -> Vec<u32>) {
        if self.taken >= MAX_ORDERS {
            self.dropped += 1;
            return;
        }
        self.taken += 1;
        match &order.target {
            Target::Everyone => {
                for frame in &order.frames {
                    for client in members(frame.group) {
                        let key = FrameKey { client, group: frame.group, sequence_id: frame.sequence_id };
                        // Each shard says so.
                        if self.everyone.insert((order.fault, order.tick, key)) {
                            self.enter_frame(client, *frame, order);
                        }
                    }
                }
            }
            Target::Connection(id) => match self.owners.get(id) {
                Some(&client) => self.enter(client, order),
                None => self.waiting.entry(id.clone()).or_default().push(Arc::clone(order)),
            },
            Target::Client(user) => {
                let Some(&(client, counts)) = self.users.get(user) else { return };
                if order.kind.is_of_requests() && order.code.is_none() {
                    if counts {
                        self.requests.entry(client).or_default().orders.push(Arc::clone(order));
                    }
                } else {
                    // Of /ws: a client there has one connection, with its own number.
                    self.enter(client, order);
                }
            }
        }
    }

    fn enter(&mut self, client: u32, order: &Arc<Order>) {
        if order.kind.is_of_frames() {
            order.frames.iter().for_each(|frame| self.enter_frame(client, *frame, order));
        } else {
            self.connections.entry(client).or_default().orders.push(Arc::clone(order));
        }
    }

    fn enter_frame(&mut self, client: u32, frame: OrderedFrame, order: &Arc<Order>) {
        let key = FrameKey { client, group: frame.group, sequence_id: frame.sequence_id };
        self.frames.entry(key).or_default().orders.push((order.kind, frame, Arc::clone(order)));
        if order.kind.is_damage() {
            self.connections.entry(client).or_default().damaged.push(key);
        }
    }

    /// A right copy of a frame was read.
    pub fn arrived(&mut self, key: FrameKey, at_ns: u64, published_ns: u64) {
        if let Some(frame) = self.frames.get_mut(&key) {
            frame.arrived.get_or_insert((at_ns, at_ns.saturating_sub(published_ns)));
        }
    }

    /// The acks that were not sent to a client, as far as is known.
    pub fn missing_acks(&self, client: u32) -> impl Iterator<Item = u64> + '_ {
        let orders = self.connections.get(&client).map_or(&[][..], |connection| &connection.orders);
        orders.iter().filter(|order| order.kind == OrderKind::NoAck).filter_map(|order| order.ack_id)
    }

    /// Frames that may come broken to a client, with how.
    pub fn damaged(&self, client: u32) -> Vec<(FrameKey, OrderKind, OrderedFrame)> {
        let keys = self.connections.get(&client).map_or(&[][..], |connection| &connection.damaged);
        let of = |key: &FrameKey| {
            let orders = self.frames.get(key)?;
            orders.orders.iter().find(|(kind, ..)| kind.is_damage()).map(|(kind, frame, _)| (*key, *kind, *frame))
        };
        keys.iter().filter_map(of).collect()
    }

    /// A message was broken exactly as ordered.
    pub fn broken(&mut self, key: FrameKey) {
        let Some(frame) = self.frames.get_mut(&key) else { return };
        frame.broken += 1;
        // Its copies may be broken too.
        let copies = 1 + u32::from(frame.has(|kind| kind == OrderKind::Duplicate));
        if frame.broken >= copies
            && let Some(connection) = self.connections.get_mut(&key.client)
        {
            connection.damaged.retain(|damaged| *damaged != key);
        }
    }

    /// A ping came.
    pub fn pinged(&mut self, client: u32) {
        self.connections.entry(client).or_default().pings += 1;
    }

    /// A connection ended.
    pub fn ended(&mut self, connection: u32, ending: SeenEnding) {
        self.connections.entry(connection).or_default().endings.push(ending);
    }

    /// A request of a client was refused.
    pub fn refused(&mut self, client: u32, ending: SeenEnding) {
        self.requests.entry(client).or_default().endings.push(ending);
    }

    /// Judges everything. Faults that were ordered are taken out of `faults`; what is left was not.
    pub fn conclude(
        mut self,
        faults: &mut Faults,
        cut_ns: u64,
        judging: Judging<impl Fn(u32) -> Standing, impl Fn(u32) -> String, impl Fn(u32, u64) -> u64>,
    ) -> OrderFacts {
        let Judging { standing, name, ordered } = judging;
        let mut facts = OrderFacts::default();
        if self.dropped > 0 {
            facts.blame(format!("{} orders were too many to be kept", self.dropped));
        }
        if faults.total() > faults.listed().len() as u64 {
            facts.blame("more faults than can be compared with the orders".to_owned());
        }
        faults.retain(|fault| !self.explains(fault, &ordered));
        let mut frames: Vec<(FrameKey, FrameOrders)> = std::mem::take(&mut self.frames).into_iter().collect();
        frames.sort_by_key(|(key, _)| *key);
        for (key, frame) in &frames {
            let endings = self.connections.get(&key.client).map_or(&[][..], |connection| &connection.endings);
            for (kind, ordered_frame, order) in &frame.orders {
                let is_gone = endings
                    .iter()
                    .any(|ending| (order.at_ns.saturating_sub(NEAR_NS)..order.at_ns + NEAR_NS).contains(&ending.at_ns))
                    || order.at_ns + EARLY_NS * 500 > cut_ns;
                let standing = standing(key.client);
                let effect = effect(*kind, ordered_frame, frame, standing);
                let is_hidden = is_gone || !standing.counts;
                let effect = if effect == Effect::Unseen && is_hidden { Effect::Moot } else { effect };
                facts.count(*kind, effect, || {
                    let what = match kind {
                        OrderKind::Drop | OrderKind::Silence => "arrived",
                        OrderKind::Corrupt | OrderKind::Truncate => "arrived unharmed",
                        OrderKind::Duplicate => "came once only",
                        OrderKind::Reorder => "came in order",
                        _ => "came too early",
                    };
                    let (client, fault, id) = (name(key.client), order.fault, key.sequence_id);
                    format!(
                        "ordered {} (fault {fault}) that did not happen: {client}, sequence id {id} {what}",
                        kind.name()
                    )
                });
            }
        }
        for (&client, connection) in &self.connections {
            if standing(client).counts {
                judge_connection(connection, cut_ns, &name(client), &mut facts);
            }
        }
        for (client, requests) in &self.requests {
            judge_connection(requests, cut_ns, &format!("client {client}"), &mut facts);
        }
        facts
    }

    /// Whether a fault was ordered.
    fn explains(&mut self, fault: &Fault, ordered: impl Fn(u32, u64) -> u64) -> bool {
        let Some(sequence_id) = fault.sequence_id else { return false };
        let sequence_id = ordered(fault.group, sequence_id);
        let key = FrameKey { client: fault.client, group: fault.group, sequence_id };
        let is_lost_late = || {
            let connection = self.connections.get(&fault.client);
            connection.is_some_and(|connection| !connection.endings.is_empty())
        };
        let Some(frame) = self.frames.get(&key) else { return false };
        let is_ordered = match fault.kind {
            FaultKind::Missing => {
                frame.has(OrderKind::is_loss)
                    || frame.broken > 0
                    // It waited for its turn when the connection ended.
                    || frame.has(|kind| kind == OrderKind::Reorder) && is_lost_late()
            }
            FaultKind::Duplicate => frame.has(|kind| kind == OrderKind::Duplicate),
            FaultKind::Reordered => frame.has(|kind| kind == OrderKind::Reorder),
            FaultKind::Corrupted | FaultKind::Unexpected => false,
        };
        if is_ordered && let Some(frame) = self.frames.get_mut(&key) {
            *frame.faults.entry(fault.kind).or_default() += 1;
        }
        is_ordered
    }
}

/// What came of one order about a frame.
fn effect(kind: OrderKind, ordered: &OrderedFrame, frame: &FrameOrders, standing: Standing) -> Effect {
    let seen_if = |is_seen: bool| if is_seen { Effect::Seen } else { Effect::Unseen };
    let Some((_, after_ns)) = frame.arrived else {
        let is_seen = match kind {
            OrderKind::Drop | OrderKind::Silence => frame.faults(FaultKind::Missing) > 0,
            OrderKind::Corrupt | OrderKind::Truncate => frame.broken > 0,
            OrderKind::Duplicate => frame.broken > 1,
            _ => false,
        };
        // Nothing came and nothing was due.
        return if is_seen { Effect::Seen } else { Effect::Moot };
    };
    match kind {
        OrderKind::Drop | OrderKind::Silence => seen_if(frame.faults(FaultKind::Missing) > 0),
        OrderKind::Corrupt | OrderKind::Truncate => seen_if(frame.broken > 0),
        OrderKind::Duplicate => seen_if(frame.faults(FaultKind::Duplicate) > 0),
        OrderKind::Reorder if frame.faults(FaultKind::Reordered) > 0 => Effect::Seen,
        // A plain wire has no numbers, so only a group's own order shows.
        OrderKind::Reorder if !standing.is_reliable && standing.groups > 1 => Effect::Moot,
        OrderKind::Reorder => Effect::Unseen,
        OrderKind::Delay => seen_if(after_ns + EARLY_NS >= ordered.ms * 1_000_000),
        _ => Effect::Seen,
    }
}

fn judge_connection(connection: &ConnectionOrders, cut_ns: u64, name: &str, facts: &mut OrderFacts) {
    let mut endings: Vec<&Order> = Vec::new();
    let mut pings = 0;
    for order in &connection.orders {
        // A slow answer ends nothing.
        let is_slow = order.kind == OrderKind::RefuseNegotiate && order.status.is_none();
        match order.kind {
            kind if kind.is_ending() && !is_slow => endings.push(order),
            OrderKind::PingFlood => {
                pings += order.count;
                let is_gone = !connection.endings.is_empty() || order.at_ns + NEAR_NS > cut_ns;
                let effect = match () {
                    () if connection.pings >= pings => Effect::Seen,
                    () if is_gone => Effect::Moot,
                    () => Effect::Unseen,
                };
                let (fault, came) = (order.fault, connection.pings);
                facts.count(order.kind, effect, || {
                    format!(
                        "ordered ping-flood (fault {fault}) that did not happen: {name} had {came} pings of {pings}"
                    )
                });
            }
            // Nothing is lost by it; that the client goes on is in its delivery.
            kind => facts.count(kind, Effect::Seen, String::new),
        }
    }
    endings.sort_by_key(|order| order.at_ns);
    let (effects, unordered) = match_endings(&endings, &connection.endings, cut_ns);
    for (order, effect) in endings.into_iter().zip(effects) {
        facts.count(order.kind, effect, || {
            format!("ordered {} (fault {}) that did not happen: {name}", order.kind.name(), order.fault)
        });
    }
    for ending in unordered {
        facts.blame(format!("without an order: {name}: {}", ending.cause));
    }
}
