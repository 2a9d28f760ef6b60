//! What became of all orders, for the report.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ending::Effect;
use super::order::OrderKind;

/// The most problems that are listed; all are counted.
const MAX_LISTED: usize = 1_000;

/// Orders of one kind: frames where it is about frames, else clients and requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderCounts {
    /// Ordered for clients of the run.
    pub ordered: u64,
    /// Seen to have happened.
    pub seen: u64,
    /// Without anybody who could have seen it: the client was gone, or another order hides it.
    pub moot: u64,
}

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderFacts {
    /// By kind.
    pub kinds: BTreeMap<OrderKind, OrderCounts>,
    /// What was ordered and did not happen, and connections that ended without an order.
    pub problems: Vec<String>,
    /// How many of these there are.
    pub problem_count: u64,
}

impl OrderFacts {
    /// Counts an order; `problem` says what is wrong if it had no effect.
    pub fn count(&mut self, kind: OrderKind, effect: Effect, problem: impl FnOnce() -> String) {
        let counts = self.kinds.entry(kind).or_default();
        counts.ordered += 1;
        match effect {
            Effect::Seen => counts.seen += 1,
            Effect::Moot => counts.moot += 1,
            Effect::Unseen => self.blame(problem()),
        }
    }

    /// Something that no order explains, or an order without effect.
    pub fn blame(&mut self, problem: String) {
        self.problem_count += 1;
        if self.problems.len() < MAX_LISTED {
            self.problems.push(problem);
        }
    }

    /// Takes another worker's or process's orders, which were for other clients.
    pub fn merge(&mut self, other: Self) {
        for (kind, counts) in other.kinds {
            let sum = self.kinds.entry(kind).or_default();
            sum.ordered += counts.ordered;
            sum.seen += counts.seen;
            sum.moot += counts.moot;
        }
        self.problem_count += other.problem_count;
        let room = MAX_LISTED.saturating_sub(self.problems.len());
        self.problems.extend(other.problems.into_iter().take(room));
    }
}
