//! What clients call themselves, each name once: a connection keeps its number only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::shown_text::shown;

/// Names that are kept. A client whose name comes after them has none.
const NAMES: usize = 1024;

/// Characters of a name.
const LENGTH: usize = 128;

/// The number of a name; the default is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AgentId(u16);

/// The names, in the order in which they came first.
#[derive(Default)]
pub struct UserAgents {
    names: Mutex<Names>,
}

#[derive(Default)]
struct Names {
    by_id: Vec<Arc<str>>,
    ids: HashMap<Arc<str>, AgentId>,
}

impl UserAgents {
    /// The number of this `User-Agent`.
    pub fn id(&self, text: &str) -> AgentId {
        let text = shown(text, LENGTH);
        if text.is_empty() {
            return AgentId::default();
        }
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&id) = names.ids.get(&*text) {
            return id;
        }
        if names.by_id.len() == NAMES {
            return AgentId::default();
        }
        let name: Arc<str> = text.into();
        names.by_id.push(Arc::clone(&name));
        let id = AgentId(names.by_id.len() as u16);
        names.ids.insert(name, id);
        id
    }

    /// The name with this number.
    pub fn name(&self, id: AgentId) -> Option<Arc<str>> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.by_id.get(usize::from(id.0).checked_sub(1)?).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_kept_once_and_their_number_is_bounded() {
        let agents = UserAgents::default();
        let first = agents.id("sdk/1");
        assert_eq!((agents.id("sdk/1"), agents.name(first).as_deref()), (first, Some("sdk/1")));
        for at in 1..NAMES {
            assert_ne!(agents.id(&format!("sdk/1.{at}")), AgentId::default());
        }
        let late = agents.id("one more");
        assert_eq!((agents.name(late), agents.id("sdk/1")), (None, first));
        assert_eq!(agents.id(""), AgentId::default());
    }
}
