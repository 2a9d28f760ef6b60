//! One shard's share of the hubs' groups: a receiver per group, a lane per group and wire.
//!
//! A **lane** is what the subscribers of one group in one wire share on this shard: the ring of
//! their frames, each finished once, and the list of who they are. A group's receiver exists while
//! it has lanes; a lane exists while it has subscribers, detached sessions included.

mod joining;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use slab::Slab;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

use crate::engine::frames::Form;
use crate::engine::group::{Group, Publication};
use crate::engine::hub::Hub;
use crate::engine::policy::LagOptions;
use crate::engine::ring::Ring;
use crate::engine::system_clock;
use crate::faults::fault_board::NotedHub;
use crate::health::log_limit::SeenNames;
use crate::server::shard::context::ShardContext;
use crate::server::shard::stats::ShardStats;
use crate::wire::Wire;

/// Position of a wire's hub among a shard's shares.
fn share_of(wire: Wire) -> usize {
    match wire {
        Wire::WebPubSub(_) => NotedHub::Groups as usize,
        Wire::Streams => NotedHub::Streams as usize,
    }
}

/// Frames and subscribers of one group in one wire.
pub struct Lane {
    /// What the subscribers still need.
    pub ring: Ring,
    /// Keys of their sessions; each membership remembers its place here.
    pub subscribers: Vec<u32>,
    /// The ring's head when new frames were last reported.
    told: u64,
    /// The ring's head about every second, with the time: frames before it are as old. Reliable lanes only.
    ages: VecDeque<(u64, u64)>,
    /// Bytes of the ring as the hub counts them. Reliable lanes only: others share the frames of the source.
    counted: u64,
    wire: Wire,
    group: u32,
    /// Whether its frames are built. Until then it gets none, and its subscribers' acks wait.
    is_ready: bool,
}

struct ShardGroup {
    group: Arc<Group>,
    receiver: Receiver<Publication>,
    /// Received, but newer than what the hub has declared published.
    held: Option<Publication>,
    lanes: Vec<u32>,
}

/// One hub's groups with members on this shard.
struct HubShare {
    hub: Arc<Hub>,
    groups: Slab<ShardGroup>,
    names: HashMap<Arc<str>, u32>,
    /// The hub's `published` up to which everything is in the rings.
    drained: u64,
}

impl HubShare {
    fn new(hub: Arc<Hub>) -> Self {
        Self { groups: Slab::new(), names: HashMap::new(), drained: hub.sequencer().published(), hub }
    }
}

/// All groups with members on this shard.
pub struct Lanes {
    options: LagOptions,
    stats: Arc<ShardStats>,
    silent: Arc<SeenNames>,
    /// Indexed by [`share_of`].
    shares: [HubShare; 2],
    by_key: Slab<Lane>,
    /// Counts the changes of lanes and rings.
    revision: u64,
}

impl Lanes {
    /// The shard's part of both hubs, before anybody has joined.
    pub fn new(context: &ShardContext, stats: Arc<ShardStats>) -> Self {
        let shares = [&context.hubs.orderflow, &context.hubs.streams].map(|hub| HubShare::new(Arc::clone(hub)));
        let (options, silent) = (context.options.lag, Arc::clone(&context.silent));
        Self { options, stats, silent, shares, by_key: Slab::new(), revision: 1 }
    }

    /// The lane with this key.
    pub fn lane(&self, lane: u32) -> &Lane {
        &self.by_key[lane as usize]
    }

    /// A lane's group and wire; `None` if the lane was closed.
    pub fn group_of(&self, lane: u32) -> Option<(&Arc<Group>, Wire)> {
        let Lane { wire, group, .. } = self.by_key.get(lane as usize)?;
        Some((&self.shares[share_of(*wire)].groups[*group as usize].group, *wire))
    }

    /// The key of a lane's group in its hub.
    pub fn group_name(&self, lane: u32) -> &str {
        let lane = self.lane(lane);
        self.shares[share_of(lane.wire)].groups[lane.group as usize].group.name()
    }

    /// A number that changes whenever a ring or a lane does; never 0. While it stays the same, the same cursors
    /// mean the same frames.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether a lane's frames are built, so that its subscribers get everything from now on.
    pub fn is_ready(&mut self, lane: u32) -> bool {
        let lane = &mut self.by_key[lane as usize];
        let share = &self.shares[share_of(lane.wire)];
        lane.look(&share.groups[lane.group as usize].group)
    }

    /// Moves everything published into the rings; calls `moved` for each lane that got frames, with its
    /// key and the position of the first of them. If `moved` says that every subscriber had all that
    /// came before, a plain lane forgets it: frames of live data are memory of their own.
    ///
    /// Ids that are not declared published yet are held back: another group's smaller id may still
    /// be on its way, and a client that saw the larger one first would drop it.
    pub fn drain(&mut self, mut moved: impl FnMut(u32, &Lane, u64) -> bool) {
        let mut changed = |lane, of: &Lane, first_new| {
            self.revision += 1;
            moved(lane, of, first_new)
        };
        for share in &mut self.shares {
            share.drain(&mut self.by_key, &self.options, &self.stats, &mut changed);
            share.hub.sequencer().taken_out();
        }
    }

    /// Everything up to this id of the wire's hub is in the rings.
    pub fn drained(&self, wire: Wire) -> u64 {
        self.shares[share_of(wire)].drained
    }

    /// The same for a hub.
    pub fn drained_of(&self, hub: NotedHub) -> u64 {
        self.shares[hub as usize].drained
    }

    /// The same for the hub of the groups that Web PubSub clients join.
    pub fn drained_groups(&self) -> u64 {
        self.shares[0].drained
    }

    /// The latest state of a lane's group, if its hub keeps one.
    pub fn retained(&self, lane: u32) -> Option<Bytes> {
        let lane = self.lane(lane);
        let share = &self.shares[share_of(lane.wire)];
        let retained = share.hub.retained(share.groups[lane.group as usize].group.name())?;
        Some(retained.frame(Form::new(lane.wire.form())))
    }
}

impl Lane {
    /// Forgets the frames that are too old for any recovery, but never what a connection may be behind.
    fn age(&mut self, now_ms: u64, options: &LagOptions) {
        const STEP_MS: u64 = 1000;
        if self.ages.back().is_none_or(|(at_ms, _)| now_ms >= at_ms + STEP_MS) {
            self.ages.push_back((now_ms, self.ring.head()));
        }
        while let Some(&(at_ms, head)) = self.ages.front()
            && now_ms >= at_ms + options.recovery_ms()
        {
            self.ring.forget_before(head.saturating_sub(options.client_buffer));
            self.ages.pop_front();
        }
    }

    /// Whether it is ready; it stays so once `group` is.
    fn look(&mut self, group: &Group) -> bool {
        self.is_ready |= group.is_ready(Form::new(self.wire.form()));
        self.is_ready
    }
}

impl HubShare {
    fn drain(
        &mut self,
        lanes: &mut Slab<Lane>,
        options: &LagOptions,
        stats: &ShardStats,
        moved: &mut impl FnMut(u32, &Lane, u64) -> bool,
    ) {
        let published = self.hub.sequencer().published();
        if published == self.drained {
            return;
        }
        let now_ms = system_clock::monotonic_ms();
        for (_, local) in &mut self.groups {
            // Everything up to `published` was sent before it was stored, and `last_id` with it.
            if local.held.is_none() && local.group.last_id() <= self.drained {
                continue;
            }
            while let Some(publication) = local.next(stats) {
                if publication.id > published {
                    local.held = Some(publication);
                    break;
                }
                for &lane in &local.lanes {
                    let lane = &mut lanes[lane as usize];
                    if !lane.look(&local.group) {
                        continue;
                    }
                    // `None`: it was not built in time, which its source has counted.
                    if let Some(frame) = finished(&publication, lane.wire, stats) {
                        lane.ring.push(publication.id, frame);
                    }
                }
            }
            for &key in &local.lanes {
                let lane = &mut lanes[key as usize];
                let first_new = std::mem::replace(&mut lane.told, lane.ring.head());
                if first_new == lane.told {
                    continue;
                }
                let all_had_the_rest = moved(key, lane, first_new);
                if lane.wire.is_reliable() {
                    lane.age(now_ms, options);
                    let before = std::mem::replace(&mut lane.counted, lane.ring.bytes());
                    self.hub.count_finished(before, lane.counted);
                } else if all_had_the_rest {
                    lane.ring.forget_before(first_new);
                }
            }
        }
        self.drained = published;
    }
}

impl ShardGroup {
    fn next(&mut self, stats: &ShardStats) -> Option<Publication> {
        if let Some(held) = self.held.take() {
            return Some(held);
        }
        loop {
            match self.receiver.try_recv() {
                Ok(publication) => return Some(publication),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
                // The channel is transport only: an overrun means this shard did not look for 64
                // publications of one group. Its subscribers lost frames and only we know.
                Err(TryRecvError::Lagged(missed)) => {
                    stats.overruns.add(missed);
                    tracing::error!(group = %self.group.name(), missed, "the shard lost publications: it is overloaded");
                }
            }
        }
    }
}

/// The frame as this wire's connections get it: the shared plain one, or a reliable one made here,
/// once for all of them. `None` if the source has not built it.
fn finished(publication: &Publication, wire: Wire, stats: &ShardStats) -> Option<Bytes> {
    let plain = publication.frames.frame(Form::new(wire.form()));
    if plain.is_empty() {
        return None;
    }
    Some(match wire {
        Wire::WebPubSub(wire) if wire.reliable => {
            stats.finished.add(1);
            let mut frame = Vec::with_capacity(plain.len() + 40);
            wire.finish(&plain, publication.id, &mut frame);
            frame.into()
        }
        _ => plain,
    })
}
