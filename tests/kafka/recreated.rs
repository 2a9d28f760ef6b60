//! A topic that is deleted and made anew is another topic: all of its messages are new.

use crate::listener::{Listener, assert_complete};
use crate::topic::{self, Writer};
use crate::{broker, node, reading};

#[test]
fn a_topic_made_anew_is_read_from_its_first_message_however_long_it_is() {
    let brokers = broker::shared();
    // As long as the old one, longer, and shorter: an offset out of range is not what tells.
    for (old, new) in [(20, 20), (20, 60), (20, 6)] {
        let lines = topic::name("anew");
        topic::create(&brokers, &lines, 2);
        let node = reading(node(&brokers, &[&lines], "keeper", &[("FLOWCAST_KAFKA_REFRESH", "5s")]), 2);
        let mut listener = Listener::new(&node, &[&lines]);
        Writer::new(&brokers).count(&lines, 2, 0..old);
        assert_complete(&listener.take(old as usize), 2, 0..old);
        topic::make_anew(&brokers, &lines, 2);
        // A writer of its own: one that knew the old topic waits for its leader.
        Writer::new(&brokers).count(&lines, 2, 1000..1000 + new);
        assert_complete(&listener.take(new as usize), 2, 1000..1000 + new);
        node.logged("deleted and made anew");
        assert_eq!(node.metric(&format!("flowcast_kafka_topics_recreated_total{{topic=\"{lines}\"}}")), 1);
        Writer::new(&brokers).count(&lines, 2, 5000..5004);
        assert_complete(&listener.take(4), 2, 5000..5004);
    }
}

#[test]
fn a_topic_made_anew_with_more_partitions_is_read_whole() {
    let (brokers, lines) = (broker::shared(), topic::name("wider"));
    topic::create(&brokers, &lines, 1);
    let node = reading(node(&brokers, &[&lines], "keeper", &[]), 1);
    let mut listener = Listener::new(&node, &[&lines]);
    Writer::new(&brokers).count(&lines, 1, 0..10);
    assert_complete(&listener.take(10), 1, 0..10);
    topic::make_anew(&brokers, &lines, 3);
    Writer::new(&brokers).count(&lines, 3, 1000..1090);
    assert_complete(&listener.take(90), 3, 1000..1090);
    drop(node);
}
