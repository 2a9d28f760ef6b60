//! The feeds' prices on the JSON streams, and what the feeds are asked for on their behalf.
//!
//! ```text
//! merged stream ─▶ record ─▶ price_updates
//! groups of price_updates that are live ─▶ symbols wanted at the brokers (every second)
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::feed_options::Demand;
use super::feeds::Feeds;
use super::quote::MarketData;
use crate::streams::Streams;
use crate::wire::streams::{PRICE_UPDATES, is_symbol, symbols_of_group};

/// Who wants the symbols, to the feeds.
const USER: &str = "price_updates";

/// How often the symbols that clients want are looked up.
const LOOK: Duration = Duration::from_secs(1);

/// Publishes every price of the merged stream until the feeds stop.
pub fn publish(feeds: &Feeds, streams: Arc<Streams>, demand: Demand) -> JoinHandle<()> {
    let (mut records, feeds) = (feeds.stream(), feeds.clone());
    tokio::spawn(async move {
        let mut wanted = BTreeSet::new();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                record = records.recv() => {
                    let Some(record) = record else { return };
                    offer(&streams, &record);
                }
                _ = look.tick() => want(&feeds, &streams, demand, &mut wanted),
            }
        }
    })
}

/// Hands a price to the channel, which counts it, or counts that it refused it.
fn offer(streams: &Streams, record: &MarketData) {
    let Some(price) = record.price_update() else { return };
    if is_symbol(&price.symbol) && streams.offer_price(&price).is_ok() {
        streams.prices_moved();
    } else if let Some(health) = streams.health(PRICE_UPDATES) {
        health.count_errors(1);
    }
}

/// Asks the feeds for symbols that are wanted now, and gives back those that are not any more.
fn want(feeds: &Feeds, streams: &Streams, demand: Demand, wanted: &mut BTreeSet<String>) {
    let offered: BTreeSet<String> = feeds.symbols().iter().map(ToString::to_string).collect();
    let now = match demand {
        Demand::All => offered,
        Demand::Clients => &chosen(streams, &offered) & &offered,
    };
    feeds.unsubscribe(USER, wanted.difference(&now));
    match feeds.demand(USER, now.difference(wanted)) {
        Ok(refused) => {
            for (symbol, reason) in refused {
                tracing::warn!(symbol, %reason, "a feed refuses a symbol");
            }
        }
        Err(error) => tracing::warn!(%error, "cannot subscribe more symbols at the brokers"),
    }
    *wanted = now;
}

/// The symbols of every filter of `price_updates` in use; all that are `offered` if somebody takes the
/// whole channel.
fn chosen(streams: &Streams, offered: &BTreeSet<String>) -> BTreeSet<String> {
    let mut symbols = BTreeSet::new();
    streams.hub().for_each_group(|group| {
        if !group.is_live() || group.name().split(':').next() != Some(PRICE_UPDATES) {
            return;
        }
        match symbols_of_group(group.name()) {
            Some(of_group) => symbols.extend(of_group.map(str::to_owned)),
            None => symbols.extend(offered.iter().cloned()),
        }
    });
    symbols
}
