//! The wire, byte by byte.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Form, Tamper};

pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// What the records of a group are, by the end of its name.
pub fn type_url(group: &str) -> &'static str {
    match () {
        () if group.ends_with("_spot") => "proto.spot",
        () if group.contains("_orderflow_") => "proto.orderflow",
        () if group.contains("_gex_") => "proto.gex",
        () => "proto.greek",
    }
}

/// `Any.value`: the zstd frame of a record. The spot is field 5 of a GEX record, which has rows as well, and
/// field 3 of the others.
pub fn payload(type_url: &str, ticker: &str, timestamp: u64, spot: u64) -> Vec<u8> {
    let mut record = Vec::new();
    number(&mut record, 1, timestamp);
    bytes(&mut record, 2, ticker.as_bytes());
    if type_url == "proto.gex" {
        number(&mut record, 3, 0);
        number(&mut record, 4, 6);
        number(&mut record, 5, spot);
        for strike in 0..20 {
            let mut row = Vec::new();
            number(&mut row, 1, 680_000 + strike * 500);
            number(&mut row, 2, spot + strike);
            bytes(&mut record, 11, &row);
        }
    } else {
        number(&mut record, 3, spot);
    }
    zstd::bulk::compress(&record, 3).unwrap()
}

/// A data message as a finished frame.
pub fn data(form: Form, group: &str, type_url: &str, value: &[u8], sequence_id: u64) -> Vec<u8> {
    let mut any = Vec::new();
    bytes(&mut any, 1, type_url.as_bytes());
    bytes(&mut any, 2, value);
    if !form.is_protobuf {
        let sequence = if form.is_reliable { format!(r#""sequenceId":{sequence_id},"#) } else { String::new() };
        return text(&format!(
            r#"{{{sequence}"type":"message","from":"group","group":"{group}","dataType":"protobuf","data":"{}"}}"#,
            STANDARD.encode(&any)
        ));
    }
    let (mut content, mut message, mut downstream) = (Vec::new(), Vec::new(), Vec::new());
    bytes(&mut content, 3, &any);
    bytes(&mut message, 1, b"group");
    bytes(&mut message, 2, group.as_bytes());
    bytes(&mut message, 3, &content);
    if form.is_reliable {
        number(&mut message, 4, sequence_id);
    }
    bytes(&mut downstream, 2, &message);
    frame(0x82, &downstream)
}

pub fn connected(form: Form, id: usize) -> Vec<u8> {
    let token = if form.is_reliable { format!("token {id}") } else { String::new() };
    if !form.is_protobuf {
        return text(&format!(
            r#"{{"type":"system","event":"connected","userId":null,"connectionId":"c{id}","reconnectionToken":"{token}"}}"#
        ));
    }
    let (mut inner, mut system, mut downstream) = (Vec::new(), Vec::new(), Vec::new());
    bytes(&mut inner, 1, format!("c{id}").as_bytes());
    bytes(&mut inner, 3, token.as_bytes());
    bytes(&mut system, 1, &inner);
    bytes(&mut downstream, 3, &system);
    frame(0x82, &downstream)
}

pub fn ack(form: Form, id: u64, is_ok: bool) -> Vec<u8> {
    if !form.is_protobuf {
        let error = if is_ok { "" } else { r#","error":{"name":"Forbidden","message":"not yours"}"# };
        return text(&format!(r#"{{"type":"ack","ackId":{id},"success":{is_ok}{error}}}"#));
    }
    let (mut ack, mut downstream) = (Vec::new(), Vec::new());
    number(&mut ack, 1, id);
    number(&mut ack, 2, u64::from(is_ok));
    if !is_ok {
        let mut error = Vec::new();
        bytes(&mut error, 1, b"Forbidden");
        bytes(&mut error, 2, b"not yours");
        bytes(&mut ack, 3, &error);
    }
    bytes(&mut downstream, 1, &ack);
    frame(0x82, &downstream)
}

pub fn text(message: &str) -> Vec<u8> {
    frame(0x81, message.as_bytes())
}

pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    if payload.len() < 126 {
        frame.push(payload.len() as u8);
    } else {
        frame.push(126);
        frame.extend((payload.len() as u16).to_be_bytes());
    }
    frame.extend_from_slice(payload);
    frame
}

/// The length of a frame's header.
pub fn header_len(frame: &[u8]) -> usize {
    if frame[1] == 126 { 4 } else { 2 }
}

/// A frame with one bit of its message flipped.
pub fn flipped(frame: &[u8], bit: usize) -> Vec<u8> {
    let mut flipped = frame.to_vec();
    flipped[header_len(frame) + bit / 8] ^= 1 << (bit % 8);
    flipped
}

/// The ledger's entry of a fault that was ordered for one client of `/ws`.
pub fn stream_order(kind: &str, tamper: Option<Tamper>, user: u64, channel: &str, seq: u64) -> String {
    let how = if let Some(Tamper::Flip(bit)) = tamper { format!(r#","bit":{bit}"#) } else { String::new() };
    format!(
        r#"{{"plan":1,"fault":3,"do":"{kind}","tick":40,"fired":40,"hub":"ws","connection":"unknown","user":"{user:016x}","nth":1,"frames":[{{"group":"{channel}","sequence_id":1,"channel":"{channel}","seq":{seq}{how}}}]}}"#
    )
}

/// The ledger's entry of a fault that was ordered for one connection.
pub fn order(kind: &str, tamper: Option<Tamper>, connection: usize, group: &str, sequence_id: u64) -> String {
    let (how, beside) = match (kind, tamper) {
        (_, Some(Tamper::Flip(bit))) => (format!(r#","bit":{bit}"#), String::new()),
        (_, Some(Tamper::Shorten(kept))) => (format!(r#","kept":{kept},"bytes":900"#), String::new()),
        ("corrupt", _) => (r#","bit":80"#.to_owned(), String::new()),
        ("close", Some(Tamper::Close(code))) => (String::new(), format!(r#","code":{code}"#)),
        ("close", _) => (String::new(), r#","code":1011"#.to_owned()),
        _ => (String::new(), String::new()),
    };
    let frames = if ["reset", "close"].contains(&kind) {
        String::new()
    } else {
        format!(r#","frames":[{{"group":"{group}","sequence_id":{sequence_id}{how}}}]"#)
    };
    format!(
        r#"{{"plan":1,"fault":3,"do":"{kind}","tick":40,"fired":40,"hub":"orderflow","connection":"c{connection}","user":"00000000000000ff","nth":1{frames}{beside}}}"#
    )
}

/// A client's request: what it wants, and its ack id.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    Join(String, u64),
    SequenceAck(u64),
    Other,
}

/// Reads the payload of a client's message.
pub fn request(form: Form, payload: &[u8]) -> Request {
    if !form.is_protobuf {
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(payload) else { return Request::Other };
        return match value["type"].as_str() {
            Some("joinGroup") => {
                Request::Join(value["group"].as_str().unwrap().to_owned(), value["ackId"].as_u64().unwrap())
            }
            Some("sequenceAck") => Request::SequenceAck(value["sequenceId"].as_u64().unwrap()),
            _ => Request::Other,
        };
    }
    let (field, inner) = field(payload).0;
    match field {
        6 => {
            let ((_, group), rest) = self::field(inner);
            let ack_id = read_varint(&rest[1..]).0;
            Request::Join(String::from_utf8(group.to_vec()).unwrap(), ack_id)
        }
        8 => Request::SequenceAck(read_varint(&inner[1..]).0),
        _ => Request::Other,
    }
}

/// The first length-delimited field, and what follows it.
fn field(message: &[u8]) -> ((u64, &[u8]), &[u8]) {
    let (tag, rest) = read_varint(message);
    let (len, rest) = read_varint(rest);
    let (value, rest) = rest.split_at(len as usize);
    ((tag >> 3, value), rest)
}

fn read_varint(bytes: &[u8]) -> (u64, &[u8]) {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return (value, &bytes[at + 1..]);
        }
    }
    (value, &[])
}
