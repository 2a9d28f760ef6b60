//! Who is in a lane: a lane opens with its first subscriber and closes with its last.

use std::sync::Arc;

use super::hub_share::{Lane, ShardGroup};
use super::{Lanes, share_of};
use crate::engine::frames::Form;
use crate::engine::hub::{TooManySilentGroups, wire_name};
use crate::engine::ring::Ring;
use crate::health::log_limit;
use crate::wire::Wire;

impl Lanes {
    /// The lane of a group by name, if it has subscribers in `wire` here.
    pub fn find(&self, name: &str, wire: Wire) -> Option<u32> {
        let share = &self.shares[share_of(wire)];
        let group = &share.groups[*share.names.get(name)? as usize];
        group.lanes.iter().copied().find(|&lane| self.by_key[lane as usize].wire == wire)
    }

    /// Adds a subscriber; returns its lane and its place there.
    pub fn join(&mut self, name: &str, wire: Wire, session: u32) -> Result<(u32, u32), TooManySilentGroups> {
        let lane = match self.find(name, wire) {
            Some(lane) => lane,
            None => self.open_lane(name, wire)?,
        };
        let lane_mut = &mut self.by_key[lane as usize];
        let place = lane_mut.subscribers.len() as u32;
        lane_mut.subscribers.push(session);
        let share = &self.shares[share_of(wire)];
        let group = &share.groups[lane_mut.group as usize].group;
        group.joined();
        if !group.is_declared() && !share.hub.is_filled() {
            self.stats.silent_joins.add(1);
        }
        Ok((lane, place))
    }

    /// Removes the subscriber at `place`. Returns the session that was moved to this place, if any: its
    /// membership must be updated.
    pub fn leave(&mut self, lane: u32, place: u32) -> Option<u32> {
        let key = lane as usize;
        self.by_key[key].subscribers.swap_remove(place as usize);
        let share = &self.shares[share_of(self.by_key[key].wire)];
        share.groups[self.by_key[key].group as usize].group.left();
        if self.by_key[key].subscribers.is_empty() {
            self.close_lane(lane);
            return None;
        }
        self.by_key[key].subscribers.get(place as usize).copied()
    }

    fn open_lane(&mut self, name: &str, wire: Wire) -> Result<u32, TooManySilentGroups> {
        let share = &mut self.shares[share_of(wire)];
        let group = match share.names.get(name) {
            Some(&group) => group,
            None => {
                let (group, receiver) = share.hub.subscribe(name)?;
                if !group.is_declared()
                    && !share.hub.is_filled()
                    && self.silent.is_new(name)
                    && log_limit::client_line(tracing::Level::INFO)
                {
                    let name: String = wire_name(name).0.chars().take(100).collect();
                    tracing::info!(group = name, "a client joined a group without data; it stays silent");
                }
                let name = Arc::clone(group.name());
                let key = share.groups.insert(ShardGroup::new(group, receiver)) as u32;
                share.names.insert(name, key);
                key
            }
        };
        self.revision += 1;
        let ring = Ring::new(self.options.ring_frames(wire.is_reliable()), self.options.ring_bytes);
        let lane = self.by_key.insert(Lane::new(ring, wire, group)) as u32;
        let group = &mut share.groups[group as usize];
        group.lanes.push(lane);
        group.group.want(Form::new(wire.form()));
        Ok(lane)
    }

    fn close_lane(&mut self, lane: u32) {
        self.revision += 1;
        let Lane { group: group_key, wire, counted, .. } = self.by_key.remove(lane as usize);
        let share = &mut self.shares[share_of(wire)];
        share.hub.count_finished(counted, 0);
        let group = &mut share.groups[group_key as usize];
        group.lanes.retain(|&other| other != lane);
        group.group.unwant(Form::new(wire.form()));
        if group.lanes.is_empty() {
            let group = share.groups.remove(group_key as usize).group;
            share.names.remove(group.name());
            share.hub.unsubscribe(&group);
        }
    }
}
