//! What does understanding a client cost, per message and wire?
//!
//! `read` is the WebSocket part (header, unmasking, reassembly), whole and cut in two by TCP;
//! `parse` is the subprotocol's part. Sequence acks come once a second from every reliable client,
//! joins only when it arrives.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use flowcast::wire::payload::Profile;
use flowcast::wire::proto::webpubsub::{UpstreamMessage, upstream_message};
use flowcast::wire::webpubsub::{PubSubWire, Syntax};
use flowcast::wire::websocket::inbound::Inbound;
use flowcast::wire::websocket::{ClientMessage, Opcode, append_header};
use prost::Message as _;

const GROUP: &str = "blue_SPX_orderflow_orderflow";
const LIMIT: usize = 512 << 10;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    parse(&mut criterion);
    read(&mut criterion);
    criterion.final_summary();
}

fn parse(criterion: &mut Criterion) {
    use upstream_message::{JoinGroup, Message as Request, Ping, SequenceAck};
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Elements(1));
    let wire = |syntax| PubSubWire { syntax, reliable: true, profile: Profile::V2026_04 };
    let texts = [
        ("join", format!(r#"{{"type":"joinGroup","group":"{GROUP}","ackId":1}}"#)),
        ("sequence ack", r#"{"type":"sequenceAck","sequenceId":1764340200000000}"#.to_owned()),
        ("ping", r#"{"type":"ping"}"#.to_owned()),
        ("nonsense", r#"{"type":"dance"}"#.to_owned()),
    ];
    for (name, text) in texts {
        let wire = wire(Syntax::Json);
        group.bench_function(format!("json {name}"), |bencher| {
            bencher.iter(|| black_box(wire.parse(&ClientMessage::Text(black_box(&text))).is_ok()));
        });
    }
    let requests = [
        ("join", Request::JoinGroup(JoinGroup { group: GROUP.to_owned(), ack_id: Some(1) })),
        ("sequence ack", Request::SequenceAck(SequenceAck { sequence_id: 1_764_340_200_000_000 })),
        ("ping", Request::Ping(Ping {})),
    ];
    for (name, request) in requests {
        let wire = wire(Syntax::Protobuf);
        let bytes = UpstreamMessage { message: Some(request) }.encode_to_vec();
        group.bench_function(format!("protobuf {name}"), |bencher| {
            bencher.iter(|| black_box(wire.parse(&ClientMessage::Binary(black_box(&bytes))).is_ok()));
        });
    }
    group.finish();
}

fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read");
    for length in [16, 100, 1000, 65_536] {
        let frame = masked(&vec![7; length]);
        group.throughput(Throughput::Bytes(frame.len() as u64));
        for (name, cut) in [("whole", frame.len()), ("in two", frame.len() / 2)] {
            group.bench_function(format!("{length} bytes {name}"), |bencher| {
                // Reading unmasks in place, so every read needs bytes of its own.
                let fresh = || (Inbound::default(), frame.clone());
                let read = |(inbound, frame): &mut (Inbound, Vec<u8>)| {
                    let (first, second) = frame.split_at_mut(cut);
                    for piece in [first, second] {
                        let read = inbound.read(piece, LIMIT, |message| matches!(message, ClientMessage::Binary(_)));
                        read.expect("a valid frame");
                    }
                };
                bencher.iter_batched_ref(fresh, read, BatchSize::SmallInput);
            });
        }
    }
    group.finish();
}

/// A client's binary frame.
fn masked(payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = Vec::new();
    append_header(Opcode::Binary, payload.len(), &mut frame);
    frame[1] |= 0x80;
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
