//! The routes of the replay on a scripted clock: what reaches it, and how its answers are told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use clap::Parser;
use futures_util::StreamExt;
use http::{Request, StatusCode};
use jiff::civil::{Date, date};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tower_service::Service;

use crate::engine::hub::{Hub, HubOptions};
use crate::engine::ledger::LedgerOptions;
use crate::health::status::Status;
use crate::replay::change::{Change, Pace, Refused, Speed, Wanted};
use crate::replay::moment::{Moment, Resolved, Span};
use crate::replay::remote::{Answer, Console, Remote, remote};
use crate::replay::replays::{LoadJob, LoadState, RecordedDate, Replays, SessionError, SessionInfo, SessionStart};
use crate::replay::snapshot::{Axis, Cause, Epoch, Snapshot, State};
use crate::server::http::app::{App, HttpBounds, Peer, ServingState, Stage};
use crate::server::http::control_access::ControlAccess;
use crate::server::http::http_options::HttpOptions;
use crate::server::http::jwt::{AuthOptions, Authority};
use crate::server::http::live::live_state::LiveState;
use crate::server::http::negotiate::api_slots::ApiSlots;
use crate::server::http::replay::replay_state::ReplayState;
use crate::server::http::rest::rest_state::RestState;
use crate::server::http::routes::routes;
use crate::streams::Streams;
use crate::streams::stream_options::StreamOptions;

const SPAN: Span = Span { first: 1_764_340_200_000, last: 1_764_363_600_000 };
const DAY: Date = date(2025, 11, 28);
const OTHER_DAY: Date = date(2025, 11, 24);

fn start() -> Snapshot {
    Snapshot {
        state: State::Playing,
        pace: Pace::Interval(Duration::from_secs(1)),
        achieved_speed: None,
        data_time: SPAN.first,
        record: 0,
        axis: Arc::new(Axis { dates: vec![DAY], span: SPAN }),
        is_loop: true,
        max_gap: None,
        epoch: 1,
        tick: 7,
        pause_at: None,
        late_us_p99: 0,
    }
}

/// A clock that refuses what it is told to refuse, and otherwise does the simplest thing.
struct Scripted {
    common: Remote,
    asked: Arc<Mutex<Vec<Change>>>,
    refusal: Arc<Mutex<Option<Refused>>>,
    sessions: Mutex<Vec<(String, SessionStart, Remote)>>,
}

impl Scripted {
    fn new() -> Arc<Self> {
        let (asked, refusal) = (Arc::default(), Arc::default());
        let common = clock(&asked, &refusal);
        Arc::new(Self { common, asked, refusal, sessions: Mutex::default() })
    }

    fn refuse(&self, refused: Refused) {
        *self.refusal.lock().unwrap() = Some(refused);
    }

    fn last(&self) -> Change {
        self.asked.lock().unwrap().last().cloned().expect("a change")
    }
}

fn clock(asked: &Arc<Mutex<Vec<Change>>>, refusal: &Arc<Mutex<Option<Refused>>>) -> Remote {
    let (remote, console) = remote(start());
    let (asked, refusal) = (Arc::clone(asked), Arc::clone(refusal));
    thread::spawn(move || run(&console, &asked, &refusal));
    remote
}

fn run(console: &Console, asked: &Mutex<Vec<Change>>, refusal: &Mutex<Option<Refused>>) {
    let mut now = start();
    for request in &console.requests {
        let change = request.change;
        asked.lock().unwrap().push(change.clone());
        if let Some(refused) = refusal.lock().unwrap().take() {
            let _ = request.reply.send(Err(refused));
            continue;
        }
        if change.wanted == Some(Wanted::Paused) {
            now.state = State::Paused;
        }
        let resolved = change.seek.and_then(|seek| seek.at(now.data_time, SPAN)).map(|asked| {
            let (data_time, clamped) = SPAN.clamp(asked);
            now.epoch += 1;
            console.open(Epoch { number: now.epoch, cause: Cause::Seek, from: now.data_time, to: data_time });
            now.data_time = data_time;
            Resolved { asked, data_time, clamped, in_gap: false }
        });
        console.show(now.clone());
        console.tell();
        let _ = request.reply.send(Ok(Answer { snapshot: now.clone(), resolved }));
    }
}

impl Replays for Scripted {
    fn common(&self) -> &Remote {
        &self.common
    }

    fn dates(&self) -> Result<Vec<RecordedDate>, Refused> {
        let day = |date, tickers: &[&str]| RecordedDate {
            date,
            is_loaded: date == DAY,
            tickers: tickers.iter().map(ToString::to_string).collect(),
            files: tickers.len(),
            records: Some(100),
            union: Some(SPAN),
            intersection: None,
            gaps: vec![SPAN],
        };
        Ok(vec![day(OTHER_DAY, &["SPX"]), day(DAY, &["NDX", "SPX"])])
    }

    fn load(self: Arc<Self>, dates: Vec<Date>) -> Result<LoadJob, Refused> {
        if let Some(refused) = self.refusal.lock().unwrap().take() {
            return Err(refused);
        }
        Ok(LoadJob { id: 1, dates, state: LoadState::Loading, done: 3, total: 12 })
    }

    fn job(&self, id: u64) -> Option<LoadJob> {
        let state = LoadState::Failed("the disk is gone".to_owned());
        match id {
            1 => Some(LoadJob { id, dates: vec![OTHER_DAY], state: LoadState::Loaded, done: 12, total: 12 }),
            2 => Some(LoadJob { id, dates: vec![OTHER_DAY], state, done: 3, total: 12 }),
            _ => None,
        }
    }

    fn session(&self, name: &str) -> Option<Remote> {
        self.sessions().into_iter().find(|info| info.name == name).map(|info| info.remote)
    }

    fn begin_session(&self, name: &str, start: SessionStart) -> Result<Remote, SessionError> {
        if let Some(remote) = self.session(name) {
            return Ok(remote);
        }
        let mut sessions = self.sessions.lock().unwrap();
        if sessions.len() == 2 {
            return Err(SessionError::TooMany { limit: 2 });
        }
        let remote = clock(&self.asked, &self.refusal);
        sessions.push((name.to_owned(), start, remote.clone()));
        Ok(remote)
    }

    fn end_session(&self, name: &str) -> bool {
        let mut sessions = self.sessions.lock().unwrap();
        let before = sessions.len();
        sessions.retain(|(other, ..)| other != name);
        sessions.len() < before
    }

    fn sessions(&self) -> Vec<SessionInfo> {
        let sessions = self.sessions.lock().unwrap();
        let info = |(name, _, remote): &(String, SessionStart, Remote)| SessionInfo {
            name: name.clone(),
            remote: remote.clone(),
        };
        sessions.iter().map(info).collect()
    }
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    streams: StreamOptions,
    #[command(flatten)]
    auth: AuthOptions,
}

/// The routes of a server with these settings, on a clock if there is one.
fn server(settings: &str, clocks: Option<Arc<Scripted>>) -> Router {
    let Cli { http, streams, auth } = Cli::parse_from(["test"].into_iter().chain(settings.split_whitespace()));
    let options = HubOptions { max_silent_groups: 1, ledger: LedgerOptions { ledger_publications: 0 } };
    let status = Arc::new(Status::default());
    let hub = |name: &'static str| Arc::new(Hub::new(name, &options));
    let app = Arc::new(App {
        session_tokens: None,
        slots: ApiSlots::new(&http.negotiate, &"blue".into(), &status),
        rest: RestState::new(&http.rest, &status),
        replay: ReplayState::default(),
        control: ControlAccess::new(&http.control, &status),
        live: LiveState::new(http.live, Vec::new(), Arc::default()),
        faults: Arc::default(),
        tick_readers: Arc::new(Semaphore::new(1)),
        bounds: HttpBounds::new(&http, Duration::from_secs(30), &status),
        pending: Arc::default(),
        pending_streams: Arc::default(),
        state: ServingState::default(),
        hub: hub("orderflow"),
        streams: Streams::new(hub("streams"), [], streams.clone(), &status),
        status,
        shards: Vec::new(),
        stream_options: streams,
        authority: Authority::new(&auth).unwrap(),
        options: http,
        prefix: "blue".into(),
        pinned: None,
        max_groups_per_connection: 10,
    });
    if let Some(clocks) = clocks {
        app.replay.set_clocks(clocks);
    }
    app.set_stage(Stage::Serving);
    routes(&app)
}

/// What was answered: status, a header by its name, the body.
struct Answered {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Value,
}

impl Answered {
    fn error(&self) -> (u16, &str) {
        (self.status.as_u16(), self.body["error"].as_str().unwrap_or_default())
    }
}

async fn ask(server: &Router, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answered {
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost:8080");
    if !body.is_empty() {
        request = request.header("content-type", "application/json").header("content-length", body.len());
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::from(body.to_owned())).unwrap();
    request.extensions_mut().insert(Peer(SocketAddr::from(([127, 0, 0, 1], 5))));
    let Ok(response) = server.clone().call(request).await;
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Answered { status: parts.status, headers: parts.headers, body }
}

async fn patch(server: &Router, body: &str) -> Answered {
    ask(server, "PATCH", "/replay", &[], body).await
}

#[tokio::test]
async fn the_clock_is_read_by_everybody_and_named_by_its_epoch() {
    let server = server("--control off", Some(Scripted::new()));
    let answer = ask(&server, "GET", "/replay", &[("origin", "https://evil.example")], "").await;
    assert_eq!((answer.status, &answer.headers["etag"]), (StatusCode::OK, &"\"1\"".parse().unwrap()));
    assert_eq!(answer.headers["access-control-allow-origin"], "https://evil.example");
    let clock = &answer.body;
    assert_eq!(
        (&clock["state"], &clock["interval_ms"], &clock["clients"]),
        (&json!("playing"), &json!(1000), &json!(0))
    );
}

#[tokio::test]
async fn a_change_reaches_the_clock_whole_with_its_conditions() {
    let clocks = Scripted::new();
    let server = server("", Some(Arc::clone(&clocks)));
    let body = r#"{"state":"paused","speed":2,"seek":"50%"}"#;
    let answer = ask(&server, "POST", "/replay?strict=1", &[("if-match", "\"1\"")], body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(
        clocks.last(),
        Change {
            wanted: Some(Wanted::Paused),
            pace: Some(Pace::Recorded(Speed::Times(2.0))),
            seek: Some(Moment::Share(0.5)),
            is_strict: true,
            if_epoch: Some(1),
            ..Change::default()
        }
    );
    assert_eq!(
        (&answer.body["state"], &answer.body["epoch"], &answer.headers["etag"].to_str().unwrap()),
        (&json!("paused"), &json!(2), &"\"2\"")
    );
    let resolved = json!({
        "asked": "2025-11-28T17:45:00Z", "data_time": "2025-11-28T17:45:00Z", "clamped": "none", "in_gap": false,
    });
    assert_eq!(answer.body["resolved"], resolved);
    let clamped = patch(&server, r#"{"seek":0}"#).await.body;
    assert_eq!(
        (&clamped["resolved"]["clamped"], &clamped["data_time"]),
        (&json!("start"), &json!("2025-11-28T14:30:00Z"))
    );
    assert!(patch(&server, "{}").await.body.get("resolved").is_none());
}

#[tokio::test]
async fn what_the_clock_refuses_has_its_status_and_its_reason() {
    let clocks = Scripted::new();
    let server = server("", Some(Arc::clone(&clocks)));
    let text = || "x".to_owned();
    for (refused, status) in [
        (Refused::StepWhilePlaying { state: "playing" }, 409),
        (Refused::OtherEpoch { expected: 1, is: 2 }, 412),
        (Refused::OutOfRange { asked: text(), first: text(), last: text() }, 422),
        (Refused::NotIndexed { asked: text(), indexed: text() }, 503),
        (Refused::NoSuchDate { date: DAY, available: text() }, 404),
        (Refused::IsLoading { dates: text() }, 409),
        (Refused::Unreadable { reason: text() }, 500),
        (Refused::Anchored, 409),
        (Refused::Busy { waiting: 64 }, 503),
        (Refused::Ending, 503),
    ] {
        clocks.refuse(refused.clone());
        let answer = patch(&server, r#"{"step":1}"#).await;
        assert_eq!(answer.error(), (status, refused.to_string().as_str()));
        assert_eq!(answer.headers.contains_key("retry-after"), status == 503, "{refused}");
    }
}

#[tokio::test]
async fn a_bad_request_is_answered_and_changes_nothing() {
    let clocks = Scripted::new();
    let server = server("", Some(Arc::clone(&clocks)));
    assert_eq!(patch(&server, r#"{"speed":0}"#).await.error(), (400, r#"expected a speed above 0 or "max", got 0"#));
    assert_eq!(patch(&server, r#"{"speed":1,"interval":"1s"}"#).await.status, 400);
    assert_eq!(ask(&server, "PATCH", "/replay?strict=x", &[], "{}").await.status, 400);
    assert_eq!(ask(&server, "PATCH", "/replay", &[("if-match", "four")], "{}").await.status, 400);
    assert_eq!(patch(&server, "").await.status, 400, "no body is no change");
    let large = format!("{{\"seek\":\"{}\"}}", "9".repeat(10 << 20));
    assert_eq!(patch(&server, &large).await.error(), (413, "expected a body of at most 16384 bytes"));
    let foreign = ask(&server, "PATCH", "/replay", &[("origin", "https://evil.example")], "{}").await;
    assert!(foreign.status == 403 && !foreign.headers.contains_key("access-control-allow-origin"));
    assert_eq!(ask(&server, "PUT", "/replay", &[], "{}").await.error(), (405, "expected GET, PATCH or POST"));
    assert!(clocks.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_live_server_says_that_nothing_is_replayed() {
    let server = server("", None);
    let live = (409, "nothing is replayed here: the source is live");
    assert_eq!(patch(&server, r#"{"state":"paused"}"#).await.error(), live);
    for path in [
        "/replay",
        "/replay/dates",
        "/replay/events",
        "/replay/sessions",
        "/replay/load/1",
        "/current-load",
        "/coverage",
    ] {
        assert_eq!(ask(&server, "GET", path, &[], "").await.error(), live, "{path}");
    }
    assert_eq!(ask(&server, "POST", "/replay/load", &[], r#"{"date":"2025-11-24"}"#).await.error(), live);
    assert_eq!(ask(&server, "GET", "/v2/negotiate?key=k&session=lab", &[], "").await.error(), live);
    assert_eq!(ask(&server, "GET", "/v2/negotiate?key=k", &[], "").await.status, 200);
}

#[tokio::test]
async fn writes_of_a_second_are_limited() {
    let server = server("--control-rate 2", Some(Scripted::new()));
    let mut limited = None;
    for _ in 0..100 {
        let answer = patch(&server, "{}").await;
        if answer.status == 429 {
            limited = Some(answer);
            break;
        }
    }
    let limited = limited.expect("a second has no hundred requests here");
    assert_eq!(limited.headers["retry-after"], "1");
    assert!(limited.error().1.contains("--control-rate"), "{}", limited.body);
    assert_eq!(ask(&server, "GET", "/replay", &[], "").await.status, 200, "reads are not");
}

#[tokio::test]
async fn dates_are_listed_and_loaded() {
    let clocks = Scripted::new();
    let server = server("", Some(Arc::clone(&clocks)));
    let dates = ask(&server, "GET", "/replay/dates", &[], "").await.body;
    assert_eq!((&dates["count"], &dates["dates"][1]["loaded"]), (&json!(2), &json!(true)));
    assert_eq!(dates["dates"][1]["gaps"][0], json!({ "from": "2025-11-28T14:30:00Z", "to": "2025-11-28T21:00:00Z" }));
    let load = async |body: &str| ask(&server, "POST", "/replay/load", &[], body).await;
    let job = json!({ "job": "1", "state": "loading", "done": 3, "total": 12, "dates": ["2025-11-24", "2025-11-28"] });
    let begun = load(r#"{"from":"2025-11-01","to":"2025-12-31"}"#).await;
    assert_eq!((begun.status.as_u16(), &begun.body), (202, &job));
    assert_eq!(begun.headers["location"], "/replay/load/1");
    let none = load(r#"{"from":"2026-11-01","to":"2026-12-31"}"#).await;
    assert_eq!(none.error().0, 400);
    clocks.refuse(Refused::IsLoading { dates: "2025-11-24".to_owned() });
    assert_eq!(load(r#"{"date":"2025-11-24"}"#).await.error().0, 409);
    clocks.refuse(Refused::NoSuchDate { date: DAY, available: "2025-11-24".to_owned() });
    assert_eq!(load(r#"{"dates":["2025-11-28"]}"#).await.error().0, 404);
    assert_eq!(
        load(r#"{"date":"tomorrow"}"#).await.error(),
        (400, "invalid date format: tomorrow (expected YYYY-MM-DD)")
    );
    let failed = ask(&server, "GET", "/replay/load/2", &[], "").await.body;
    assert_eq!((&failed["state"], &failed["error"]), (&json!("failed"), &json!("the disk is gone")));
    for job in ["3", "x", "-1"] {
        assert_eq!(ask(&server, "GET", &format!("/replay/load/{job}"), &[], "").await.status, 404, "{job}");
    }
}

/// The events of a stream as they come: name and data.
async fn events(server: &Router, path: &str) -> impl futures_util::Stream<Item = (String, Value)> + Unpin {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let Ok(response) = server.clone().call(request).await;
    assert_eq!(response.status(), 200);
    let chunks = response.into_body().into_data_stream();
    Box::pin(chunks.filter_map(async |chunk| {
        let text = String::from_utf8(chunk.unwrap().to_vec()).unwrap();
        let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        Some((of("event: ")?, serde_json::from_str(&of("data: ")?).unwrap()))
    }))
}

#[tokio::test]
async fn events_tell_every_jump_before_the_state_that_it_led_to() {
    let server = server("--max-tick-readers 1", Some(Scripted::new()));
    let mut events = events(&server, "/replay/events?hz=0.1").await;
    let (name, state) = events.next().await.unwrap();
    assert_eq!((name.as_str(), &state["epoch"]), ("state", &json!(1)));
    patch(&server, r#"{"seek":"100%"}"#).await;
    let (name, epoch) = events.next().await.unwrap();
    let expected = json!({ "epoch": 2, "cause": "seek", "from": "2025-11-28T14:30:00Z", "to": "2025-11-28T21:00:00Z" });
    assert_eq!((name.as_str(), epoch), ("epoch", expected));
    let (name, state) = events.next().await.unwrap();
    assert_eq!((name.as_str(), &state["data_time"]), ("state", &json!("2025-11-28T21:00:00Z")));
    let second = ask(&server, "GET", "/replay/events", &[], "").await;
    assert_eq!(second.error(), (503, "too many readers of events (--max-tick-readers)"));
    assert_eq!(ask(&server, "GET", "/replay/events?hz=1000", &[], "").await.status, 400);
}

#[tokio::test]
async fn the_events_of_a_session_are_of_its_own_clock_and_end_with_it() {
    let server = server("", Some(Scripted::new()));
    assert_eq!(ask(&server, "GET", "/replay/sessions/lab/events", &[], "").await.status, 404);
    ask(&server, "GET", "/v2/negotiate?key=k&session=lab", &[], "").await;
    let mut events = events(&server, "/replay/sessions/lab/events?hz=100").await;
    let (name, state) = events.next().await.unwrap();
    assert_eq!((name.as_str(), &state["session"], &state["clients"]), ("state", &json!("lab"), &json!(0)));
    patch(&server, r#"{"seek":"100%"}"#).await;
    let (name, state) = events.next().await.unwrap();
    assert_eq!((name.as_str(), &state["epoch"]), ("state", &json!(1)), "the common clock's jump is not the session's");
    ask(&server, "DELETE", "/replay/sessions/lab", &[], "").await;
    while let Some((name, _)) = events.next().await {
        assert_eq!(name, "state");
    }
    assert_eq!(ask(&server, "GET", "/replay/sessions/lab/events", &[], "").await.status, 404);
}

#[tokio::test]
async fn a_session_is_begun_by_negotiate_and_carried_in_its_urls() {
    let clocks = Scripted::new();
    let server = server("", Some(Arc::clone(&clocks)));
    let get = async |query: &str| ask(&server, "GET", &format!("/v2/negotiate?key=k&{query}"), &[], "").await;
    let url = |answer: &Answered| answer.body["websocket_urls"]["orderflow"].as_str().unwrap().to_owned();
    assert!(!url(&get("").await).contains("session"));
    let lab = get("session=lab&from=14:30&speed=max&state=paused").await;
    assert!(url(&lab).ends_with(":session-lab"), "{}", lab.body);
    let started = clocks.sessions.lock().unwrap()[0].1;
    assert!(started.is_paused && started.pace == Some(Pace::Recorded(Speed::Max)) && started.from.is_some());
    let groups = r#"{"groups":["SPX_orderflow_orderflow"]}"#;
    let posted = ask(&server, "POST", "/v2/negotiate?key=k&session=other", &[], groups).await;
    assert!(url(&posted).contains(":slot-") && url(&posted).ends_with(":session-other"), "{}", posted.body);
    let token = url(&posted).split_once("access_token=").unwrap().1.to_owned();
    let patched = ask(
        &server,
        "PATCH",
        "/v2/negotiate",
        &[("authorization", &format!("Bearer {token}"))],
        r#"{"groups":[{"hub":"orderflow","group":"NDX_orderflow_orderflow"}]}"#,
    )
    .await;
    assert_eq!(patched.status, 200, "a token with a session names its slot: {}", patched.body);
    let third = get("session=third").await;
    assert!(third.status == 429 && third.error().1.contains("--max-sessions"), "{}", third.body);
    assert_eq!(get("session=lab").await.status, 200, "one that exists takes no further place");
    assert_eq!(get(&format!("session={}", "n".repeat(1024))).await.status, 400);
    assert_eq!(
        get("session=new&speed=fast").await.error(),
        (400, "speed: expected a speed above 0 or \"max\", got \"fast\"")
    );

    let seat = clocks.session("lab").unwrap().seats().take("lab");
    let list = ask(&server, "GET", "/replay/sessions", &[], "").await.body;
    assert_eq!(
        (&list["count"], &list["sessions"][0]["session"], &list["sessions"][0]["clients"]),
        (&json!(2), &json!("lab"), &json!(1))
    );
    drop(seat);
    assert_eq!(ask(&server, "GET", "/replay/sessions/lab", &[], "").await.body["clients"], 0);
    let changed = ask(&server, "PATCH", "/replay/sessions/lab", &[], r#"{"state":"paused"}"#).await.body;
    assert_eq!((&changed["session"], &changed["state"]), (&json!("lab"), &json!("paused")));
    assert_eq!(ask(&server, "GET", "/replay/sessions/lab", &[], "").await.body["state"], "paused");
    assert_eq!(ask(&server, "GET", "/replay", &[], "").await.body["state"], "playing");
    assert_eq!(ask(&server, "DELETE", "/replay/sessions/lab", &[], "").await.status, 204);
    for method in ["GET", "PATCH", "DELETE"] {
        let body = if method == "PATCH" { "{}" } else { "" };
        let gone = ask(&server, method, "/replay/sessions/lab", &[], body).await;
        assert!(gone.status == 404 && gone.error().1.starts_with("no session \"lab\""), "{method}: {}", gone.body);
    }
}

#[tokio::test]
async fn each_key_has_a_session_of_its_own_that_does_not_show_the_key() {
    let clocks = Scripted::new();
    let server = server("--sessions per-key", Some(Arc::clone(&clocks)));
    for key in ["secret-one", "secret-two", "secret-one"] {
        assert_eq!(ask(&server, "GET", &format!("/negotiate?key={key}"), &[], "").await.status, 200);
    }
    let list = ask(&server, "GET", "/replay/sessions", &[], "").await.body;
    assert_eq!(list["count"], 2);
    assert!(!list.to_string().contains("secret"), "{list}");
    let sought =
        ask(&server, "POST", "/seek-to-timestamp", &[], r#"{"timestamp":1764340260,"key":"secret-two"}"#).await.body;
    assert_eq!(
        (&sought["resolved_ts"], &sought["day"], &sought["clamped"]),
        (&json!(1_764_340_260), &json!("2025-11-28"), &json!("none"))
    );
    let at = |list: &Value, index: usize| list["sessions"][index]["data_time"].as_str().unwrap().to_owned();
    let list = ask(&server, "GET", "/replay/sessions", &[], "").await.body;
    assert_eq!((at(&list, 0), at(&list, 1)), ("2025-11-28T14:30:00Z".to_owned(), "2025-11-28T14:31:00Z".to_owned()));
}

#[tokio::test]
async fn the_names_of_other_imitations_steer_the_same_clock() {
    let clocks = Scripted::new();
    let server = server("", Some(Arc::clone(&clocks)));
    let post = async |path: &str, body: &str| ask(&server, "POST", path, &[], body).await;
    let sought = post("/seek-to-timestamp", r#"{"timestamp":4102444800}"#).await.body;
    assert_eq!(
        (&sought["status"], &sought["clamped"], &sought["resolved_ts"]),
        (&json!("success"), &json!("end"), &json!(1_764_363_600))
    );
    assert_eq!(sought["requested_ts"], 4_102_444_800_u64);
    for bad in ["{}", r#"{"timestamp":"now"}"#, r#"{"timestamp":1e308}"#, "[]"] {
        assert_eq!(post("/seek-to-timestamp", bad).await.status, 400, "{bad}");
    }
    let job = post("/load", r#"{"dates":["2025-11-24"]}"#).await;
    let range = json!({ "from": "2025-11-28", "to": "2025-11-28" });
    assert_eq!((job.status.as_u16(), &job.body["job_id"], &job.body["loaded_range"]), (202, &json!("1"), &range));
    assert_eq!(ask(&server, "GET", "/load/status/2", &[], "").await.body["error"], "the disk is gone");
    assert_eq!(ask(&server, "GET", "/load/status/9", &[], "").await.status, 404);
    let current = ask(&server, "GET", "/current-load", &[], "").await.body;
    assert_eq!((&current["state"], &current["dates"]), (&json!("loaded"), &json!(["2025-11-28"])));
    let coverage = ask(&server, "GET", "/coverage?from=2025-11-01", &[], "").await.body;
    assert_eq!((&coverage["union"], &coverage["intersection"]), (&json!(["NDX", "SPX"]), &json!(["SPX"])));
    assert_eq!(coverage["days"][0], json!({ "date": "2025-11-24", "tickers": ["SPX"] }));
    assert_eq!(
        ask(&server, "GET", "/coverage?to=x", &[], "").await.error(),
        (400, "invalid date format: x (expected YYYY-MM-DD)")
    );
    let reloaded = post("/reload-date", r#"{"date":"2025-11-24"}"#).await.body;
    assert_eq!((&reloaded["previous_date"], &reloaded["new_date"]), (&json!("2025-11-28"), &json!("2025-11-24")));
    clocks.refuse(Refused::NoSuchDate { date: DAY, available: String::new() });
    assert_eq!(post("/reload-date", r#"{"date":"2025-11-28"}"#).await.error(), (400, "date not found: 2025-11-28"));
    clocks.refuse(Refused::IsLoading { dates: String::new() });
    assert_eq!(post("/reload-date", r#"{"date":"2025-11-28"}"#).await.error(), (409, "reload already in progress"));
    assert_eq!(
        post("/reload-date", r#"{"date":"x"}"#).await.error(),
        (400, "invalid date format: x (expected YYYY-MM-DD)")
    );
    post("/reset-cache", "").await;
    assert_eq!(clocks.last().seek, Some(Moment::Share(0.0)));
    let changes = clocks.asked.lock().unwrap().len();
    let foreign = [("origin", "https://evil.example")];
    assert_eq!(ask(&server, "POST", "/reset-cache", &foreign, "").await.status, 403);
    assert_eq!(
        ask(&server, "POST", "/reset-cache?key=k", &foreign, "").await.status,
        200,
        "a key's positions are its own"
    );
    assert_eq!(clocks.asked.lock().unwrap().len(), changes);
}
