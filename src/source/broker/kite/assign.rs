//! Which instruments go over which connection.
//!
//! A connection carries so many instruments, a key so many connections. An instrument stays where it
//! is while it is wanted; new ones go to the first connection with room.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::source::broker::instrument::Instrument;
use crate::source::broker::symbols::Mode;

/// An instrument that a connection should carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedInstrument {
    /// The instrument, with its token.
    pub instrument: Instrument,
    /// How much of its data is subscribed.
    pub mode: Mode,
}

/// What one connection should carry, by token.
pub type WantedInstruments = BTreeMap<u32, Arc<WantedInstrument>>;

/// The instruments of all connections.
#[derive(Debug)]
pub struct Assignment {
    connections: Vec<WantedInstruments>,
    /// Instruments a connection may carry.
    room: usize,
    refused: BTreeSet<u32>,
}

impl Assignment {
    /// This many connections without instruments, with `room` for so many each.
    pub fn new(connections: usize, room: usize) -> Self {
        Self { connections: vec![WantedInstruments::new(); connections], room, refused: BTreeSet::new() }
    }

    /// Takes what is wanted now. Gives the tokens that found no room and were not refused before.
    pub fn update(&mut self, wanted: &WantedInstruments) -> Vec<u32> {
        for connection in &mut self.connections {
            connection.retain(|token, entry| match wanted.get(token) {
                Some(now) => {
                    *entry = Arc::clone(now);
                    true
                }
                None => false,
            });
        }
        let placed: BTreeSet<u32> = self.connections.iter().flat_map(BTreeMap::keys).copied().collect();
        let mut refused = BTreeSet::new();
        for (token, entry) in wanted.iter().filter(|(token, _)| !placed.contains(token)) {
            match self.connections.iter_mut().find(|connection| connection.len() < self.room) {
                Some(connection) => drop(connection.insert(*token, Arc::clone(entry))),
                None => drop(refused.insert(*token)),
            }
        }
        let news = refused.difference(&self.refused).copied().collect();
        self.refused = refused;
        news
    }

    /// The instruments of each connection.
    pub fn connections(&self) -> &[WantedInstruments] {
        &self.connections
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::broker::instrument::Exchange;
    use proptest::prelude::*;

    fn assigned(tokens: impl IntoIterator<Item = u32>) -> WantedInstruments {
        let entry = |token: u32| {
            let instrument = Instrument { symbol: token.to_string().into(), exchange: Exchange::Nse, id: token.into() };
            (token, Arc::new(WantedInstrument { instrument, mode: Mode::Quote }))
        };
        tokens.into_iter().map(entry).collect()
    }

    #[test]
    fn instruments_spread_over_connections_and_what_finds_no_room_is_told_once() {
        let mut assignment = Assignment::new(3, 3000);
        assert_eq!(assignment.update(&assigned(0..9002)), [9000, 9001]);
        assert_eq!(assignment.connections().iter().map(BTreeMap::len).collect::<Vec<_>>(), [3000, 3000, 3000]);
        assert_eq!(assignment.update(&assigned(0..9002)), [0u32; 0]);
        assert_eq!(assignment.update(&assigned(1..9002)), [0u32; 0], "9000 moves up where there is room");
        assert!(assignment.connections()[0].contains_key(&9000));
    }

    proptest! {
        #[test]
        fn every_wanted_instrument_has_one_place_and_keeps_it(rounds in prop::collection::vec(prop::collection::btree_set(0u32..40, 0..30), 1..10)) {
            let mut assignment = Assignment::new(3, 12);
            let mut places = BTreeMap::new();
            for round in rounds {
                prop_assert!(assignment.update(&assigned(round.iter().copied())).is_empty());
                let mut now = BTreeMap::new();
                for (at, connection) in assignment.connections().iter().enumerate() {
                    prop_assert!(connection.len() <= 12);
                    for token in connection.keys() {
                        prop_assert!(now.insert(*token, at).is_none());
                    }
                }
                prop_assert_eq!(now.keys().copied().collect::<BTreeSet<_>>(), round);
                for (token, at) in &places {
                    prop_assert!(now.get(token).is_none_or(|now| now == at));
                }
                places = now;
            }
        }
    }
}
