//! What is refused, what is proved, and what is in no log.

use crate::common::eventually;
use crate::common::server::{program, refusal, run};
use crate::listener::{Listener, assert_complete};
use crate::topic::{self, Writer};
use crate::{broker, node_command, reading};

#[test]
fn a_user_name_and_password_are_proved_and_never_logged() {
    let broker = broker::of_its_own();
    let lines = topic::name("lines");
    topic::create(&broker.plain, &lines, 1);
    let settings = |password| {
        [
            ("WS_KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
            ("WS_KAFKA_SASL_MECHANISM", "PLAIN"),
            ("WS_KAFKA_SASL_USERNAME", "flowcast"),
            ("WS_KAFKA_SASL_PASSWORD", password),
            ("FLOWCAST_LOG_LEVEL", "trace"),
        ]
    };
    let node = |id, password| crate::node(&broker.sasl, &[&lines], id, &settings(password));
    let proved = reading(node("proved", "secret"), 1);
    let mut listener = Listener::new(&proved, &[&lines]);
    Writer::new(&broker.plain).count(&lines, 1, 0..3);
    assert_complete(&listener.take(3), 1, 0..3);

    let refused = node("refused", "not-the-password");
    refused.logged("Kafka does not answer");
    eventually("librdkafka says why", || refused.log().contains("uthentication failed").then_some(()));
    assert!(!refused.log().contains("not-the-password") && !proved.log().contains("SASL_PASSWORD=secret"));
    assert!(proved.log().contains("kafka-sasl-password=***"), "{}", proved.log());
}

#[test]
#[cfg(feature = "kafka-ssl")]
fn over_tls_the_broker_must_be_vouched_for_and_scram_proves_the_password() {
    let broker = broker::Broker::with_tls();
    let (address, certificate) = broker.tls.as_ref().unwrap();
    let lines = topic::name("lines");
    topic::create(&broker.plain, &lines, 1);
    let mut settings = vec![
        ("WS_KAFKA_SECURITY_PROTOCOL", "SASL_SSL"),
        ("WS_KAFKA_SASL_MECHANISM", "SCRAM-SHA-256"),
        ("WS_KAFKA_SASL_USERNAME", "flowcast"),
        ("WS_KAFKA_SASL_PASSWORD", "secret"),
        ("FLOWCAST_LOG_LEVEL", "debug"),
    ];
    let doubting = crate::node(address, &[&lines], "doubting", &settings);
    doubting.logged("Kafka does not answer");
    eventually("librdkafka says why", || doubting.log().contains("certificate verify failed").then_some(()));
    settings.push(("WS_KAFKA_SSL_CA_LOCATION", certificate));
    let node = reading(crate::node(address, &[&lines], "trusting", &settings), 1);
    let mut listener = Listener::new(&node, &[&lines]);
    Writer::new(&broker.plain).count(&lines, 1, 0..3);
    assert_complete(&listener.take(3), 1, 0..3);
}

#[test]
fn settings_that_cannot_work_are_refused_before_the_first_connection() {
    let refused = |settings: &[(&str, &str)]| refusal(&mut node_command("127.0.0.1:1", &["lines"], "n", settings));
    assert!(refused(&[("WS_KAFKA_SECURITY_PROTOCOL", "sasl_plaintext")]).contains("WS_KAFKA_SASL_PASSWORD"));
    assert!(refused(&[("WS_KAFKA_BROKERS", "localhost")]).contains("expected host:port"));
    assert!(refused(&[("WS_KAFKA_TOPICS", "^.*")]).contains("expected 1 to 249 letters"));
    assert!(refused(&[("FLOWCAST_ALLOW_ANONYMOUS", "false")]).contains("WS_AUTH_SECRET"));
    if cfg!(not(feature = "kafka-ssl")) {
        assert!(refused(&[("WS_KAFKA_SECURITY_PROTOCOL", "ssl")]).contains("--features kafka-ssl"));
    }
}

#[test]
fn publish_says_whom_it_cannot_reach() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let output = run(&mut program(&["publish", "--brokers", "127.0.0.1:1", "--topic", "lines", "--file", path]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("127.0.0.1:1: expected a Kafka broker to answer"), "{said}");
}
