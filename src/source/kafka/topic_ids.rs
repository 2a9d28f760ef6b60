//! The ids that Kafka gives its topics: one that was deleted and created again has another.
//!
//! rdkafka has no call for this, so librdkafka's own is used: an admin request whose answer comes through a queue of
//! this call alone.
#![expect(unsafe_code, reason = "rdkafka does not wrap DescribeTopics; every call is justified where it stands")]

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::ptr::{NonNull, null_mut};
use std::slice;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::bindings::{
    self as rd, rd_kafka_AdminOptions_t, rd_kafka_TopicCollection_t, rd_kafka_event_t, rd_kafka_queue_t,
};
use rdkafka::client::{Client, ClientContext};

/// Something of librdkafka's, destroyed with this.
struct Owned<T>(NonNull<T>, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    /// Owns what `pointer` points to; `None` if it is null. `destroy` must be its destructor, and nobody else may
    /// call that.
    fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        NonNull::new(pointer).map(|pointer| Self(pointer, destroy))
    }

    fn get(&self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: `new` took over what only this destructor may end, and it is called once.
        unsafe { (self.1)(self.get()) }
    }
}

/// The ids of those of `topics` that exist, in base64 as Kafka's tools show them. Blocks for at most `patience`;
/// without an answer there are none.
pub fn topic_ids<C: ClientContext>(client: &Client<C>, topics: &[&str], patience: Duration) -> HashMap<String, String> {
    ask(client, topics, patience).unwrap_or_default()
}

fn ask<C: ClientContext>(client: &Client<C>, topics: &[&str], patience: Duration) -> Option<HashMap<String, String>> {
    let patience_ms = i32::try_from(patience.as_millis()).ok()?;
    let names: Vec<CString> = topics.iter().map(|&topic| CString::new(topic)).collect::<Result<_, _>>().ok()?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let handle = client.native_ptr();
    let operation = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    // SAFETY: `handle` lives as long as `client`. The names outlive the collection, which copies them. Each object
    // is owned by the variable that it is put into, and ended by its own destructor. The request only borrows
    // collection and options; the queue lives until the answer has been taken, and an answer that comes too late
    // is dropped by librdkafka with the queue.
    let event = unsafe {
        let collection: Owned<rd_kafka_TopicCollection_t> = Owned::new(
            rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()),
            rd::rd_kafka_TopicCollection_destroy,
        )?;
        let options: Owned<rd_kafka_AdminOptions_t> =
            Owned::new(rd::rd_kafka_AdminOptions_new(handle, operation), rd::rd_kafka_AdminOptions_destroy)?;
        rd::rd_kafka_AdminOptions_set_request_timeout(options.get(), patience_ms, null_mut(), 0);
        let queue: Owned<rd_kafka_queue_t> = Owned::new(rd::rd_kafka_queue_new(handle), rd::rd_kafka_queue_destroy)?;
        rd::rd_kafka_DescribeTopics(handle, collection.get(), options.get(), queue.get());
        let event: Owned<rd_kafka_event_t> =
            Owned::new(rd::rd_kafka_queue_poll(queue.get(), patience_ms), rd::rd_kafka_event_destroy)?;
        event
    };
    // SAFETY: the event is a whole one of librdkafka; for one of another type the result is null. The result, its
    // list and what they point to belong to the event, which outlives this block. A null list has the length 0.
    unsafe {
        let result = NonNull::new(rd::rd_kafka_event_DescribeTopics_result(event.get()).cast_mut())?;
        let mut count = 0;
        let list = rd::rd_kafka_DescribeTopics_result_topics(result.as_ptr(), &raw mut count);
        let topics = if list.is_null() { &[] } else { slice::from_raw_parts(list, count) };
        let described = |&topic: &*const rd::rd_kafka_TopicDescription_t| {
            let name = NonNull::new(rd::rd_kafka_TopicDescription_name(topic).cast_mut())?;
            let id = NonNull::new(rd::rd_kafka_TopicDescription_topic_id(topic).cast_mut())?;
            let name = CStr::from_ptr(name.as_ptr()).to_str().ok()?.to_owned();
            let high = rd::rd_kafka_Uuid_most_significant_bits(id.as_ptr());
            let low = rd::rd_kafka_Uuid_least_significant_bits(id.as_ptr());
            // A broker that knows no ids, or not this topic, says zero.
            ((high, low) != (0, 0)).then(|| (name, encoded(high, low)))
        };
        Some(topics.iter().filter_map(described).collect())
    }
}

fn encoded(high: i64, low: i64) -> String {
    URL_SAFE_NO_PAD.encode([high.to_be_bytes(), low.to_be_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::config::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer};

    #[test]
    fn an_id_reads_as_in_kafkas_tools() {
        assert_eq!(encoded(0, 1), "AAAAAAAAAAAAAAAAAAAAAQ");
    }

    #[test]
    fn without_a_broker_there_are_no_ids_and_nothing_is_left_behind() {
        let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", "127.0.0.1:1").create().unwrap();
        assert!(topic_ids(consumer.client(), &["lines"], Duration::from_millis(50)).is_empty());
        assert!(topic_ids(consumer.client(), &["with\0nul"], Duration::from_millis(50)).is_empty());
    }
}
