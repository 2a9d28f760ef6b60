//! Records broker feeds: every price as input of the channel `price_updates`.

use std::sync::Arc;

use anyhow::{Context, ensure};
use rust_decimal::Decimal;
use serde::Serialize;

use super::heard::{Heard, ToFiles, stream_file};
use super::recorded_files::RecordedRecord;
use crate::health::status::Status;
use crate::source::broker;
use crate::source::broker::feed_options::BrokerOptions;
use crate::source::broker::feed_settings::FeedSettings;
use crate::source::broker::quote::MarketData;
use crate::source::broker::subscriptions::ReceiverEnd;
use crate::wire::streams::messages::rfc3339;
use crate::wire::streams::{PRICE_UPDATES, exact};

/// Records all configured symbols until the receiver of `files` is gone.
pub async fn record(feeds: Vec<FeedSettings>, files: ToFiles) -> anyhow::Result<()> {
    let settings = BrokerOptions { feeds, ..BrokerOptions::default() };
    let feeds = broker::start(settings, &Arc::new(Status::default()))?;
    ensure!(!feeds.symbols().is_empty(), "expected symbols to record: name some in the feed's `symbols`");
    let mut events = feeds.events();
    let telling = tokio::spawn(async move {
        while let Ok(event) = events.recv().await {
            eprintln!("{event}");
        }
    });
    let recorded = loop {
        let mut receiver = feeds.subscribe("record", feeds.symbols())?.receiver;
        let ended = loop {
            let next = tokio::select! {
                next = receiver.recv() => next,
                () = files.closed() => break ReceiverEnd::Stopped,
            };
            match next {
                Ok(record) => {
                    if let Some(heard) = heard(&record)
                        && files.send(heard).await.is_err()
                    {
                        break ReceiverEnd::Stopped;
                    }
                }
                Err(ended) => break ended,
            }
        };
        match ended {
            ReceiverEnd::Lagged { .. } => {
                let told = Heard::LeftOut(format!("records came faster than the disk takes them: {ended}"));
                files.send(told).await.context("the recording has ended")?;
            }
            ReceiverEnd::Stopped | ReceiverEnd::Unsubscribed => break Ok(()),
        }
    };
    feeds.stop().await;
    telling.abort();
    recorded
}

/// A price as a record of the channel; `None` if the record has no price.
fn heard(record: &MarketData) -> Option<Heard> {
    #[derive(Serialize)]
    struct PriceLine<'a> {
        timestamp: String,
        symbol: &'a str,
        #[serde(with = "exact")]
        price: Decimal,
        #[serde(with = "exact::option", skip_serializing_if = "Option::is_none")]
        volume: Option<Decimal>,
        #[serde(with = "exact::option", skip_serializing_if = "Option::is_none")]
        high: Option<Decimal>,
        #[serde(with = "exact::option", skip_serializing_if = "Option::is_none")]
        low: Option<Decimal>,
        #[serde(with = "exact::option", skip_serializing_if = "Option::is_none")]
        open: Option<Decimal>,
        #[serde(with = "exact::option", skip_serializing_if = "Option::is_none")]
        prev_close: Option<Decimal>,
    }
    let price = record.price_update()?;
    let line = PriceLine {
        timestamp: rfc3339(record.received.unix_ms),
        symbol: &price.symbol,
        price: price.price,
        volume: price.volume,
        high: price.high,
        low: price.low,
        open: price.open,
        prev_close: price.prev_close,
    };
    Some(Heard::Record(RecordedRecord {
        series: stream_file(PRICE_UPDATES),
        at: record.received.unix_ms.div_euclid(1000),
        line: serde_json::to_vec(&line).ok()?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::broker::instrument::{Broker, Exchange, Instrument};
    use crate::source::broker::quote::{QuoteKind, ReceivedAt};

    #[test]
    fn a_record_with_a_price_is_a_line_of_price_updates() {
        let instrument = Instrument { symbol: "INFY".into(), exchange: Exchange::Nse, id: 1 };
        let received = ReceivedAt { unix_ms: 1_734_609_600_123, ..ReceivedAt::now() };
        let mut record = MarketData::new(Broker::Zerodha, &"kite".into(), &instrument, QuoteKind::Quote, received);
        assert!(heard(&record).is_none(), "no price");
        record.last_price = Some(Decimal::new(156_780, 2));
        record.volume = Some(7);
        let Some(Heard::Record(recorded)) = heard(&record) else { panic!() };
        assert_eq!((recorded.at, recorded.series), (1_734_609_600, stream_file("price_updates")));
        let expected = r#"{"timestamp":"2024-12-19T12:00:00.123Z","symbol":"INFY","price":1567.8,"volume":7}"#;
        assert_eq!(recorded.line, expected.as_bytes());
    }
}
