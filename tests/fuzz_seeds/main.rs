//! The fuzz targets without a fuzzer: each compiles, and takes every one of its seeds. `make fuzz` goes on from these.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

// The name under which the targets look for the macro.
extern crate self as libfuzzer_sys;

#[path = "../../fuzz/fuzz_targets"]
#[allow(unused_attributes, reason = "`no_main` is for the fuzzer's programs")]
mod targets {
    pub mod decimal;
    pub mod fault_plan;
    pub mod feeds_toml;
    pub mod gex_record;
    pub mod greek_record;
    pub mod kite;
    pub mod received;
    pub mod record;
    pub mod replay_change;
    pub mod session_token;
    pub mod stream_record;
    pub mod stream_request;
    pub mod upstream_json;
    pub mod upstream_protobuf;
    pub mod wanted_groups;
    pub mod websocket;
    pub mod xts;
    pub mod xts_rest;
}

// Behind the targets, which thus find it by its name only, as they find the fuzzer's.
macro_rules! fuzz_target {
    (|$input:ident: &[u8]| $body:block) => {
        pub fn take($input: &[u8]) $body
    };
    (|$input:ident: &str| $body:block) => {
        pub fn take(input: &[u8]) {
            if let Ok($input) = str::from_utf8(input) $body
        }
    };
}
use fuzz_target;

/// A target, by the name of its file.
type Target = (&'static str, fn(&[u8]));

macro_rules! all {
    ($($name:ident,)*) => { &[$((stringify!($name), targets::$name::take as fn(&[u8])),)*] };
}

const TARGETS: &[Target] = all![
    decimal,
    fault_plan,
    feeds_toml,
    gex_record,
    greek_record,
    kite,
    received,
    record,
    replay_change,
    session_token,
    stream_record,
    stream_request,
    upstream_json,
    upstream_protobuf,
    wanted_groups,
    websocket,
    xts,
    xts_rest,
];

fn names_in(folder: &str) -> BTreeSet<String> {
    let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    fs::read_dir(root().join(folder)).unwrap().map(|entry| stem(entry.unwrap().path())).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

#[test]
fn every_target_takes_its_seeds() {
    for (name, take) in TARGETS {
        let seeds: Vec<_> =
            fs::read_dir(root().join("seeds").join(name)).unwrap().map(|seed| seed.unwrap().path()).collect();
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for seed in seeds {
            println!("{name}: {}", seed.display());
            take(&fs::read(seed).unwrap());
        }
    }
}

#[test]
fn no_target_is_left_out() {
    let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names, names_in("fuzz_targets"));
    assert_eq!(names, names_in("seeds"));
}
