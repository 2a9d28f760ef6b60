//! Groups that negotiate assigned to a client's connections on one hub.
//!
//! A client that negotiated with POST joins nothing itself: the server joins the groups when its socket connects
//! (`docs/protocols/gexbot.md`, "POST: memberships by the server"). HTTP owns the assignment and changes it; the
//! shards follow. So that no change is missed, HTTP first changes the assignment and then tells the shards, and a
//! shard reads it when it connects a client or is told.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::wire::gexbot::HubName;

/// Full names of groups, sorted.
pub type AssignedGroups = Arc<[Box<str>]>;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// What the connections of one client on one hub are to be subscribed to. Every session that has it holds an
/// `Arc` of it, and so does a client in its handshake: that is how HTTP knows whether there are any.
pub struct Assignment {
    /// Never used again in this process.
    id: u64,
    hub: HubName,
    groups: Mutex<AssignedGroups>,
    is_replaced: AtomicBool,
}

impl Assignment {
    /// An assignment of these groups, which the hub must carry.
    pub fn new(hub: HubName, groups: AssignedGroups) -> Arc<Self> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { id, hub, groups: Mutex::new(groups), is_replaced: AtomicBool::new(false) })
    }

    /// What the shards find its sessions by.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The hub whose groups they are.
    pub fn hub(&self) -> HubName {
        self.hub
    }

    /// The groups of the last POST or PATCH.
    pub fn groups(&self) -> AssignedGroups {
        Arc::clone(&self.groups.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Assigns other groups. The shards must be told with [`ShardMessage::Assigned`].
    ///
    /// [`ShardMessage::Assigned`]: super::mailbox::ShardMessage::Assigned
    pub fn assign(&self, groups: AssignedGroups) {
        *self.groups.lock().unwrap_or_else(PoisonError::into_inner) = groups;
    }

    /// Says that another negotiate took its place. The shards must be told with [`ShardMessage::Assigned`].
    ///
    /// [`ShardMessage::Assigned`]: super::mailbox::ShardMessage::Assigned
    pub fn replace(&self) {
        // Relaxed: the mailbox orders this before the shard's reading of the message; a shard that connects a
        // client before that finds it by the message.
        self.is_replaced.store(true, Ordering::Relaxed);
    }

    /// Whether another negotiate took its place: its connections are closed.
    pub fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::Relaxed)
    }
}

/// The assignment of a session, and how far the session has followed it.
pub struct FollowedAssignment {
    /// What HTTP keeps, and changes under the feet of the session.
    pub assignment: Arc<Assignment>,
    /// What the session was subscribed to last.
    pub groups: AssignedGroups,
}

impl FollowedAssignment {
    /// Nothing is joined yet.
    pub fn new(assignment: Arc<Assignment>) -> Self {
        Self { assignment, groups: AssignedGroups::from([]) }
    }

    /// Whether the session may join this group.
    pub fn allows(&self, group: &str) -> bool {
        contains(&self.groups, group)
    }

    /// Takes over the current groups. Returns those that are not among them any more, and all that are now.
    pub fn follow(&mut self) -> (Vec<Box<str>>, AssignedGroups) {
        let current = self.assignment.groups();
        let gone = self.groups.iter().filter(|group| !contains(&current, group)).cloned().collect();
        self.groups = Arc::clone(&current);
        (gone, current)
    }
}

fn contains(groups: &[Box<str>], group: &str) -> bool {
    groups.binary_search_by(|other| (**other).cmp(group)).is_ok()
}
