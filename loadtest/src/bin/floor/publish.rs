//! What is posted for the JSON streams: a request's messages, as the frames that clients get.

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use swarm::wire::form::Protocol;

use super::messages::{append, ok};
use super::recording::TickFrames;

#[derive(Deserialize)]
struct Item<'a> {
    channel: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// The messages of a body, one per line.
pub fn tick(body: &[u8]) -> serde_json::Result<TickFrames> {
    let mut tick = TickFrames::default();
    for line in body.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let Item { channel, data } = serde_json::from_slice(line)?;
        let (payload, now) = (data.get(), humantime::format_rfc3339_millis(std::time::SystemTime::now()));
        let message = format!(r#"{{"type":"message","channel":"{channel}","payload":{payload},"timestamp":"{now}"}}"#);
        append(&mut tick.bytes, Protocol::Streams, message.as_bytes());
        tick.ends.push(tick.bytes.len());
    }
    Ok(tick)
}

/// The answer: how many messages there were.
pub fn accepted(tick: &TickFrames) -> Vec<u8> {
    ok(&json!({ "accepted": tick.ends.len() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm::wire::frame::parse_header;
    use swarm::wire::streams::{StreamMessage, read};

    #[test]
    fn what_was_posted_is_what_the_swarm_reads() {
        let tick = tick(b"{\"channel\":\"a\",\"data\":{\"n\":1}}\n{\"channel\":\"b\",\"data\":2}\n").unwrap();
        let second = &tick.bytes[tick.ends[0]..];
        assert_eq!((tick.ends.len(), tick.ends[1]), (2, tick.bytes.len()));
        for (frame, expected) in [(&tick.bytes[..], ("a", r#"{"n":1}"#)), (second, ("b", "2"))] {
            let header = parse_header(frame).unwrap().unwrap();
            let message = read(&frame[header.header_len..header.frame_len()]).unwrap();
            let StreamMessage::Topic { channel, payload, .. } = message else { panic!("a topic's message") };
            assert_eq!((&*channel, payload.get()), expected);
        }
        assert!(super::tick(b"nonsense").is_err());
    }
}
