//! The other commands; and the captures that `tail --capture` made.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::client::ALL;
use crate::common::dataset::{Dataset, FIRST, group, line};
use crate::common::server::{Server, program, refusal, run};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flowcast::wire::payload::Profile;
use flowcast::wire::webpubsub::received::{ServiceMessage, receive};
use flowcast::wire::webpubsub::{Downstream, ErrorName, PubSubWire, SUBPROTOCOLS, Syntax, append_data};
use flowcast::wire::websocket;
use serde_json::Value;

fn said(args: &[&str]) -> String {
    let output = run(&mut program(args));
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn url(server: &Server) -> String {
    format!("http://{}", server.address)
}

/// Every number of a printed record is the number of its source line.
fn assert_source(printed: &Value) {
    let ticker = printed["ticker"].as_str().unwrap();
    let n = printed["timestamp"].as_i64().unwrap() - FIRST;
    let source: BTreeMap<String, Value> = serde_json::from_str(&line(ticker, n.cast_unsigned())).unwrap();
    for (key, value) in source {
        let same = match (value.as_f64(), printed[&key].as_f64()) {
            (Some(source), Some(printed)) => (source - printed).abs() < 1e-9,
            _ => value == printed[&key],
        };
        assert!(same, "{key}: {value} in the source, {} printed", printed[&key]);
    }
}

#[test]
fn tail_prints_records_as_their_source_lines_have_them() {
    let server = Server::start(&Dataset::usual());
    for subprotocol in ALL {
        let out = said(&["tail", &url(&server), "SPX", "--subprotocol", subprotocol, "--count", "3"]);
        let records: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(records.len(), 3);
        for record in &records {
            assert_eq!(record["group"], group("SPX").as_str());
            assert_eq!(record.get("sequence_id").is_some(), subprotocol.contains("reliable"));
            assert_source(record);
        }
    }
}

#[test]
fn tail_joins_every_ticker_unless_told_and_speaks_the_older_generation_too() {
    let server = Server::start(&Dataset::usual());
    let out = said(&["tail", &url(&server), "--profile", "2025-11", "--count", "8"]);
    let records: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for ticker in ["SPX", "ES_SPX"] {
        let of = records.iter().find(|record| record["ticker"] == ticker).expect(ticker);
        assert!(of["zcvr"].as_f64().unwrap().fract().abs() < 1e-9, "the older profile has whole flows");
    }
    let hub = format!("ws://{}/client/hubs/orderflow?access_token=k:1", server.address);
    assert_eq!(said(&["tail", &hub, &group("SPX"), "--count", "2"]).lines().count(), 2);
}

#[test]
fn tail_says_why_it_cannot() {
    let server = Server::start(&Dataset::usual());
    let refused = refusal(&mut program(&["tail", &url(&server), "red_SPX_orderflow_orderflow"]));
    assert!(refused.contains("cannot join red_SPX_orderflow_orderflow: Forbidden"), "{refused}");
    let address = url(&server);
    drop(server);
    let refused = refusal(&mut program(&["tail", &address]));
    assert!(refused.contains("cannot negotiate"), "{refused}");
}

#[test]
fn inspect_prints_a_line_per_ticker_and_every_problem() {
    let dataset = Dataset::new(&[("ES_SPX", 70)]);
    let content = [0, 1, 10, 3].map(|n| line("SPX", n)).join("\n") + "\nnonsense\n";
    let path = dataset.write("SPX", content).display().to_string();
    dataset.write("NDX", "");
    let folder = dataset.path().to_str().unwrap();
    let out = said(&["inspect", "2025-11-28", "--data-dir", folder]);
    // FIRST is 14:30:00 UTC, 9:30 in New York.
    let row = |ticker: &str| -> Vec<String> {
        let line = out.lines().find(|line| line.starts_with(&format!("{ticker} "))).unwrap_or_else(|| panic!("{out}"));
        line.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(row("ES_SPX")[..7], ["ES_SPX", "70", "09:30:00", "09:31:09", "0", "1s", "0"]);
    assert_eq!(row("SPX")[..7], ["SPX", "4", "09:30:00", "09:30:03", "1", "9s", "1"]);
    assert_eq!(row("SPX").len(), 12, "and the encoded size of each of the four wire forms");
    assert!(out.contains(&format!("{path}:5: expected one JSON object")), "{out}");
    assert!(out.contains(&format!("{path}: 1 records are older than the one before")), "{out}");
    assert!(out.contains("expected records, got an empty file"), "{out}");

    let latest = said(&["inspect", "--data-dir", folder]);
    assert_eq!(latest, out);
    assert!(refusal(&mut program(&["inspect", "--data-dir", folder, "--strict"])).contains("--strict"));
    assert!(refusal(&mut program(&["inspect", "2020-01-01", "--data-dir", folder])).contains("2025-11-28"));
}

fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(
                tree(&path)
                    .into_iter()
                    .map(|(name, bytes)| (path.file_name().unwrap().into(), name, bytes))
                    .map(|(folder, name, bytes): (PathBuf, PathBuf, Vec<u8>)| (folder.join(name), bytes)),
            );
        } else {
            files.insert(path.file_name().unwrap().into(), fs::read(&path).unwrap());
        }
    }
    files
}

#[test]
fn generate_is_deterministic_and_what_it_writes_can_be_served() {
    let generated = |seed: &str| {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().to_str().unwrap();
        let args = ["generate", "--out", out, "--date", "2026-03-03", "--tickers", "SPX,ES_SPX", "--records", "300"];
        let said = said(&[&args[..], &["--seed", seed]].concat());
        assert!(said.starts_with("wrote 600 records of 2 tickers, "), "{said}");
        folder
    };
    let (one, again, other) = (generated("7"), generated("7"), generated("8"));
    let files = tree(one.path());
    let names: Vec<_> = files.keys().map(|path| path.display().to_string()).collect();
    let expected = [
        "2026-03-03/ES_SPX/orderflow/orderflow.jsonl",
        "2026-03-03/SPX/orderflow/orderflow.jsonl",
        "2026-03-03/streams/portfolio.jsonl",
        "2026-03-03/streams/signals.jsonl",
        "2026-03-03/streams/trades.jsonl",
    ];
    assert_eq!(names, expected);
    assert_eq!(files, tree(again.path()), "same seed, same bytes");
    assert_ne!(files, tree(other.path()), "another seed, other bytes");

    for bytes in files.iter().filter(|(path, _)| path.ends_with("orderflow.jsonl")).map(|(_, bytes)| bytes) {
        let lines: Vec<Value> = bytes
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 300);
        for (at, line) in lines.iter().enumerate() {
            assert_eq!(line.as_object().unwrap().len(), 37);
            // 2026-03-03 9:30 in New York, and a record a second.
            assert_eq!(line["timestamp"], 1_772_548_200 + at as u64);
        }
    }
    let folder = one.path().to_str().unwrap();
    let mut command = program(&["--data-dir", folder, "--strict", "--interval", "5ms"]);
    let server = Server::launch(command.env("WS_BIND_ADDRESS", "127.0.0.1:0")).serving();
    assert_eq!(said(&["tail", &url(&server), "--count", "4"]).lines().count(), 4);

    let refused = refusal(&mut program(&["generate", "--out", folder, "--date", "2026-03-03", "--tickers", "SPX"]));
    assert!(refused.contains("orderflow.jsonl"), "it does not overwrite: {refused}");
}

#[test]
fn the_sample_data_is_served_strictly_and_is_small() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let files = tree(&data);
    assert!(files.values().map(Vec::len).sum::<usize>() < 2 << 20);
    for ticker in ["SPX", "ES_SPX", "NDX", "SPY"] {
        assert!(
            files.contains_key(&PathBuf::from(format!("2025-11-28/{ticker}/orderflow/orderflow.jsonl"))),
            "{ticker}"
        );
    }
    said(&["inspect", "--strict", "--data-dir", data.to_str().unwrap()]);
}

#[test]
fn tail_stores_every_downstream_message_as_it_came() {
    let server = Server::start(&Dataset::usual());
    let folder = tempfile::tempdir().unwrap();
    for subprotocol in ALL {
        let file = folder.path().join(subprotocol);
        let args = ["tail", &url(&server), "SPX", "--subprotocol", subprotocol, "--count", "3", "--capture"];
        said(&[&args[..], &[file.to_str().unwrap()]].concat());
        assert_capture(&file, subprotocol);
    }
}

/// Every message of a capture is understood, and our encoder writes it again byte for byte.
fn assert_capture(file: &Path, subprotocol: &str) {
    let (_, syntax, reliable) = SUBPROTOCOLS.into_iter().find(|(name, ..)| *name == subprotocol).unwrap();
    let wire = PubSubWire { syntax, reliable, profile: Profile::V2026_04 };
    let (mut data, mut first) = (0, true);
    for line in fs::read_to_string(file).unwrap().lines() {
        let captured: Value = serde_json::from_str(line).unwrap();
        assert_eq!(captured["subprotocol"], subprotocol);
        let message = match syntax {
            Syntax::Json => captured["text"].as_str().unwrap().as_bytes().to_vec(),
            Syntax::Protobuf => STANDARD.decode(captured["binary"].as_str().unwrap()).unwrap(),
        };
        let received = receive(syntax, &message).unwrap_or_else(|error| panic!("{line}: {error}"));
        let mut frame = Vec::new();
        match &received {
            ServiceMessage::Connected { connection_id, reconnection_token } => {
                assert!(first, "connected comes first");
                assert_eq!(reconnection_token.is_empty(), !reliable);
                let token = Some(reconnection_token.as_str()).filter(|token| !token.is_empty());
                let user_id = "flowcast-tail";
                wire.append(&Downstream::Connected { connection_id, user_id, reconnection_token: token }, &mut frame);
            }
            ServiceMessage::Disconnected { reason } => wire.append(&Downstream::Disconnected { reason }, &mut frame),
            ServiceMessage::Ack { ack_id, error, success } => {
                assert_eq!(*success, error.is_none());
                let result =
                    error.as_ref().map_or(Ok(()), |(_, message)| Err((ErrorName::Forbidden, message.as_str())));
                wire.append(&Downstream::Ack { ack_id: *ack_id, result }, &mut frame);
            }
            ServiceMessage::Data { group, sequence_id, type_url, payload } => {
                assert_eq!(sequence_id.is_some(), reliable);
                append_data(syntax, group, type_url, payload, &mut frame);
                if let Some(id) = sequence_id {
                    let plain = std::mem::take(&mut frame);
                    wire.finish(&plain, *id, &mut frame);
                }
                zstd::decode_all(payload.as_slice()).expect("a zstd frame");
                data += 1;
            }
            ServiceMessage::Other => panic!("nothing else is captured: {line}"),
        }
        assert_eq!(websocket::payload(&frame), message, "{line}");
        first = false;
    }
    assert!(data > 0, "{} has data", file.display());
}

#[test]
fn every_stored_capture_is_understood_and_written_again_byte_for_byte() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/captures");
    let mut captures = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            let first = fs::read_to_string(&path).unwrap();
            let first: Value = serde_json::from_str(first.lines().next().expect("a message")).unwrap();
            assert_capture(&path, first["subprotocol"].as_str().unwrap());
            captures += 1;
        }
    }
    assert!(captures >= 4, "a capture of each subprotocol");
}
