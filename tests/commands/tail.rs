//! `flowcast tail`, and the captures that `tail --capture` made.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::thread;

use crate::common::client::ALL;
use crate::common::dataset::{Dataset, FIRST, group, line};
use crate::common::server::{Server, program, refusal};
use crate::{run, said, url};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flowcast::wire::payload::Profile;
use flowcast::wire::webpubsub::received::{ServiceMessage, receive};
use flowcast::wire::webpubsub::{Downstream, ErrorName, PubSubWire, SUBPROTOCOLS, Syntax, append_data};
use flowcast::wire::websocket;
use serde_json::Value;

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
fn tail_takes_its_url_as_a_flag_too() {
    let server = Server::start(&Dataset::usual());
    let tailed = |args: &[&str]| said(&[&["tail"], args, &["--count", "2"]].concat());
    let address = url(&server);
    for args in [&["--url", &address, "SPX"][..], &["SPX", "--url", &address], &[&address, "SPX"]] {
        let out = tailed(args);
        assert_eq!(out.lines().count(), 2, "{args:?}");
        assert!(out.lines().all(|line| line.contains(&group("SPX"))), "{args:?}: {out}");
    }
    let refused = refusal(&mut program(&["tail", &address, "--url", &address]));
    assert!(refused.contains("expected the URL once"), "{refused}");
}

#[test]
fn a_host_and_a_port_are_a_url_too() {
    let server = Server::start(&Dataset::usual());
    assert_eq!(said(&["tail", &server.address.to_string(), "SPX", "--count", "2"]).lines().count(), 2);
    let refused = refusal(&mut program(&["tail", "ftp://127.0.0.1:1", "SPX"]));
    assert!(refused.contains("expected an http(s):// or ws(s):// URL, got ftp://127.0.0.1:1"), "{refused}");
}

#[test]
fn groups_may_be_listed_by_package_and_category() {
    let server = Server::start(&Dataset::usual());
    let args = ["tail", &url(&server), "--groups", "orderflow/orderflow,SPX", "--count", "2"];
    let out = said(&args);
    assert!(out.lines().count() == 2 && out.lines().all(|line| line.contains(&group("SPX"))), "{out}");
    let refused = refusal(&mut program(&["tail", &url(&server), "classic/gamma_zero"]));
    assert!(refused.contains("classic has no category \"gamma_zero\"; it has gex_full"), "{refused}");
}

#[test]
fn tail_says_which_ticker_the_server_does_not_have() {
    let server = Server::start(&Dataset::usual());
    let output = run(&mut program(&["tail", &url(&server), "NOPE", "SPX", "--count", "1"]));
    let warned = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && warned.contains("the server has no data for NOPE; it has"), "{warned}");
}

#[test]
fn a_ticker_may_be_typed_in_lower_case() {
    let server = Server::start(&Dataset::usual());
    let output = run(&mut program(&["tail", &url(&server), "spx", "--count", "1"]));
    let (out, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success() && out.contains(&group("SPX")), "{out}{said}");
    assert!(said.contains("reading spx as SPX"), "{said}");
}

#[test]
fn a_mistyped_group_is_named_and_so_is_a_url_that_leads_nowhere() {
    let server = Server::start(&Dataset::usual());
    let refuse = |args: &[&str]| refusal(&mut program(&[&["tail"], args].concat()));
    let refused = refuse(&[&url(&server), "blue_SPX_classic_gex_nope"]);
    assert!(refused.contains("classic has no category \"gex_nope\"; it has gex_full, "), "{refused}");
    for path in ["/negotiate", "/v2/negotiate", "/v2/negotiate/"] {
        let refused = refuse(&[&format!("{}{path}", url(&server)), "SPX"]);
        assert!(refused.contains(&format!("adds the path of negotiate: {}; got", url(&server))), "{refused}");
    }
    let refused = refuse(&[&format!("{}/elsewhere", url(&server)), "SPX"]);
    assert!(refused.contains("/elsewhere/v2/negotiate: expected HTTP 200, got 404"), "{refused}");
    assert!(refused.contains("expected the URL of a server without a path"), "{refused}");
    let refused = refuse(&[&format!("ws://{}/", server.address), "SPX"]);
    assert!(refused.contains("got 404") && refused.contains("expected a hub's URL, such as ws://"), "{refused}");
}

#[test]
fn tail_says_when_a_group_stays_silent() {
    let server = Server::start(&Dataset::usual());
    let hub = format!("ws://{}/client/hubs/orderflow?access_token=k:1", server.address);
    let mut tail = program(&["tail", &hub, "NOPE"]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut warned = String::new();
    let read = BufReader::new(tail.stderr.take().unwrap()).read_line(&mut warned);
    tail.kill().unwrap();
    tail.wait().unwrap();
    read.unwrap();
    assert!(warned.contains(&format!("no record in 5 s in {}", group("NOPE"))), "{warned}");
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

/// A proxy for one connection that answers the upgrade with a list in `Connection`, as some do.
fn proxy(server: &Server) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, upstream) = (listener.local_addr().unwrap(), server.address);
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut server = TcpStream::connect(upstream).unwrap();
        let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || io::copy(&mut from_client, &mut to_server));
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            server.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let lines = head.trim_end().lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
        let lines: Vec<&str> = lines.chain(["Connection: keep-alive", "Connection: Upgrade, x", "", ""]).collect();
        client.write_all(lines.join("\r\n").as_bytes()).unwrap();
        let _ = io::copy(&mut server, &mut client);
    });
    address
}

#[test]
fn tail_takes_a_101_whose_connection_is_a_list() {
    let server = Server::start(&Dataset::usual());
    let hub = format!("ws://{}/client/hubs/orderflow?access_token=k:1", proxy(&server));
    assert_eq!(said(&["tail", &hub, "SPX", "--count", "2"]).lines().count(), 2);
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
