//! From a hub's channels to the rings: what was published is taken out, and finished once for each wire.

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
use crate::server::shard::stats::ShardStats;
use crate::wire::Wire;

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
    pub(super) counted: u64,
    pub(super) wire: Wire,
    pub(super) group: u32,
    /// Whether its frames are built. Until then it gets none, and its subscribers' acks wait.
    is_ready: bool,
}

/// A group with members on this shard.
pub(super) struct ShardGroup {
    pub group: Arc<Group>,
    receiver: Receiver<Publication>,
    /// Received, but newer than what the hub has declared published.
    held: Option<Publication>,
    /// Keys of its lanes, one for each wire at most.
    pub lanes: Vec<u32>,
}

/// One hub's groups with members on this shard.
pub(super) struct HubShare {
    pub hub: Arc<Hub>,
    pub groups: Slab<ShardGroup>,
    pub names: HashMap<Arc<str>, u32>,
    /// The hub's `published` up to which everything is in the rings.
    pub drained: u64,
}

impl Lane {
    /// A lane without subscribers.
    pub(super) fn new(ring: Ring, wire: Wire, group: u32) -> Self {
        let (subscribers, ages) = (Vec::new(), VecDeque::new());
        Self { ring, subscribers, told: 0, ages, counted: 0, wire, group, is_ready: false }
    }

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
    pub(super) fn look(&mut self, group: &Group) -> bool {
        self.is_ready |= group.is_ready(Form::new(self.wire.form()));
        self.is_ready
    }
}

impl HubShare {
    /// The shard's part of a hub, before anybody has joined.
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { groups: Slab::new(), names: HashMap::new(), drained: hub.sequencer().published(), hub }
    }

    /// Moves everything published into the rings; see [`Lanes::drain`](super::Lanes::drain).
    pub fn drain(
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
    /// A group without lanes.
    pub fn new(group: Arc<Group>, receiver: Receiver<Publication>) -> Self {
        Self { group, receiver, held: None, lanes: Vec::new() }
    }

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
