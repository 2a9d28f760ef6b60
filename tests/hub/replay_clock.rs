//! The market set back, stepped and sped up while its clients stay connected (`docs/replay.md`): over real sockets.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::common::client::{Client, Data, JSON_RELIABLE, PROTOBUF};
use crate::common::dataset::{DATE, Dataset, FIRST, group, line};
use crate::common::http::{self, Response};
use crate::common::server::Server;
use crate::common::{PATIENCE, eventually};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const OTHER_DATE: &str = "2025-11-24";

/// Everything may be asked as often as a test likes.
const MANY: (&str, &str) = ("FLOWCAST_CONTROL_RATE", "10000");

fn send(server: &Server, method: &str, path: &str, body: &Value) -> Response {
    http::request_with(server.address, method, path, &[JSON], &body.to_string())
}

fn change(server: &Server, body: &Value) -> Value {
    let answer = send(server, "PATCH", "/replay", body);
    assert_eq!(answer.status, 200, "{body}: {answer:?}");
    answer.json()
}

/// A paused server, and a client that has joined SPX.
fn paused(dataset: &Dataset) -> (Server, Client) {
    let server = Server::with(dataset, &[MANY, ("FLOWCAST_START_PAUSED", "true")]);
    let client = Client::open(&server, JSON_RELIABLE).joined(&["SPX"]);
    (server, client)
}

fn indexes(data: &[Data]) -> Vec<u64> {
    data.iter().map(Data::index).collect()
}

#[test]
fn a_paused_market_is_stepped_record_by_record_and_set_back_while_ids_rise() {
    let (server, mut client) = paused(&Dataset::usual());
    assert_eq!(server.get("/replay").json()["state"], "paused");
    assert_eq!(client.ping(), [], "nothing comes while it is paused, and pings go on");
    change(&server, &json!({ "step": 3 }));
    // They were published before the answer.
    let mut data = client.take(3);
    assert_eq!(indexes(&data), [0, 1, 2]);
    let sought = change(&server, &json!({ "seek": { "record": 50 } }));
    assert_eq!(sought["resolved"]["data_time"], sought["data_time"]);
    assert_eq!((&sought["resolved"]["clamped"], &sought["record"]), (&json!("none"), &json!(50)));
    change(&server, &json!({ "step": 2 }));
    data.extend(client.take(2));
    change(&server, &json!({ "seek": FIRST + 10, "step": 1 }));
    data.extend(client.take(1));
    change(&server, &json!({ "step": -1 }));
    data.extend(client.take(1));
    assert_eq!(indexes(&data), [0, 1, 2, 50, 51, 10, 9]);
    assert!(data.windows(2).all(|pair| pair[1].id() == pair[0].id() + 1), "ids rise over every jump");
    change(&server, &json!({ "state": "stopped" }));
    assert_eq!(server.get("/replay").json()["state"], "stopped");
    change(&server, &json!({ "state": "playing" }));
    assert_eq!(indexes(&client.take(2)), [0, 1]);
}

#[test]
fn what_is_refused_changes_nothing() {
    let server = Server::with(&Dataset::usual(), &[MANY]);
    let refused = |path: &str, headers: &[(&str, &str)], body: &str| {
        let answer = http::request_with(server.address, "PATCH", path, headers, body);
        (answer.status, answer.error())
    };
    let (status, error) = refused("/replay", &[JSON], r#"{"step":1}"#);
    assert!(status == 409 && error.contains("needs a paused clock"), "{error}");
    let paused = change(&server, &json!({ "state": "paused" }));
    let (status, error) = refused("/replay?strict=1", &[JSON], r#"{"seek":"2020-01-01T00:00:00Z"}"#);
    assert!(status == 422 && error.contains("2025-11-28T14:30:00Z"), "{error}");
    let stale = format!("\"{}\"", paused["epoch"].as_u64().unwrap() + 1);
    let (status, error) = refused("/replay", &[JSON, ("If-Match", &stale)], r#"{"seek":"50%"}"#);
    assert!(status == 412 && error.contains("somebody else"), "{error}");
    let after = server.get("/replay").json();
    for key in ["state", "data_time", "record", "epoch", "tick"] {
        assert_eq!(after[key], paused[key], "{key}");
    }
    let current = format!("{}", paused["epoch"]);
    let (status, headers) = (200, [JSON, ("If-Match", current.as_str())]);
    let answer = http::request_with(server.address, "PATCH", "/replay", &headers, r#"{"seek":"2020-01-01T00:00:00Z"}"#);
    assert_eq!((answer.status, &answer.json()["resolved"]["clamped"]), (status, &json!("start")));
}

#[test]
fn it_runs_up_to_a_moment_as_fast_as_it_can_and_pauses_there() {
    let (server, mut client) = paused(&Dataset::usual());
    change(&server, &json!({ "state": "playing", "speed": "max", "pause_at": FIRST + 59 }));
    let state =
        eventually("it pauses", || Some(server.get("/replay").json()).filter(|clock| clock["state"] == "paused"));
    assert_eq!((&state["speed"], &state["pause_at"]), (&json!("max"), &Value::Null));
    assert_eq!(state["data_time"], "2025-11-28T14:30:59Z");
    assert_eq!(indexes(&client.take(60)), (0..60).collect::<Vec<_>>(), "nothing is left out");
    assert_eq!(client.ping(), []);
    let clock = change(&server, &json!({ "speed": 100, "max_gap": "2s", "loop": false }));
    assert_eq!((&clock["speed"], &clock["max_gap_ms"], &clock["loop"]), (&json!(100), &json!(2000), &json!(false)));
    change(&server, &json!({ "state": "playing" }));
    assert_eq!(indexes(&client.take(40)), (60..100).collect::<Vec<_>>());
    eventually("it ends", || (server.get("/replay").json()["state"] == "ended").then_some(()));
    assert_eq!(server.get("/healthz").status, 200);
    change(&server, &json!({ "seek": "-5s" }));
    assert!(client.data().index() >= 94, "a seek back plays again");
}

/// The usual day, and another with other records of the same tickers.
fn two_days() -> Dataset {
    let dataset = Dataset::usual();
    let file = dataset.path().join(OTHER_DATE).join("SPX/orderflow/orderflow.jsonl");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    // Four days earlier: numbers below zero.
    let day = 4 * 86_400;
    let earlier = |n: u64| {
        line("SPX", n).replacen(&(FIRST + n.cast_signed()).to_string(), &(FIRST + n.cast_signed() - day).to_string(), 1)
    };
    fs::write(file, (0..30).map(|n| earlier(n) + "\n").collect::<String>()).unwrap();
    dataset
}

fn loaded(server: &Server, job: &str) {
    eventually("the dates are loaded", || {
        let job = server.get(&format!("/replay/load/{job}")).json();
        assert_ne!(job["state"], "failed", "{job}");
        (job["state"] == "loaded").then_some(())
    });
}

#[test]
fn other_dates_are_loaded_beside_the_running_ones_and_swapped() {
    let dataset = two_days();
    let server = Server::with(&dataset, &[MANY]);
    let mut client = Client::open(&server, JSON_RELIABLE).joined(&["SPX"]);
    let dates = server.get("/replay/dates").json();
    assert_eq!(dates["count"], 2);
    let day = |at: usize, key: &str| dates["dates"][at][key].clone();
    assert_eq!(
        (day(0, "date"), day(0, "loaded"), day(0, "tickers")),
        (json!(OTHER_DATE), json!(false), json!(["SPX"]))
    );
    assert_eq!(
        (day(1, "date"), day(1, "loaded"), day(1, "first")),
        (json!(DATE), json!(true), json!("2025-11-28T14:30:00Z"))
    );
    let refused = send(&server, "POST", "/replay/load", &json!({ "date": "2025-11-25" }));
    assert!(refused.status == 404 && refused.error().contains(OTHER_DATE), "{refused:?}");
    let before = client.data();
    let begun = send(&server, "POST", "/replay/load", &json!({ "from": OTHER_DATE, "to": DATE }));
    assert_eq!(begun.status, 202, "{begun:?}");
    loaded(&server, begun.json()["job"].as_str().unwrap());
    let clock = server.get("/replay").json();
    assert_eq!(clock["range"]["dates"], json!([OTHER_DATE, DATE]));
    assert_eq!(server.get("/current-date").json()["current_date"], OTHER_DATE);
    let data = eventually("records of the other day come", || {
        Some(client.data()).filter(|data| data.payload().timestamp < FIRST)
    });
    assert!(data.id() > before.id(), "on the same socket");
    let current = server.get("/current-load").json();
    assert_eq!((&current["state"], &current["dates"]), (&json!("loaded"), &json!([OTHER_DATE, DATE])));
    assert_eq!(server.get("/coverage").json()["intersection"], json!(["SPX"]));
    let reloaded = send(&server, "POST", "/reload-date", &json!({ "date": DATE })).json();
    assert_eq!((&reloaded["new_date"], &reloaded["previous_date"]), (&json!(DATE), &json!(OTHER_DATE)));
    assert_eq!(server.get("/current-date").json()["current_date"], DATE);
    let missing = send(&server, "POST", "/reload-date", &json!({ "date": "2025-11-25" }));
    assert_eq!((missing.status, missing.error()), (400, "date not found: 2025-11-25".to_owned()));
}

#[test]
fn a_join_of_what_the_played_date_has_not_is_acknowledged_at_once() {
    let dataset = two_days();
    let server = Server::with(&dataset, &[MANY, ("FLOWCAST_START_PAUSED", "true")]);
    let load = |dates: &Value| {
        let begun = send(&server, "POST", "/replay/load", dates);
        assert_eq!(begun.status, 202, "{begun:?}");
        loaded(&server, begun.json()["job"].as_str().unwrap());
    };
    // Another date has it; then none has.
    for dates in [json!({ "from": OTHER_DATE, "to": DATE }), json!({ "date": OTHER_DATE })] {
        load(&dates);
        assert_eq!(server.get("/current-date").json()["current_date"], OTHER_DATE);
        Client::open(&server, PROTOBUF).joined(&["SPX", "ES_SPX"]);
    }
    let mut waiting = Client::open(&server, PROTOBUF).joined(&["ES_SPX"]);
    load(&json!({ "date": DATE }));
    assert_eq!(send(&server, "PATCH", "/replay", &json!({ "step": 1 })).status, 200);
    assert_eq!(waiting.data().index(), 0, "and it comes when a date with it is played");
}

#[test]
fn a_seek_by_its_old_name_says_where_every_file_stands() {
    let (server, mut client) = paused(&Dataset::usual());
    let sought = send(&server, "POST", "/seek-to-timestamp", &json!({ "timestamp": FIRST + 60 })).json();
    assert_eq!(
        (&sought["resolved_ts"], &sought["day"], &sought["positions_set"]),
        (&json!(FIRST + 60), &json!(DATE), &json!(2))
    );
    let row = |key: &str| json!({ "data_key": key, "index": 60, "timestamp": FIRST + 60 });
    assert_eq!(sought["details"], json!([row("ES_SPX/orderflow/orderflow"), row("SPX/orderflow/orderflow")]));
    change(&server, &json!({ "step": 1 }));
    assert_eq!(client.data().index(), 60);
    let answer = http::request(server.address, "POST", "/reset-cache", &[("Content-Length", "0")]);
    assert_eq!(answer.status, 200, "{answer:?}");
    change(&server, &json!({ "step": 1 }));
    assert_eq!(client.data().index(), 0);
}

/// A reader of server-sent events: name and data of each.
struct Events(BufReader<TcpStream>);

impl Events {
    fn open(server: &Server, path: &str) -> Self {
        let mut socket = TcpStream::connect(server.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(http::head(server.address, "GET", path, &[], "").as_bytes()).unwrap();
        Self(BufReader::new(socket))
    }

    fn next(&mut self) -> (String, Value) {
        let mut name = None;
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream goes on");
            if let Some(event) = line.trim_end().strip_prefix("event: ") {
                name = Some(event.to_owned());
            } else if let Some(data) = line.trim_end().strip_prefix("data: ") {
                return (name.take().expect("a name"), serde_json::from_str(data).unwrap());
            }
        }
    }
}

#[test]
fn followers_hear_of_every_jump_and_change() {
    let (server, _client) = paused(&Dataset::usual());
    let mut events = Events::open(&server, "/replay/events?hz=0.1");
    let (name, state) = events.next();
    assert_eq!((name.as_str(), &state["state"]), ("state", &json!("paused")));
    change(&server, &json!({ "seek": { "record": 50 } }));
    let (name, epoch) = events.next();
    assert_eq!((name.as_str(), &epoch["cause"]), ("epoch", &json!("seek")));
    assert_eq!(epoch["to"], "2025-11-28T14:30:50Z");
    assert_eq!(epoch["epoch"].as_u64(), state["epoch"].as_u64().map(|epoch| epoch + 1));
    assert_eq!(events.next().1["data_time"], "2025-11-28T14:30:50Z");
    change(&server, &json!({ "loop": false }));
    assert_eq!(events.next().1["loop"], json!(false));
    let mut beats = Events::open(&server, "/replay/events?hz=100");
    assert!((0..5).all(|_| beats.next().0 == "state"), "a beat without a change");
}

/// The path of the hub's URL that negotiate gives.
fn negotiated_path(server: &Server, query: &str) -> String {
    let answer = server.get(&format!("/v2/negotiate?key=some-key&{query}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let url = answer.json()["websocket_urls"]["orderflow"].as_str().unwrap().to_owned();
    format!("/{}", url.split_once("://").unwrap().1.split_once('/').unwrap().1)
}

/// A client there.
fn negotiated(server: &Server, query: &str) -> Client {
    Client::open_at(server, &negotiated_path(server, query), JSON_RELIABLE).joined(&["SPX"])
}

#[test]
fn sessions_step_their_own_markets_under_the_same_names() {
    let server =
        Server::with(&Dataset::usual(), &[MANY, ("FLOWCAST_MAX_SESSIONS", "2"), ("FLOWCAST_START_PAUSED", "true")]);
    let mut common = Client::open(&server, JSON_RELIABLE).joined(&["SPX"]);
    let mut one = negotiated(&server, "session=one&from=50%25&state=paused");
    let mut two = negotiated(&server, "session=two&state=paused");
    let mut late = negotiated(&server, "session=one");
    let step = |name: &str| {
        let answer = send(&server, "PATCH", &format!("/replay/sessions/{name}"), &json!({ "step": 1 }));
        assert_eq!((answer.status, &answer.json()["session"]), (200, &json!(name)), "{answer:?}");
    };
    step("one");
    step("two");
    change(&server, &json!({ "step": 1 }));
    let (of_one, of_two, of_all) = (one.data(), two.data(), common.data());
    assert!(of_one.index() >= 40, "half of the day is over there, got {}", of_one.index());
    assert_eq!((of_two.index(), of_all.index()), (0, 0));
    assert!([&of_one, &of_two, &of_all].iter().all(|data| data.group == group("SPX")), "under the same name");
    assert_eq!(late.data(), of_one, "late joiners are welcome");
    let third = server.get("/v2/negotiate?key=k&session=three");
    assert!(third.status == 429 && third.error().contains("--max-sessions"), "{third:?}");
    let list = server.get("/replay/sessions").json();
    assert_eq!((&list["count"], &list["sessions"][0]["session"]), (&json!(2), &json!("one")));
    assert_eq!(http::request(server.address, "DELETE", "/replay/sessions/one", &[]).status, 204);
    assert!(!one.rest().is_empty() && !late.rest().is_empty(), "their connections end");
    assert_eq!(server.get("/replay/sessions/one").status, 404);
    change(&server, &json!({ "step": 1 }));
    assert_eq!((common.data().index(), two.ping()), (1, vec![]), "the others go on");
}

#[test]
fn a_session_lasts_as_long_as_clients_are_connected_whatever_they_joined() {
    let server = Server::with(&Dataset::usual(), &[MANY, ("FLOWCAST_SESSION_IDLE", "300ms")]);
    let path = negotiated_path(&server, "session=quiet");
    let client = Client::open_at(&server, &path, "json.webpubsub.azure.v1");
    let clients = || server.get("/replay/sessions/quiet").json()["clients"].as_u64();
    assert_eq!(clients(), Some(1));
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(clients(), Some(1));
    drop(client);
    eventually("the session to end", || (server.get("/replay/sessions/quiet").status == 404).then_some(()));
}

#[test]
fn every_api_key_has_its_own_market_if_that_is_asked_for() {
    let settings = [MANY, ("FLOWCAST_SESSIONS", "per-key"), ("FLOWCAST_START_PAUSED", "true")];
    let server = Server::with(&Dataset::usual(), &settings);
    let mut one = Client::open_at(&server, "/client/hubs/orderflow?access_token=one:1", JSON_RELIABLE).joined(&["SPX"]);
    let mut two = Client::open_at(&server, "/client/hubs/orderflow?access_token=two:1", JSON_RELIABLE).joined(&["SPX"]);
    let sessions = server.get("/replay/sessions").json();
    assert_eq!(sessions["count"], 2);
    let names = sessions["sessions"].as_array().unwrap().iter().map(|session| session["session"].as_str().unwrap());
    let names: Vec<String> = names.map(str::to_owned).collect();
    assert!(names.iter().all(|name| name.starts_with("key-")), "{names:?}");
    let tell = |change: Value| {
        for name in &names {
            assert_eq!(send(&server, "PATCH", &format!("/replay/sessions/{name}"), &change).status, 200);
        }
    };
    tell(json!({ "state": "paused" }));
    tell(json!({ "seek": { "record": 0 } }));
    send(&server, "POST", "/seek-to-timestamp", &json!({ "timestamp": FIRST + 60, "key": "two" }));
    tell(json!({ "step": 1 }));
    let stands = |name: &String| server.get(&format!("/replay/sessions/{name}")).json()["record"].as_u64().unwrap();
    let mut records: Vec<u64> = names.iter().map(stands).collect();
    records.sort_unstable();
    assert_eq!(records, [1, 61], "each has its own position");
    // What was played before the pause may come before.
    while one.data().index() != 0 {}
    while two.data().index() != 60 {}
}

/// When each record of SPX was due, in intervals since 1970, as far as the ledger has it.
fn beats(server: &Server, interval_ns: u64) -> BTreeMap<u64, i64> {
    let ticks = server.get("/ticks").json()["ticks"].as_array().unwrap().clone();
    let publications = |tick: &Value| tick["publications"].as_array().unwrap().clone();
    let beat = |tick: &Value| (tick["scheduled_unix_ns"].as_u64().unwrap() + interval_ns / 2) / interval_ns;
    let timestamp = |publication: &Value| publication["record_timestamp"].as_i64().unwrap();
    ticks.iter().flat_map(|tick| publications(tick).into_iter().map(|of| (beat(tick), timestamp(&of)))).collect()
}

#[test]
fn nodes_that_follow_the_time_of_day_play_the_same_record_at_the_same_moment() {
    let dataset = Dataset::usual();
    let settings = [("FLOWCAST_ANCHOR", "wall"), ("WS_STREAM_INTERVAL", "100ms")];
    let one = Server::with(&dataset, &settings);
    let mut client = Client::open(&one, JSON_RELIABLE).joined(&["SPX"]);
    client.take(7);
    let two = Server::with(&dataset, &settings);
    Client::open(&two, JSON_RELIABLE).joined(&["SPX"]).take(20);
    client.take(5);
    let [of_one, of_two] = [&one, &two].map(|server| beats(server, 100_000_000));
    let shared: Vec<_> = of_one.iter().filter_map(|(beat, one)| Some((one, of_two.get(beat)?))).collect();
    assert!(shared.len() >= 10, "{of_one:?} {of_two:?}");
    assert!(shared.iter().all(|(one, two)| one == two), "{shared:?}");
    let refused = send(&one, "PATCH", "/replay", &json!({ "seek": "50%" }));
    assert!(refused.error().contains("follows the time of day"), "{refused:?}");
}
