//! The replay: one clock on which every track stands.
//!
//! A tick publishes the next record of every group that has subscribers, and moves every track by one slot, so a
//! ticker is where a live feed would be whether anybody listens or not. The clock is a thread of its own on
//! absolute deadlines (tokio's timer has steps of 1 ms); it clones handles of blocks that the window has built,
//! and encodes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;

use super::block::{Block, SlotRecord};
use super::day_prices::DayPrices;
use super::market::Market;
use super::player_options::{CacheMode, ReplayOptions};
use super::tick_schedule::{TickSchedule, first_deadline, sleep_until};
use super::track::Track;
use crate::engine::clock;
use crate::engine::frames::{FrameStore, Frames};
use crate::engine::hub::Hub;
use crate::engine::sequencer::{Batch, Due};
use crate::health::status::{SourceHealth, Status};

/// The tracks of a market on one clock.
pub struct Replay {
    hub: Arc<Hub>,
    tickers: Vec<Ticker>,
    options: ReplayOptions,
    status: Arc<Status>,
    health: Arc<SourceHealth>,
    /// Rung when the clock reaches another block.
    window: Waker,
    prices: Option<Arc<DayPrices>>,
    missed: Arc<AtomicU64>,
    missing: Arc<AtomicU64>,
}

/// A ticker's tracks.
struct Ticker {
    cursors: Vec<Cursor>,
}

/// Where a track stands.
struct Cursor {
    track: Arc<Track>,
    /// The slot of the next tick.
    slot: u64,
    /// The block that was used last, with the number of its first slot.
    block: Option<(u64, Arc<Block>)>,
}

/// A slot of a block that is in memory.
struct Found {
    block: Arc<Block>,
    slot: u32,
    record: SlotRecord,
}

impl Replay {
    /// A clock at the first record of every track; nothing is published yet.
    pub fn new(
        hub: Arc<Hub>,
        market: &Market,
        options: ReplayOptions,
        status: Arc<Status>,
        health: Arc<SourceHealth>,
        window: Waker,
        prices: Option<Arc<DayPrices>>,
    ) -> Self {
        let cursor = |track: &Arc<Track>| Cursor { track: Arc::clone(track), slot: 0, block: None };
        let tickers = market.tickers().map(|(_, tracks)| Ticker { cursors: tracks.iter().map(cursor).collect() });
        let tickers = tickers.collect();
        let missed =
            status.count("ticks_missed", "Ticks of the replay clock skipped because an earlier one was late", vec![]);
        let missing =
            status.count("blocks_missing", "Records not published because their frames were not built in time", vec![]);
        Self { hub, tickers, options, status, health, window, prices, missed, missing }
    }

    /// Ticks until `stop` is set. Blocks: call it on a thread of its own.
    pub fn run(mut self, stop: &AtomicBool) {
        let mut schedule = TickSchedule::starting_at(first_deadline(self.options.interval), self.options.interval);
        for ordinal in 0.. {
            sleep_until(schedule.deadline_ns);
            if stop.load(Ordering::Relaxed) {
                return;
            }
            self.tick(ordinal, schedule.deadline_ns);
            let missed = schedule.advance(clock::monotonic_ns());
            if missed > 0 {
                self.missed.fetch_add(missed, Ordering::Relaxed);
            }
        }
    }

    /// Publishes the next record of every live group, as one batch.
    fn tick(&mut self, ordinal: u64, scheduled_ns: u64) {
        let mut batch = self.hub.sequencer().begin(Some(Due { ordinal, scheduled_ns }));
        self.status.drift().observe(batch.drift_ns() as f64 / 1e9);
        let (mut any, mut missing, mut is_new) = (false, 0, false);
        let prices = self.tickers.iter_mut().enumerate().filter_map(|(place, ticker)| {
            any |= ticker.cursors.iter().any(|cursor| cursor.track.is_playing());
            let slot = ticker.cursors.iter().find(|cursor| cursor.track.can_lead()).map(|cursor| cursor.slot);
            let leading = ticker.tick(&mut batch, self.prices.is_some(), &mut missing, &mut is_new);
            leading.map(|record| (place, record.spot, slot == Some(0)))
        });
        match &self.prices {
            Some(day) => day.tick(prices),
            None => prices.for_each(drop),
        }
        drop(batch);
        let mut ended = false;
        for cursor in self.tickers.iter_mut().flat_map(|ticker| &mut ticker.cursors) {
            ended |= cursor.advance(self.options.cache_mode);
        }
        if missing > 0 {
            self.missing.fetch_add(missing, Ordering::Relaxed);
        }
        if is_new {
            self.window.wake_by_ref();
        }
        if any {
            self.health.set_position(ordinal, clock::unix_ns());
        }
        if ended && !self.tickers.iter().flat_map(|ticker| &ticker.cursors).any(|cursor| cursor.track.is_playing()) {
            self.health.set_connected(false);
            tracing::info!(ordinal, "the last record of every ticker has been sent; the hub sends nothing more");
        }
    }
}

impl Ticker {
    /// Publishes what is due in the ticker's groups. Returns the record of the track that leads, if it is needed.
    fn tick(
        &mut self,
        batch: &mut Batch<'_>,
        needs_price: bool,
        missing: &mut u64,
        is_new: &mut bool,
    ) -> Option<SlotRecord> {
        let mut leading = None;
        let mut leads = true;
        for cursor in self.cursors.iter_mut().filter(|cursor| cursor.track.is_playing()) {
            let is_lead = leads && cursor.track.can_lead();
            leads &= !is_lead;
            cursor.track.set_position(cursor.slot);
            let (group, spot) = (cursor.track.group().is_live(), is_lead && cursor.track.spot_group().is_live());
            if !(group || spot || is_lead && needs_price) {
                cursor.block = None;
                continue;
            }
            let Some(found) = cursor.find(is_new) else {
                *missing += u64::from(group && !cursor.track.is_lost() && cursor.track.group().served() != 0);
                continue;
            };
            if !found.record.is_record {
                continue;
            }
            let Found { block, slot, record } = found;
            if group {
                let forms = block.built().forms(cursor.track.kind());
                *missing += u64::from(!cursor.track.is_lost() && cursor.track.group().served() & !forms != 0);
                // Without a form the first subscribers are still waiting for their acks.
                if forms != 0 {
                    batch.publish(cursor.track.group(), Frames::new(Arc::clone(&block) as Arc<dyn FrameStore>, slot));
                }
            }
            if spot {
                batch.publish(cursor.track.spot_group(), Frames::new(block, Block::spot_of(slot)));
            }
            if is_lead {
                leading = Some(record);
            }
        }
        leading
    }
}

impl Cursor {
    /// The slot that is due, if its block is in memory. `is_new` is set if it is another block than the last time.
    fn find(&mut self, is_new: &mut bool) -> Option<Found> {
        let in_block = |first: u64, block: &Block| {
            let slot = u32::try_from(self.slot.checked_sub(first)?).ok()?;
            Some((slot, block.slot(slot)?))
        };
        let there = self.block.as_ref().and_then(|(first, block)| in_block(*first, block));
        let (slot, record) = match there {
            Some(there) => there,
            None => {
                *is_new = true;
                self.block = self.track.block_of(self.slot);
                let (first, block) = self.block.as_ref()?;
                in_block(*first, block)?
            }
        };
        Some(Found { block: Arc::clone(&self.block.as_ref()?.1), slot, record })
    }

    /// Moves to the next slot. True if the track ends with this one.
    fn advance(&mut self, mode: CacheMode) -> bool {
        if !self.track.is_playing() {
            return false;
        }
        let (slots, is_complete) = self.track.slots();
        if self.slot >= slots && !is_complete {
            // The next slot is not indexed yet: wait for it.
            return false;
        }
        self.slot += 1;
        if self.slot < slots || !is_complete {
            return false;
        }
        match mode {
            CacheMode::Rotation => self.slot = 0,
            CacheMode::Exhaust => self.track.end(),
        }
        mode == CacheMode::Exhaust
    }
}
