//! Draws: numbers that look random and are the same in every run.
//!
//! A draw depends on the plan's seed, the number of the fault, the tick, what it is for, and the client; on no time and on
//! no connection id, which differ from run to run.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Who a client is in every run: its key, its hub, and the how-manieth session of this key on this hub it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientIdentity {
    /// Hash of the key: it names the client where the key must not be shown.
    pub user: u64,
    /// Hash of key and hub.
    pub of_hub: u64,
    /// From 1; 0 for a request, which is no session.
    pub nth: u32,
}

impl ClientIdentity {
    /// The identity of a request, or of a session that has no number yet.
    pub fn new(key: &str, hub: &str) -> Self {
        let user = xxh3_64(key.as_bytes());
        Self { user, of_hub: xxh3_64_with_seed(hub.as_bytes(), user), nth: 0 }
    }
}

/// What is drawn for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrawFor {
    /// Whether the client is in the share.
    Share,
    /// Whether the chance strikes it.
    Chance,
    /// How long its frame is held, as part of the jitter.
    Jitter,
    /// Which bit of its frame is flipped.
    Bit,
}

/// The draws of one fault.
#[derive(Debug, Clone, Copy)]
pub struct Draws {
    /// The plan's seed.
    pub seed: u64,
    /// The fault's number in the plan.
    pub fault: usize,
}

impl Draws {
    /// 64 bits. `count` tells draws of the same tick and client apart.
    pub fn bits(self, tick: u64, what: DrawFor, client: ClientIdentity, count: u64) -> u64 {
        let words = [tick, what as u64, client.of_hub, u64::from(client.nth), count, self.fault as u64];
        let mut bytes = [0; 48];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        xxh3_64_with_seed(&bytes, self.seed)
    }

    /// Whether an event of this probability happens.
    pub fn happens(self, probability: f64, tick: u64, what: DrawFor, client: ClientIdentity, count: u64) -> bool {
        let unit = (self.bits(tick, what, client, count) >> 11) as f64 / (1u64 << 53) as f64;
        unit < probability
    }

    /// A number below `limit`; 0 if that is 0.
    pub fn below(self, limit: u64, tick: u64, what: DrawFor, client: ClientIdentity, count: u64) -> u64 {
        ((u128::from(self.bits(tick, what, client, count)) * u128::from(limit)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: Draws = Draws { seed: 7, fault: 1 };

    #[test]
    fn a_tenth_of_the_clients_is_about_a_tenth_and_another_one_at_another_tick() {
        let clients: Vec<ClientIdentity> = (0..2000)
            .map(|at| ClientIdentity { nth: 1, ..ClientIdentity::new(&format!("k{at}"), "orderflow") })
            .collect();
        let drawn = |draws: Draws, tick| -> Vec<bool> {
            clients.iter().map(|client| draws.happens(0.1, tick, DrawFor::Share, *client, 0)).collect()
        };
        let first = drawn(DRAWS, 3);
        let count = first.iter().filter(|is_drawn| **is_drawn).count();
        assert!((150..250).contains(&count), "{count}");
        assert_eq!(first, drawn(DRAWS, 3), "the same again");
        assert_ne!(first, drawn(DRAWS, 4), "another tick");
        assert_ne!(first, drawn(Draws { fault: 2, ..DRAWS }, 3), "another fault");
        assert_ne!(first, drawn(Draws { seed: 8, ..DRAWS }, 3), "another seed");
    }

    #[test]
    fn the_draws_of_a_seed_are_these_in_every_version() {
        let client = ClientIdentity { nth: 1, ..ClientIdentity::new("k1", "orderflow") };
        assert_eq!(client.user, xxh3_64(b"k1"), "what a client can compute itself");
        let drawn = [1, 2, 3].map(|tick| DRAWS.below(1000, tick, DrawFor::Bit, client, 0));
        assert_eq!(drawn, PINNED);
        assert!(DRAWS.happens(1.0, 1, DrawFor::Chance, client, 0), "1 is always");
        assert_eq!(DRAWS.below(0, 1, DrawFor::Jitter, client, 0), 0);
    }

    const PINNED: [u64; 3] = [145, 130, 578];
}
