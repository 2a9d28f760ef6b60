//! Who may steer the replay, and what bad requests are answered (`docs/replay.md`).

use std::io::Write;
use std::net::TcpStream;

use crate::common::dataset::Dataset;
use crate::common::http::{self, Response};
use crate::common::server::Server;

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn patch_with(server: &Server, headers: &[(&str, &str)], body: &str) -> Response {
    http::request_with(server.address, "PATCH", "/replay", headers, body)
}

fn patch(server: &Server, body: &str) -> Response {
    patch_with(server, &[JSON], body)
}

fn refused(answer: &Response) -> (u16, String) {
    (answer.status, answer.error())
}

/// A server that replays nothing: Kafka feeds its hub, and is not there.
fn live(settings: &[(&str, &str)]) -> Server {
    let kafka =
        [("WS_KAFKA_BROKERS", "127.0.0.1:1"), ("WS_KAFKA_TOPICS", "orderflow"), ("FLOWCAST_ALLOW_ANONYMOUS", "true")];
    Server::with(&Dataset::empty(), &[&kafka, settings].concat())
}

#[test]
fn a_live_server_has_nothing_to_steer() {
    let server = live(&[]);
    let words = (409, "nothing is replayed here: the source is live".to_owned());
    assert_eq!(refused(&patch(&server, r#"{"state":"paused"}"#)), words);
    assert_eq!(refused(&server.get("/replay")), words);
    assert_eq!(
        refused(&http::request_with(server.address, "POST", "/load", &[JSON], r#"{"date":"2025-11-24"}"#)),
        words
    );
    assert_eq!(refused(&server.get("/v2/negotiate?key=k&session=lab")), words);
    assert_eq!(server.get("/v2/negotiate?key=k").status, 200);
}

#[test]
fn a_token_is_needed_once_there_is_one_and_is_never_shown() {
    const TOKEN: &str = "a-control-token-that-nobody-guesses";
    let server = Server::with(&Dataset::usual(), &[("FLOWCAST_CONTROL_TOKEN", TOKEN), ("FLOWCAST_LOG_LEVEL", "debug")]);
    let with = |token: &str| patch_with(&server, &[JSON, ("Authorization", token)], r#"{"speed":0}"#);
    let missing = patch(&server, "{}");
    assert_eq!((missing.status, missing.header("www-authenticate")), (401, Some("Bearer")));
    assert!(missing.error().contains("FLOWCAST_CONTROL_TOKEN"), "{missing:?}");
    assert_eq!(with("Bearer another").status, 401);
    assert_eq!(with(&format!("Basic {TOKEN}")).status, 401);
    // It may steer, so what it asks for is looked at.
    let allowed = with(&format!("Bearer {TOKEN}"));
    assert!([400, 409].contains(&allowed.status), "{allowed:?}");
    assert_eq!(server.metric("flowcast_control_refused_total"), 3);
    assert_eq!(server.metric("flowcast_control_requests_total"), 1);
    assert!(!server.log().contains(TOKEN) && !server.get("/metrics").body.contains(TOKEN));
}

#[test]
fn a_web_page_of_another_origin_cannot_steer_a_local_server() {
    let server = Server::with(&Dataset::usual(), &[("FLOWCAST_CONTROL_ORIGIN", "https://lab.example")]);
    let own = format!("http://{}", server.address);
    let status = |headers: &[(&str, &str)]| patch_with(&server, headers, "{}").status;
    let before = server.metric("flowcast_control_requests_total");
    assert_eq!(status(&[JSON, ("Origin", "https://evil.example")]), 403);
    assert_eq!(status(&[JSON, ("Origin", "null")]), 403);
    assert_eq!(status(&[JSON, ("Host", "evil.example")]), 403, "a name that its owner points here");
    assert_eq!(status(&[("Content-Type", "text/plain")]), 415, "what a form can send");
    assert_eq!(
        status(&[JSON, ("X-Forwarded-For", "192.0.2.1")]),
        403,
        "a proxy on this machine stands for somebody else"
    );
    assert_eq!(server.metric("flowcast_control_requests_total"), before, "none of them passed");
    for allowed in [&own, "https://lab.example"] {
        assert!(![401, 403].contains(&status(&[JSON, ("Origin", allowed)])), "{allowed}");
    }
    let preflight = |origin: &str, method: &str| {
        let headers = [
            ("Origin", origin),
            ("Access-Control-Request-Method", method),
            ("Access-Control-Request-Headers", "content-type"),
        ];
        let answer = http::request(server.address, "OPTIONS", "/replay", &headers);
        answer.header("access-control-allow-origin").map(str::to_owned)
    };
    assert_eq!(preflight("https://evil.example", "PATCH"), None);
    assert_eq!(preflight("https://evil.example", "GET").as_deref(), Some("https://evil.example"), "reads are open");
    assert_eq!(preflight("https://lab.example", "PATCH").as_deref(), Some("https://lab.example"));
}

#[test]
fn control_off_refuses_whoever_asks() {
    let server = Server::with(&Dataset::usual(), &[("FLOWCAST_CONTROL", "off"), ("FLOWCAST_CONTROL_TOKEN", "token")]);
    let answer = patch_with(&server, &[JSON, ("Authorization", "Bearer token")], "{}");
    assert_eq!((answer.status, answer.error().contains("--control off")), (403, true));
}

#[test]
fn more_writes_than_a_second_may_have_are_refused() {
    let server = live(&[]);
    let statuses: Vec<u16> = (0..200).map(|_| patch(&server, "{}").status).collect();
    let limited = statuses.iter().filter(|&&status| status == 429).count();
    assert!(limited > 0 && statuses.iter().all(|status| [409, 429].contains(status)), "{statuses:?}");
    assert_eq!(server.get("/healthz").status, 200);
}

/// The body of a client that promises more than it sends.
#[test]
fn a_body_that_never_comes_holds_up_nobody() {
    let server = live(&[("FLOWCAST_HTTP_TIMEOUT_SECONDS", "1")]);
    let mut stalled = TcpStream::connect(server.address).unwrap();
    let head = http::head(server.address, "PATCH", "/replay", &[JSON], "Content-Length: 100\r\n");
    stalled.write_all(head.as_bytes()).unwrap();
    assert_eq!(patch(&server, "{}").status, 409);
}

#[test]
fn the_settings_of_control_are_checked() {
    use crate::common::server::{refusal, serve};
    for (name, value, accepted) in [
        ("FLOWCAST_CONTROL", "perhaps", "off"),
        ("FLOWCAST_CONTROL_TOKEN", "", "not empty"),
        ("FLOWCAST_CONTROL_ORIGIN", "*", "https://lab.example"),
        ("FLOWCAST_CONTROL_HOST", "a:80", "without a port"),
        ("FLOWCAST_CONTROL_RATE", "0", "100000"),
        ("FLOWCAST_SESSIONS", "many", "per-key"),
    ] {
        let said = refusal(&mut serve(&Dataset::usual(), &[(name, value)]));
        assert!(said.contains(name) && said.contains(accepted), "{name}: {said}");
    }
}
