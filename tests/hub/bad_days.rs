//! Data that is too large, odd or broken, and that the groups that are well do not notice any of it.

use std::fs;

use crate::common;
use crate::common::client::{Client, Data, JSON, JSON_RELIABLE, PROTOBUF, WS};
use crate::common::dataset::{DATE, Dataset, FIRST, Profile, line, payload};
use crate::common::server::{Server, refusal, serve};

/// Asserts that these are consecutive records of the ticker, each as it stands in the file.
fn assert_consecutive(data: &[Data], ticker: &str, profile: Profile, records: u64) {
    for data in data {
        assert_eq!(data.payload(), payload(ticker, data.index(), profile), "record {} of {ticker}", data.index());
    }
    for pair in data.windows(2) {
        assert_eq!(pair[1].index(), (pair[0].index() + 1) % records, "nothing of {ticker} is left out");
    }
}

#[test]
fn a_market_larger_than_its_arena_plays_whole_and_stays_within_it() {
    const RECORDS: u64 = 30_000;
    let dataset = Dataset::new(&[("SPX", RECORDS), ("NDX", RECORDS), ("SPY", RECORDS)]);
    let settings = [("FLOWCAST_ARENA_BYTES", "16MiB"), ("WS_STREAM_INTERVAL", "1ms"), ("FLOWCAST_WINDOW_AHEAD", "1s")];
    let server = Server::with(&dataset, &settings);
    let mut clients: Vec<(Client, &str, Profile)> = Vec::new();
    for ticker in ["SPX", "NDX", "SPY"] {
        clients.push((Client::open(&server, JSON).joined(&[ticker]), ticker, Profile::V2026));
        clients.push((Client::open_at(&server, WS, PROTOBUF).joined(&[ticker]), ticker, Profile::V2025));
    }
    for _ in 0..20 {
        for (client, ticker, profile) in &mut clients {
            let data = client.take(150);
            assert_consecutive(&data, ticker, *profile, RECORDS);
        }
        let held = server.metric("flowcast_arena_bytes");
        assert!(held <= 17 << 20, "{held} bytes are held; a block may be on its way out");
    }
    assert_eq!(server.metric("flowcast_blocks_missing_total"), 0);
    assert_eq!(server.metric("flowcast_arena_limit_bytes"), 16 << 20);
}

#[test]
fn an_arena_without_room_for_a_block_is_refused_with_the_least() {
    let said = refusal(&mut serve(&Dataset::usual(), &[("FLOWCAST_ARENA_BYTES", "1MiB")]));
    assert!(said.contains("expected at least 16MiB"), "{said}");
}

#[test]
fn an_arena_too_small_for_the_window_is_told_with_what_would_do() {
    let tickers = ["SPX", "NDX", "SPY"];
    let dataset = Dataset::new(&tickers.map(|ticker| (ticker, 30_000)));
    let settings = [("FLOWCAST_ARENA_BYTES", "16MiB"), ("WS_STREAM_INTERVAL", "1ms"), ("FLOWCAST_WINDOW_AHEAD", "20s")];
    let server = Server::with(&dataset, &settings);
    let mut client = Client::open(&server, JSON).joined(&tickers);
    let log = common::eventually("it is told", || {
        client.take(300);
        Some(server.log()).filter(|log| log.contains("--arena-bytes is too small"))
    });
    let told = log.lines().find_map(|line| line.split_once(" least=")?.1.split(' ').next()?.parse::<u64>().ok());
    let least = told.expect("the bytes that would do");
    // Twenty seconds are 20,000 records of each.
    assert!((20 << 20..40 << 20).contains(&least), "{least}");
}

#[test]
fn a_file_of_one_endless_line_is_left_out_and_its_neighbours_play() {
    let dataset = Dataset::new(&[("SPX", 50)]);
    let path = dataset.write("LONG", "x".repeat(64 << 20)).display().to_string();
    let endless = format!("{}\n{}", line("MIXED", 0), "y".repeat(32 << 20));
    let mixed = dataset.write("MIXED", endless).display().to_string();
    let server = Server::with(&dataset, &[("WS_STREAM_INTERVAL", "5ms")]);
    let data = Client::open(&server, JSON).joined(&["SPX"]).take(60);
    assert_consecutive(&data, "SPX", Profile::V2026, 50);
    let mixed_data = Client::open(&server, JSON).joined(&["MIXED"]).take(3);
    assert!(mixed_data.iter().all(|data| data.index() == 0));
    let log = server.log();
    assert!(log.contains(&format!("{path}: expected records, got 1 bad line and no good one")), "{log}");
    assert!(log.contains(&format!("{mixed}:2: expected a line of at most 1048576 bytes")), "{log}");
}

#[test]
fn a_record_behind_many_spaces_is_a_record() {
    let dataset = Dataset::empty();
    dataset.write("SPX", format!("{}\n{}{}\n", line("SPX", 0), " ".repeat(5000), line("SPX", 1)));
    let server = Server::with(&dataset, &[("FLOWCAST_STRICT", "true"), ("WS_STREAM_INTERVAL", "5ms")]);
    assert_consecutive(&Client::open(&server, JSON).joined(&["SPX"]).take(4), "SPX", Profile::V2026, 2);
}

#[test]
fn millions_of_lines_that_are_no_records_take_no_memory() {
    let dataset = Dataset::new(&[("SPX", 50)]);
    dataset.write("JUNK", format!("{}\n{}", line("JUNK", 0), "x\n".repeat(12 << 20)));
    let server = Server::with(&dataset, &[("FLOWCAST_ARENA_BYTES", "16MiB"), ("WS_STREAM_INTERVAL", "5ms")]);
    let mut client = Client::open(&server, JSON).joined(&["SPX"]);
    assert_consecutive(&client.take(60), "SPX", Profile::V2026, 50);
    server.logged("loaded dates=");
    let (resident, held) = (server.resident(), server.metric("flowcast_arena_bytes"));
    assert!(held <= 22 << 20, "{held} bytes are held; a block may be on its way out");
    assert!(resident < 150 << 20, "{resident} bytes are resident");
}

#[test]
fn what_is_no_jsonl_is_named_with_the_command_that_turns_it_into_that() {
    let dataset = Dataset::new(&[("SPX", 5)]);
    let gzip = dataset.write("ZIPPED", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03").display().to_string();
    let array = dataset.write("ARRAY", format!("[{},\n{}]", line("ARRAY", 0), line("ARRAY", 1))).display().to_string();
    let server = Server::start(&dataset);
    for (path, what) in [(gzip, "a file compressed with gzip"), (array, "one JSON array")] {
        let words = format!("{path}: expected one JSON object a line, got {what}; convert it with: flowcast import");
        assert!(server.log().contains(&words), "{words} in\n{}", server.log());
    }
    assert_eq!(server.get("/tickers").json()["stocks"], serde_json::json!([]));
}

#[test]
fn a_byte_order_mark_is_skipped() {
    for after in ["", "\n", "\r\n"] {
        let dataset = Dataset::empty();
        dataset.write("SPX", format!("\u{feff}{after}{}\n{}\n", line("SPX", 0), line("SPX", 1)));
        let server = Server::with(&dataset, &[("FLOWCAST_STRICT", "true"), ("WS_STREAM_INTERVAL", "5ms")]);
        assert_consecutive(&Client::open(&server, JSON).joined(&["SPX"]).take(4), "SPX", Profile::V2026, 2);
    }
}

#[test]
fn times_of_other_centuries_are_played_in_file_order() {
    let dataset = Dataset::empty();
    let times = [FIRST, -62_135_596_800, 4_070_908_800, FIRST, i64::MAX, -i64::MAX, FIRST + 1];
    let record = |time: i64| format!("{{\"timestamp\":{time},\"ticker\":\"SPX\",\"spot\":1}}\n");
    dataset.write("SPX", times.map(record).concat());
    let server = Server::with(&dataset, &[("WS_STREAM_INTERVAL", "5ms")]);
    let data = Client::open(&server, JSON).joined(&["SPX"]).take(14);
    let seen: Vec<i64> = data.iter().map(|data| data.payload().timestamp).collect();
    let start = seen.iter().position(|&time| time == FIRST + 1).expect("a whole round") + 1;
    assert_eq!(seen[start..start + 7], times, "{seen:?}");
}

#[test]
fn five_hundred_tickers_are_served_and_each_is_its_own() {
    let names: Vec<String> = (0..500).map(|at| format!("T{at}")).collect();
    let tickers: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 3)).collect();
    let dataset = Dataset::new(&tickers);
    let server = Server::with(&dataset, &[("WS_STREAM_INTERVAL", "20ms")]);
    assert_eq!(server.get("/tickers").json()["stocks"].as_array().unwrap().len(), 500);
    let mut client = Client::open(&server, JSON_RELIABLE);
    for name in names.iter().step_by(50) {
        assert!(client.join(&common::dataset::group(name)).success);
    }
    for data in client.take(100) {
        let ticker = data.payload().ticker;
        assert_eq!(data.payload(), payload(&ticker, data.index(), Profile::V2026));
    }
}

#[test]
fn files_of_no_known_category_are_named_and_left_out() {
    let dataset = Dataset::new(&[("SPX", 5)]);
    let folder = dataset.path().join(DATE).join("SPX/classic");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("gamma_zero.jsonl"), line("SPX", 0)).unwrap();
    let server = Server::start(&dataset);
    let named = format!("{}: ignored; expected a category of classic, ", folder.join("gamma_zero.jsonl").display());
    assert!(server.log().contains(&named), "{}", server.log());
}

#[test]
fn folders_that_are_no_tickers_are_named_in_one_warning() {
    let dataset = Dataset::new(&[("SPX", 5)]);
    for folder in ["S P X", "$NDX"] {
        fs::create_dir_all(dataset.path().join(DATE).join(folder).join("orderflow")).unwrap();
    }
    let server = Server::start(&dataset);
    let log = server.log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("ignored folders: ")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("S P X") && warnings[0].contains("$NDX"), "{log}");
}
