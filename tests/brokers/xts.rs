//! An XTS deployment: REST over axum, Socket.IO over a socket of its own.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State as Extract;
use axum::routing::{delete, post};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

#[derive(Debug, Clone)]
pub enum Act {
    Send(Message),
    Drop,
    Stall,
}

/// An answer instead of the usual one.
#[derive(Debug, Clone)]
pub struct Scripted {
    pub status: u16,
    pub code: &'static str,
    pub description: &'static str,
    pub retry_after: Option<u64>,
}

pub struct State {
    pub secret: Mutex<String>,
    /// The token of the last login, while it is good.
    pub token: Mutex<Option<String>>,
    pub logins: AtomicUsize,
    pub sockets: AtomicUsize,
    pub open: AtomicUsize,
    /// For the next subscriptions, one each.
    pub script: Mutex<VecDeque<Scripted>>,
    /// Instruments that nobody may have.
    pub unknown: Mutex<BTreeSet<u64>>,
    /// (code, instrument) of the session.
    pub subscribed: Mutex<BTreeSet<(u64, u64)>>,
    /// Method and body of every call but the login.
    pub calls: Mutex<Vec<(String, Value)>>,
    pub queries: Mutex<Vec<String>>,
    pub from_client: Mutex<Vec<String>>,
    /// 3 or 4.
    pub eio: AtomicUsize,
    /// A dead token is told in the namespace instead of the upgrade.
    pub refuse_in_namespace: Mutex<bool>,
}

pub struct Xts {
    pub base_url: String,
    pub ws_url: String,
    pub state: Arc<State>,
    acts: broadcast::Sender<Act>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Xts {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Xts {
    pub async fn start() -> Self {
        let rest = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sockets = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/apimarketdata", rest.local_addr().unwrap());
        let ws_url = format!("ws://{}/apimarketdata/socket.io", sockets.local_addr().unwrap());
        let state = Arc::new(State {
            secret: Mutex::new("good".to_owned()),
            token: Mutex::default(),
            logins: AtomicUsize::new(0),
            sockets: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            script: Mutex::default(),
            unknown: Mutex::default(),
            subscribed: Mutex::default(),
            calls: Mutex::default(),
            queries: Mutex::default(),
            from_client: Mutex::default(),
            eio: AtomicUsize::new(3),
            refuse_in_namespace: Mutex::default(),
        });
        let routes = Router::new()
            .route("/apimarketdata/auth/login", post(login))
            .route("/apimarketdata/auth/logout", delete(logout))
            .route("/apimarketdata/instruments/subscription", post(subscribe).put(unsubscribe))
            .with_state(Arc::clone(&state));
        let acts = broadcast::Sender::new(4096);
        let tasks = [
            tokio::spawn(async move { axum_serve(rest, routes).await }),
            tokio::spawn(accept(sockets, Arc::clone(&state), acts.clone())),
        ];
        Self { base_url, ws_url, state, acts, tasks }
    }

    pub fn act(&self, act: Act) {
        let _ = self.acts.send(act);
    }

    pub fn send(&self, text: &str) {
        self.act(Act::Send(Message::text(text)));
    }

    pub fn script(&self, status: u16, code: &'static str, description: &'static str, retry_after: Option<u64>) {
        self.state.script.lock().unwrap().push_back(Scripted { status, code, description, retry_after });
    }

    pub fn subscribed(&self) -> Vec<(u64, u64)> {
        self.state.subscribed.lock().unwrap().iter().copied().collect()
    }

    pub fn logins(&self) -> usize {
        self.state.logins.load(Ordering::SeqCst)
    }

    pub fn sockets(&self) -> usize {
        self.state.sockets.load(Ordering::SeqCst)
    }

    pub fn calls(&self) -> Vec<(String, Value)> {
        self.state.calls.lock().unwrap().clone()
    }

    /// The token dies: sockets are dropped, calls refused.
    pub fn expire(&self) {
        *self.state.token.lock().unwrap() = None;
        self.act(Act::Drop);
    }
}

/// hyper, because axum's own server is a feature this project does not need.
async fn axum_serve(listener: TcpListener, routes: Router) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else { continue };
        let service = hyper_util::service::TowerToHyperService::new(routes.clone());
        connections.spawn(async move {
            let io = hyper_util::rt::TokioIo::new(stream);
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
        });
    }
}

type Answered = (StatusCode, HeaderMap, axum::Json<Value>);

fn answered(status: u16, code: &str, description: &str, result: &Value) -> Answered {
    let kind = if status == 200 { "success" } else { "error" };
    let body = json!({ "type": kind, "code": code, "description": description, "result": result });
    (status.try_into().unwrap(), HeaderMap::new(), axum::Json(body))
}

async fn login(Extract(state): Extract<Arc<State>>, axum::Json(body): axum::Json<Value>) -> Answered {
    let number = state.logins.fetch_add(1, Ordering::SeqCst) + 1;
    if body["secretKey"] != **state.secret.lock().unwrap() || body["appKey"] != "the-key" {
        let echo = format!("Invalid credentials {}", body["secretKey"]);
        return answered(400, "e-response-0001", &echo, &json!({}));
    }
    assert_eq!(body["source"], "WEBAPI");
    let token = format!("token+{number}");
    *state.token.lock().unwrap() = Some(token.clone());
    state.subscribed.lock().unwrap().clear();
    answered(200, "s-response-0010", "", &json!({ "token": token, "userID": "USER 1" }))
}

fn checked(state: &State, headers: &HeaderMap, method: &str, body: &Value) -> Option<Answered> {
    state.calls.lock().unwrap().push((method.to_owned(), body.clone()));
    let given = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    if given.is_none() || given != *state.token.lock().unwrap() {
        return Some(answered(400, "e-session-0007", "Invalid Token", &json!({})));
    }
    None
}

fn items(body: &Value) -> Vec<(u64, u64)> {
    let code = body["xtsMessageCode"].as_u64().unwrap();
    let list = body["instruments"].as_array().unwrap();
    list.iter().map(|one| (code, one["exchangeInstrumentID"].as_u64().unwrap())).collect()
}

async fn subscribe(
    Extract(state): Extract<Arc<State>>,
    headers: HeaderMap,
    axum::Json(body): axum::Json<Value>,
) -> Answered {
    if let Some(refusal) = checked(&state, &headers, "POST", &body) {
        return refusal;
    }
    if let Some(scripted) = state.script.lock().unwrap().pop_front() {
        let mut answer = answered(scripted.status, scripted.code, scripted.description, &json!({}));
        if let Some(seconds) = scripted.retry_after {
            answer.1.insert("retry-after", seconds.into());
        }
        return answer;
    }
    let items = items(&body);
    if items.iter().any(|(_, id)| state.unknown.lock().unwrap().contains(id)) {
        return answered(400, "e-instrument-0001", "Instrument not found", &json!({}));
    }
    let mut subscribed = state.subscribed.lock().unwrap();
    if items.iter().any(|item| subscribed.contains(item)) {
        return answered(400, "e-session-0002", "Instrument Already Subscribed !", &json!({}));
    }
    let quotes: Vec<String> = items
        .iter()
        .map(|(code, id)| {
            json!({ "MessageCode": code, "ExchangeSegment": 1, "ExchangeInstrumentID": id, "LastTradedPrice": 100.5, "Open": 99.5 })
                .to_string()
        })
        .collect();
    subscribed.extend(items);
    let left = 50 - subscribed.len();
    answered(200, "s-session-0001", "", &json!({ "listQuotes": quotes, "Remaining_Subscription_Count": left }))
}

async fn unsubscribe(
    Extract(state): Extract<Arc<State>>,
    headers: HeaderMap,
    axum::Json(body): axum::Json<Value>,
) -> Answered {
    if let Some(refusal) = checked(&state, &headers, "PUT", &body) {
        return refusal;
    }
    let items = items(&body);
    state.subscribed.lock().unwrap().retain(|item| !items.contains(item));
    answered(200, "s-session-0002", "", &json!({}))
}

async fn logout(Extract(state): Extract<Arc<State>>, headers: HeaderMap) -> Answered {
    if let Some(refusal) = checked(&state, &headers, "DELETE", &json!({})) {
        return refusal;
    }
    *state.token.lock().unwrap() = None;
    answered(200, "s-login-0005", "", &json!({}))
}

async fn accept(listener: TcpListener, state: Arc<State>, acts: broadcast::Sender<Act>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else { continue };
        connections.spawn(serve(stream, Arc::clone(&state), acts.subscribe()));
    }
}

async fn serve(stream: TcpStream, state: Arc<State>, mut acts: broadcast::Receiver<Act>) {
    let mut good = false;
    #[expect(clippy::result_large_err, reason = "tungstenite's own type")]
    let check = |request: &Request, response: Response| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let token = state.token.lock().unwrap().clone().unwrap_or_default().replace('+', "%2B");
        good = query.contains(&format!("token={token}&")) && !token.is_empty();
        state.queries.lock().unwrap().push(query);
        if good || *state.refuse_in_namespace.lock().unwrap() {
            return Ok(response);
        }
        let mut refusal = ErrorResponse::new(None);
        *refusal.status_mut() = StatusCode::UNAUTHORIZED;
        Err(refusal)
    };
    let Ok(mut socket) = accept_hdr_async(stream, check).await else { return };
    state.sockets.fetch_add(1, Ordering::SeqCst);
    let is_three = state.eio.load(Ordering::SeqCst) == 3;
    let handshake = r#"0{"sid":"s","upgrades":[],"pingInterval":100,"pingTimeout":400}"#;
    socket.send(Message::text(handshake)).await.unwrap();
    if is_three {
        let answer = if good { "40" } else { r#"44"Invalid Token""# };
        socket.send(Message::text(answer)).await.unwrap();
    }
    state.open.fetch_add(1, Ordering::SeqCst);
    let mut pings = tokio::time::interval(std::time::Duration::from_millis(50));
    loop {
        tokio::select! {
            _ = pings.tick(), if !is_three => drop(socket.send(Message::text("2")).await),
            act = acts.recv() => match act.unwrap() {
                Act::Send(message) => drop(socket.send(message).await),
                Act::Drop => break,
                Act::Stall => {
                    state.open.fetch_sub(1, Ordering::SeqCst);
                    std::future::pending::<()>().await;
                }
            },
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    state.from_client.lock().unwrap().push(text.to_string());
                    let answer = match text.as_str() {
                        "2" if is_three => "3",
                        "40" if !is_three && good => r#"40{"sid":"x"}"#,
                        "40" if !is_three => r#"44{"message":"Invalid Token"}"#,
                        _ => continue,
                    };
                    let _ = socket.send(Message::text(answer)).await;
                }
                Some(Ok(_)) => {}
                _ => break,
            },
        }
    }
    state.open.fetch_sub(1, Ordering::SeqCst);
}
