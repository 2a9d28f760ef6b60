//! What is read from the files, and what is said about what is wrong with them.

use crate::common;
use std::fs::{self, File};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::common::client::{Client, JSON, Said};
use crate::common::dataset::{DATE, Dataset, FIRST, Profile, line, payload};
use crate::common::eventually;
use crate::common::server::{Server, refusal, run, serve};

/// The records a server has for a ticker, in file order, from one whole round of the replay.
fn records(server: &Server, ticker: &str, count: usize) -> Vec<i64> {
    let mut client = Client::open(server, JSON).joined(&[ticker]);
    let mut timestamps: Vec<i64> = client.take(count).iter().map(|data| data.payload().timestamp).collect();
    let next: Vec<i64> = client.take(count).iter().map(|data| data.payload().timestamp).collect();
    assert_eq!(timestamps, next, "the ticker has {count} records");
    let first = timestamps.iter().position(|&timestamp| timestamp == FIRST).expect("the first record");
    timestamps.rotate_left(first);
    timestamps.into_iter().map(|timestamp| timestamp - FIRST).collect()
}

#[test]
fn bad_lines_are_skipped_counted_and_reported_by_path_and_line() {
    let dataset = Dataset::empty();
    let bad_number = line("SPX", 8).replace("\"spot\":", "\"spot\":-1,\"old\":");
    let too_long = format!("{{\"timestamp\":1,\"ticker\":\"SPX\",\"x\":\"{}\"}}", "x".repeat(1 << 20));
    let good = [0, 1, 2].map(|n| line("SPX", n));
    let lines: [&[u8]; 9] = [
        good[0].as_bytes(),
        b"{\"timestamp\":1,",
        good[1].as_bytes(),
        b"{\"timestamp\":1,\"ticker\":7}",
        b"{\"ticker\":\"SPX\"}",
        bad_number.as_bytes(),
        b"{\"timestamp\":1,\"ticker\":\"\xff\"}",
        too_long.as_bytes(),
        good[2].as_bytes(),
    ];
    let path = dataset.write("SPX", lines.join(&b'\n')).display().to_string();
    let server = Server::with(&dataset, &[("WS_STREAM_INTERVAL", "2ms")]);
    assert_eq!(records(&server, "SPX", 3), [0, 1, 2]);
    let log = server.log();
    for (line, words) in [
        (2, "expected one JSON object, got: EOF"),
        (4, "ticker: expected a non-empty string, got 7"),
        (5, "timestamp: expected a number of Unix seconds, got nothing"),
        (6, "spot: expected a number from 0 to 42949672.95, got -1"),
        (7, "expected UTF-8, got byte 0xff"),
    ] {
        assert!(log.contains(&format!("{path}:{line}: {words}")), "line {line} in\n{log}");
    }
    assert!(log.contains(&format!("{path}: 6 bad lines in all, 1 of them not listed")), "the rest is summed:\n{log}");
    let errors = &server.get("/websocket/status").json()["stream_health"]["orderflow"]["error_count"];
    assert_eq!(errors, 6);
}

#[test]
fn a_line_over_a_mebibyte_is_bad_and_one_of_a_mebibyte_is_good() {
    let padded = |n: u64, length: usize| {
        let line = line("SPX", n);
        let padding = length - line.len() - r#","pad":"""#.len();
        line.replace('}', &format!(r#","pad":"{}"}}"#, "x".repeat(padding)))
    };
    let (longest, too_long) = (padded(1, 1 << 20), padded(2, (1 << 20) + 1));
    assert_eq!((longest.len(), too_long.len()), (1 << 20, (1 << 20) + 1));
    let dataset = Dataset::empty();
    let path = dataset.write("SPX", [line("SPX", 0), longest, too_long, line("SPX", 3)].join("\n"));
    let server = Server::with(&dataset, &[("WS_STREAM_INTERVAL", "2ms")]);
    assert_eq!(records(&server, "SPX", 3), [0, 1, 3]);
    assert!(server.log().contains(&format!("{}:3: expected a line of at most 1048576 bytes", path.display())));
}

#[test]
fn strict_refuses_to_start_and_names_the_line() {
    let dataset = Dataset::empty();
    let path = dataset.write("SPX", format!("{}\nnonsense\n", line("SPX", 0))).display().to_string();
    let said = refusal(&mut serve(&dataset, &[("FLOWCAST_STRICT", "true")]));
    assert!(said.contains(&format!("{path}:2: expected one JSON object")), "{said}");
    assert!(said.contains("--strict"), "{said}");
    let said = refusal(serve(&dataset, &[]).arg("--strict"));
    assert!(said.contains("--strict"), "{said}");

    let clean = Dataset::usual();
    Server::with(&clean, &[("FLOWCAST_STRICT", "true")]);
}

#[test]
fn crlf_blank_lines_unknown_fields_and_a_missing_last_newline_are_fine() {
    let dataset = Dataset::empty();
    let unknown = line("SPX", 2).replace('}', r#","new":{"a":[1,null,"}"]}}"#);
    let content =
        format!("\r\n{}\r\n\r\n  \t\n{}\n\n{unknown}\r\n   {}", line("SPX", 0), line("SPX", 1), line("SPX", 3));
    dataset.write("SPX", content);
    let settings = [("FLOWCAST_STRICT", "true"), ("WS_STREAM_INTERVAL", "2ms")];
    let server = Server::with(&dataset, &settings);
    assert_eq!(records(&server, "SPX", 4), [0, 1, 2, 3]);
}

#[test]
fn timestamps_that_run_backwards_are_kept_in_file_order_and_warned_of() {
    let dataset = Dataset::empty();
    let order = [0, 5, 3, 4, 9, 1];
    let path = dataset.write("SPX", order.map(|n| line("SPX", n) + "\n").concat()).display().to_string();
    let server = Server::with(&dataset, &[("FLOWCAST_STRICT", "true"), ("WS_STREAM_INTERVAL", "2ms")]);
    assert_eq!(records(&server, "SPX", 6), order.map(u64::cast_signed));
    assert!(server.log().contains(&format!("{path}: 2 records are older than the one before")), "{}", server.log());
}

#[test]
fn missing_and_null_numbers_are_zero_and_counted() {
    let dataset = Dataset::empty();
    let first = format!(r#"{{"timestamp":{FIRST},"ticker":"SPX","spot":605.41,"zcvr":null}}"#);
    let path = dataset.write("SPX", first + "\n").display().to_string();
    let server = Server::with(&dataset, &[("WS_STREAM_INTERVAL", "2ms")]);
    let payload = Client::open(&server, JSON).joined(&["SPX"]).data().payload();
    assert_eq!(payload.numbers[0], 60_541, "exact, never 60540");
    assert!(payload.numbers[1..].iter().all(|&number| number == 0));
    assert!(
        server.log().contains(&format!("{path}: 34 numbers are missing or null and count as 0")),
        "{}",
        server.log()
    );
}

/// The log, once everything is in memory.
fn loaded(server: &Server) -> String {
    eventually("everything is in memory", || Some(server.log()).filter(|log| log.contains(" loaded ")))
}

#[test]
fn one_line_sums_up_the_load() {
    let server = Server::start(&Dataset::usual());
    let log = loaded(&server);
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(" loaded ")).collect();
    let [line] = lines[..] else { panic!("expected one line in\n{log}") };
    for figure in ["tickers=2", "files=2", "records=170", "bytes=", "seconds=", "records_per_second="] {
        assert!(line.contains(figure), "{figure} in {line}");
    }
}

#[test]
fn latest_is_the_newest_day_with_data_and_a_date_can_be_named() {
    let dataset = Dataset::new(&[("SPX", 5)]);
    let older = dataset.path().join("2025-11-27/OLD/orderflow");
    fs::create_dir_all(&older).unwrap();
    fs::write(older.join("orderflow.jsonl"), line("OLD", 0)).unwrap();
    fs::create_dir_all(dataset.path().join("2026-01-05/EMPTY")).unwrap();
    let stocks = |settings: &[(&str, &str)]| {
        let tickers = Server::with(&dataset, settings).get("/tickers").json();
        (tickers["indexes"].clone(), tickers["stocks"].clone())
    };
    let (spx, old, none) = (serde_json::json!(["SPX"]), serde_json::json!(["OLD"]), serde_json::json!([]));
    assert_eq!(stocks(&[]), (spx.clone(), none.clone()));
    assert_eq!(stocks(&[("DATA_DATE", DATE)]), (spx, none.clone()));
    assert_eq!(stocks(&[("DATA_DATE", "2025-11-27")]), (none, old));

    let said = refusal(&mut serve(&dataset, &[("DATA_DATE", "2024-01-02")]));
    assert!(said.contains("expected data for 2024-01-02"), "{said}");
    assert!(said.contains("2025-11-27, 2025-11-28"), "the dates there are: {said}");
    let said = refusal(&mut serve(&dataset, &[("DATA_DATE", "2026-01-05")]));
    assert!(said.contains("2026-01-05: expected files {TICKER}/{package}/{category}.jsonl"), "{said}");
}

#[test]
fn each_kind_of_nothing_has_its_own_error() {
    let dataset = Dataset::empty();
    let path = dataset.path().display().to_string();
    let said = refusal(&mut serve(&dataset, &[]));
    assert!(said.contains(&format!("{path}: expected folders named YYYY-MM-DD")), "{said}");
    let output = run(serve(&dataset, &[]).env("DATA_DIR", dataset.path().join("missing")));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("missing: expected a folder of recorded days (DATA_DIR)"), "{said}");
    assert!(output.stdout.is_empty() && !said.contains("listening"), "nothing says that it serves: {said}");

    let packed = dataset.path().join(DATE).join("SPX/classic/gex_full.json.gz");
    fs::create_dir_all(packed.parent().unwrap()).unwrap();
    fs::write(&packed, b"\x1f\x8b\x08").unwrap();
    let command = format!("flowcast import --data-dir {path} {path}/{DATE}");
    let said = refusal(&mut serve(&dataset, &[]));
    assert!(said.contains("gex_full.json.gz") && said.contains(&command), "{said}");
    fs::remove_file(packed).unwrap();

    let empty = dataset.write("SPX", "").display().to_string();
    let said = refusal(&mut serve(&dataset, &[]));
    assert!(said.contains(&format!("{empty}: expected records, got an empty file")), "{said}");
    dataset.write("SPX", "nonsense\n");
    let said = refusal(&mut serve(&dataset, &[]));
    assert!(said.contains(&format!("{empty}: expected records, got 1 bad line and no good one")), "{said}");
}

#[test]
fn a_file_that_cannot_be_read_leaves_out_its_ticker_only() {
    let dataset = Dataset::new(&[("SPX", 5)]);
    // Root may read anything, so: a folder where a file should be, and a link to nowhere.
    let folder = dataset.file("FOLDER");
    fs::create_dir_all(&folder).unwrap();
    let link = dataset.file("LINK");
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    let server = Server::start(&dataset);
    assert_eq!(server.get("/tickers").json()["indexes"], serde_json::json!(["SPX"]));
    assert_eq!(server.get("/tickers").json()["stocks"], serde_json::json!([]));
    for path in [folder, link] {
        assert!(server.log().contains(&format!("{}: expected a readable file", path.display())), "{}", server.log());
    }
    let said = refusal(&mut serve(&dataset, &[("FLOWCAST_STRICT", "true")]));
    assert!(said.contains("--strict"), "{said}");
}

#[test]
fn a_file_that_changes_while_it_is_read_is_reported_and_crashes_nothing() {
    let dataset = Dataset::new(&[("ES_SPX", 50)]);
    let content: String = (0..40_000).map(|n| line("SPX", n) + "\n").collect();
    let path = dataset.write("SPX", &content);
    let done = AtomicBool::new(false);
    let reported = thread::scope(|scope| {
        scope.spawn(|| {
            // Always shorter than what was mapped a moment ago, and then whole again.
            while !done.load(Ordering::Relaxed) {
                File::options().write(true).open(&path).unwrap().set_len(100_000).unwrap();
                fs::write(&path, &content).unwrap();
            }
        });
        let reported = (0..8).any(|_| {
            let mut server = Server::start(&dataset);
            assert!(server.is_running());
            let mut client = Client::open(&server, JSON).joined(&["ES_SPX"]);
            let index = client.data().index();
            assert_eq!(client.data().payload(), payload("ES_SPX", (index + 1) % 50, Profile::V2026));
            server.log().contains(&format!("{}: the file was truncated or rewritten", path.display()))
        });
        done.store(true, Ordering::Relaxed);
        reported
    });
    assert!(reported, "the change was told");
}

#[test]
fn a_file_that_is_truncated_once_it_is_in_memory_changes_nothing_for_its_subscribers() {
    let dataset = Dataset::new(&[("SPX", 2000), ("ES_SPX", 50)]);
    let mut server = Server::with(&dataset, &[("WS_STREAM_INTERVAL", "2ms")]);
    let mut client = Client::open(&server, JSON).joined(&["SPX"]);
    client.take(5);
    loaded(&server);
    let path = dataset.file("SPX");
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    let index = client.data().index();
    for (data, expected) in client.take(100).iter().zip(index + 1..) {
        assert_eq!(data.payload(), payload("SPX", expected % 2000, Profile::V2026));
    }
    // A form that was not built yet cannot be any more; the group's other subscribers and other groups go on.
    let mut other = Client::open_at(&server, common::client::WS, JSON).joined(&["SPX", "ES_SPX"]);
    let data = other.data();
    assert_eq!(data.payload(), payload("ES_SPX", data.index(), Profile::V2025));
    assert!(matches!(client.said(), Said::Data(_)));
    let changed = format!("{}: the file was truncated or rewritten", path.display());
    eventually("the loss is told", || server.log().contains(&changed).then_some(()));
    assert_eq!(server.metric("flowcast_blocks_missing_total"), 0, "what is lost is not late");
    assert!(server.is_running());
}

#[test]
fn a_folder_that_is_deleted_while_it_plays_plays_on_in_every_form() {
    let dataset = Dataset::new(&[("SPX", 2000)]);
    let server = Server::with(&dataset, &[("WS_STREAM_INTERVAL", "2ms")]);
    fs::remove_dir_all(dataset.path().join(DATE)).unwrap();
    for (endpoint, profile) in [(common::client::CLIENT, Profile::V2026), (common::client::WS, Profile::V2025)] {
        let data = Client::open_at(&server, endpoint, JSON).joined(&["SPX"]).data();
        assert_eq!(data.payload(), payload("SPX", data.index(), profile));
    }
}

#[test]
fn a_file_that_grows_while_it_plays_is_replayed_as_it_was_and_that_is_told() {
    let dataset = Dataset::new(&[("SPX", 100)]);
    let server = Server::with(&dataset, &[("WS_STREAM_INTERVAL", "2ms")]);
    let path = dataset.file("SPX");
    let mut file = File::options().append(true).open(&path).unwrap();
    file.write_all((100..200).map(|n| line("SPX", n) + "\n").collect::<String>().as_bytes()).unwrap();
    // A form that was not built yet makes the file be read again.
    let mut client = Client::open_at(&server, common::client::WS, JSON).joined(&["SPX"]);
    assert!(client.take(250).iter().all(|data| data.index() < 100));
    assert!(server.log().contains(&format!("{}: the file grows", path.display())), "{}", server.log());
}
