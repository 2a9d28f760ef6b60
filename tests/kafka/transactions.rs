//! Transactions leave offsets without messages: markers, and what was aborted.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::listener::Listener;
use crate::{broker, node, reading, topic};

#[test]
fn lag_is_zero_when_every_message_is_read_whatever_was_aborted() {
    const ANSWER: Duration = Duration::from_mins(1);
    let (brokers, lines) = (broker::shared(), topic::name("booked"));
    topic::create(&brokers, &lines, 1);
    let node = reading(node(&brokers, &[&lines], "auditor", &[]), 1);
    let mut listener = Listener::new(&node, &[&lines]);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &brokers)
        .set("transactional.id", topic::name("t"))
        .create()
        .unwrap();
    producer.init_transactions(ANSWER).unwrap();
    for number in 0..20 {
        producer.begin_transaction().unwrap();
        let payload = format!("{{\"number\":{number}}}");
        producer.send(BaseRecord::<str, str>::to(&lines).payload(&payload)).map_err(|(error, _)| error).unwrap();
        producer.flush(ANSWER).unwrap();
        if number < 5 { producer.commit_transaction(ANSWER) } else { producer.abort_transaction(ANSWER) }.unwrap();
    }
    for number in 0..5 {
        assert_eq!(listener.hear()["payload"]["number"], number);
    }
    // 35 offsets stand behind the last message; the figures come every 2 s.
    let messages = format!("flowcast_kafka_messages_total{{topic=\"{lines}\"}}");
    assert_eq!(node.metric(&messages), 5);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(node.metric_until(&format!("flowcast_kafka_lag{{topic=\"{lines}\"}}"), |lag| lag == 0), 0);
    assert_eq!(node.metric(&messages), 5);
}
