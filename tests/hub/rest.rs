//! Records over REST: which record, in whose name, and what is refused. `docs/rest.md`; facts in
//! `docs/protocols/gexbot.md`, "REST data" and "The fakers".

use std::fs;

use serde_json::{Value, json};

use crate::common::client::{Client, JSON_RELIABLE};
use crate::common::dataset::{DATE, Dataset, FIRST, line};
use crate::common::http::{self, Response};
use crate::common::server::Server;

const KEY: [(&str, &str); 1] = [("Authorization", "Bearer some-key")];

/// With `--rest-cursor key`.
const BY_KEY: (&str, &str) = ("FLOWCAST_REST_CURSOR", "key");

/// Writes `{ticker}/{package}/{category}.jsonl` of the day.
pub fn write(dataset: &Dataset, series: &str, content: &str) {
    let path = dataset.path().join(DATE).join(series).with_extension("jsonl");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A GEX record with odd spacing and numbers that a float would not keep.
fn gex(n: i64) -> String {
    format!(
        "{{ \"timestamp\":{},\"ticker\":\"SPX\",\"spot\":6822.950,\"zero_gamma\":6801.4,\"major_pos_vol\":6830,\"major_pos_oi\":6850.00,\
         \"major_neg_vol\":6800,\"major_neg_oi\":6750,\"strikes\":[[6800,-12.41,33.08,[-11.9]]],\"sum_gex_vol\":1712585.519000000000001,\
         \"sum_gex_oi\":-0.1,\"max_priors\":[[6830,10.125],[6830,12.40],[6825,-8.55],[6800,-20.19],[6850,31.7],[6850,44.02]]}}",
        FIRST + n
    )
}

fn lines(count: i64) -> String {
    (0..count).map(|n| gex(n) + "\n").collect()
}

/// SPX as usual, and ten records of its classic GEX.
fn with_gex() -> Dataset {
    let dataset = Dataset::usual();
    write(&dataset, "SPX/classic/gex_full", &lines(10));
    dataset
}

fn get(server: &Server, path: &str) -> Response {
    http::request(server.address, "GET", path, &KEY)
}

fn get_as(server: &Server, key: &str, path: &str) -> Response {
    http::request(server.address, "GET", path, &[("Authorization", key)])
}

/// Which record of its file an answer is.
fn number(answer: &Response) -> i64 {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["timestamp"].as_i64().unwrap() - FIRST
}

fn refused(answer: &Response) -> (u16, String) {
    (answer.status, answer.error())
}

#[test]
fn every_route_answers_the_recorded_line_unchanged_in_both_vocabularies_with_and_without_v2() {
    let dataset = Dataset::new(&[("SPX", 1)]);
    let mut routes = vec![("orderflow/orderflow".to_owned(), line("SPX", 0))];
    let mut record = |package: &str, long: &str, names: &[&str]| {
        let text = format!(r#"{{"of":"{package}/{long}" , "timestamp":{FIRST},"ticker":"SPX"}}"#);
        write(&dataset, &format!("SPX/{package}/{long}"), &format!("\n{text}\r\n"));
        routes.extend(names.iter().chain([&long]).map(|name| (format!("{package}/{name}"), text.clone())));
    };
    for package in ["classic", "state"] {
        for short in ["full", "zero", "one"] {
            record(package, &format!("gex_{short}"), &[short]);
        }
        record(package, "gex_20251219", &[]);
    }
    for greek in ["delta", "gamma", "vanna", "charm"] {
        record("state", &format!("{greek}_zero"), &[greek]);
        record("state", &format!("{greek}_one"), &[&format!("one{greek}")]);
        record("state", &format!("{greek}_20251219"), &[]);
    }
    record("orderflow", "20251219", &[]);

    let server = Server::start(&dataset);
    for (route, text) in routes {
        for path in [format!("/SPX/{route}"), format!("/v2/SPX/{route}")] {
            let answer = get(&server, &path);
            assert_eq!((answer.status, &answer.body), (200, &text), "{path}");
            assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"), "{path}");
        }
    }
}

#[test]
fn a_market_that_is_moved_by_days_has_the_same_times_over_rest_as_on_the_wire() {
    const DAY: i64 = 24 * 3600;
    const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];
    let dataset = with_gex();
    let server = Server::with(&dataset, &[("FLOWCAST_SHIFT_DAYS", "2"), ("FLOWCAST_START_PAUSED", "true"), BY_KEY]);
    let answer = get(&server, "/SPX/classic/full");
    assert_eq!(
        answer.body,
        gex(0).replace(&FIRST.to_string(), &(FIRST + 2 * DAY).to_string()),
        "nothing but the time changes"
    );
    assert_eq!(get_as(&server, "b", "/SPX/classic/full/majors").json()["timestamp"], FIRST + 2 * DAY);
    let sought = format!("{{\"timestamp\":{}}}", FIRST + 2 * DAY + 3);
    let answer = http::request_with(server.address, "POST", "/seek-to-timestamp", &JSON, &sought).json();
    let found = json!({ "data_key": "SPX/classic/gex_full", "index": 3, "timestamp": FIRST + 2 * DAY + 3 });
    assert!(answer["details"].as_array().unwrap().contains(&found), "{answer}");
}

#[test]
fn majors_and_maxchange_keep_the_numbers_as_they_were_written() {
    let dataset = with_gex();
    write(&dataset, "SPX/state/gex_zero", &lines(10));
    let server = Server::with(&dataset, &[BY_KEY]);
    for route in ["SPX/classic/gex_full", "v2/SPX/classic/full", "SPX/state/gex_zero", "v2/SPX/state/zero"] {
        let answer = get_as(&server, route, &format!("/{route}/majors"));
        assert_eq!(
            answer.body,
            format!(
                "{{\"timestamp\":{FIRST},\"ticker\":\"SPX\",\"spot\":6822.950,\"mpos_vol\":6830,\"mpos_oi\":6850.00,\"mneg_vol\":6800,\
                 \"mneg_oi\":6750,\"zero_gamma\":6801.4,\"net_gex_vol\":1712585.519000000000001,\"net_gex_oi\":-0.1}}"
            )
        );
        assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
        let answer = get_as(&server, route, &format!("/{route}/maxchange"));
        assert_eq!(
            answer.body,
            format!(
                "{{\"timestamp\":{FIRST},\"ticker\":\"SPX\",\"current\":[6830,10.125],\"one\":[6830,12.40],\"five\":[6825,-8.55],\
                 \"ten\":[6800,-20.19],\"fifteen\":[6850,31.7],\"thirty\":[6850,44.02]}}"
            )
        );
    }
}

#[test]
fn by_default_everybody_is_answered_the_record_that_the_hub_published_last() {
    let dataset = with_gex();
    let server = Server::with(&dataset, &[("WS_STREAM_INTERVAL", "50ms"), ("CACHE_MODE", "exhaust")]);
    let mut client = Client::open(&server, JSON_RELIABLE).joined(&["SPX"]);
    for key in ["a", "a", "b"] {
        let before = client.data().payload().index();
        server.ticks(1);
        let answer = number(&get_as(&server, key, "/SPX/orderflow/orderflow"));
        assert!(before <= answer.unsigned_abs() && answer.unsigned_abs() <= server.ordinal(), "{before}, {answer}");
    }
    while server.ordinal() < 12 {
        server.ticks(1);
    }
    assert_eq!(number(&get(&server, "/SPX/classic/full")), 9, "a series that has ended stays at its last record");
}

#[test]
fn with_cursor_key_each_key_and_route_has_a_position_of_its_own() {
    let dataset = with_gex();
    let server = Server::with(&dataset, &[BY_KEY]);
    let ask = |key: &str, path: &str| number(&get_as(&server, key, path));
    assert_eq!([0; 3].map(|_| ask("a", "/SPX/classic/full")), [0, 1, 2]);
    assert_eq!(ask("b", "/SPX/classic/full"), 0, "another key");
    assert_eq!(ask("a", "/SPX/orderflow/orderflow"), 0, "another series");
    assert_eq!([0; 2].map(|_| ask("a", "/SPX/classic/full/majors")), [0, 1], "another excerpt");
    assert_eq!(ask("a", "/SPX/classic/full/maxchange"), 0);
    assert_eq!(ask("Bearer a", "/v2/SPX/classic/gex_full"), 3, "the same by another name");
    let head = http::request(server.address, "HEAD", "/SPX/classic/full", &[("Authorization", "a")]);
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(ask("a", "/SPX/classic/full"), 4, "HEAD uses up nothing");
    assert_eq!(server.metric("flowcast_rest_cursors"), 5);
}

#[test]
fn positions_can_be_reset_for_one_key_or_all() {
    let dataset = with_gex();
    let server = Server::with(&dataset, &[BY_KEY]);
    let ask = |key: &str, path: &str| number(&get_as(&server, key, path));
    let reset = |query: &str| {
        http::request(server.address, "POST", &format!("/reset-cache{query}"), &[("Content-Length", "0")]).json()
    };
    let moved = || {
        for key in ["long-key-a", "b"] {
            ask(key, "/SPX/classic/full");
            ask(key, "/SPX/classic/full/majors");
        }
    };
    moved();
    let told = json!({ "status": "success", "message": "Cache positions reset for key: long****", "count": 2 });
    assert_eq!(reset("?key=long-key-a"), told);
    assert_eq!([ask("long-key-a", "/SPX/classic/full"), ask("b", "/SPX/classic/full")], [0, 1]);
    moved();
    let told = json!({ "status": "success", "message": "All cache positions reset to index 0", "count": 4 });
    assert_eq!(reset(""), told);
    assert_eq!([ask("long-key-a", "/SPX/classic/full"), ask("b", "/SPX/classic/full")], [0, 0]);
    let answer = server.get("/reset-cache");
    assert_eq!(refused(&answer), (405, "expected POST".to_owned()));
}

#[test]
fn after_the_last_record_a_cursor_wraps_or_ends_by_the_cache_mode() {
    let dataset = Dataset::usual();
    write(&dataset, "SPX/classic/gex_full", &lines(2));
    let server = Server::with(&dataset, &[BY_KEY]);
    assert_eq!([0; 5].map(|_| number(&get(&server, "/SPX/classic/full"))), [0, 1, 0, 1, 0]);
    let server = Server::with(&dataset, &[BY_KEY, ("CACHE_MODE", "exhaust")]);
    assert_eq!([0; 2].map(|_| number(&get(&server, "/SPX/classic/full"))), [0, 1]);
    for _ in 0..2 {
        assert_eq!(refused(&get(&server, "/SPX/classic/full")), (404, "No more data available".to_owned()));
    }
}

#[test]
fn a_bad_line_is_skipped_and_many_bad_lines_end_the_search() {
    let dataset = Dataset::usual();
    write(&dataset, "SPX/classic/gex_full", &format!("nope\n\n{}\n[]\n{{\"timestamp\":\n{}\n", gex(1), gex(2)));
    write(&dataset, "SPX/classic/gex_one", &format!("{}\n{}", gex(0), "nope\n".repeat(5000)));
    let settings = [("WS_STREAM_INTERVAL", "1h"), ("CACHE_MODE", "exhaust")];
    let server = Server::with(&dataset, &[settings[0], settings[1], BY_KEY]);
    assert_eq!([0; 2].map(|_| number(&get(&server, "/SPX/classic/full"))), [1, 2]);
    assert_eq!(get(&server, "/SPX/classic/full").status, 404);
    assert_eq!(number(&get(&server, "/SPX/classic/one")), 0);
    let (status, reason) = refused(&get(&server, "/SPX/classic/one"));
    assert!(status == 404 && reason.starts_with("SPX/classic/gex_one: none of 4096 lines"), "{reason}");
    assert_eq!(refused(&get(&server, "/SPX/classic/one")), (404, "No more data available".to_owned()));

    let server = Server::with(&dataset, &settings);
    assert_eq!(number(&get(&server, "/SPX/classic/full")), 1, "the clock is at a bad line, and none before it is good");
}

#[test]
fn long_bad_lines_end_the_search_sooner_and_the_next_request_goes_on() {
    let dataset = Dataset::usual();
    let bad = format!("{{\"x\":\"{}\"}}\n", "x".repeat(100_000));
    write(&dataset, "SPX/classic/gex_full", &format!("{}\n{}{}\n", gex(0), bad.repeat(200), gex(1)));
    let server = Server::with(&dataset, &[("WS_STREAM_INTERVAL", "1h"), BY_KEY]);
    assert_eq!(number(&get(&server, "/SPX/classic/full")), 0);
    let mut skipped = 0;
    let found = loop {
        let answer = get(&server, "/SPX/classic/full");
        if answer.status == 200 {
            break number(&answer);
        }
        let (status, reason) = refused(&answer);
        if status == 503 {
            // The file is still being indexed.
            std::thread::sleep(std::time::Duration::from_millis(10));
            continue;
        }
        let lines: u64 = reason.split_whitespace().nth(3).and_then(|word| word.parse().ok()).unwrap_or_default();
        assert!(status == 404 && (1..100).contains(&lines), "{reason}");
        skipped += lines;
    };
    assert!(found == 1 && skipped <= 200, "{found} after {skipped} lines");
}

#[test]
fn the_oldest_position_is_forgotten_when_there_are_too_many() {
    let dataset = with_gex();
    let server = Server::with(&dataset, &[BY_KEY, ("FLOWCAST_REST_MAX_CURSORS", "2")]);
    let ask = |key: &str| number(&get_as(&server, key, "/SPX/classic/full"));
    assert_eq!(["a", "b", "a", "c", "b", "c"].map(ask), [0, 0, 1, 0, 0, 1]);
    assert_eq!(server.metric("flowcast_rest_cursors"), 2);
    assert_eq!(server.metric("flowcast_rest_cursors_forgotten_total"), 2);
}

#[test]
fn any_key_in_any_form_will_do_and_none_is_refused() {
    let dataset = with_gex();
    let server = Server::start(&dataset);
    for path in ["/SPX/classic/full", "/v2/SPX/classic/full/majors", "/options/SPX/expiries", "/sync/stream"]
        .into_iter()
        .chain([&*format!("/download/{DATE}/SPX/orderflow"), &*format!("/download/{DATE}/SPX/links")])
    {
        for headers in
            [&[][..], &[("Authorization", "")], &[("Authorization", "Bearer")], &[("Authorization", "Digest x")]]
        {
            let answer = http::request(server.address, "GET", path, headers);
            assert_eq!(refused(&answer), (400, "Authorization header not found.".to_owned()), "{path}");
        }
    }
    for header in ["Basic some-key", "Bearer some-key", "some-key"] {
        assert_eq!(get_as(&server, header, "/SPX/classic/full").status, 200, "{header}");
    }
    assert_eq!(server.get("/SPX/classic/full?key=some-key").status, 200);
    let answer = server.get(&format!("/SPX/classic/full?key={}", "k".repeat(3000)));
    assert_eq!(refused(&answer), (400, "expected a key of at most 1024 bytes, got 3000".to_owned()));
}

#[test]
fn a_key_is_never_logged() {
    let dataset = with_gex();
    let server = Server::with(&dataset, &[BY_KEY, ("FLOWCAST_LOG_LEVEL", "trace")]);
    for path in ["/SPX/classic/full", "/SPX/classic/none", "/NONE/classic/full", "/none"] {
        get_as(&server, "secret-key", path);
        server.get(&format!("{path}?key=secret-key"));
    }
    http::request(server.address, "POST", "/reset-cache?key=secret-key", &[("Content-Length", "0")]);
    assert!(!server.log().contains("secret-key"));
}

#[test]
fn what_is_unknown_is_named() {
    let dataset = with_gex();
    write(&dataset, "SPX/state/gamma_zero", &lines(1));
    let server = Server::start(&dataset);
    for (path, status, reason) in [
        ("/SPX/classic/zero", 404, "Data not found for SPX/classic/gex_zero"),
        ("/v2/NDX/orderflow/orderflow", 404, "Data not found for NDX/orderflow/orderflow"),
        ("/spx/classic/full", 404, "Data not found for spx/classic/gex_full"),
        ("/SPX/classic/full/minors", 404, "no such path"),
        ("/SPX/classic", 404, "no such path"),
        ("/whoami", 404, "no such path"),
        ("/futures/conversion?ticker=SPX&future=ES", 404, "no such path"),
        (
            "/SPX/state/gamma/majors",
            404,
            "gamma_zero has no majors: only GEX categories have it (gex_full, gex_zero, gex_one)",
        ),
        ("/SPX/orderflow/full", 400, "Invalid type parameter: full (expected orderflow or YYYYMMDD)"),
        (
            "/SPX/classic/gamma",
            400,
            "Invalid type parameter: gamma (expected full, zero, one, gex_full, gex_zero, gex_one or gex_YYYYMMDD)",
        ),
        ("/%ff/classic/full", 400, "expected a path in UTF-8"),
        ("/none/categories", 404, "unknown package none (expected classic, state or orderflow)"),
        ("/options/NDX/expiries", 404, "Data not found for NDX"),
    ] {
        assert_eq!(refused(&get(&server, path)), (status, reason.to_owned()), "{path}");
    }
    let put = http::request(server.address, "PUT", "/SPX/classic/full", &[("Content-Length", "0")]);
    assert_eq!(refused(&put), (405, "expected GET".to_owned()));
    let long = get(&server, &format!("/SPX/classic/{}", "x".repeat(5000)));
    assert!(long.body.len() < 300, "{long:?}");
}

#[test]
fn pages_of_every_origin_may_read() {
    let dataset = with_gex();
    let server = Server::start(&dataset);
    let preflight = [
        ("Origin", "https://page.example"),
        ("Access-Control-Request-Method", "GET"),
        ("Access-Control-Request-Headers", "authorization"),
    ];
    let answer = http::request(server.address, "OPTIONS", "/v2/SPX/classic/full", &preflight);
    assert!((200..300).contains(&answer.status), "{answer:?}");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    let origin = [("Origin", "https://page.example"), ("Authorization", "k")];
    for path in ["/SPX/classic/full", "/available-dates", "/SPX/classic/none"] {
        let answer = http::request(server.address, "GET", path, &origin);
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{path}");
    }
}

#[test]
fn any_path_is_answered_and_harms_nobody() {
    let dataset = with_gex();
    let mut server = Server::start(&dataset);
    let words = [
        "SPX",
        "v2",
        "classic",
        "state",
        "orderflow",
        "full",
        "gamma",
        "majors",
        "maxchange",
        "download",
        DATE,
        "links",
        "categories",
        "options",
        "expiries",
        "available-data",
        "..",
        ".",
        "%2e%2e",
        "%2f",
        "%00",
        "%ff",
        "%",
        "{ticker}",
        "*",
        "tickers",
        "streams",
        "-1",
        "99999999999999999999",
        "gex_20251219",
        "a\u{7f}b",
        "",
        "client",
        "hubs",
        "ws",
    ];
    let mut random = fastrand::Rng::with_seed(12);
    for _ in 0..400 {
        let parts: Vec<&str> = (0..random.usize(1..7)).map(|_| words[random.usize(..words.len())]).collect();
        let query = ["", "?", "?key=", "?ticker=../..", "?date=x&key=%ff"][random.usize(..5)];
        let path = format!("/{}{query}", parts.join("/").replace('\u{7f}', ""));
        let method = ["GET", "HEAD", "POST", "OPTIONS"][random.usize(..4)];
        let headers = [("Authorization", "k"), ("Content-Length", "0")];
        let answer = http::request(server.address, method, &path, &headers);
        assert!(answer.status < 500, "{method} {path}: {answer:?}");
    }
    assert!(server.is_running());
    assert_eq!(get(&server, "/SPX/classic/full").status, 200);
}

#[test]
fn without_a_recorded_day_the_answer_says_so() {
    let dataset = with_gex();
    let server = Server::with(&dataset, &[("WS_ENABLED", "false"), ("WEBSOCKET_ENABLED", "false")]);
    for path in ["/SPX/classic/full", "/available-dates", "/sync/stream"] {
        let reason = "this server replays no recorded day, so it has no records to answer with";
        assert_eq!(refused(&get(&server, path)), (404, reason.to_owned()), "{path}");
    }
    assert_eq!(server.get("/health").json()["data_date"], Value::Null);
}
