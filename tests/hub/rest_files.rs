//! What there is, over REST: tickers, days, files, positions, and the description of it all.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::common::PATIENCE;
use crate::common::dataset::{DATE, Dataset, FIRST, line};
use crate::common::http::{self, Response};
use crate::common::server::Server;
use crate::rest::write;

const KEY: [(&str, &str); 1] = [("Authorization", "Bearer some-key")];

fn get(server: &Server, path: &str) -> Response {
    http::request(server.address, "GET", path, &KEY)
}

/// ES_SPX and SPX with orderflow, SPX with some of the rest, and XSP without orderflow.
fn market() -> Dataset {
    let dataset = Dataset::usual();
    for series in [
        "SPX/classic/gex_full",
        "SPX/classic/gex_20251219",
        "SPX/state/gamma_zero",
        "SPX/state/gex_one",
        "XSP/classic/gex_one",
    ] {
        write(&dataset, series, &format!("{}\n", line("SPX", 0)));
    }
    write(&dataset, "SPX/state/vanna_20260109", &format!("{}\n", line("SPX", 0)));
    write(&dataset, "SPX/state/vanna_20260617", &format!("{}\n", line("SPX", 0)));
    dataset
}

/// Sends a request and reads the head of the answer; the rest is left to the caller.
fn open(server: &Server, method: &str, path: &str) -> (Response, BufReader<TcpStream>) {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The live page is for browsers, which say what they accept.
    let more = "Connection: close\r\nContent-Length: 0\r\nAccept: text/html\r\n";
    stream.write_all(http::head(server.address, method, path, &KEY, more).as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{method} {path}: {head}");
    }
    (Response::from_head(head.trim_end()), reader)
}

#[test]
fn tickers_and_categories_are_those_of_the_data() {
    let dataset = market();
    let server = Server::start(&dataset);
    let tickers = json!({ "stocks": [], "indexes": ["SPX", "XSP"], "futures": ["ES_SPX"] });
    for path in ["/tickers", "/v2/tickers"] {
        assert_eq!(server.get(path).json(), tickers, "{path}");
    }
    assert_eq!(server.get("/tickers/quant").json(), json!({ "stocks": [], "indexes": ["XSP"] }));
    for (package, categories) in [
        ("classic", json!(["gex_full", "gex_one", "gex_20251219"])),
        ("state", json!(["gex_one", "gamma_zero", "vanna_20260109", "vanna_20260617"])),
        ("orderflow", json!(["orderflow"])),
    ] {
        assert_eq!(server.get(&format!("/{package}/categories")).json(), categories);
        assert_eq!(server.get(&format!("/v2/{package}/categories")).json(), categories);
    }
}

#[test]
fn expiries_are_those_that_have_files_within_ninety_days() {
    let dataset = market();
    let server = Server::start(&dataset);
    let answer = json!({
        "ticker": "SPX", "start_date": "2025-11-28", "end_date": "2026-02-26", "expiries": ["2025-12-19", "2026-01-09"],
    });
    assert_eq!(get(&server, "/v2/options/SPX/expiries").json(), answer);
    assert_eq!(get(&server, "/options/ES_SPX/expiries").json()["expiries"], json!([]));
}

#[test]
fn the_day_and_its_files_are_told() {
    let dataset = market();
    write(&dataset, "../2025-11-27/NDX/state/charm_one", "{}\n");
    let server = Server::with(&dataset, &[("CACHE_MODE", "exhaust")]);
    let health = json!({
        "status": "ok", "data_date": DATE, "data_mode": "stream", "cache_mode": "exhaust", "rest_cursor": "clock",
    });
    assert_eq!(server.get("/health").json(), health);
    assert_eq!(server.get("/available-dates").json(), json!({ "count": 2, "dates": ["2025-11-27", DATE] }));
    let current = server.get("/current-date").json();
    assert_eq!((&current["current_date"], &current["files_loaded"]), (&json!(DATE), &json!(9)));
    assert!(current["loaded_at"].as_str().unwrap().ends_with('Z'), "{current}");

    let other = json!({
        "date": "2025-11-27",
        "tickers": [{ "symbol": "NDX", "packages": [{ "name": "state", "categories": ["charm_one"] }] }],
        "summary": { "total_tickers": 1, "total_files": 1 },
    });
    assert_eq!(server.get("/available-data/2025-11-27").json(), other);
    let own = server.get(&format!("/available-data/{DATE}?ticker=SPX")).json();
    assert_eq!(own["summary"], json!({ "total_tickers": 1, "total_files": 7 }));
    assert_eq!(
        own["tickers"][0]["packages"][0],
        json!({ "name": "classic", "categories": ["gex_20251219", "gex_full"] })
    );
    let all = server.get(&format!("/available-data/{DATE}")).json();
    assert_eq!(all["summary"], json!({ "total_tickers": 3, "total_files": 9 }));
    let absent = json!({ "date": "2020-01-01", "tickers": [], "summary": { "total_tickers": 0, "total_files": 0 } });
    assert_eq!(server.get("/available-data/2020-01-01").json(), absent);
    let answer = server.get("/available-data/20251128");
    assert_eq!(
        (answer.status, answer.error()),
        (400, "invalid date format: 20251128 (expected YYYY-MM-DD)".to_owned())
    );
}

#[test]
fn a_download_is_the_file_byte_by_byte() {
    let dataset = market();
    let server = Server::start(&dataset);
    for (path, file, name) in [
        ("SPX/classic/full", "SPX/classic/gex_full", "SPX_classic_gex_full"),
        ("SPX/classic/gex_20251219", "SPX/classic/gex_20251219", "SPX_classic_gex_20251219"),
        ("SPX/state/gamma", "SPX/state/gamma_zero", "SPX_state_gamma_zero"),
        ("ES_SPX/orderflow", "ES_SPX/orderflow/orderflow", "ES_SPX_orderflow"),
        ("ES_SPX/orderflow/orderflow", "ES_SPX/orderflow/orderflow", "ES_SPX_orderflow"),
    ] {
        let expected = fs::read_to_string(dataset.path().join(DATE).join(file).with_extension("jsonl")).unwrap();
        for method in ["GET", "HEAD"] {
            let answer = http::request(server.address, method, &format!("/download/{DATE}/{path}"), &KEY);
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.body, if method == "GET" { &*expected } else { "" });
            assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
            let disposition = format!("attachment; filename=\"{DATE}_{name}.jsonl\"");
            assert_eq!(answer.header("content-disposition"), Some(&*disposition));
            assert_eq!(answer.header("content-length"), Some(&*expected.len().to_string()));
        }
    }
}

#[test]
fn links_lead_to_the_files() {
    let dataset = market();
    let server = Server::start(&dataset);
    let links = get(&server, &format!("/download/{DATE}/SPX/links")).json();
    assert_eq!((&links["date"], &links["ticker"]), (&json!(DATE), &json!("SPX")));
    assert_eq!(links["summary"]["total_links"], 7);
    let all: Vec<&Value> = ["classic", "state", "orderflow"]
        .iter()
        .flat_map(|package| links["links"][package].as_array().unwrap())
        .collect();
    assert_eq!(all.len(), 7);
    for link in all {
        assert_eq!(get(&server, link.as_str().unwrap()).status, 200, "{link}");
    }
    let none = get(&server, &format!("/download/{DATE}/NONE/links")).json();
    assert_eq!(none["links"], json!({ "classic": [], "state": [], "orderflow": [] }));
}

#[test]
fn no_download_leaves_the_data_folder() {
    let dataset = market();
    fs::create_dir_all(dataset.path().join("SPX/orderflow")).unwrap();
    fs::write(dataset.path().join("SPX/orderflow/orderflow.jsonl"), "secret\n").unwrap();
    fs::create_dir_all(dataset.path().join(DATE).join("SPX/classic/gex_zero.jsonl")).unwrap();
    let server = Server::start(&dataset);
    for (path, status, reason) in [
        (format!("/download/{DATE}/SPX/classic/zero"), 404, format!("File not found: {DATE}/SPX/classic/gex_zero")),
        (format!("/download/{DATE}/NDX/orderflow"), 404, format!("File not found: {DATE}/NDX/orderflow/orderflow")),
        ("/download/2020-01-01/SPX/orderflow".to_owned(), 404, "File not found: 2020-01-01/SPX/orderflow/orderflow".to_owned()),
        ("/download/%2e%2e/SPX/orderflow".to_owned(), 400, "invalid date format: .. (expected YYYY-MM-DD)".to_owned()),
        (
            format!("/download/{DATE}/%2e%2e%2fSPX/orderflow"),
            400,
            "invalid ticker: ../SPX (expected at most 64 letters, digits, _, ., - or ^)".to_owned(),
        ),
        (
            format!("/download/{DATE}/SPX/classic/%2e%2e%2forderflow%2forderflow"),
            400,
            "Invalid type parameter: ../orderflow/orderflow (expected full, zero, one, gex_full, gex_zero, gex_one or gex_YYYYMMDD)".to_owned(),
        ),
    ] {
        let answer = get(&server, &path);
        assert_eq!((answer.status, answer.error()), (status, reason), "{path}");
    }
    for path in ["/download/../SPX/orderflow", "/download/./SPX/orderflow", "/download//SPX/orderflow"] {
        assert!((400..500).contains(&get(&server, path).status), "{path}");
    }
}

/// A file of zeros of another day, larger than what the server may hold.
fn large(dataset: &Dataset) -> (File, u64) {
    let bytes = 256 << 20;
    write(dataset, "../2020-01-02/SPX/classic/gex_full", "");
    let path = dataset.path().join("2020-01-02/SPX/classic/gex_full.jsonl");
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(bytes).unwrap();
    (file, bytes)
}

#[test]
fn a_large_download_is_not_held_in_memory() {
    let dataset = market();
    let (_file, bytes) = large(&dataset);
    let server = Server::start(&dataset);
    let before = server.resident();
    let (_, mut slow) = open(&server, "GET", "/download/2020-01-02/SPX/classic/full");
    let (head, mut reader) = open(&server, "GET", "/download/2020-01-02/SPX/classic/full");
    assert_eq!(head.header("content-length"), Some(&*bytes.to_string()));
    assert_eq!(std::io::copy(&mut reader, &mut std::io::sink()).unwrap(), bytes);
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");
    assert_eq!(std::io::copy(&mut slow, &mut std::io::sink()).unwrap(), bytes, "a slow reader gets all of it too");
}

#[test]
fn a_download_of_a_file_that_becomes_shorter_is_seen_to_be_incomplete() {
    let dataset = market();
    let (file, bytes) = large(&dataset);
    let mut server = Server::start(&dataset);
    let (_, mut reader) = open(&server, "GET", "/download/2020-01-02/SPX/classic/full");
    file.set_len(0).unwrap();
    let mut got = Vec::new();
    let _ = reader.read_to_end(&mut got);
    assert!((got.len() as u64) < bytes);
    assert!(server.is_running());
    assert_eq!(get(&server, "/health").status, 200);
}

/// The first events of a stream: name, id, data.
fn events(server: &Server, query: &str, count: usize) -> Vec<(String, u64, Value)> {
    let (head, reader) = open(server, "GET", &format!("/sync/stream{query}"));
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    // Chunk sizes stand between the events; the fields of an event are what has a colon.
    let mut fields = reader.lines().map(Result::unwrap);
    let mut field = |wanted: &str| {
        fields.find_map(|line| line.strip_prefix(wanted)?.strip_prefix(": ").map(str::to_owned)).unwrap()
    };
    let mut event = || (field("event"), field("id").parse().unwrap(), serde_json::from_str(&field("data")).unwrap());
    (0..count).map(|_| event()).collect()
}

#[test]
fn positions_of_a_key_are_streamed_as_a_snapshot_and_then_a_batch_a_second() {
    let dataset = Dataset::new(&[("SPX", 2)]);
    write(&dataset, "SPX/classic/gex_full", &format!("{}\n", line("SPX", 0)));
    let server = Server::with(&dataset, &[("FLOWCAST_REST_CURSOR", "key"), ("CACHE_MODE", "exhaust")]);
    let ask = |key: &str, path: &str| http::request(server.address, "GET", path, &[("Authorization", key)]).status;
    assert_eq!(ask("some-key", "/SPX/orderflow/orderflow"), 200);
    assert_eq!(ask("some-key", "/SPX/classic/full/majors"), 200);
    assert_eq!(ask("other-key", "/SPX/classic/full"), 200);
    let events = events(&server, "", 3);
    let names: Vec<&str> = events.iter().map(|(name, ..)| &**name).collect();
    assert_eq!(names, ["snapshot", "batch", "batch"]);
    let positions = json!([
        { "cache_key": "SPX/classic/gex_full_majors/some****", "index": 1, "data_length": 1, "data_timestamp": 0, "exhausted": true },
        { "cache_key": "SPX/orderflow/orderflow/some****", "index": 1, "data_length": 2, "data_timestamp": FIRST + 1, "exhausted": false },
    ]);
    for (_, id, data) in &events {
        assert_eq!((&data["sequence"], &data["positions"]), (&json!(id), &positions));
        assert_eq!((&data["data_date"], &data["cache_mode"]), (&json!(DATE), &json!("exhaust")));
        assert_eq!(data["broadcaster_id"], events[0].2["broadcaster_id"]);
        assert!(data["timestamp"].as_u64().unwrap() > 1_700_000_000_000, "milliseconds");
    }
    assert!(events.windows(2).all(|pair| pair[0].1 < pair[1].1), "the sequence rises");
}

#[test]
fn positions_on_the_clock_are_those_of_every_file() {
    let dataset = market();
    let server = Server::with(&dataset, &[("WS_STREAM_INTERVAL", "1h")]);
    let events = events(&server, "?key=a-key", 2);
    let positions = events[1].2["positions"].as_array().unwrap();
    assert_eq!(positions.len(), 9);
    let expected = json!({
        "cache_key": "ES_SPX/orderflow/orderflow/a-ke****", "index": 0, "data_length": 70, "data_timestamp": FIRST, "exhausted": false,
    });
    assert_eq!(positions[0], expected);
}

#[test]
fn readers_of_positions_are_limited() {
    let dataset = market();
    let server = Server::with(&dataset, &[("FLOWCAST_MAX_TICK_READERS", "1")]);
    let _first = open(&server, "GET", "/sync/stream");
    let answer = get(&server, "/sync/stream");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert!(answer.error().contains("--max-tick-readers"), "{answer:?}");
}

#[test]
fn every_path_of_the_openapi_document_is_served_with_its_methods_and_no_other() {
    let dataset = market();
    let server = Server::start(&dataset);
    let answer = server.get("/openapi.yaml");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/yaml")));
    let document: Value = serde_norway::from_str(&answer.body).unwrap();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 40, "{} paths", paths.len());
    for (path, item) in paths {
        let shared = item["$ref"].as_str().map(|target| document.pointer(&target[1..]).unwrap());
        let item = shared.unwrap_or(item).as_object().unwrap();
        let filled = [
            ("{ticker}", "SPX"),
            ("{category}", if path.contains("orderflow") { "orderflow" } else { "gex_full" }),
            ("{package}", "classic"),
            ("{date}", DATE),
            ("{hub}", "orderflow"),
            ("{job}", "1"),
            ("{job_id}", "1"),
            ("{name}", "lab"),
        ];
        let filled = filled.iter().fold(path.clone(), |path, (name, value)| path.replace(name, value));
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let (head, mut rest) = open(&server, method, &filled);
            if item.contains_key(&method.to_lowercase()) {
                assert_ne!(head.status, 405, "{method} {path}");
            } else {
                assert_eq!(head.status, 405, "{method} {path}");
            }
            if head.status == 404 {
                let mut body = String::new();
                rest.read_to_string(&mut body).unwrap();
                assert!(!body.contains("no such path"), "{method} {path}");
            }
        }
    }
}
