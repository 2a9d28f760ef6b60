//! API slots: what a client that negotiated with POST is subscribed to.
//!
//! An API slot is the set of a client's connections, for each hub of a generation. POST creates a slot, and its URLs
//! carry a token that names it; PATCH changes its groups. The groups are kept here and not in the token, so a token
//! is short, and PATCH also works for a client that has not connected yet. Source: `docs/protocols/gexbot.md`,
//! "Negotiate".

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::negotiate_options::{NegotiateOptions, SlotPolicy};
use crate::health::status::Status;
use crate::server::http::auth::KeyDigest;
use crate::server::shard::assignment::{AssignedGroups, Assignment};
use crate::wire::gexbot::{HubName, HubTopic};
use crate::wire::wanted_groups::WantedGroups;

/// How long after its POST a URL opens connections.
const LIFETIME_MS: u64 = 15 * 60 * 1000;

/// Separates the key from the slot's id in a token.
const MARK: &str = ":slot-";

/// Slots that a POST checks for being expired, so that forgetting them keeps pace with making them.
const CHECKED: usize = 2;

/// The API slots of the server.
pub struct ApiSlots {
    policy: SlotPolicy,
    max_slots: usize,
    prefix: Arc<str>,
    count: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
    table: Mutex<SlotTable>,
}

/// Every slot is in `slots` and in `order`; `newest` has the last one of each key.
#[derive(Default)]
struct SlotTable {
    slots: HashMap<Uuid, ApiSlot>,
    newest: HashMap<KeyDigest, Uuid>,
    /// By turn: the slot that is looked at first when one must go comes first.
    order: BTreeMap<u64, Uuid>,
    next_turn: u64,
    /// What the slots take, see [`ApiSlot::bytes`].
    bytes: u64,
}

struct ApiSlot {
    key: KeyDigest,
    v2: bool,
    issued_ms: u64,
    turn: u64,
    /// In the order of [`HubTopic::ALL`].
    hubs: [Arc<Assignment>; 6],
}

/// There is no room for another slot.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("all {0} API slots of this server are connected (--max-slots)")]
pub struct SlotsFull(usize);

/// Why a PATCH is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum PatchError {
    /// The key has no slot.
    #[error("expected a POST with this key first: it has no connections that PATCH could change")]
    NoSlot,
    /// The slot has the hubs of the other generation.
    #[error("no connection on {hub}: the POST with this key was for {}", generation(*.v2))]
    OtherGeneration { hub: HubName, v2: bool },
    /// Nobody is connected, and the URL no longer opens connections.
    #[error("no connection on {hub}: its URL expired 15 minutes after the POST; POST again")]
    NotConnected { hub: HubName },
}

/// Why a token with a slot opens no connection.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum SlotRefusal {
    /// The slot is unknown, or its URLs are too old.
    #[error("this URL has expired, or another POST with the same key has replaced it; POST negotiate again")]
    Expired,
    /// The slot has the hubs of the other generation.
    #[error("this token is for {}, not for {hub}", generation(*.v2))]
    OtherGeneration { hub: HubName, v2: bool },
}

fn generation(v2: bool) -> &'static str {
    if v2 { "the v2 hubs" } else { "the hubs without v2" }
}

impl ApiSlots {
    /// An empty table, whose size `status` tells from now on.
    pub fn new(options: &NegotiateOptions, prefix: &Arc<str>, status: &Status) -> Self {
        let help = "API slots: clients that negotiated with POST and are connected, or may still connect";
        Self {
            policy: options.slot_policy,
            max_slots: options.max_slots,
            prefix: Arc::clone(prefix),
            count: status.gauge("api_slots", help, Vec::new()),
            bytes: status.gauge(
                "api_slot_bytes",
                "Bytes that the API slots take, most of them for names of groups",
                vec![],
            ),
            table: Mutex::default(),
        }
    }

    /// A new slot for a key. Returns the token of its URLs, and the assignments whose connections the shards must
    /// close now: those of the slot whose place it takes.
    pub fn take(&self, key: &str, wanted: &WantedGroups, now_ms: u64) -> Result<(String, Vec<u64>), SlotsFull> {
        let mut table = self.table();
        table.forget_expired(now_ms);
        let digest = KeyDigest::of(key);
        let old = if self.policy == SlotPolicy::Replace { table.newest.get(&digest).copied() } else { None };
        let old = old.and_then(|id| table.remove(id));
        if table.slots.len() >= self.max_slots && !table.forget_unused() {
            return Err(SlotsFull(self.max_slots));
        }
        let id = Uuid::new_v4();
        let hubs = HubTopic::ALL
            .map(|topic| Assignment::new(topic.hub(wanted.is_v2()), groups_of(wanted, topic, &self.prefix)));
        table.add(id, ApiSlot { key: digest, v2: wanted.is_v2(), issued_ms: now_ms, turn: 0, hubs });
        self.tell(&table);
        let replaced = old.iter().flat_map(|old| &old.hubs).map(|assignment| {
            assignment.replace();
            assignment.id()
        });
        Ok((format!("{key}{MARK}{}", id.simple()), replaced.collect()))
    }

    /// Gives the slot of a credential other groups: of a key its newest slot, of a token its own. Returns the
    /// assignments that the shards must follow.
    pub fn patch(&self, credential: &str, wanted: &WantedGroups, now_ms: u64) -> Result<Vec<u64>, PatchError> {
        let mut table = self.table();
        let of_token = read_token(credential).and_then(|(key, id)| table.of(key, id));
        let of_key = || table.slots.get(table.newest.get(&KeyDigest::of(credential))?);
        let slot = of_token.or_else(of_key).ok_or(PatchError::NoSlot)?;
        let asked = || HubTopic::ALL.into_iter().filter(|&topic| wanted.groups(topic).len() > 0);
        if let Some(topic) = asked().next().filter(|_| slot.v2 != wanted.is_v2()) {
            return Err(PatchError::OtherGeneration { hub: topic.hub(wanted.is_v2()), v2: slot.v2 });
        }
        if let Some(topic) = asked().find(|&topic| !slot.may_connect(now_ms) && !is_used(&slot.hubs[topic as usize])) {
            return Err(PatchError::NotConnected { hub: topic.hub(slot.v2) });
        }
        let before = slot.bytes();
        let hubs = HubTopic::ALL.into_iter().zip(&slot.hubs);
        let assigned = hubs.map(|(topic, assignment)| {
            assignment.assign(groups_of(wanted, topic, &self.prefix));
            assignment.id()
        });
        let (assigned, after) = (assigned.collect(), slot.bytes());
        table.bytes = table.bytes - before + after;
        self.tell(&table);
        Ok(assigned)
    }

    /// The groups of a client that connects to `hub` with this token; `None` if the token names no slot, so that
    /// the client joins its groups itself.
    pub fn connect(&self, token: &str, hub: HubName, now_ms: u64) -> Result<Option<Arc<Assignment>>, SlotRefusal> {
        let Some((key, id)) = read_token(token) else { return Ok(None) };
        let table = self.table();
        let slot = table.of(key, id).filter(|slot| slot.may_connect(now_ms)).ok_or(SlotRefusal::Expired)?;
        if slot.v2 != hub.v2 {
            return Err(SlotRefusal::OtherGeneration { hub, v2: slot.v2 });
        }
        Ok(Some(Arc::clone(&slot.hubs[hub.topic as usize])))
    }

    /// Brings the metrics up to date.
    fn tell(&self, table: &SlotTable) {
        self.count.store(table.slots.len() as u64, Ordering::Relaxed);
        self.bytes.store(table.bytes, Ordering::Relaxed);
    }

    fn table(&self) -> MutexGuard<'_, SlotTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SlotTable {
    fn of(&self, key: &str, id: Uuid) -> Option<&ApiSlot> {
        self.slots.get(&id).filter(|slot| slot.key == KeyDigest::of(key))
    }

    fn add(&mut self, id: Uuid, mut slot: ApiSlot) {
        self.next_turn += 1;
        slot.turn = self.next_turn;
        self.order.insert(slot.turn, id);
        self.newest.insert(slot.key, id);
        self.bytes += slot.bytes();
        self.slots.insert(id, slot);
    }

    fn remove(&mut self, id: Uuid) -> Option<ApiSlot> {
        let slot = self.slots.remove(&id)?;
        self.bytes -= slot.bytes();
        self.order.remove(&slot.turn);
        if self.newest.get(&slot.key) == Some(&id) {
            self.newest.remove(&slot.key);
        }
        Some(slot)
    }

    /// Its turn comes again when all others had theirs.
    fn postpone(&mut self, id: Uuid) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        self.next_turn += 1;
        self.order.remove(&slot.turn);
        slot.turn = self.next_turn;
        self.order.insert(slot.turn, id);
    }

    fn forget_expired(&mut self, now_ms: u64) {
        for _ in 0..CHECKED {
            let Some((_, &id)) = self.order.first_key_value() else { return };
            match self.slots.get(&id) {
                Some(slot) if slot.may_connect(now_ms) => return,
                Some(slot) if slot.hubs.iter().any(is_used) => self.postpone(id),
                _ => drop(self.remove(id)),
            }
        }
    }

    /// Makes room: the oldest slot without a connection goes. `false` if all have one.
    fn forget_unused(&mut self) -> bool {
        for _ in 0..self.slots.len() {
            let Some((_, &id)) = self.order.first_key_value() else { return false };
            if self.slots.get(&id).is_some_and(|slot| slot.hubs.iter().any(is_used)) {
                self.postpone(id);
            } else {
                self.remove(id);
                return true;
            }
        }
        false
    }
}

impl ApiSlot {
    /// What it takes: itself, its places in the tables, its assignments, and each name with its allocation.
    fn bytes(&self) -> u64 {
        let names: usize =
            self.hubs.iter().map(|hub| hub.groups().iter().map(|name| name.len() + 32).sum::<usize>()).sum();
        (2 * size_of::<Self>() + self.hubs.len() * size_of::<Assignment>() + names) as u64
    }

    fn may_connect(&self, now_ms: u64) -> bool {
        now_ms < self.issued_ms + LIFETIME_MS
    }
}

/// Whether a session holds it, or a client in its handshake. Further ones get it only from [`ApiSlots::connect`],
/// under the table's lock.
fn is_used(assignment: &Arc<Assignment>) -> bool {
    Arc::strong_count(assignment) > 1
}

/// Sorted, since the names are and the prefix is the same.
fn groups_of(wanted: &WantedGroups, topic: HubTopic, prefix: &str) -> AssignedGroups {
    wanted.groups(topic).map(|name| format!("{prefix}_{name}").into()).collect()
}

/// Key and slot of a token; `None` if it is one of GET, or the client's own.
fn read_token(token: &str) -> Option<(&str, Uuid)> {
    let (key, id) = token.rsplit_once(MARK)?;
    Some((key, Uuid::try_parse(id).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::wanted_groups::WantedLimits;

    const LIMITS: WantedLimits<'static> = WantedLimits { prefix: "blue", memberships: 150, groups_of_hub: 150 };

    fn slots(slot_policy: SlotPolicy, max_slots: usize) -> ApiSlots {
        let options = NegotiateOptions { max_memberships: 150, slot_policy, max_slots };
        ApiSlots::new(&options, &"blue".into(), &Status::default())
    }

    fn orderflow(ticker: &str) -> WantedGroups {
        let body = format!(r#"{{"groups":["{ticker}_orderflow_orderflow"]}}"#);
        WantedGroups::of_post(body.as_bytes(), &LIMITS).unwrap()
    }

    const HUB: HubName = HubTopic::Orderflow.hub(false);

    #[test]
    fn a_token_opens_connections_of_its_slot_for_15_minutes_and_patch_needs_one_after_that() {
        let slots = slots(SlotPolicy::Replace, 10);
        let (token, replaced) = slots.take("a:b", &orderflow("SPX"), 0).unwrap();
        assert!(replaced.is_empty());
        let connected = slots.connect(&token, HUB, LIFETIME_MS - 1).unwrap().unwrap();
        assert_eq!(&*connected.groups(), ["blue_SPX_orderflow_orderflow".into()]);
        assert_eq!(slots.connect(&token, HUB, LIFETIME_MS).err(), Some(SlotRefusal::Expired));
        assert!(slots.patch("a:b", &orderflow("NDX"), LIFETIME_MS).is_ok());
        assert_eq!(&*connected.groups(), ["blue_NDX_orderflow_orderflow".into()]);
        drop(connected);
        let refused = slots.patch("a:b", &orderflow("SPX"), LIFETIME_MS);
        assert_eq!(refused, Err(PatchError::NotConnected { hub: HUB }));
        assert_eq!(slots.patch("a", &orderflow("SPX"), 0), Err(PatchError::NoSlot));
    }

    #[test]
    fn a_token_is_for_its_key_and_the_hubs_of_its_generation() {
        let slots = slots(SlotPolicy::Replace, 10);
        let (token, _) = slots.take("key", &orderflow("SPX"), 0).unwrap();
        let v2 = HubTopic::Orderflow.hub(true);
        assert_eq!(slots.connect(&token, v2, 0).err(), Some(SlotRefusal::OtherGeneration { hub: v2, v2: false }));
        let other = token.replace("key", "other");
        assert_eq!(slots.connect(&other, HUB, 0).err(), Some(SlotRefusal::Expired));
        for own in ["key:1", "key", "key:slot-1", ""] {
            assert!(slots.connect(own, HUB, 0).is_ok_and(|assignment| assignment.is_none()), "{own}");
        }
    }

    #[test]
    fn a_key_has_one_slot_or_as_many_as_it_posts() {
        let one = slots(SlotPolicy::Replace, 10);
        let (first, _) = one.take("key", &orderflow("SPX"), 0).unwrap();
        let old = one.connect(&first, HUB, 0).unwrap().unwrap();
        let (second, replaced) = one.take("key", &orderflow("NDX"), 1).unwrap();
        assert!(replaced.contains(&old.id()) && old.is_replaced());
        assert_eq!(one.connect(&first, HUB, 1).err(), Some(SlotRefusal::Expired));
        assert!(!one.connect(&second, HUB, 1).unwrap().unwrap().is_replaced());

        let many = slots(SlotPolicy::Many, 10);
        let (first, _) = many.take("key", &orderflow("SPX"), 0).unwrap();
        let (second, replaced) = many.take("key", &orderflow("SPX"), 0).unwrap();
        assert!(replaced.is_empty());
        many.patch("key", &orderflow("NDX"), 0).unwrap();
        many.patch(&first, &orderflow("RUT"), 0).unwrap();
        let groups = |token: &str| many.connect(token, HUB, 0).unwrap().unwrap().groups();
        assert_eq!(&*groups(&second), ["blue_NDX_orderflow_orderflow".into()], "a key means its newest slot");
        assert_eq!(&*groups(&first), ["blue_RUT_orderflow_orderflow".into()], "a token its own");
    }

    #[test]
    fn the_oldest_slot_without_a_connection_goes_first_and_expired_ones_go_by_themselves() {
        let slots = slots(SlotPolicy::Many, 3);
        let take = |key: &str, now_ms| slots.take(key, &orderflow("SPX"), now_ms).map(|(token, _)| token);
        let tokens = ["a", "b", "c"].map(|key| take(key, 0).unwrap());
        let used = slots.connect(&tokens[0], HUB, 0).unwrap().unwrap();
        take("d", 1).unwrap();
        let is_there = |token: &str| slots.connect(token, HUB, 1).is_ok();
        assert_eq!(tokens.each_ref().map(|token| is_there(token)), [true, false, true]);
        let held = ["c", "d"].map(|key| {
            let id = slots.table().newest[&KeyDigest::of(key)];
            Arc::clone(&slots.table().slots[&id].hubs[0])
        });
        assert_eq!(take("e", 2), Err(SlotsFull(3)));
        drop((used, held));
        take("f", LIFETIME_MS + 1).unwrap();
        assert_eq!(slots.count.load(Ordering::Relaxed), 2, "two of three were checked and forgotten");
        let table = slots.table();
        assert_eq!((table.slots.len(), table.order.len(), table.newest.len()), (2, 2, 2));
    }

    #[test]
    fn what_slots_take_is_told_and_does_not_grow_with_the_key() {
        let slots = slots(SlotPolicy::Replace, 10);
        let taken = |key: &str, ticker: &str| {
            slots.take(key, &orderflow(ticker), 0).unwrap();
            slots.bytes.load(Ordering::Relaxed)
        };
        let one = taken("a", "SPX");
        assert_eq!(taken("a", "SPX"), one, "the old slot is gone");
        assert_eq!(taken(&"b".repeat(1000), "SPX"), 2 * one);
        let longer = taken("a", "A_LONGER_NAME");
        assert_eq!(longer, 2 * one + 10);
        slots.patch("a", &orderflow("SPX"), 0).unwrap();
        assert_eq!(slots.bytes.load(Ordering::Relaxed), 2 * one);
    }
}
