//! One shard's share of the hub's groups: a receiver per group, a lane per group and wire.
//!
//! A **lane** is what the subscribers of one group in one wire share on this shard: the ring of
//! their frames, each finished once, and the list of who they are. A group's receiver exists while
//! it has lanes; a lane exists while it has subscribers, detached sessions included.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use slab::Slab;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

use super::limiter::{Limiter, ToldOnce};
use super::stats::ShardStats;
use crate::engine::clock;
use crate::engine::frames::Form;
use crate::engine::group::{Group, Publication};
use crate::engine::hub::{Hub, TooManySilentGroups};
use crate::engine::policy::LagOptions;
use crate::engine::ring::Ring;
use crate::wire::webpubsub::Wire;

/// Frames and subscribers of one group in one wire.
pub struct Lane {
    /// What the subscribers still need.
    pub ring: Ring,
    /// Keys of their sessions; each membership remembers its place here.
    pub subscribers: Vec<u32>,
    wire: Wire,
    group: u32,
}

struct LocalGroup {
    group: Arc<Group>,
    receiver: Receiver<Publication>,
    /// Received, but newer than what the hub has declared published.
    held: Option<Publication>,
    lanes: Vec<u32>,
}

/// All groups with members on this shard.
pub struct Groups {
    hub: Arc<Hub>,
    options: LagOptions,
    stats: Arc<ShardStats>,
    silent: Arc<ToldOnce>,
    lines: Limiter,
    locals: Slab<LocalGroup>,
    names: HashMap<Arc<str>, u32>,
    lanes: Slab<Lane>,
    /// The hub's `published` up to which everything is in the rings.
    drained: u64,
}

impl Groups {
    /// None yet.
    pub fn new(hub: Arc<Hub>, options: LagOptions, stats: Arc<ShardStats>, silent: Arc<ToldOnce>) -> Self {
        let (locals, names, lanes) = (Slab::new(), HashMap::new(), Slab::new());
        Self { drained: hub.published(), hub, options, stats, silent, lines: Limiter::default(), locals, names, lanes }
    }

    /// The lane with this key.
    pub fn lane(&self, lane: u32) -> &Lane {
        &self.lanes[lane as usize]
    }

    /// The lane of a group by name, if it has subscribers in `wire` here.
    pub fn find(&self, name: &str, wire: Wire) -> Option<u32> {
        let group = &self.locals[*self.names.get(name)? as usize];
        group.lanes.iter().copied().find(|&lane| self.lanes[lane as usize].wire == wire)
    }

    /// Adds a subscriber; returns its lane and its place there.
    pub fn join(&mut self, name: &str, wire: Wire, session: u32) -> Result<(u32, u32), TooManySilentGroups> {
        let lane = match self.find(name, wire) {
            Some(lane) => lane,
            None => self.open_lane(name, wire)?,
        };
        let lane_mut = &mut self.lanes[lane as usize];
        let place = lane_mut.subscribers.len() as u32;
        lane_mut.subscribers.push(session);
        let group = &self.locals[lane_mut.group as usize].group;
        group.joined();
        if !group.is_declared() {
            self.stats.silent_joins.add(1);
        }
        Ok((lane, place))
    }

    /// Removes the subscriber at `place`. Returns the session that took its place, if any: its
    /// membership must be told.
    pub fn leave(&mut self, lane: u32, place: u32) -> Option<u32> {
        let key = lane as usize;
        self.lanes[key].subscribers.swap_remove(place as usize);
        self.locals[self.lanes[key].group as usize].group.left();
        if self.lanes[key].subscribers.is_empty() {
            self.close_lane(lane);
            return None;
        }
        self.lanes[key].subscribers.get(place as usize).copied()
    }

    fn open_lane(&mut self, name: &str, wire: Wire) -> Result<u32, TooManySilentGroups> {
        let group = match self.names.get(name) {
            Some(&group) => group,
            None => {
                let (group, receiver) = self.hub.subscribe(name)?;
                if !group.is_declared()
                    && self.silent.is_new(name)
                    && let Some(suppressed) = self.lines.pass(clock::monotonic_ns() / 1_000_000)
                {
                    let name: String = name.chars().take(100).collect();
                    tracing::info!(group = name, suppressed, "a client joined a group without data; it stays silent");
                }
                let name = Arc::clone(group.name());
                let key = self.locals.insert(LocalGroup { group, receiver, held: None, lanes: Vec::new() }) as u32;
                self.names.insert(name, key);
                key
            }
        };
        let ring = Ring::new(self.options.ring_frames(wire.reliable), self.options.ring_bytes);
        let lane = self.lanes.insert(Lane { ring, subscribers: Vec::new(), wire, group }) as u32;
        self.locals[group as usize].lanes.push(lane);
        Ok(lane)
    }

    fn close_lane(&mut self, lane: u32) {
        let group_key = self.lanes.remove(lane as usize).group;
        let group = &mut self.locals[group_key as usize];
        group.lanes.retain(|&other| other != lane);
        if group.lanes.is_empty() {
            let group = self.locals.remove(group_key as usize).group;
            self.names.remove(group.name());
            self.hub.unsubscribe(&group);
        }
    }

    /// Moves everything published into the rings; calls `moved` for each lane that got frames.
    ///
    /// Ids that are not declared published yet are held back: another group's smaller id may still
    /// be on its way, and a client that saw the larger one first would drop it.
    pub fn drain(&mut self, mut moved: impl FnMut(&Lane)) {
        let published = self.hub.published();
        if published == self.drained {
            return;
        }
        for (_, local) in &mut self.locals {
            // Everything up to `published` was sent before it was stored, and `last_id` with it.
            if local.held.is_none() && local.group.last_id() <= self.drained {
                continue;
            }
            let mut any = false;
            while let Some(publication) = local.next(&self.stats) {
                if publication.id > published {
                    local.held = Some(publication);
                    break;
                }
                any = true;
                for &lane in &local.lanes {
                    let lane = &mut self.lanes[lane as usize];
                    lane.ring.push(publication.id, finished(&publication, lane.wire, &self.stats));
                }
            }
            if any {
                local.lanes.iter().for_each(|&lane| moved(&self.lanes[lane as usize]));
            }
        }
        self.drained = published;
    }

    /// Everything up to this id is in the rings.
    pub fn drained(&self) -> u64 {
        self.drained
    }
}

impl LocalGroup {
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
/// once for all of them.
fn finished(publication: &Publication, wire: Wire, stats: &ShardStats) -> Bytes {
    let plain = publication.frames.frame(Form::new(wire.plain_form().index()));
    if !wire.reliable {
        return plain;
    }
    stats.finished.add(1);
    let mut frame = Vec::with_capacity(plain.len() + 40);
    wire.finish(&plain, publication.id, &mut frame);
    frame.into()
}
