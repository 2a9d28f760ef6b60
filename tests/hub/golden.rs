//! Our codecs against bytes that other people's implementations made (`tests/fixtures/golden`).

use std::fs;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flowcast::wire::payload::RecordError;
use flowcast::wire::payload::orderflow::{self, Orderflow};
use flowcast::wire::payload::{Encoder, EncoderOptions, Profile, decompress};
use flowcast::wire::proto::webpubsub::Any;
use flowcast::wire::webpubsub::received::{ServiceMessage, receive};
use flowcast::wire::webpubsub::{Downstream, ErrorName, PubSubWire, Syntax, Upstream, append_data};
use flowcast::wire::websocket::{self, ClientMessage};
use prost::Message as _;
use serde_json::Value;

fn read(file: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden").join(file);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The entries of a golden file; there is at least one.
fn entries(file: &str) -> Vec<Value> {
    let entries: Vec<Value> = serde_json::from_slice(&read(file)).unwrap();
    assert!(!entries.is_empty(), "{file}");
    entries
}

fn lines(file: &str) -> Vec<Vec<u8>> {
    read(file).split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect()
}

fn line<'a>(lines: &'a [Vec<u8>], entry: &Value) -> &'a [u8] {
    &lines[usize::try_from(entry["line"].as_u64().unwrap()).unwrap() - 1]
}

fn hex(text: &Value) -> Vec<u8> {
    let digits = text.as_str().unwrap().as_bytes();
    digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn text<'a>(fields: &'a Value, key: &str) -> &'a str {
    fields[key].as_str().unwrap_or_else(|| panic!("{key} in {fields}"))
}

const WIRE: PubSubWire = PubSubWire { syntax: Syntax::Protobuf, reliable: true, profile: Profile::V2026_04 };

#[test]
fn every_good_record_becomes_the_message_that_python_protobuf_writes() {
    let records = lines("orderflow.jsonl");
    for entry in entries("orderflow.expected.json") {
        let what = &entry["what"];
        let parsed =
            orderflow::parse(line(&records, &entry).trim_ascii()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(u64::from(parsed.noticed.missing), entry["absent_numbers"].as_u64().unwrap(), "{what}");
        for profile in Profile::ALL {
            let mut record = parsed.record.clone();
            orderflow::rescale(&mut record, profile);
            let expected = hex(&entry[profile.name()]["protobuf"]);
            assert_eq!(Orderflow::decode(expected.as_slice()).unwrap(), record, "{what}, {profile}");
            assert_eq!(record.encode_to_vec(), expected, "{what}, {profile}");
        }
    }
}

#[test]
fn every_bad_record_is_refused_for_the_reason_python_finds() {
    let records = lines("bad_records.jsonl");
    let mut wrong = Vec::new();
    for entry in entries("bad_records.expected.json") {
        let what = &entry["what"];
        let Err(error) = orderflow::parse(line(&records, &entry).trim_ascii()) else {
            wrong.push(format!("line {}, {what}: expected a refusal, got a record", entry["line"]));
            continue;
        };
        let (kind, key) = match &error {
            RecordError::NotUtf8 { .. } => ("not-utf8", None),
            RecordError::NotAnObject(_) => ("malformed", None),
            RecordError::Missing { key, .. } => ("missing", Some(*key)),
            RecordError::WrongType { key, .. } => ("wrong-type", Some(*key)),
            RecordError::OutOfRange { key, .. } => ("out-of-range", Some(*key)),
            RecordError::NotRecorded => ("not-recorded", None),
        };
        let field = entry["field"].as_str();
        // A line that is JSON but no object is told like one that is no JSON: it has no key to blame.
        let expected = match (text(&entry, "kind"), field) {
            ("wrong-type", None) => "malformed",
            (kind, _) => kind,
        };
        if (kind, key) != (expected, field) {
            wrong.push(format!("line {}, {what}: expected {expected} {field:?}, got: {error}", entry["line"]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn payloads_of_a_foreign_zstd_are_read_in_every_shape_of_frame() {
    for entry in entries("payload.json") {
        let any = Any::decode(hex(&entry["any"]).as_slice()).unwrap();
        assert_eq!(any.type_url, "proto.orderflow");
        let message = decompress(&any.value, 1 << 20).unwrap_or_else(|error| panic!("{}: {error}", entry["zstd"]));
        assert_eq!(message, hex(&entry["protobuf"]), "{}", entry["zstd"]);
    }
}

#[test]
fn our_payload_of_a_golden_record_decompresses_to_the_golden_message() {
    let records = lines("orderflow.jsonl");
    let mut encoder = Encoder::new(EncoderOptions { zstd_level: -1 }).unwrap();
    for entry in entries("orderflow.expected.json") {
        let mut record = orderflow::parse(line(&records, &entry).trim_ascii()).unwrap().record;
        orderflow::rescale(&mut record, Profile::V2025_11);
        let payload = encoder.encode(&record);
        assert_eq!(zstd::decode_all(payload).unwrap(), hex(&entry["2025-11"]["protobuf"]), "{}", entry["what"]);
    }
}

/// What one of our parsers must make of a client's message.
fn upstream<'a>(kind: &str, fields: &'a Value) -> Upstream<'a> {
    let ack_id = fields["ackId"].as_u64();
    match kind {
        "joinGroup" => Upstream::Join { group: text(fields, "group").into(), ack_id },
        "leaveGroup" => Upstream::Leave { group: text(fields, "group").into(), ack_id },
        "sendToGroup" => Upstream::SendToGroup { ack_id },
        "event" | "sendEvent" => Upstream::Event { ack_id },
        "sequenceAck" => Upstream::SequenceAck(fields["sequenceId"].as_u64().unwrap()),
        "ping" => Upstream::Ping,
        other => panic!("a kind of message these tests do not know: {other}"),
    }
}

#[test]
fn every_message_of_the_two_real_sdks_is_understood() {
    for entry in entries("upstream_json.json") {
        let wire = PubSubWire { syntax: Syntax::Json, ..WIRE };
        let parsed = wire.parse(&ClientMessage::Text(text(&entry, "text")));
        let expected = upstream(text(&entry, "kind"), &entry["fields"]);
        assert_eq!(parsed, Ok(expected), "{}: {}", entry["sdk"], entry["name"]);
    }
}

#[test]
fn every_upstream_protobuf_message_is_understood() {
    let mut read = 0;
    for entry in entries("webpubsub.json").iter().filter(|entry| entry["direction"] == "upstream") {
        let bytes = hex(&entry["hex"]);
        let expected = upstream(text(entry, "kind"), &entry["fields"]);
        assert_eq!(WIRE.parse(&ClientMessage::Binary(&bytes)), Ok(expected), "{}", entry["name"]);
        read += 1;
    }
    assert!(read > 10);
}

/// The frame that we write for a downstream message; `None` for kinds a hub of ours never says.
fn written(kind: &str, fields: &Value) -> Option<Vec<u8>> {
    let mut frame = Vec::new();
    let message = match kind {
        "connected" => Downstream::Connected {
            connection_id: text(fields, "connectionId"),
            user_id: text(fields, "userId"),
            reconnection_token: fields["reconnectionToken"].as_str(),
        },
        "disconnected" => Downstream::Disconnected { reason: text(fields, "message") },
        "ack" => {
            let error = &fields["error"];
            let name = match error["name"].as_str() {
                None => None,
                Some("Forbidden") => Some(ErrorName::Forbidden),
                Some("InternalServerError") => Some(ErrorName::InternalServerError),
                Some("Duplicate") => Some(ErrorName::Duplicate),
                Some("BadRequest") => Some(ErrorName::BadRequest),
                Some(_) => return None,
            };
            let result = name.map_or(Ok(()), |name| Err((name, text(error, "message"))));
            Downstream::Ack { ack_id: fields["ackId"].as_u64().unwrap(), result }
        }
        "pong" => Downstream::Pong,
        "groupData" if fields["data"]["dataType"] == "protobuf" => {
            let data = &fields["data"];
            let mut plain = Vec::new();
            let (group, type_url) = (text(fields, "group"), text(data, "typeUrl"));
            append_data(Syntax::Protobuf, group, type_url, &hex(&data["hex"]), &mut plain);
            match fields["sequenceId"].as_u64() {
                None => return Some(plain),
                // What a hub of ours may give: PubSubWire::finish says so.
                Some(id) if (1..1 << 53).contains(&id) => WIRE.finish(&plain, id, &mut frame),
                Some(_) => return None,
            }
            return Some(frame);
        }
        "groupData" | "serverData" => return None,
        other => panic!("a kind of message these tests do not know: {other}"),
    };
    WIRE.append(&message, &mut frame);
    Some(frame)
}

#[test]
fn downstream_messages_are_written_byte_for_byte_as_python_and_azure_write_them() {
    let mut compared = 0;
    for entry in entries("webpubsub.json").iter().filter(|entry| entry["direction"] == "downstream") {
        let (kind, fields) = (text(entry, "kind"), &entry["fields"]);
        if let Some(frame) = written(kind, fields).filter(|_| entry["canonical"] == true) {
            assert_eq!(websocket::payload(&frame), hex(&entry["hex"]), "{}", entry["name"]);
            compared += 1;
        }
    }
    assert!(compared >= 10, "{compared} messages");
}

#[test]
fn downstream_messages_of_others_are_read_as_what_they_say() {
    for entry in entries("webpubsub.json").iter().filter(|entry| entry["direction"] == "downstream") {
        let (kind, fields) = (text(entry, "kind"), &entry["fields"]);
        let string = |key: &str| fields[key].as_str().unwrap_or_default().to_owned();
        let expected = match kind {
            "connected" => ServiceMessage::Connected {
                connection_id: string("connectionId"),
                reconnection_token: string("reconnectionToken"),
            },
            "disconnected" => ServiceMessage::Disconnected { reason: string("message") },
            "ack" => ServiceMessage::Ack {
                ack_id: fields["ackId"].as_u64().unwrap(),
                success: fields["success"].as_bool().unwrap(),
                error: fields["error"]
                    .is_object()
                    .then(|| (text(&fields["error"], "name").to_owned(), text(&fields["error"], "message").to_owned())),
            },
            "groupData" if fields["data"]["dataType"] == "protobuf" => ServiceMessage::Data {
                group: string("group"),
                sequence_id: fields["sequenceId"].as_u64(),
                type_url: text(&fields["data"], "typeUrl").to_owned(),
                payload: hex(&fields["data"]["hex"]),
            },
            _ => ServiceMessage::Other,
        };
        assert_eq!(receive(Syntax::Protobuf, &hex(&entry["hex"])), Ok(expected), "{}", entry["name"]);
    }
}

#[test]
fn json_data_is_the_any_that_python_serializes_in_base64() {
    for entry in entries("payload.json") {
        let golden = hex(&entry["any"]);
        let payload = Any::decode(golden.as_slice()).unwrap().value;
        let mut frame = Vec::new();
        append_data(Syntax::Json, "g", "proto.orderflow", &payload, &mut frame);
        let message: Value = serde_json::from_slice(websocket::payload(&frame)).unwrap();
        assert_eq!(STANDARD.decode(text(&message, "data")).unwrap(), golden);
        assert_eq!((text(&message, "from"), text(&message, "dataType")), ("group", "protobuf"));
    }
}
