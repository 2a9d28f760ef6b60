//! The connection ids of Web PubSub, which name the shard that has the session.

use uuid::Uuid;

/// A fresh connection id: a random UUID whose last byte is the shard's number, so that a recovery
/// finds its session without a table over all shards.
pub fn connection_id(shard: u8) -> Uuid {
    let mut bytes = Uuid::new_v4().into_bytes();
    bytes[15] = shard;
    Uuid::from_bytes(bytes)
}

/// The shard a connection id names; whether there is such a shard is another question.
pub fn shard_of(id: Uuid) -> u8 {
    id.as_bytes()[15]
}
