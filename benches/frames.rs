//! What does a finished frame cost per wire: built from a payload, made reliable, or said in reply?
//!
//! Data frames are built once per record and form, reliable ones finished once per shard and
//! publication, replies once per request; none of it is paid per subscriber.

mod day;

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use flowcast::wire::payload::{Encoder, EncoderOptions, Profile, orderflow};
use flowcast::wire::webpubsub::{
    Downstream, ErrorName, ORDERFLOW_TYPE_URL, PubSubWire, Syntax, append_data, payload_of, payload_of_json,
};
use flowcast::wire::websocket::{self, Opcode};

/// 16 digits and 8 varint bytes, as the hub's ids are.
const SEQUENCE_ID: u64 = 1_764_340_200_000_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let line = day::lines(day::SERIES, 1).remove(0);
    let record = orderflow::parse(&line).expect("a generated line").record;
    let mut encoder = Encoder::new(EncoderOptions { zstd_level: -1 }).expect("memory for a zstd context");
    let payload = encoder.encode(&record).to_vec();

    let mut group = criterion.benchmark_group("frames");
    let mut out = Vec::with_capacity(4096);
    for (name, syntax) in [("protobuf", Syntax::Protobuf), ("json", Syntax::Json)] {
        let wire = PubSubWire { syntax, reliable: true, profile: Profile::V2026_04 };
        let mut plain = Vec::new();
        append_data(syntax, day::GROUP, ORDERFLOW_TYPE_URL, &payload, &mut plain);

        group.throughput(Throughput::Bytes(plain.len() as u64));
        group.bench_function(format!("build {name}"), |bencher| {
            bencher.iter(|| {
                out.clear();
                append_data(syntax, day::GROUP, ORDERFLOW_TYPE_URL, black_box(&payload), &mut out);
            });
        });
        group.bench_function(format!("finish {name}.reliable"), |bencher| {
            bencher.iter(|| {
                out.clear();
                wire.finish(black_box(&plain), black_box(SEQUENCE_ID), &mut out);
            });
        });
        group.bench_function(format!("find the payload in {name}"), |bencher| match syntax {
            Syntax::Protobuf => bencher.iter(|| payload_of(black_box(&plain), day::GROUP, ORDERFLOW_TYPE_URL)),
            Syntax::Json => bencher.iter(|| payload_of_json(black_box(&plain))),
        });
        let replies = [
            ("ack", Downstream::Ack { ack_id: 7, result: Ok(()) }),
            ("refusal", Downstream::Ack { ack_id: 7, result: Err((ErrorName::Forbidden, "no")) }),
        ];
        for (what, reply) in replies {
            group.bench_function(format!("{what} {name}"), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    wire.append(black_box(&reply), &mut out);
                });
            });
        }
    }
    group.throughput(Throughput::Bytes(payload.len() as u64));
    group.bench_function("websocket header and copy", |bencher| {
        bencher.iter(|| {
            out.clear();
            websocket::append(Opcode::Binary, black_box(&payload), &mut out);
        });
    });
    group.finish();
    criterion.final_summary();
}
