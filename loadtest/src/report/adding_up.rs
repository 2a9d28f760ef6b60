//! Adding up the facts of several processes or hosts of one run.

use std::collections::BTreeMap;

use super::facts::{EpochFacts, Facts, LedgerFacts, Receipts, Second, Setup, Window};
use crate::orders::outcome::OrderFacts;
use crate::stats::histogram::{self, Pairs};
use crate::verify::fault::Fault;

/// The most faults a report lists with their place.
const MAX_LISTED: usize = 10_000;

impl Facts {
    /// Adds the facts of another process or host of the same run.
    pub fn merge(&mut self, other: Self) {
        self.merge_silent(&other);
        self.setup.merge(&other.setup);
        let renumbered = self.take_groups(&other.setup.groups);
        self.started_unix_ms = self.started_unix_ms.min(other.started_unix_ms);
        for note in other.notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
        self.aborted = self.aborted.take().or(other.aborted);
        self.ledger = match (self.ledger.take(), other.ledger) {
            (Some(one), Some(other)) => Some(one.merged(other)),
            // A part without a ledger leaves the whole unproven.
            _ => None,
        };
        self.verified += other.verified;
        self.unjudged += other.unjudged;
        add_map(&mut self.fault_counts, other.fault_counts);
        let room = MAX_LISTED.saturating_sub(self.faults.len());
        self.faults.extend(other.faults.into_iter().take(room).map(|fault| Fault {
            group: renumbered.get(fault.group as usize).copied().unwrap_or(fault.group),
            ..fault
        }));
        add_map(&mut self.failures, other.failures);
        add_map(&mut self.drops, other.drops);
        add_map(&mut self.shed_causes, other.shed_causes);
        self.recovered += other.recovered;
        self.reconnected += other.reconnected;
        self.resets += other.resets;
        self.resent += other.resent;
        self.skipped += other.skipped;
        merge_epochs(&mut self.epochs, other.epochs);
        self.orders = merge_orders(self.orders.take(), other.orders);
        self.stream_messages += other.stream_messages;
        self.up_at_end += other.up_at_end;
        self.ramp_ns = self.ramp_ns.max(other.ramp_ns);
        for (mine, others) in [
            (&mut self.connect, &other.connect),
            (&mut self.latency, &other.latency),
            (&mut self.loop_delay, &other.loop_delay),
            (&mut self.shed, &other.shed),
        ] {
            let mut sum = histogram::new();
            mine.add_to(&mut sum);
            others.add_to(&mut sum);
            *mine = Pairs::of(&sum);
        }
        self.ticks.merge(&other.ticks);
        self.window.merge(&other.window);
        self.window_seconds = match (self.window_seconds, other.window_seconds) {
            (Some(one), Some(other)) => Some((one.0.min(other.0), one.1.max(other.1))),
            (one, other) => one.or(other),
        };
        merge_seconds(&mut self.seconds, other.seconds);
        self.receipts.merge(other.receipts);
        self.memory.before_bytes += other.memory.before_bytes;
        self.memory.up_bytes += other.memory.up_bytes;
        self.memory.up += other.memory.up;
        self.server = self.server.take().or(other.server);
    }

    /// Silent are groups that were silent in every part that has them.
    fn merge_silent(&mut self, other: &Self) {
        let (ours, theirs) = (&self.setup.groups, &other.setup.groups);
        self.silent.retain(|group| !theirs.contains(group) || other.silent.contains(group));
        self.silent.extend(other.silent.iter().filter(|group| !ours.contains(group)).cloned());
    }

    /// Takes over groups of another part; returns their numbers here.
    fn take_groups(&mut self, others: &[String]) -> Vec<u32> {
        let groups = &mut self.setup.groups;
        others
            .iter()
            .map(|name| {
                let known = groups.iter().position(|group| group == name);
                known.unwrap_or_else(|| {
                    groups.push(name.clone());
                    groups.len() - 1
                }) as u32
            })
            .collect()
    }
}

impl Setup {
    /// Takes over the clients of another part. Its groups are renumbered apart from that.
    fn merge(&mut self, other: &Self) {
        self.claim = self.claim.max(other.claim);
        for hub in &other.hubs {
            if !self.hubs.contains(hub) {
                self.hubs.push(hub.clone());
            }
        }
        self.connections += other.connections;
        self.sockets += other.sockets;
        self.attentive += other.attentive;
        self.ramp += other.ramp;
        self.processes += other.processes;
        self.workers += other.workers;
    }
}

impl Receipts {
    fn merge(&mut self, other: Self) {
        self.frames.extend(other.frames);
        self.mean_us.extend(other.mean_us);
        self.max_us.extend(other.max_us);
    }
}

impl LedgerFacts {
    /// All parts of a run read the same ledger, each its own copy of it.
    fn merged(self, other: Self) -> Self {
        let worse = if other.offset.error_ns > self.offset.error_ns { other.offset } else { self.offset };
        Self {
            source: self.source,
            is_foreign_clock: self.is_foreign_clock || other.is_foreign_clock,
            offset: worse,
            ticks: self.ticks.max(other.ticks),
            publications: self.publications.max(other.publications),
            lost: self.lost.max(other.lost),
            is_incomplete: self.is_incomplete || other.is_incomplete,
            unhashed: self.unhashed + other.unhashed,
        }
    }
}

impl Window {
    fn merge(&mut self, other: &Self) {
        // The parts overlap; what is measured is the time that belongs to any.
        self.from_ns = self.from_ns.min(other.from_ns);
        self.until_ns = self.until_ns.max(other.until_ns);
        self.frames += other.frames;
        self.verified += other.verified;
        self.decoded += other.decoded;
        self.bytes += other.bytes;
        self.reads += other.reads;
        self.cpu_ns += other.cpu_ns;
        self.busy_ns += other.busy_ns;
        self.starved_ns += other.starved_ns;
        self.worker_ns += other.worker_ns;
        self.saturated += other.saturated;
        self.worker_seconds += other.worker_seconds;
    }
}

fn add_map<K: Ord>(sum: &mut BTreeMap<K, u64>, other: BTreeMap<K, u64>) {
    for (key, count) in other {
        *sum.entry(key).or_default() += count;
    }
}

/// Each part has its own clients, and their orders.
pub fn merge_orders(one: Option<OrderFacts>, other: Option<OrderFacts>) -> Option<OrderFacts> {
    match (one, other) {
        (Some(mut one), Some(other)) => {
            one.merge(other);
            Some(one)
        }
        (one, other) => one.or(other),
    }
}

/// All parts read the same ledger, and each has its own clients.
fn merge_epochs(sum: &mut Vec<EpochFacts>, other: Vec<EpochFacts>) {
    for theirs in other {
        let Some(mine) = sum.iter_mut().find(|mine| mine.number == theirs.number) else {
            sum.push(theirs);
            continue;
        };
        mine.ticks = mine.ticks.max(theirs.ticks);
        mine.publications = mine.publications.max(theirs.publications);
        mine.frames += theirs.frames;
        mine.faults += theirs.faults;
        mine.to_first_copy_us = mine.to_first_copy_us.into_iter().chain(theirs.to_first_copy_us).min();
        mine.to_last_copy_us = mine.to_last_copy_us.max(theirs.to_last_copy_us);
    }
    sum.sort_by_key(|epoch| epoch.number);
}

/// Processes of a run start together, so their seconds are the same to within the start of a process.
fn merge_seconds(sum: &mut Vec<Second>, other: Vec<Second>) {
    let mut rows: BTreeMap<u64, Second> = sum.drain(..).map(|row| (row.second, row)).collect();
    for row in other {
        let mine = rows.entry(row.second).or_insert_with(|| Second { second: row.second, ..Second::default() });
        let frames = mine.frames + row.frames;
        if frames > 0 {
            mine.p50_us = (mine.p50_us * mine.frames as f64 + row.p50_us * row.frames as f64) / frames as f64;
        }
        mine.frames = frames;
        mine.up += row.up;
        mine.bytes += row.bytes;
        mine.p99_us = mine.p99_us.max(row.p99_us);
        mine.max_us = mine.max_us.max(row.max_us);
        mine.loop_p99_us = mine.loop_p99_us.max(row.loop_p99_us);
        mine.busy = mine.busy.max(row.busy);
        mine.faults += row.faults;
        mine.failures += row.failures;
    }
    sum.extend(rows.into_values());
}
