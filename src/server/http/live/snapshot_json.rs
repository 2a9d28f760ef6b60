//! A snapshot as JSON, and what has changed since another one.
//!
//! Most rows of the tables are as they were a second ago. They are compared as rows, and only those that differ become
//! JSON: with 10,000 connections that halves what a reader costs.

use std::collections::BTreeMap;
use std::mem::take;

use serde::Serialize;
use serde_json::{Map, Value};

use super::live_snapshot::{ClosedRow, ConnectionRow, FileRow, GroupRow, LiveSnapshot};
use super::merge_patch::diff;

/// A snapshot, ready to be compared with the next one.
pub struct SnapshotJson {
    /// All but the rows of the tables.
    frame: Value,
    groups: BTreeMap<String, GroupRow>,
    connections: BTreeMap<String, ConnectionRow>,
    closed: BTreeMap<u64, ClosedRow>,
    files: BTreeMap<String, FileRow>,
}

impl SnapshotJson {
    /// Takes the snapshot apart.
    pub fn new(mut snapshot: LiveSnapshot) -> Self {
        let groups = take(&mut snapshot.groups.rows);
        let connections = take(&mut snapshot.connections.rows);
        let closed = take(&mut snapshot.closed.recent);
        let files = take(&mut snapshot.sources.files.rows);
        Self { frame: json(&snapshot), groups, connections, closed, files }
    }

    /// All of it.
    pub fn whole(&self) -> Value {
        let mut whole = self.frame.clone();
        whole["groups"]["rows"] = json(&self.groups);
        whole["connections"]["rows"] = json(&self.connections);
        whole["closed"]["recent"] = json(&self.closed);
        whole["sources"]["files"]["rows"] = json(&self.files);
        whole
    }

    /// The merge patch that makes this snapshot of the one before.
    pub fn since(&self, before: &Self) -> Value {
        let mut patch = diff(&before.frame, &self.frame).unwrap_or_else(|| Map::new().into());
        if let Some(rows) = changed(&before.groups, &self.groups) {
            patch["groups"]["rows"] = rows;
        }
        if let Some(rows) = changed(&before.connections, &self.connections) {
            patch["connections"]["rows"] = rows;
        }
        if let Some(rows) = changed(&before.closed, &self.closed) {
            patch["closed"]["recent"] = rows;
        }
        if let Some(rows) = changed(&before.files, &self.files) {
            patch["sources"]["files"]["rows"] = rows;
        }
        patch
    }
}

/// The patch between two tables; `None` if they are equal.
fn changed<K: Ord + ToString, R: PartialEq + Serialize>(
    before: &BTreeMap<K, R>,
    after: &BTreeMap<K, R>,
) -> Option<Value> {
    let mut patch = Map::new();
    for (key, row) in after {
        let change = match before.get(key) {
            Some(known) if known == row => continue,
            Some(known) => diff(&json(known), &json(row)),
            None => Some(json(row)),
        };
        patch.extend(change.map(|change| (key.to_string(), change)));
    }
    for key in before.keys().filter(|key| !after.contains_key(key)) {
        patch.insert(key.to_string(), Value::Null);
    }
    (!patch.is_empty()).then(|| patch.into())
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("a snapshot has string keys, and nothing else that could fail")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::merge_patch::apply;
    use super::*;

    fn snapshot(now: u64, groups: &[(&str, usize)], closed: &[u64]) -> SnapshotJson {
        let mut snapshot = LiveSnapshot { now, ..LiveSnapshot::default() };
        let group = |&(name, subscribers): &(&str, usize)| {
            (name.to_owned(), GroupRow { name: name.to_owned(), subscribers, ..GroupRow::default() })
        };
        snapshot.groups.rows = groups.iter().map(group).collect();
        snapshot.closed.recent = closed.iter().map(|&at| (at, ClosedRow { at, ..ClosedRow::default() })).collect();
        snapshot.connections.rows.insert("c".to_owned(), ConnectionRow::default());
        SnapshotJson::new(snapshot)
    }

    #[test]
    fn the_patch_names_only_rows_that_changed_and_makes_the_second_snapshot_of_the_first() {
        let before = snapshot(1, &[("a", 1), ("b", 1), ("c", 1)], &[7]);
        let after = snapshot(2, &[("a", 1), ("b", 2), ("d", 1)], &[7, 8]);
        let patch = after.since(&before);
        assert_eq!(patch["groups"]["rows"]["b"], json!({ "subscribers": 2 }));
        assert_eq!(patch["groups"]["rows"]["c"], Value::Null);
        let keys: Vec<&String> = patch["groups"]["rows"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["b", "d", "c"]);
        assert_eq!(patch.get("connections"), None, "{patch}");
        let mut made = before.whole();
        apply(&mut made, patch);
        assert_eq!(made, after.whole());
        assert_eq!(after.since(&after), json!({}));
    }
}
