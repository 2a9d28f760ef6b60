//! Live orderflow: records that arrive one by one, with no file behind them.
//!
//! ```text
//! line + ticker ─▶ record ─▶ frames of the forms that subscribers want ─▶ LiveRecord ─▶ group, declared if new
//! ```
//!
//! A line is read by the parser that reads the files. Its frames are built on the source's thread. A record
//! without subscribers is only checked.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::engine::batch::Due;
use crate::engine::frames::{Form, FrameStore, Frames, PayloadHashes};
use crate::engine::group::Group;
use crate::engine::hub::Hub;
use crate::engine::system_clock;
use crate::health::status::{SourceHealth, Status};
use crate::source::recorded::window_figures::frames_built;
use crate::wire::gexbot::{PayloadKind, is_ticker, orderflow_group};
use crate::wire::payload::{Encoder, EncoderOptions, Parsed, Profile, RecordError, orderflow};
use crate::wire::webpubsub::{PlainForm, append_data};

/// Why a live record is refused. The producer's to fix; the record is skipped.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The key, or the record's own ticker, is no valid ticker.
    #[error("key: expected a ticker, 1 to 64 letters, digits and `_.-^`, got {actual}")]
    BadTicker {
        /// The ticker that came, cut to 64 characters.
        actual: String,
    },
    /// The ticker is new, and there are as many as `--kafka-max-tickers` allows.
    #[error("key: expected at most {limit} tickers, got one more: {ticker}")]
    TooManyTickers {
        /// `--kafka-max-tickers`.
        limit: usize,
        /// The ticker that came.
        ticker: String,
    },
    /// The payload is no orderflow record.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Publishes live records to their groups. It must be the hub's only source.
pub struct LiveOrderflow {
    hub: Arc<Hub>,
    prefix: Arc<str>,
    encoder: Encoder,
    built: [Arc<AtomicU64>; PlainForm::ALL.len()],
    groups: HashMap<Box<str>, Arc<Group>>,
    max_tickers: usize,
    stream: Arc<SourceHealth>,
    records: Arc<AtomicU64>,
    ordinal: u64,
}

impl LiveOrderflow {
    /// Registers the hub's entry in the stream health.
    pub fn new(
        hub: Arc<Hub>,
        prefix: Arc<str>,
        encoder: EncoderOptions,
        max_tickers: usize,
        status: &Status,
    ) -> io::Result<Self> {
        Ok(Self {
            encoder: Encoder::new(encoder)?,
            built: frames_built(status),
            groups: HashMap::new(),
            max_tickers,
            stream: status.register(hub.name(), None),
            records: status.count("live_records", "Orderflow records that came live", vec![]),
            ordinal: 0,
            hub,
            prefix,
        })
    }

    /// The hub's entry in the stream health.
    pub fn health(&self) -> &Arc<SourceHealth> {
        &self.stream
    }

    /// Publishes one JSON record. `ticker` names its group; without one the record's own ticker does.
    pub fn publish(&mut self, ticker: Option<&[u8]>, line: &[u8]) -> Result<(), LiveError> {
        let Parsed { record, .. } = orderflow::parse(line.trim_ascii())?;
        let ticker = ticker.unwrap_or(record.ticker.as_bytes());
        let group = match std::str::from_utf8(ticker).ok().and_then(|ticker| self.groups.get(ticker)) {
            Some(group) => Arc::clone(group),
            None => self.declare(ticker)?,
        };
        self.ordinal += 1;
        self.records.fetch_add(1, Ordering::Relaxed);
        self.stream.set_position(self.ordinal, system_clock::unix_ns());
        if !group.is_live() {
            return Ok(());
        }
        let frames = Frames::new(Arc::new(self.build(record, &group)), 0);
        let due = Due { ordinal: self.ordinal, scheduled_ns: system_clock::monotonic_ns(), ..Due::default() };
        let mut batch = self.hub.sequencer().begin(Some(due));
        batch.wait_for_room(&group);
        batch.publish(&group, frames);
        Ok(())
    }

    /// The group of a new ticker.
    fn declare(&mut self, ticker: &[u8]) -> Result<Arc<Group>, LiveError> {
        let Some(ticker) = std::str::from_utf8(ticker).ok().filter(|ticker| is_ticker(ticker)) else {
            let plain = |c: char| if c.is_control() { '?' } else { c };
            let actual = String::from_utf8_lossy(ticker).chars().take(64).map(plain).collect();
            return Err(LiveError::BadTicker { actual });
        };
        if self.groups.len() >= self.max_tickers {
            return Err(LiveError::TooManyTickers { limit: self.max_tickers, ticker: ticker.to_owned() });
        }
        let group = self.hub.declare(&orderflow_group(&self.prefix, ticker), ticker);
        self.groups.insert(ticker.into(), Arc::clone(&group));
        tracing::info!(ticker, "first live record of this ticker");
        Ok(group)
    }

    /// The record in every form that subscribers want.
    fn build(&mut self, mut record: orderflow::Orderflow, group: &Arc<Group>) -> LiveRecord {
        let mut live = LiveRecord { timestamp: record.timestamp, frames: Default::default(), hashes: [0; 2] };
        // The finest scale first: it is the one that the record was parsed at.
        for profile in [Profile::V2026_04, Profile::V2025_11] {
            let of_profile = PlainForm::ALL.into_iter().filter(|form| form.profile == profile);
            let wanted: Vec<PlainForm> = of_profile.filter(|form| group.is_wanted(Form::new(form.index()))).collect();
            if wanted.is_empty() {
                continue;
            }
            orderflow::rescale(&mut record, profile);
            let payload = self.encoder.encode(&record);
            live.hashes[profile.index()] = xxh3_64(payload);
            for form in wanted {
                let mut frame = Vec::new();
                append_data(form.syntax, group.name(), PayloadKind::Orderflow.type_url(), payload, &mut frame);
                live.frames[form.index()] = frame.into();
                self.built[form.index()].fetch_add(1, Ordering::Relaxed);
            }
        }
        live
    }
}

/// One live record in every form that was wanted when it came.
struct LiveRecord {
    timestamp: i64,
    /// By [`PlainForm::index`]; empty where nobody wanted it.
    frames: [Bytes; PlainForm::ALL.len()],
    hashes: PayloadHashes,
}

impl FrameStore for LiveRecord {
    fn frame(&self, _: u32, form: Form) -> Bytes {
        self.frames[form.index()].clone()
    }

    fn timestamp(&self, _: u32) -> i64 {
        self.timestamp
    }

    fn hashes(&self, _: u32) -> PayloadHashes {
        self.hashes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::hub::HubOptions;
    use crate::engine::ledger::LedgerOptions;
    use crate::wire::payload::decompress;
    use crate::wire::webpubsub::{ORDERFLOW_TYPE_URL, Syntax, payload_of, payload_of_json};
    use prost::Message;
    use std::thread;
    use std::time::Duration;

    const LINE: &[u8] = br#"{"timestamp":1764340202,"ticker":"SPX","spot":6822.95,"zcvr":-12.59}"#;

    fn live(max_tickers: usize) -> (Arc<Hub>, LiveOrderflow) {
        let ledger = LedgerOptions { ledger_publications: 100 };
        let hub = Arc::new(Hub::new("orderflow", &HubOptions { max_silent_groups: 8, ledger }));
        let (encoder, status) = (EncoderOptions { zstd_level: -7 }, Status::default());
        let live = LiveOrderflow::new(Arc::clone(&hub), "blue".into(), encoder, max_tickers, &status).unwrap();
        (hub, live)
    }

    const GROUP: &str = "blue_SPX_orderflow_orderflow";

    fn form(syntax: Syntax, profile: Profile) -> Form {
        Form::new(PlainForm { syntax, profile }.index())
    }

    fn built(live: &LiveOrderflow) -> [u64; 4] {
        live.built.each_ref().map(|built| built.load(Ordering::Relaxed))
    }

    /// The record in a frame.
    fn decoded(frame: &[u8], syntax: Syntax) -> orderflow::Orderflow {
        let payload = match syntax {
            Syntax::Protobuf => frame[payload_of(frame, GROUP, ORDERFLOW_TYPE_URL)].to_vec(),
            Syntax::Json => payload_of_json(frame).unwrap(),
        };
        orderflow::Orderflow::decode(decompress(&payload, 1 << 20).unwrap().as_slice()).unwrap()
    }

    #[test]
    fn a_record_reaches_those_who_joined_before_its_ticker_was_known() {
        let (hub, mut live) = live(8);
        let (group, mut receiver) = hub.subscribe("blue_SPX_orderflow_orderflow").unwrap();
        assert!(!group.is_declared());
        let form = form(Syntax::Protobuf, Profile::V2026_04);
        group.want(form);
        live.publish(Some(b"SPX"), LINE).unwrap();
        assert_eq!(group.symbol().map(|symbol| &**symbol), Some("SPX"));
        let frames = receiver.try_recv().unwrap().frames;
        assert_eq!(frames.timestamp(), 1_764_340_202);
        assert_eq!(decoded(&frames.frame(form), Syntax::Protobuf), orderflow::parse(LINE).unwrap().record);
    }

    #[test]
    fn every_form_that_is_wanted_says_the_same_record_and_is_built_once() {
        let (hub, mut live) = live(8);
        let (group, mut receiver) = hub.subscribe(GROUP).unwrap();
        let forms = Profile::ALL.map(|profile| [Syntax::Protobuf, Syntax::Json].map(|syntax| (syntax, profile)));
        for (syntax, profile) in forms.into_iter().flatten() {
            assert!(group.is_ready(form(syntax, profile)), "nobody waits for a live group");
            group.want(form(syntax, profile));
        }
        live.publish(None, LINE).unwrap();
        let frames = receiver.try_recv().unwrap().frames;
        for (syntax, profile) in forms.into_iter().flatten() {
            let mut expected = orderflow::parse(LINE).unwrap().record;
            orderflow::rescale(&mut expected, profile);
            let first = frames.frame(form(syntax, profile));
            assert_eq!(first.as_ptr(), frames.frame(form(syntax, profile)).as_ptr(), "the same bytes for everybody");
            assert_eq!(decoded(&first, syntax), expected);
        }
        assert_eq!(built(&live), [1; 4]);
        assert!(frames.hashes().iter().all(|&hash| hash != 0) && frames.hashes()[0] != frames.hashes()[1]);
    }

    #[test]
    fn a_form_that_nobody_wants_is_not_built() {
        let (hub, mut live) = live(8);
        let (group, mut receiver) = hub.subscribe(GROUP).unwrap();
        let wanted = form(Syntax::Json, Profile::V2025_11);
        group.want(wanted);
        live.publish(Some(b"SPX"), LINE).unwrap();
        let frames = receiver.try_recv().unwrap().frames;
        assert!(!frames.frame(wanted).is_empty());
        assert!(frames.frame(form(Syntax::Json, Profile::V2026_04)).is_empty());
        assert_eq!(built(&live), [0, 0, 1, 0]);
        group.unwant(wanted);
        live.publish(Some(b"SPX"), LINE).unwrap();
        assert_eq!(built(&live), [0, 0, 1, 0]);
    }

    #[test]
    fn a_record_nobody_subscribes_to_is_checked_but_not_built() {
        let (_, mut live) = live(8);
        live.publish(Some(b"SPX"), LINE).unwrap();
        assert!(live.publish(Some(b"SPX"), b"{}").is_err());
        assert_eq!(built(&live), [0; 4]);
        assert_eq!(live.records.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_key_names_the_group_and_the_record_does_without_one() {
        let (hub, mut live) = live(8);
        live.publish(Some(b"NDX"), LINE).unwrap();
        live.publish(None, LINE).unwrap();
        let mut names = Vec::new();
        hub.for_each_group(|group| names.push(group.name().to_string()));
        names.sort();
        assert_eq!(names, ["blue_NDX_orderflow_orderflow", "blue_SPX_orderflow_orderflow"]);
    }

    #[test]
    fn a_bad_ticker_and_one_too_many_are_refused_with_the_reason() {
        let (_, mut live) = live(1);
        let mut refusal = |key: &[u8]| live.publish(Some(key), LINE).unwrap_err().to_string();
        assert_eq!(refusal(b"a/b"), "key: expected a ticker, 1 to 64 letters, digits and `_.-^`, got a/b");
        assert!(refusal(b"\xff\n").ends_with("got \u{fffd}?"));
        assert!(refusal(b"").starts_with("key: expected a ticker"));
        live.publish(Some(b"SPX"), LINE).unwrap();
        let refusal = live.publish(Some(b"NDX"), LINE).unwrap_err().to_string();
        assert_eq!(refusal, "key: expected at most 1 tickers, got one more: NDX");
    }

    #[test]
    fn a_burst_waits_for_the_shards() {
        let (hub, mut live) = live(1);
        let (group, mut receiver) = hub.subscribe("blue_SPX_orderflow_orderflow").unwrap();
        let taken = thread::spawn(move || {
            let mut taken = 0;
            while taken < 500 {
                match receiver.try_recv() {
                    Ok(_) => taken += 1,
                    Err(tokio::sync::broadcast::error::TryRecvError::Empty) => thread::yield_now(),
                    Err(error) => panic!("expected no overrun, got {error}"),
                }
                if taken % 50 == 0 {
                    thread::sleep(Duration::from_millis(2));
                }
            }
        });
        for _ in 0..500 {
            live.publish(Some(b"SPX"), LINE).unwrap();
        }
        taken.join().unwrap();
        assert_eq!(group.publications(), 500);
    }
}
