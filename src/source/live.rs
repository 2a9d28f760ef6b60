//! Live orderflow: records that arrive one by one, with no file behind them.
//!
//! ```text
//! line + ticker ─▶ record ─▶ base frame, forms in use ─▶ LiveRecord ─▶ group, declared if it is new
//! ```
//!
//! A line is read by the parser that reads the files. Its base frame, and every form that some client
//! uses, is built on the source's thread; another form is derived once, by the shard that needs it
//! first. A record without subscribers is only checked.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use bytes::Bytes;

use crate::engine::clock;
use crate::engine::frames::{Form, FrameStore, Frames};
use crate::engine::group::Group;
use crate::engine::hub::{Due, Hub};
use crate::health::status::{SourceHealth, Status};
use crate::source::recorded::arena::{ArenaOptions, Encodings, derive, payload_in, with_encoder};
use crate::source::recorded::dataset::is_ticker;
use crate::wire::gexbot::orderflow_group;
use crate::wire::payload::{EncoderOptions, Profile};
use crate::wire::payload::{Parsed, RecordError, orderflow};
use crate::wire::webpubsub::{ORDERFLOW_TYPE_URL, PlainForm, append_data};

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
    base: PlainForm,
    encoder: EncoderOptions,
    encodings: Arc<Encodings>,
    groups: HashMap<Box<str>, Arc<Group>>,
    max_tickers: usize,
    stream: Arc<SourceHealth>,
    records: Arc<AtomicU64>,
    ordinal: u64,
}

impl LiveOrderflow {
    /// Registers the hub's entry in the stream health. From now on a form that a client orders is ready at
    /// once: every later record is built in it.
    pub fn new(
        hub: Arc<Hub>,
        prefix: Arc<str>,
        arena: &ArenaOptions,
        max_tickers: usize,
        status: &Status,
    ) -> io::Result<Self> {
        let forms = Arc::clone(&hub);
        thread::Builder::new().name("forms".to_owned()).spawn(move || {
            for ordered in forms.forms().orders() {
                forms.forms().set_ready(ordered);
            }
        })?;
        Ok(Self {
            base: arena.base(),
            encoder: arena.encoder,
            encodings: Arc::new(Encodings::new(status)),
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
        self.stream.set_position(self.ordinal, clock::unix_ns());
        if !group.is_live() {
            return Ok(());
        }
        let frames = Frames::new(Arc::new(self.build(record, &group)), 0);
        let due = Due { ordinal: self.ordinal, scheduled_ns: clock::monotonic_ns() };
        let mut batch = self.hub.begin(Some(due));
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

    /// The record in its base form and in every form in use.
    fn build(&self, mut record: orderflow::Orderflow, group: &Arc<Group>) -> LiveRecord {
        let timestamp = record.timestamp;
        if self.base.profile != Profile::V2026_04 {
            orderflow::rescale(&mut record, self.base.profile);
        }
        let mut frame = Vec::new();
        with_encoder(self.encoder, |encoder| {
            append_data(self.base.syntax, group.name(), ORDERFLOW_TYPE_URL, encoder.encode(&record), &mut frame);
        });
        self.encodings.count(self.base, 1);
        let record = LiveRecord {
            group: Arc::clone(group.name()),
            timestamp,
            base: (frame.into(), self.base),
            encoder: self.encoder,
            derived: [const { OnceLock::new() }; PlainForm::ALL.len()],
            encodings: Arc::clone(&self.encodings),
        };
        for form in PlainForm::ALL {
            if form != self.base && self.hub.forms().is_ready(Form::new(form.index())) {
                record.derived(form);
            }
        }
        record
    }
}

/// One live record in every form.
struct LiveRecord {
    group: Arc<str>,
    timestamp: i64,
    base: (Bytes, PlainForm),
    encoder: EncoderOptions,
    /// By [`PlainForm::index`]; the base is not among them.
    derived: [OnceLock<Bytes>; PlainForm::ALL.len()],
    encodings: Arc<Encodings>,
}

impl LiveRecord {
    /// The frame of a form other than the base, derived once.
    fn derived(&self, form: PlainForm) -> &Bytes {
        self.derived[form.index()].get_or_init(|| {
            let mut frame = Vec::new();
            derive((&self.base.0, self.base.1), &self.group, form, self.encoder, &mut frame);
            self.encodings.count(form, 1);
            frame.into()
        })
    }
}

impl FrameStore for LiveRecord {
    fn frame(&self, _: u32, form: Form) -> Bytes {
        let form = PlainForm::ALL[form.index()];
        if form == self.base.1 {
            return self.base.0.clone();
        }
        if self.derived[form.index()].get().is_none() {
            self.encodings.count_late();
        }
        self.derived(form).clone()
    }

    fn payload(&self, _: u32, form: Form) -> Option<Bytes> {
        let form = PlainForm::ALL[form.index()];
        let frame = if form == self.base.1 { &self.base.0 } else { self.derived[form.index()].get()? };
        payload_in(frame, &self.group, form)
    }

    fn timestamp(&self, _: u32) -> i64 {
        self.timestamp
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::hub::HubOptions;
    use crate::engine::ledger::LedgerOptions;
    use crate::wire::payload::decompress;
    use crate::wire::webpubsub::Syntax;
    use prost::Message;
    use std::time::Duration;

    const LINE: &[u8] = br#"{"timestamp":1764340202,"ticker":"SPX","spot":6822.95,"zcvr":-12.59}"#;

    fn live(max_tickers: usize) -> (Arc<Hub>, LiveOrderflow, Status) {
        let ledger = LedgerOptions { ledger_publications: 100 };
        let hub = Arc::new(Hub::new("orderflow", &HubOptions { max_silent_groups: 8, ledger }));
        let arena =
            ArenaOptions { profile: Profile::V2026_04, pin_profile: false, encoder: EncoderOptions { zstd_level: -7 } };
        let status = Status::default();
        let live = LiveOrderflow::new(Arc::clone(&hub), "blue".into(), &arena, max_tickers, &status).unwrap();
        (hub, live, status)
    }

    fn form(syntax: Syntax, profile: Profile) -> (PlainForm, Form) {
        let plain = PlainForm { syntax, profile };
        (plain, Form::new(plain.index()))
    }

    fn decoded(payload: &[u8]) -> orderflow::Orderflow {
        orderflow::Orderflow::decode(decompress(payload, 1 << 20).unwrap().as_slice()).unwrap()
    }

    #[test]
    fn a_record_reaches_those_who_joined_before_its_ticker_was_known() {
        let (hub, mut live, _) = live(8);
        let (group, mut receiver) = hub.subscribe("blue_SPX_orderflow_orderflow").unwrap();
        assert!(!group.is_declared());
        live.publish(Some(b"SPX"), LINE).unwrap();
        assert_eq!(group.symbol().map(|symbol| &**symbol), Some("SPX"));
        let frames = receiver.try_recv().unwrap().frames;
        assert_eq!(frames.timestamp(), 1_764_340_202);
        let payload = frames.payload(form(Syntax::Protobuf, Profile::V2026_04).1).unwrap();
        assert_eq!(decoded(&payload), orderflow::parse(LINE).unwrap().record);
    }

    #[test]
    fn every_form_says_the_same_record_and_is_derived_once() {
        let (hub, mut live, _) = live(8);
        let (_, mut receiver) = hub.subscribe("blue_SPX_orderflow_orderflow").unwrap();
        live.publish(None, LINE).unwrap();
        let frames = receiver.try_recv().unwrap().frames;
        for profile in Profile::ALL {
            let mut expected = orderflow::parse(LINE).unwrap().record;
            orderflow::rescale(&mut expected, profile);
            for syntax in [Syntax::Protobuf, Syntax::Json] {
                let form = form(syntax, profile).1;
                let first = frames.frame(form);
                assert_eq!(first.as_ptr(), frames.frame(form).as_ptr(), "the same bytes for everybody");
                assert_eq!(decoded(&frames.payload(form).unwrap()), expected);
            }
        }
        assert_eq!(PlainForm::ALL.map(|form| live.encodings.built(form)), [1; 4]);
    }

    #[tokio::test]
    async fn a_form_that_is_ordered_is_ready_at_once_and_built_with_the_record() {
        let (hub, mut live, status) = live(8);
        let (_, mut receiver) = hub.subscribe("blue_SPX_orderflow_orderflow").unwrap();
        let (plain, ordered) = form(Syntax::Json, Profile::V2025_11);
        hub.forms().prepare(ordered).await;
        live.publish(Some(b"SPX"), LINE).unwrap();
        assert_eq!(live.encodings.built(plain), 1);
        receiver.try_recv().unwrap().frames.frame(ordered);
        let late = status.figures().into_iter().find(|figure| figure.name == "frames_built_late").unwrap();
        assert_eq!(late.value.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_record_nobody_subscribes_to_is_checked_but_not_built() {
        let (_, mut live, _) = live(8);
        live.publish(Some(b"SPX"), LINE).unwrap();
        assert!(live.publish(Some(b"SPX"), b"{}").is_err());
        assert_eq!(PlainForm::ALL.map(|form| live.encodings.built(form)), [0; 4]);
        assert_eq!(live.records.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_key_names_the_group_and_the_record_does_without_one() {
        let (hub, mut live, _) = live(8);
        live.publish(Some(b"NDX"), LINE).unwrap();
        live.publish(None, LINE).unwrap();
        let mut names = Vec::new();
        hub.for_each_group(|group| names.push(group.name().to_string()));
        names.sort();
        assert_eq!(names, ["blue_NDX_orderflow_orderflow", "blue_SPX_orderflow_orderflow"]);
    }

    #[test]
    fn a_bad_ticker_and_one_too_many_are_refused_with_the_reason() {
        let (_, mut live, _) = live(1);
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
        let (hub, mut live, _) = live(1);
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
