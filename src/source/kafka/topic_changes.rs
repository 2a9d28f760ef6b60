//! Which topics were deleted and made anew: the name is the same, the id is another.
//!
//! librdkafka goes on at the offset where it stood in the old topic. If the new topic is longer, its first messages would
//! be lost, and nothing would say so. Neither librdkafka's callbacks nor rdkafka's safe calls tell ids, but librdkafka
//! logs each change of one (rdkafka_topic.c, debug context `topic`, in 2.12 as in 2.4). Brokers from Kafka 3.1 on are
//! asked for messages by topic id, so the change is noticed before the first message of the new topic is fetched; and a
//! log entry overtakes messages that wait, so `poll` hands it over first.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The debug contexts whose entries [`TopicChanges::hear`] needs.
pub const DEBUG_CONTEXTS: &str = "topic";

/// What a broker without topic ids tells.
const NO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// The ids of the topics that are read.
#[derive(Debug, Default)]
pub struct TopicChanges {
    state: Mutex<TopicState>,
    has_recreated: AtomicBool,
}

#[derive(Debug, Default)]
struct TopicState {
    /// By topic. Bounded by the topics that are read: librdkafka tells no others.
    ids: HashMap<String, String>,
    /// Topics whose id has changed since they were taken.
    recreated: Vec<String>,
}

impl TopicChanges {
    fn state(&self) -> MutexGuard<'_, TopicState> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a log entry of librdkafka; only the change of an id matters.
    pub fn hear(&self, entry: &str) {
        let Some((topic, id)) = changed_id(entry) else { return };
        if id == NO_ID {
            return;
        }
        let mut state = self.state();
        // The first id of a topic is new to each consumer, and not to this process.
        let before = state.ids.insert(topic.to_owned(), id.to_owned());
        if before.is_some_and(|before| before != id) && !state.recreated.iter().any(|known| known == topic) {
            state.recreated.push(topic.to_owned());
            // The lock orders it: whoever sees the flag takes the lock next.
            self.has_recreated.store(true, Ordering::Relaxed);
        }
    }

    /// The id of a topic, written as Kafka's tools write it; `None` before librdkafka has told it.
    pub fn id(&self, topic: &str) -> Option<String> {
        // librdkafka writes the same bytes in base64's other alphabet.
        Some(self.state().ids.get(topic)?.replace('+', "-").replace('/', "_"))
    }

    /// The topics that were made anew since the last call.
    pub fn take_recreated(&self) -> Vec<String> {
        // Called after each message, so without the lock as a rule.
        if !self.has_recreated.swap(false, Ordering::Relaxed) {
            return Vec::new();
        }
        std::mem::take(&mut self.state().recreated)
    }
}

/// `Topic lines changed id from 4Nl5… to Xq9c…`: the topic and its new id.
fn changed_id(entry: &str) -> Option<(&str, &str)> {
    let (_, entry) = entry.split_once("Topic ")?;
    let (topic, ids) = entry.split_once(" changed id from ")?;
    let (_, id) = ids.split_once(" to ")?;
    Some((topic, id.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_made_anew_when_its_id_is_another() {
        let ids = TopicChanges::default();
        let none: [&str; 0] = [];
        ids.hear("[thrd:main]: Topic lines changed id from AAAAAAAAAAAAAAAAAAAAAA to 4Nl5vXyVQ2yV8Gd1mYw2oA");
        assert_eq!(ids.take_recreated(), none, "its first id");
        ids.hear("[thrd:main]: Topic lines [0] Leader 1 Epoch 0");
        // A new consumer starts without ids.
        ids.hear("[thrd:main]: Topic lines changed id from AAAAAAAAAAAAAAAAAAAAAA to 4Nl5vXyVQ2yV8Gd1mYw2oA");
        ids.hear("[thrd:main]: Topic lines changed id from 4Nl5vXyVQ2yV8Gd1mYw2oA to AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(ids.take_recreated(), none, "the same one");
        for _ in 0..2 {
            ids.hear("Topic lines changed id from 4Nl5vXyVQ2yV8Gd1mYw2oA to Xq9cT0qRR8yD3yq1yB3j5g");
        }
        assert_eq!(ids.take_recreated(), ["lines"]);
        assert_eq!(ids.take_recreated(), none, "told once");
        assert_eq!((ids.id("lines").as_deref(), ids.id("others")), (Some("Xq9cT0qRR8yD3yq1yB3j5g"), None));
        ids.hear("Topic others changed id from AAAAAAAAAAAAAAAAAAAAAA to +q9cT0qRR8yD3yq1yB3j/g");
        assert_eq!(ids.id("others").as_deref(), Some("-q9cT0qRR8yD3yq1yB3j_g"));
    }
}
