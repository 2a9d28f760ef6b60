//! One shard's share of the hubs' groups: a receiver per group, a lane per group and wire.
//!
//! A **lane** is what the subscribers of one group in one wire share on this shard: the ring of
//! their frames, each finished once, and the list of who they are. A group's receiver exists while
//! it has lanes; a lane exists while it has subscribers, detached sessions included.

mod hub_share;
mod joining;

use std::sync::Arc;

use bytes::Bytes;
use slab::Slab;

use crate::engine::frames::Form;
use crate::engine::group::Group;
use crate::engine::policy::LagOptions;
use crate::faults::batch_notes::NotedHub;
use crate::health::log_limit::SeenNames;
use crate::server::shard::context::ShardContext;
use crate::server::shard::stats::ShardStats;
use crate::wire::Wire;
use hub_share::HubShare;
pub use hub_share::Lane;

/// Position of a wire's hub among a shard's shares.
fn share_of(wire: Wire) -> usize {
    match wire {
        Wire::WebPubSub(_) => NotedHub::Groups as usize,
        Wire::Streams => NotedHub::Streams as usize,
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
            share.hub.sequencer().audience().taken_out();
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
