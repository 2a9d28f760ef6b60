use super::*;
use crate::engine::hub::{Hub, HubOptions};
use crate::health::status::Status;
use crate::source::kafka::kafka_health::figures;
use crate::source::kafka::kafka_options::KafkaOptions;
use crate::source::recorded::window_options::WindowOptions;
use crate::streams::stream_options::StreamOptions;
use clap::Parser;

#[derive(Debug, Parser)]
struct TestSettings {
    #[command(flatten)]
    kafka: KafkaOptions,
    #[command(flatten)]
    window: WindowOptions,
    #[command(flatten)]
    streams: StreamOptions,
    #[command(flatten)]
    hub: HubOptions,
}

struct Fed {
    status: Status,
    streams: Arc<Hub>,
    orderflow: Arc<Hub>,
    intake: Intake,
    _streams: Arc<Streams>,
}

fn fed() -> Fed {
    let line = ["x", "--kafka-topics", "lines,orderflow,signals", "--kafka-max-tickers", "1"];
    let TestSettings { kafka, window, streams: settings, hub } = TestSettings::try_parse_from(line).unwrap();
    let status = Status::default();
    let streams = Arc::new(Hub::new("streams", &hub));
    let orderflow = Arc::new(Hub::new("orderflow", &hub));
    let channels = Streams::new(Arc::clone(&streams), kafka.channels(), settings, &status);
    let orderflow_source =
        LiveOrderflow::new(Arc::clone(&orderflow), "blue".into(), window.encoder, kafka.kafka_max_tickers, &status);
    let counted = figures(&kafka, &status, &Poison::NAMES);
    let intake = Intake::new(Arc::clone(&channels), Some(orderflow_source.unwrap()), counted, 100);
    Fed { status, streams, orderflow, intake, _streams: channels }
}

fn message<'a>(topic: &'a str, key: Option<&'a str>, payload: Option<&'a str>) -> TopicMessage<'a> {
    let (key, payload) = (key.map(str::as_bytes), payload.map(str::as_bytes));
    TopicMessage { topic, partition: 0, offset: 7, key, payload, timestamp_ms: Some(1_764_340_202_123) }
}

impl Fed {
    fn figure(&self, name: &str, labels: &[&str]) -> u64 {
        let figures = self.status.figures();
        let of = |figure: &&crate::health::status::Figure| {
            figure.name == name && labels.iter().all(|label| figure.labels.iter().any(|(_, value)| value == label))
        };
        figures.iter().find(of).unwrap().value.load(Ordering::Relaxed)
    }

    fn skipped(&self, topic: &str) -> [u64; 4] {
        Poison::NAMES.map(|kind| self.figure("kafka_messages_skipped", &[topic, kind]))
    }

    fn errors(&self, stream: &str) -> u64 {
        self.status.snapshot().iter().find(|status| status.name == stream).unwrap().errors
    }
}

const RECORD: &str = r#"{"timestamp":1764340202,"ticker":"SPX","spot":6822.95}"#;

#[test]
fn a_message_goes_to_the_channel_of_its_topic() {
    let mut fed = fed();
    let (_, mut receiver) = fed.streams.subscribe("lines").unwrap();
    fed.intake.take(&message("lines", Some("k"), Some(r#"{"a":1}"#)));
    let frame = receiver.try_recv().unwrap().frames.frame(crate::engine::frames::Form::new(0));
    let text = String::from_utf8_lossy(&frame);
    assert!(text.contains(r#""payload":{"a":1}"#) && text.contains(r#""key":"k""#), "{text}");
    assert!(text.contains("2025-11-28T14:30:02.123Z"), "{text}");
    assert_eq!((fed.figure("kafka_messages", &["lines"]), fed.figure("kafka_bytes", &["lines"])), (1, 7));
}

#[test]
fn a_topic_named_as_a_trading_stream_feeds_that() {
    let mut fed = fed();
    let (_, mut receiver) = fed.streams.subscribe("signals").unwrap();
    fed.intake.take(&message("signals", None, Some(r#"{"signal_type":"BUY","symbol":"AAPL"}"#)));
    let frame = receiver.try_recv().unwrap().frames.frame(crate::engine::frames::Form::new(0));
    assert!(String::from_utf8_lossy(&frame).contains(r#""type":"signal""#));
}

#[test]
fn the_orderflow_topic_feeds_the_orderflow_hub_by_key() {
    let mut fed = fed();
    let (group, mut receiver) = fed.orderflow.subscribe("blue_SPX_orderflow_orderflow").unwrap();
    fed.intake.take(&message("orderflow", Some("SPX"), Some(RECORD)));
    assert!(group.is_declared());
    assert_eq!(receiver.try_recv().unwrap().frames.timestamp(), 1_764_340_202);
}

#[test]
fn poison_is_counted_by_kind_and_what_follows_goes_on() {
    let mut fed = fed();
    let long = "x".repeat(101);
    for (topic, key, payload) in [
        ("lines", None, None),
        ("lines", None, Some(long.as_str())),
        ("signals", None, Some("{}")),
        ("signals", None, None),
        ("orderflow", Some("SPX"), None),
        ("orderflow", Some("SPX"), Some(long.as_str())),
        ("orderflow", Some("SPX"), Some("{}")),
        ("orderflow", Some("S/X"), Some(RECORD)),
        ("orderflow", Some("SPX"), Some(RECORD)),
        ("orderflow", Some("NDX"), Some(RECORD)),
    ] {
        fed.intake.take(&message(topic, key, payload));
    }
    assert_eq!(fed.skipped("lines"), [1, 1, 0, 0]);
    assert_eq!(fed.skipped("signals"), [1, 0, 1, 0]);
    assert_eq!(fed.skipped("orderflow"), [1, 1, 2, 1]);
    assert_eq!((fed.errors("lines"), fed.errors("signals"), fed.errors("orderflow")), (2, 2, 5));
    assert_eq!(fed.figure("live_records", &[]), 1);
    assert_eq!(fed.figure("kafka_messages", &["orderflow"]), 6);
}

#[test]
fn a_kind_is_told_once_a_minute_with_what_came_in_between() {
    let mut log = ONE_A_MINUTE;
    let mut tell =
        |second: u64| log_skipped(&mut log, &message("lines", None, None), Poison::Invalid, "no", second * 1000);
    assert_eq!([0, 1, 59, 60, 61].map(&mut tell), [true, false, false, true, false]);
    assert_eq!(log.pass(120_000), Some(1));
}
