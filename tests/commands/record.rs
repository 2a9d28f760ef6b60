//! `flowcast record`: what a server sends, in files that can be replayed.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;

use crate::common::dataset::{DATE, Dataset};
use crate::common::server::{Server, program, refusal, run};
use crate::common::{client::JSON_RELIABLE, eventually};
use crate::{said, url};
use flowcast::wire::gexbot::{Package, Series};
use flowcast::wire::payload::{Encoder, EncoderOptions, Record};
use flowcast::wire::streams::shapes::{Trade, TradingSignal};
use rustix::process::{Pid, Signal, kill_process};

fn sample_day() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

/// A server that replays the sample day, quickly, to clients that may be slow.
fn replay() -> Server {
    let day = sample_day();
    let settings = [
        ("DATA_DIR", day.to_str().unwrap()),
        ("WS_STREAM_INTERVAL", "5ms"),
        ("WS_CLIENT_BUFFER", "10000"),
        ("FLOWCAST_CLIENT_BUFFER_BYTES", "100000000"),
    ];
    Server::with(&Dataset::empty(), &settings)
}

/// Every file of categories below a day, without the day.
fn categories(day: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![day.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else {
                found.insert(entry.strip_prefix(day).unwrap().to_owned());
            }
        }
    }
    found.retain(|file| !file.starts_with("streams"));
    found
}

/// The payloads of a file's lines, as they are sent to clients.
fn payloads(file: &Path, category: &Path) -> Vec<Vec<u8>> {
    let mut parts = category.iter().skip(1).map(|part| part.to_str().unwrap());
    let package = Package::parse(parts.next().unwrap()).unwrap();
    let category = parts.next().unwrap().strip_suffix(".jsonl").unwrap();
    let kind = Series::Records { package, category }.kind();
    let mut encoder = Encoder::new(EncoderOptions { zstd_level: -7 }).unwrap();
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    assert!(text.ends_with('\n'), "{}: whole lines", file.display());
    let payload = |line: &str| Record::parse(kind, line.as_bytes()).unwrap().record.encode(&mut encoder).to_vec();
    text.lines().map(payload).collect()
}

/// The recorded payloads are those of the source from some record on, round and round, and all of them.
fn assert_same_payloads(recorded: &[Vec<u8>], source: &[Vec<u8>], file: &Path) {
    assert!(recorded.len() >= source.len(), "{}: {} of {}", file.display(), recorded.len(), source.len());
    let begins =
        (0..source.len()).find(|begin| recorded.iter().eq(source.iter().cycle().skip(*begin).take(recorded.len())));
    assert!(begins.is_some(), "{}: not the payloads of the source", file.display());
}

#[test]
fn recording_a_replay_of_all_hubs_gives_files_with_the_payloads_of_the_source() {
    let server = replay();
    for subprotocol in ["protobuf.webpubsub.azure.v1", JSON_RELIABLE] {
        let folder = tempfile::tempdir().unwrap();
        let out = said(&[
            "record",
            &url(&server),
            "--data-dir",
            folder.path().to_str().unwrap(),
            "--subprotocol",
            subprotocol,
            "--count",
            "14000",
        ]);
        assert!(out.contains("14000 records") && !out.contains("gap"), "{out}");
        let (source, recorded) = (sample_day().join(DATE), folder.path().join(DATE));
        let files = categories(&source);
        assert_eq!(files.len(), 18);
        assert_eq!(categories(&recorded), files);
        for file in &files {
            let payloads = |day: &Path| payloads(&day.join(file), file);
            assert_same_payloads(&payloads(&recorded), &payloads(&source), file);
        }
    }
}

#[test]
fn a_recording_that_was_killed_goes_on_behind_its_last_whole_line() {
    let server = Server::start(&Dataset::usual());
    let folder = tempfile::tempdir().unwrap();
    let (address, data_dir) = (url(&server), folder.path().to_str().unwrap().to_owned());
    let args = ["record", &address, "SPX", "--data-dir", &data_dir, "--sync", "50ms"];
    let file = folder.path().join(DATE).join("SPX/orderflow/orderflow.jsonl");
    let lines = || fs::read_to_string(&file).unwrap_or_default().lines().count();
    let mut child = program(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("records are on the disk", || (lines() > 5).then_some(()));
    // Nobody else may write into its files.
    assert!(refusal(&mut program(&args)).contains("another process records into this file"));
    child.kill().unwrap();
    child.wait().unwrap();
    let before = lines();
    fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(b"{\"timestamp\":17643").unwrap();
    let output = run(&mut program(&[&args[..], &["--count", "10"]].concat()));
    let warned = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && warned.contains("an unfinished line of 18 bytes is cut off"), "{warned}");
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), before + 10);
    assert!(text.ends_with('\n') && text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
}

#[test]
fn a_signal_ends_a_recording_with_everything_on_the_disk() {
    let server = Server::start(&Dataset::usual());
    let folder = tempfile::tempdir().unwrap();
    let args = ["record", &url(&server), "--data-dir", folder.path().to_str().unwrap(), "--sync", "10m"];
    let mut child = program(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let file = folder.path().join(DATE).join("SPX/orderflow/orderflow.jsonl");
    eventually("it records", || file.exists().then_some(()));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert!(child.wait().unwrap().success(), "{out}");
    let records: usize = out.lines().last().unwrap().split(' ').next().unwrap().parse().unwrap();
    let lines = |ticker: &str| {
        let file = folder.path().join(DATE).join(ticker).join("orderflow/orderflow.jsonl");
        fs::read_to_string(file).unwrap_or_default().lines().count()
    };
    assert_eq!(lines("SPX") + lines("ES_SPX"), records, "{out}");
}

/// A proxy that cuts the first WebSocket after so many bytes of the server.
fn cutter(server: SocketAddr, bytes: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut has_cut = false;
        for client in listener.incoming() {
            let (mut client, mut upstream) = (client.unwrap(), TcpStream::connect(server).unwrap());
            let mut head = [0; 12];
            client.peek(&mut head).unwrap();
            let cuts = head.starts_with(b"GET /client/") && !std::mem::replace(&mut has_cut, true);
            let (mut from_client, mut to_server) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
            thread::spawn(move || {
                let _ = io::copy(&mut from_client, &mut to_server);
                let _ = to_server.shutdown(Shutdown::Write);
            });
            thread::spawn(move || {
                let _ = io::copy(&mut (&mut upstream).take(if cuts { bytes } else { u64::MAX }), &mut client);
                let _ = client.shutdown(Shutdown::Both);
                let _ = upstream.shutdown(Shutdown::Both);
            });
        }
    });
    address
}

#[test]
fn a_cut_connection_is_opened_again_and_the_gap_is_told() {
    let server = Server::start(&Dataset::usual());
    let folder = tempfile::tempdir().unwrap();
    let proxy = format!("http://{}", cutter(server.address, 5000));
    let args = ["record", &proxy, "SPX", "--data-dir", folder.path().to_str().unwrap(), "--count", "100"];
    let output = run(&mut program(&args));
    let (out, warned) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success() && out.contains("100 records, 1 gap"), "{out}{warned}");
    assert!(warned.contains("is lost: ") && warned.contains("what was sent meanwhile is missing"), "{warned}");
    let file = Path::new("SPX/orderflow/orderflow.jsonl");
    assert_eq!(payloads(&folder.path().join(DATE).join(file), file).len(), 100);
}

#[test]
fn the_streams_of_a_day_are_recorded_in_the_shape_they_are_fed_in() {
    let server = replay();
    let folder = tempfile::tempdir().unwrap();
    let streams = format!("ws://{}/ws", server.address);
    said(&[
        "record",
        &streams,
        "--data-dir",
        folder.path().to_str().unwrap(),
        "--channels",
        "signals,trades",
        "--count",
        "80",
    ]);
    let days: Vec<PathBuf> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!((1..=2).contains(&days.len()), "today, or the test ran over midnight");
    let lines = |channel: &str| -> Vec<String> {
        let read = |day: &PathBuf| fs::read_to_string(day.join(format!("streams/{channel}.jsonl"))).unwrap_or_default();
        days.iter().map(read).collect::<String>().lines().map(str::to_owned).collect()
    };
    let (signals, trades) = (lines("signals"), lines("trades"));
    assert_eq!(signals.len() + trades.len(), 80);
    assert!(signals.iter().all(|line| TradingSignal::parse(line.as_bytes()).is_ok()), "{signals:?}");
    let source = fs::read_to_string(sample_day().join(DATE).join("streams/trades.jsonl")).unwrap();
    // A replayed trade is stamped when it is sent.
    let deal = |line: &str| {
        let trade = Trade::parse(line.as_bytes()).unwrap();
        (trade.symbol.into_owned(), trade.side.into_owned(), trade.quantity, trade.price)
    };
    let source: Vec<_> = source.lines().map(deal).collect();
    assert!(!trades.is_empty() && trades.iter().all(|line| source.contains(&deal(line))), "{trades:?}");
}

#[test]
fn what_cannot_be_recorded_is_said_at_once() {
    let server = Server::start(&Dataset::usual());
    let folder = tempfile::tempdir().unwrap();
    let refused = |args: &[&str]| {
        let data_dir = ["--data-dir", folder.path().to_str().unwrap()];
        refusal(&mut program(&[&["record"], args, &data_dir].concat()))
    };
    assert!(refused(&[&url(&server), "spot"]).contains("has no file: spot prices are replayed from the records"));
    assert!(refused(&[&url(&server), "red_SPX_orderflow_orderflow", "--count", "1"]).contains("cannot join"));
    let streams = format!("ws://{}/ws", server.address);
    let said = refused(&[&streams, "--channels", "lines,nope"]);
    assert!(said.contains("cannot subscribe to lines, nope: ") && said.contains("nope"), "{said}");
    assert!(refused(&["--brokers", "127.0.0.1:1"]).contains("expected --topics"));
    let address = url(&server);
    drop(server);
    assert!(refused(&[&address]).contains("cannot negotiate"));
}
