//! What the live page reads is true, and whoever may not read it does not.

use serde_json::{Value, json};

use crate::common::client::{Client, JSON, PROTOBUF, PROTOBUF_RELIABLE, Said, hub_path};
use crate::common::dataset::{Dataset, FIRST, group};
use crate::common::http;
use crate::common::live::LiveEvents;
use crate::common::server::Server;
use crate::common::socket::Socket;

const JSON_TYPE: (&str, &str) = ("Content-Type", "application/json");

/// The row of a connection.
fn row<'a>(snapshot: &'a Value, client: &Client) -> Option<&'a Value> {
    snapshot["connections"]["rows"].get(&client.connected().connection_id)
}

#[test]
fn a_snapshot_comes_first_and_then_what_has_changed() {
    let server = Server::start(&Dataset::usual());
    let mut client = Client::open(&server, PROTOBUF_RELIABLE).joined(&["SPX"]);
    client.take(3);
    let mut events = LiveEvents::open(server.address);
    let (name, first) = events.event();
    assert_eq!(
        (&*name, &first["head"]["name"], &first["head"]["stage"]),
        ("snapshot", &json!("flowcast"), &json!("serving"))
    );
    assert_eq!(first["head"]["dates"], json!(["2025-11-28"]));
    assert_eq!(first["flow"]["hubs"]["orderflow"]["connections"], 1);
    for _ in 0..2 {
        let (name, patch) = events.event();
        assert_eq!((&*name, patch["head"].get("name")), ("patch", None), "{patch}");
        assert!(patch["now"].is_u64() && patch.to_string().len() < 4096, "{patch}");
    }
    // A tick every 20 ms.
    let total = &events.snapshot["flow"]["total"];
    assert!(total["frames_per_s"].as_f64().unwrap() > 1.0 && total["frames"].as_u64().unwrap() > 3, "{total}");
    let schedule = &events.snapshot["flow"]["schedule"];
    assert!(schedule["ticks"].as_u64().unwrap() > 10 && schedule["max_us"].as_u64() >= schedule["p50_us"].as_u64());
    assert!(events.snapshot["flow"]["sweep"]["max_us"].is_u64(), "{}", events.snapshot["flow"]);
    assert!(events.snapshot["head"]["rss_bytes"].as_u64().unwrap() > 1 << 20);
}

#[test]
fn a_connection_has_its_wire_hub_agent_and_what_it_was_sent() {
    let server = Server::start(&Dataset::usual());
    let agent = "<script>alert(1)</script>\u{202e}";
    let headers = [("Sec-WebSocket-Protocol", JSON), ("User-Agent", agent)];
    let socket = Socket::open(server.address, &hub_path("orderflow"), &headers).unwrap();
    let port = socket.local_port();
    let mut client = Client::on(socket, server.address, JSON).joined(&["SPX", "ES_SPX"]);
    client.take(4);
    let mut events = LiveEvents::open(server.address);
    let told = events.until("it was sent four frames", |snapshot| {
        row(snapshot, &client).filter(|row| row["frames"].as_u64() >= Some(4)).cloned()
    });
    assert_eq!(told["address"], format!("127.0.0.1:{port}"));
    assert_eq!((&told["wire"], &told["hub"], &told["groups"]), (&json!(JSON), &json!("orderflow"), &json!(2)));
    assert_eq!((&told["agent"], &told["user"]), (&json!(agent), &json!("some…")), "a key is a credential");
    assert_eq!((&told["profile"], &told["state"]), (&json!("2026-04"), &json!("open")));
    assert!(told["bytes"].as_u64() > told["frames"].as_u64() && told["since"].as_u64() <= told["seen"].as_u64());
    let id = &client.connected().connection_id;
    let one = server.get(&format!("/live/connections/{id}")).json();
    let groups: Vec<&str> =
        one["memberships"].as_array().unwrap().iter().map(|of| of["group"].as_str().unwrap()).collect();
    assert!(groups.len() == 2 && groups.contains(&&*group("ES_SPX")), "{one}");
    assert_eq!(server.get("/live/connections/nonsense").status, 404);
}

#[test]
fn who_is_behind_is_listed_and_closed_and_what_it_lost_is_counted() {
    let settings = [("FLOWCAST_SEND_BUFFER_BYTES", "4096"), ("WS_CLIENT_BUFFER", "600"), ("WS_STREAM_INTERVAL", "5ms")];
    let server = Server::with(&Dataset::new(&[("SPX", 20_000)]), &settings);
    let mut events = LiveEvents::open(server.address);
    let mut stalled = Client::open_small(&server, PROTOBUF).joined(&["SPX"]);
    let mut healthy = Client::open(&server, PROTOBUF).joined(&["SPX"]);
    let behind = events.until("it is behind", |snapshot| {
        row(snapshot, &stalled).filter(|row| row["behind_frames"].as_u64() > Some(0)).cloned()
    });
    assert_eq!(behind["state"], "blocked");
    assert!(behind["behind_bytes"].as_u64() > behind["behind_frames"].as_u64(), "{behind}");
    let name = group("SPX");
    assert!(events.snapshot["groups"]["rows"][&name]["lag_max"].as_u64() > Some(0));
    assert!(events.snapshot["connections"]["blocked"].as_u64() > Some(0));
    server.logged("too slow");
    stalled.rest();
    let closed = events.until("it is closed", |snapshot| {
        let rows = snapshot["closed"]["recent"].as_object().unwrap();
        rows.values().find(|row| row["id"] == stalled.connected().connection_id.as_str()).cloned()
    });
    assert_eq!((&closed["label"], &closed["code"]), (&json!("lag"), &json!(1008)));
    assert_eq!((&closed["reason"], &closed["hub"]), (&json!("slow consumer"), &json!("orderflow")));
    assert!(closed["behind_frames"].as_u64() >= Some(600) && closed["frames"].as_u64() > Some(0), "{closed}");
    events.until("the drop is counted", |snapshot| {
        let row = &snapshot["groups"]["rows"][&name];
        (row["dropped"].as_u64() >= Some(600) && row["rank"] == 1 && snapshot["closed"]["counts"]["lag"] == 1)
            .then_some(())
    });
    assert!(events.snapshot["problems"].get("FlowcastSlowConsumers").is_some(), "{}", events.snapshot["problems"]);
    healthy.take(1);
}

#[test]
fn groups_without_data_and_groups_without_subscribers_are_marked() {
    let server = Server::start(&Dataset::usual());
    let _waiting = Client::open(&server, JSON).joined(&["NOPE"]);
    let mut listening = Client::open(&server, JSON).joined(&["SPX"]);
    listening.take(2);
    let mut events = LiveEvents::open(server.address);
    events.event();
    let rows = &events.snapshot["groups"]["rows"];
    let of = |ticker: &str| &rows[&group(ticker)];
    assert_eq!((&of("NOPE")["mark"], &of("NOPE")["rank"]), (&json!("no data"), &json!(0)));
    assert_eq!((&of("ES_SPX")["mark"], &of("ES_SPX")["rank"]), (&json!("nobody"), &json!(3)));
    assert_eq!((of("SPX").get("mark"), &of("SPX")["subscribers"]), (None, &json!(1)));
    assert!(of("SPX")["record_at"].as_i64().unwrap() >= FIRST * 1000, "{}", of("SPX"));
    assert!(of("SPX")["published_at"].as_u64() <= events.snapshot["now"].as_u64());
    let problem = &events.snapshot["problems"]["connected and subscribed, but nothing comes"];
    assert_eq!(problem["text"], "1 group has subscribers and no data");
    assert!(problem["advice"].as_str().unwrap().len() > 20 && problem["anchor"] == "troubleshooting");
}

#[test]
fn files_have_their_records_times_and_bad_lines() {
    let dataset = Dataset::new(&[("SPX", 30)]);
    let good = std::fs::read_to_string(dataset.file("SPX")).unwrap();
    dataset.write("SPX", format!("{good}nonsense\n"));
    let server = Server::start(&dataset);
    let mut events = LiveEvents::open(server.address);
    let file = events.until("the bad line is found", |snapshot| {
        let file = &snapshot["sources"]["files"]["rows"]["SPX/orderflow/orderflow"];
        (file["bad"] == 1).then(|| file.clone())
    });
    assert_eq!((&file["first"], &file["complete"]), (&json!(FIRST * 1000), &json!(true)));
    let line = file["bad_lines"][0].as_str().unwrap();
    assert!(line.starts_with("2025-11-28/SPX/orderflow/orderflow.jsonl:31: "), "{line}");
    let streams = &events.snapshot["sources"]["streams"];
    assert_eq!(streams["orderflow"]["error_count"], 1);
    assert!(events.snapshot["problems"].get("FlowcastInputRefused files").is_some());
}

#[test]
fn a_summary_has_neither_addresses_nor_users_and_off_has_no_page() {
    let server = Server::with(&Dataset::usual(), &[("FLOWCAST_LIVE_PAGE", "summary")]);
    let mut gone = Client::open(&server, JSON);
    gone.send_close(1000);
    gone.rest();
    let client = Client::open(&server, JSON);
    let mut events = LiveEvents::open(server.address);
    let told = events.until("both are listed", |snapshot| {
        let closed = snapshot["closed"]["recent"].as_object()?.values().next()?.clone();
        Some((row(snapshot, &client)?.clone(), closed))
    });
    for told in [told.0, told.1, server.get(&format!("/live/connections/{}", client.connected().connection_id)).json()]
    {
        assert!(told.get("address").is_none() && told.get("user").is_none() && told["hub"] == "orderflow", "{told}");
    }
    assert_eq!(events.snapshot["head"]["page"], "summary");
    let off = Server::with(&Dataset::usual(), &[("FLOWCAST_LIVE_PAGE", "off")]);
    let html = [("Accept", "text/html")];
    for path in ["/", "/live", "/live/events", "/live/options", "/live/history", "/live/runbook"] {
        assert_eq!(http::request(off.address, "GET", path, &html).status, 404, "{path}");
    }
}

#[test]
fn a_page_of_another_origin_can_read_nothing_and_neither_can_a_foreign_name() {
    let server = Server::with(&Dataset::usual(), &[("FLOWCAST_CONTROL_ORIGIN", "https://lab.example")]);
    let own = format!("http://{}", server.address);
    let foreign = [
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Host", "evil.example"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ];
    for refused in foreign {
        let status = |path| http::request(server.address, "GET", path, &[refused]).status;
        for path in ["/live/events", "/live/options", "/live/history", "/live/runbook", "/live/connections/x"] {
            assert_eq!(status(path), 403, "{path}: {refused:?}");
        }
        let decoded = http::request_with(server.address, "POST", "/live/decode", &[JSON_TYPE, refused], "{}");
        assert_eq!((decoded.status, decoded.header("access-control-allow-origin")), (403, None), "{refused:?}");
    }
    for allowed in [&own, "https://lab.example"] {
        let mut events =
            LiveEvents::open_with(server.address, &[("Origin", allowed)]).unwrap_or_else(|_| panic!("{allowed}"));
        assert_eq!(events.event().0, "snapshot");
    }
    let listed = http::request(server.address, "GET", "/live/options", &[("Origin", "https://lab.example")]);
    assert_eq!(listed.header("access-control-allow-origin"), Some("https://lab.example"));
}

#[test]
fn one_reader_more_than_allowed_is_refused_until_another_leaves() {
    let server = Server::with(&Dataset::usual(), &[("FLOWCAST_MAX_LIVE_READERS", "2")]);
    let mut readers: Vec<LiveEvents> = (0..2).map(|_| LiveEvents::open(server.address)).collect();
    for reader in &mut readers {
        reader.event();
    }
    let refused = LiveEvents::open_with(server.address, &[]).err().expect("no third one");
    assert_eq!(refused.status, 503);
    assert!(refused.error().contains("--max-live-readers"), "{refused:?}");
    readers.pop();
    crate::common::eventually("there is room", || LiveEvents::open_with(server.address, &[]).ok());
}

#[test]
fn the_last_minutes_are_there_though_nobody_watched_and_are_those_that_readers_saw() {
    let server = Server::start(&Dataset::usual());
    let mut client = Client::open(&server, PROTOBUF).joined(&["SPX"]);
    client.take(3);
    let told = crate::common::eventually("three seconds have gone by", || {
        let told = server.get("/live/history").json();
        (told["rows"].as_u64() >= Some(3)).then_some(told)
    });
    let last = |path: &str| told["figures"][path].as_array().unwrap().last().unwrap().clone();
    assert!(
        last("flow.total.frames_per_s").as_f64() > Some(0.0) && last("head.rss_bytes").as_f64() > Some(1e6),
        "{told}"
    );
    assert_eq!(last("head.connections"), 1.0);
    assert!(last("flow.schedule.p99_us").is_number() && last("flow.sweep.max_us").is_number(), "{told}");
    let rows = told["rows"].as_u64().unwrap() as usize;
    assert!(told["figures"].as_object().unwrap().values().all(|row| row.as_array().unwrap().len() == rows), "{told}");
    assert_eq!(told["hubs"].as_object().unwrap().keys().collect::<Vec<_>>(), ["orderflow"]);
    // Every figure is one of the snapshot.
    let mut events = LiveEvents::open(server.address);
    events.event();
    events.event();
    for path in told["figures"].as_object().unwrap().keys() {
        let pointer = format!("/{}", path.replace('.', "/"));
        assert!(events.snapshot.pointer(&pointer).is_some_and(Value::is_number), "{path}: {}", events.snapshot);
    }
}

#[test]
fn the_settings_are_told_without_secrets_and_in_a_summary_without_texts() {
    let secrets = [
        ("FLOWCAST_CONTROL_TOKEN", "s3cret-control-token"),
        ("WS_AUTH_SECRET", "s3cret-0123456789abcdef0123456789abcdef"),
        ("WS_AUTH_SECRET_PREVIOUS", "s3cret-fedcba9876543210fedcba9876543210"),
        ("FLOWCAST_CONTROL_HOST", "internal.example"),
        ("WS_STREAM_INTERVAL", "40ms"),
    ];
    for (page, host) in [("on", "internal.example"), ("summary", "***")] {
        let settings: Vec<_> = secrets.into_iter().chain([("FLOWCAST_LIVE_PAGE", page)]).collect();
        let server = Server::with(&Dataset::usual(), &settings);
        let answer = server.get("/live/options");
        assert!(!answer.body.contains("s3cret"), "{}", answer.body);
        let told = answer.json();
        let row = |name: &str| {
            let rows = told["settings"].as_array().unwrap();
            rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name}: {told}")).clone()
        };
        let expected = json!({ "name": "control-token", "value": "***", "source": "environment", "is_default": false });
        assert_eq!(row("control-token"), expected);
        assert_eq!((&row("control-host")["value"], &row("auth-secret")["value"]), (&json!(host), &json!("***")));
        assert_eq!(row("max-live-readers")["is_default"], true);
        assert_eq!(row("data-dir")["value"] == "***", page == "summary");
    }
}

#[test]
fn the_clock_and_the_clocks_of_sessions_are_in_the_snapshot_and_a_problem_has_its_row_in_the_runbook() {
    let server = Server::start(&Dataset::usual());
    let told = server.get("/v2/negotiate?key=any&session=lab&state=paused").json();
    let url = told["websocket_urls"]["orderflow"].as_str().unwrap();
    let path = url.strip_prefix(&format!("ws://{}", server.address)).unwrap();
    let _session = Client::open_at(&server, path, JSON).joined(&["NOPE"]);
    let mut events = LiveEvents::open(server.address);
    events.event();
    let replay = &events.snapshot["replay"];
    assert_eq!((&replay["state"], replay["epoch"].is_u64(), replay.get("pause_at")), (&json!("playing"), true, None));
    assert_eq!(events.snapshot["sessions"], json!({ "lab": { "state": "paused", "clients": 1 } }));
    let problems = events.until("the group without data is told", |snapshot| {
        Some(snapshot["problems"].clone()).filter(|problems| !problems.as_object().unwrap().is_empty())
    });
    let runbook = server.get("/live/runbook");
    assert_eq!((runbook.status, runbook.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    for problem in problems.as_object().unwrap().values() {
        assert!(runbook.body.contains(problem["row"].as_str().unwrap()), "{problem}");
    }
}

#[test]
fn a_reader_that_does_not_read_costs_its_own_connection_and_nobody_elses_events() {
    let server = Server::start(&Dataset::usual());
    let mut stalled: Vec<LiveEvents> = (0..8).map(|_| LiveEvents::open(server.address)).collect();
    let mut reader = LiveEvents::open(server.address);
    for _ in 0..3 {
        reader.event();
    }
    assert_eq!(reader.snapshot["head"]["readers"], 9);
    // One that has missed nothing follows; one that has gets the whole snapshot. Both are whole either way.
    let (name, _) = stalled[0].event();
    assert_eq!(name, "snapshot");
    stalled[0].event();
    assert_eq!(stalled[0].snapshot["head"]["started"], reader.snapshot["head"]["started"]);
}

#[test]
fn what_no_browser_sends_is_answered_and_nothing_breaks() {
    let server = Server::start(&Dataset::usual());
    for path in [
        "/live",
        "/live/events",
        "/live/options",
        "/live/history",
        "/live/runbook",
        "/live/decode",
        "/live/publish",
        "/live/verdict",
        "/live/connections/x",
        "/live/connections/x/close",
    ] {
        for method in ["PUT", "DELETE", "PATCH", "TRACE"] {
            assert_eq!(http::request(server.address, method, path, &[]).status, 405, "{method} {path}");
        }
    }
    for path in ["/live/", "/live/nope", "/live/events/", "/live/connections/", "/live/connections/a/b/c"] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    let long = format!("/live/connections/{}", "a".repeat(4000));
    let refused = server.get(&long);
    assert!(refused.status == 404 && refused.body.len() < 300, "{refused:?}");
    let bodies = [
        ("/live/decode", (1 << 20) + 1),
        ("/live/publish", (256 << 10) + 1),
        ("/live/verdict", (64 << 10) + 1),
        ("/live/connections/00000000-0000-0000-0000-000000000000/close", 4097),
    ];
    for (path, length) in bodies {
        let body = " ".repeat(length);
        assert_eq!(http::request_with(server.address, "POST", path, &[JSON_TYPE], &body).status, 413, "{path}");
        let deep = "[".repeat(length.min(60_000) - 1);
        assert_eq!(http::request_with(server.address, "POST", path, &[JSON_TYPE], &deep).status, 400, "{path}");
    }
    assert_eq!(LiveEvents::open(server.address).event().0, "snapshot");
}

#[test]
fn browsers_get_the_page_at_the_root_with_a_strict_policy_and_programs_a_404() {
    let server = Server::start(&Dataset::usual());
    let page = http::request(server.address, "GET", "/", &[("Accept", "text/html,application/xhtml+xml;q=0.9")]);
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("script-src 'sha256-") && policy.contains("style-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe") && policy.contains("connect-src 'self' ws: wss:"), "{policy}");
    assert_eq!(
        (page.header("x-frame-options"), page.header("x-content-type-options")),
        (Some("DENY"), Some("nosniff"))
    );
    assert_eq!(server.get("/live").body, page.body);
    let program = server.get("/");
    assert_eq!((program.status, program.error()), (404, "no such path".to_owned()));
}

#[test]
fn the_options_name_what_there_is_to_subscribe_to() {
    let server = Server::start(&Dataset::usual());
    let told = server.get("/live/options").json();
    assert_eq!(told["prefix"], "blue");
    let orderflow =
        json!({ "name": "orderflow", "v2": "v2_orderflow", "package": "orderflow", "categories": ["orderflow"] });
    assert_eq!(told["hubs"], json!([orderflow]));
    assert_eq!(told["tickers"], json!(["ES_SPX", "SPX"]));
    assert!(told["groups"].as_array().unwrap().contains(&json!(group("SPX"))), "{told}");
    assert_eq!(
        (&told["control"], &told["control_token_needed"], &told["replay"]),
        (&json!("open"), &json!(false), &json!(true))
    );
    let proxied = http::request(server.address, "GET", "/live/options", &[("X-Forwarded-For", "192.0.2.1")]).json();
    assert_eq!(proxied["control_token_needed"], true);
}

#[test]
fn what_a_json_client_received_is_decoded_as_its_source_line() {
    let server = Server::start(&Dataset::usual());
    let mut client = Client::open(&server, JSON).joined(&["SPX"]);
    let data = loop {
        if let Said::Data(data) = client.said() {
            break data;
        }
    };
    let payload = crate::common::live::any(&data.type_url, &data.payload);
    let body = json!({ "payload": payload, "group": data.group }).to_string();
    let answer = http::request_with(server.address, "POST", "/live/decode", &[JSON_TYPE], &body).json();
    assert_eq!((&answer["type"], &answer["record"]["ticker"]), (&json!("proto.orderflow"), &json!("SPX")));
    let source: Value = serde_json::from_str(&crate::common::dataset::line("SPX", data.index())).unwrap();
    for (key, value) in source.as_object().unwrap() {
        let same = match (value.as_f64(), answer["record"][key].as_f64()) {
            (Some(source), Some(told)) => (source - told).abs() < 1e-9,
            _ => *value == answer["record"][key],
        };
        assert!(same, "{key}: {value} in the source, {}", answer["record"][key]);
    }
    let refused = http::request_with(server.address, "POST", "/live/decode", &[JSON_TYPE], r#"{"payload":"%"}"#);
    assert_eq!(refused.status, 400);
    let large = format!(r#"{{"payload":"{}"}}"#, "A".repeat(2 << 20));
    assert_eq!(http::request_with(server.address, "POST", "/live/decode", &[JSON_TYPE], &large).status, 413);
}
