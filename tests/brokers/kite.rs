//! A Kite ticker: one access token is good, heartbeats come until it stalls.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio::time::interval;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

/// What every open connection should do.
#[derive(Debug, Clone)]
pub enum Act {
    Send(Message),
    /// One `ltp` packet, to whoever is subscribed.
    Tick(u32, i32),
    Drop,
    /// Neither read nor write any more, nor close.
    Stall,
}

#[derive(Default)]
pub struct State {
    /// The access token that is good; `None`: every one.
    pub token: Mutex<Option<String>>,
    /// The `Connection` of its 101; `None`: `Upgrade`.
    pub connection: Mutex<Option<&'static str>>,
    /// What upgrades are answered with, for so many of them.
    pub refuse: Mutex<Option<(u16, Option<u64>, usize)>>,
    /// Drops every connection right after its upgrade.
    pub drop_at_once: Mutex<bool>,
    pub attempts: AtomicUsize,
    pub upgrades: AtomicUsize,
    pub queries: Mutex<Vec<String>>,
    pub commands: Mutex<Vec<(u64, String)>>,
    /// What is subscribed now, by connection.
    pub subscribed: Mutex<BTreeMap<u64, BTreeMap<u32, String>>>,
    next: AtomicU64,
}

pub struct Kite {
    pub url: String,
    pub state: Arc<State>,
    acts: broadcast::Sender<Act>,
    task: JoinHandle<()>,
}

impl Drop for Kite {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Kite {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let (state, acts) = (Arc::new(State::default()), broadcast::Sender::new(4096));
        let task = tokio::spawn(accept(listener, Arc::clone(&state), acts.clone()));
        Self { url, state, acts, task }
    }

    pub fn act(&self, act: Act) {
        let _ = self.acts.send(act);
    }

    pub fn good_token(&self, token: &str) {
        *self.state.token.lock().unwrap() = Some(token.to_owned());
    }

    pub fn refuse(&self, status: u16, retry_after: Option<u64>, times: usize) {
        *self.state.refuse.lock().unwrap() = Some((status, retry_after, times));
    }

    /// All tokens subscribed over all connections, with their modes.
    pub fn subscribed(&self) -> BTreeMap<u32, String> {
        let subscribed = self.state.subscribed.lock().unwrap();
        subscribed.values().flat_map(|tokens| tokens.iter().map(|(token, mode)| (*token, mode.clone()))).collect()
    }

    pub fn connections(&self) -> usize {
        self.state.subscribed.lock().unwrap().len()
    }

    pub fn upgrades(&self) -> usize {
        self.state.upgrades.load(Ordering::SeqCst)
    }

    pub fn attempts(&self) -> usize {
        self.state.attempts.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, state: Arc<State>, acts: broadcast::Sender<Act>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else { continue };
        connections.spawn(serve(stream, Arc::clone(&state), acts.subscribe()));
    }
}

#[expect(clippy::result_large_err, reason = "tungstenite's own type")]
fn answer(state: &State, request: &Request, response: Response) -> Result<Response, ErrorResponse> {
    state.attempts.fetch_add(1, Ordering::SeqCst);
    let query = request.uri().query().unwrap_or_default().to_owned();
    let token = query.split('&').find_map(|pair| pair.strip_prefix("access_token=")).unwrap_or_default().to_owned();
    let version = request.headers().get("x-kite-version").map(|version| version.to_str().unwrap().to_owned());
    assert_eq!(version.as_deref(), Some("3"));
    state.queries.lock().unwrap().push(query);
    let refused = |status: u16, retry_after: Option<u64>| {
        let mut refusal = ErrorResponse::new(Some(format!("Authentication failed for {token}")));
        *refusal.status_mut() = status.try_into().unwrap();
        if let Some(seconds) = retry_after {
            refusal.headers_mut().insert("retry-after", seconds.into());
        }
        refusal
    };
    if let Some((status, retry_after, times)) = &mut *state.refuse.lock().unwrap()
        && *times > 0
    {
        *times -= 1;
        return Err(refused(*status, *retry_after));
    }
    match &*state.token.lock().unwrap() {
        Some(good) if *good != token => Err(refused(403, None)),
        _ => {
            let mut response = response;
            if let Some(connection) = *state.connection.lock().unwrap() {
                response.headers_mut().insert("connection", connection.parse().unwrap());
            }
            Ok(response)
        }
    }
}

async fn serve(stream: TcpStream, state: Arc<State>, mut acts: broadcast::Receiver<Act>) {
    #[expect(clippy::result_large_err, reason = "tungstenite's own type")]
    let check = |request: &Request, response| answer(&state, request, response);
    let upgraded = accept_hdr_async(stream, check).await;
    let Ok(mut socket) = upgraded else { return };
    state.upgrades.fetch_add(1, Ordering::SeqCst);
    if *state.drop_at_once.lock().unwrap() {
        return;
    }
    let id = state.next.fetch_add(1, Ordering::SeqCst);
    state.subscribed.lock().unwrap().insert(id, BTreeMap::new());
    let mut heartbeat = interval(Duration::from_millis(50));
    loop {
        tokio::select! {
            _ = heartbeat.tick() => {
                if socket.send(Message::binary(vec![0])).await.is_err() {
                    break;
                }
            }
            act = acts.recv() => match act.unwrap() {
                Act::Send(message) => {
                    // Frames that break the protocol must reach the client too.
                    if socket.send(message).await.is_err() {
                        break;
                    }
                }
                Act::Tick(token, price) => {
                    let here = state.subscribed.lock().unwrap()[&id].contains_key(&token);
                    if here && socket.send(Message::binary(ltp(&[(token, price)]))).await.is_err() {
                        break;
                    }
                }
                Act::Drop => break,
                Act::Stall => {
                    state.subscribed.lock().unwrap().remove(&id);
                    std::future::pending::<()>().await;
                }
            },
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    let mut tokens = state.subscribed.lock().unwrap()[&id].clone();
                    command(&mut tokens, &text, &state, id);
                }
                Some(Ok(_)) => {}
                _ => break,
            },
        }
    }
    state.subscribed.lock().unwrap().remove(&id);
}

fn command(tokens: &mut BTreeMap<u32, String>, text: &str, state: &State, id: u64) {
    let said: Value = serde_json::from_str(text).unwrap();
    let numbers = |list: &Value| -> Vec<u32> {
        list.as_array().unwrap().iter().map(|token| u32::try_from(token.as_u64().unwrap()).unwrap()).collect()
    };
    match said["a"].as_str().unwrap() {
        "subscribe" => tokens.extend(numbers(&said["v"]).into_iter().map(|token| (token, "quote".to_owned()))),
        "unsubscribe" => tokens.retain(|token, _| !numbers(&said["v"]).contains(token)),
        "mode" => {
            for token in numbers(&said["v"][1]) {
                let mode = said["v"][0].as_str().unwrap();
                mode.clone_into(tokens.get_mut(&token).expect("subscribed before its mode"));
            }
        }
        other => panic!("{other}"),
    }
    state.commands.lock().unwrap().push((id, text.to_owned()));
    state.subscribed.lock().unwrap().insert(id, tokens.clone());
}

/// A message of `ltp` packets.
pub fn ltp(packets: &[(u32, i32)]) -> Vec<u8> {
    let mut message = u16::try_from(packets.len()).unwrap().to_be_bytes().to_vec();
    for (token, price) in packets {
        message.extend(8u16.to_be_bytes());
        message.extend(token.to_be_bytes());
        message.extend(price.to_be_bytes());
    }
    message
}
