//! What operators do on the live page: close a client, publish a message, post a report.

use serde_json::{Value, json};

use crate::common::client::{Client, JSON, JSON_RELIABLE, Said};
use crate::common::dataset::{Dataset, group};
use crate::common::http::{self, Response};
use crate::common::live::LiveEvents;
use crate::common::server::Server;
use crate::common::socket::Frame;

const JSON_TYPE: (&str, &str) = ("Content-Type", "application/json");

fn post(server: &Server, path: &str, body: &str) -> Response {
    http::request_with(server.address, "POST", path, &[JSON_TYPE], body)
}

fn close(server: &Server, client: &Client, body: &str) -> Response {
    post(server, &format!("/live/connections/{}/close", client.connected().connection_id), body)
}

#[test]
fn a_client_that_an_operator_closes_is_told_why_and_so_is_the_page() {
    let server = Server::start(&Dataset::usual());
    let mut events = LiveEvents::open(server.address);
    events.event();
    for (subprotocol, body, code, reason) in [
        (JSON, r#"{"code":4001,"reason":"go <b>away</b> é"}"#, 4001, "go <b>away</b> é"),
        (JSON_RELIABLE, "{}", 1008, "closed by an operator"),
    ] {
        let mut client = Client::open(&server, subprotocol);
        let answer = close(&server, &client, body);
        assert_eq!((answer.status, answer.json()["code"].as_u64()), (200, Some(code)), "{answer:?}");
        let said = client.rest();
        let closed = Said::Closed(Some((code as u16, reason.to_owned())));
        assert_eq!(said, [Said::Disconnected(reason.to_owned()), closed, Said::End]);
        let id = client.connected().connection_id.clone();
        let row = events.until("the page says so", |snapshot| {
            let rows = snapshot["closed"]["recent"].as_object()?;
            rows.values().find(|row| row["id"] == id.as_str()).cloned()
        });
        assert_eq!((&row["label"], &row["code"], &row["reason"]), (&json!("operator"), &json!(code), &json!(reason)));
        if subprotocol == JSON_RELIABLE {
            assert!(client.session.recover().is_err(), "its session has ended");
        }
    }
    server.closed_until("operator", 2);
}

#[test]
fn what_no_close_frame_may_say_is_refused_and_nobody_is_closed() {
    let server = Server::start(&Dataset::usual());
    let mut client = Client::open(&server, JSON);
    let long = format!(r#"{{"reason":"{}"}}"#, "é".repeat(62));
    for body in [
        r#"{"code":1005}"#,
        r#"{"code":1006}"#,
        r#"{"code":5000}"#,
        r#"{"code":"x"}"#,
        "nonsense",
        r#"{"kode":1000}"#,
        &long,
    ] {
        let refused = close(&server, &client, body);
        assert!(refused.status == 400 && refused.error().contains("expected"), "{body}: {refused:?}");
    }
    let unknown = post(&server, "/live/connections/00000000-0000-0000-0000-000000000000/close", "{}");
    assert_eq!((unknown.status, post(&server, "/live/connections/x/close", "{}").status), (404, 404));
    assert!(client.ping().is_empty(), "it is still there");
}

#[test]
fn steering_takes_the_token_and_no_page_of_another_origin() {
    let server = Server::with(&Dataset::usual(), &[("FLOWCAST_CONTROL_TOKEN", "a-token")]);
    let client = Client::open(&server, JSON);
    let path = format!("/live/connections/{}/close", client.connected().connection_id);
    let bearer = ("Authorization", "Bearer a-token");
    let status = |path: &str, headers: &[(&str, &str)]| {
        http::request_with(server.address, "POST", path, headers, r#"{"group":"g","data":1}"#).status
    };
    for path in [&*path, "/live/publish", "/live/verdict"] {
        assert_eq!(status(path, &[JSON_TYPE]), 401, "{path}");
        assert_eq!(status(path, &[JSON_TYPE, ("Authorization", "Bearer another")]), 401, "{path}");
        assert_eq!(status(path, &[JSON_TYPE, bearer, ("Origin", "https://evil.example")]), 403, "{path}");
        assert_eq!(status(path, &[JSON_TYPE, bearer, ("Host", "evil.example")]), 403, "{path}");
        assert_eq!(status(path, &[("Content-Type", "text/plain"), bearer]), 415, "{path}");
    }
    assert_eq!(server.get("/live/options").json()["control"], "token");
    assert_eq!(http::request_with(server.address, "POST", &path, &[JSON_TYPE, bearer], "{}").status, 200);
}

#[test]
fn a_message_for_a_group_reaches_its_subscribers_as_json() {
    let server = Server::with(&Dataset::usual(), &[("FLOWCAST_START_PAUSED", "true")]);
    let (mut plain, mut reliable) =
        (Client::open(&server, JSON).joined(&["SPX"]), Client::open(&server, JSON_RELIABLE).joined(&["SPX"]));
    let body = json!({ "group": group("SPX"), "data": { "test": [1, null, "é"] } }).to_string();
    let answer = post(&server, "/live/publish", &body).json();
    assert_eq!((&answer["accepted"], &answer["subscribers"]), (&json!(1), &json!(2)), "{answer}");
    for (client, sequence_id) in [(&mut plain, None), (&mut reliable, Some(&answer["sequence_id"]))] {
        let Frame::Text(text) = client.socket.frame() else { panic!("expected text") };
        let message: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&message["type"], &message["from"], &message["dataType"]),
            (&json!("message"), &json!("group"), &json!("json"))
        );
        assert_eq!((&message["group"], &message["data"]), (&json!(group("SPX")), &json!({ "test": [1, null, "é"] })));
        assert_eq!(message.get("sequenceId"), sequence_id);
    }
    // A load test can prove that it came.
    let ticks = server.get("/ticks").json();
    let published = ticks["ticks"].as_array().unwrap().iter().flat_map(|tick| tick["publications"].as_array().unwrap());
    let mine = published.into_iter().find(|one| one["sequence_id"] == answer["sequence_id"]).expect("in the ledger");
    assert_eq!((&mine["record_timestamp"], mine["payloads"].as_object().unwrap().len()), (&json!(0), 2), "{mine}");
    let nobody = post(&server, "/live/publish", &json!({ "group": group("ES_SPX"), "data": 1 }).to_string());
    assert_eq!((nobody.status, nobody.error().contains("nobody has joined")), (409, true));
    assert_eq!(post(&server, "/live/publish", r#"{"group":"blue_NOPE","data":1}"#).status, 404);
    for bad in [r#"{"data":1}"#, r#"{"group":"g","channel":"c","data":1}"#, r#"{"group":"g"}"#, "[]"] {
        assert_eq!(post(&server, "/live/publish", bad).status, 400, "{bad}");
    }
}

#[test]
fn a_message_for_a_channel_is_published_as_any_other() {
    let server = Server::start(&Dataset::usual());
    let mut client = crate::common::streams::StreamClient::open(&server).subscribed(&["signals"]);
    let signal = json!({"timestamp":"2025-11-28T14:30:00Z","signal_type":"HOLD","symbol":"SPX","quantity":7});
    let wrong = post(&server, "/live/publish", r#"{"channel":"nope","data":{}}"#);
    assert_eq!(wrong.status, 422, "{wrong:?}");
    let answer = post(&server, "/live/publish", &json!({ "channel": "signals", "data": signal }).to_string());
    assert_eq!((answer.status, &answer.json()), (200, &json!({ "accepted": 1 })));
    assert_eq!(client.next("signal")["quantity"], 7);
}

#[test]
fn a_report_that_was_posted_is_shown() {
    let server = Server::start(&Dataset::usual());
    let mut events = LiveEvents::open(server.address);
    events.event();
    let report = json!({ "verdict": "pass", "lost": 0, "worst": null });
    assert_eq!(post(&server, "/live/verdict", &report.to_string()).status, 200);
    let shown = events.until("it is shown", |snapshot| snapshot["verdict"].get(0).cloned());
    assert!(shown["report"] == report && shown["at"].is_u64(), "{shown}");
    assert_eq!(post(&server, "/live/verdict", "[1]").status, 400);
    assert_eq!(post(&server, "/live/verdict", &format!(r#"{{"a":"{}"}}"#, "x".repeat(70_000))).status, 413);
}
