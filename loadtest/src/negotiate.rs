//! Negotiation: a client asks where its sockets are and what the group prefix is. With POST it also says
//! which groups it wants, and the server joins them when a socket connects.
//!
//! Every client negotiates for itself, as real ones do. Negotiating is blocking HTTP, so a few
//! threads beside each worker do it on request ([`NegotiationPool`]); each keeps one connection alive.

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde::{Deserialize, Serialize};

use crate::http::{Http, HttpError};
use crate::wire::form::Profile;

/// How many answers may wait for their worker.
const POOL_DEPTH: usize = 256;

/// Where a socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketUrl {
    /// Whether the socket speaks TLS.
    pub is_tls: bool,
    /// Host and port as the `Host` header wants them.
    pub host: String,
    /// The host alone, for TLS.
    pub server_name: String,
    /// Where to connect.
    pub address: SocketAddr,
    /// Path and query.
    pub path: String,
}

/// What a negotiation granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Where to connect, for each hub that was asked for, in that order.
    pub sockets: Vec<SocketUrl>,
    /// The prefix of group names.
    pub prefix: String,
}

/// What a client asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Who asks: a number for its key, if it has one of its own.
    pub client: u32,
    /// The first of the connections that wait for the answer, in the worker's table; the others follow it.
    pub first: usize,
    /// The hubs of these connections.
    pub hubs: Vec<String>,
    /// The groups that the server shall join, without prefix; empty where clients join themselves.
    pub groups: Vec<String>,
}

/// Why a client has no socket URL.
#[derive(Debug, thiserror::Error)]
pub enum NegotiateError {
    /// The request failed.
    #[error("negotiate: {0}")]
    Http(#[from] HttpError),
    /// The answer lacks the hub.
    #[error("negotiate: the answer has no socket for hub {0:?} (v2 hubs and spot groups need --negotiate post)")]
    NoHub(String),
    /// The URL cannot be used.
    #[error("{url:?} is no socket URL: {reason}")]
    BadUrl {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl NegotiateError {
    /// The status of a refusal.
    pub fn status(&self) -> Option<u16> {
        if let Self::Http(HttpError::Status { status, .. }) = self { Some(*status) } else { None }
    }
}

impl SocketUrl {
    /// Reads `ws://…` or `wss://…` and resolves its host.
    pub fn parse(url: &str) -> Result<Self, NegotiateError> {
        let fail = |reason: &str| NegotiateError::BadUrl { url: url.to_owned(), reason: reason.to_owned() };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| fail("no scheme"))?;
        let is_tls = match scheme {
            "ws" => false,
            "wss" => true,
            _ => return Err(fail("the scheme is neither ws nor wss")),
        };
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        };
        if path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(fail("blanks or control characters in it"));
        }
        let default_port = if is_tls { 443 } else { 80 };
        let has_port = authority.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok());
        let host_and_port = if has_port { authority.to_owned() } else { format!("{authority}:{default_port}") };
        let address = host_and_port
            .to_socket_addrs()
            .map_err(|error| fail(&error.to_string()))?
            .next()
            .ok_or_else(|| fail("the host has no address"))?;
        let server_name = host_and_port.rsplit_once(':').map_or("", |(host, _)| host);
        Ok(Self {
            is_tls,
            host: authority.to_owned(),
            server_name: server_name.trim_matches(['[', ']']).to_owned(),
            address,
            path: path.to_owned(),
        })
    }
}

/// Whom to ask, and how.
#[derive(Clone)]
pub struct Negotiator {
    http: Http,
    url: String,
    scheme: &'static str,
    key: String,
    /// POST, and the prefix that its answer leaves out.
    joins: Option<String>,
    /// Whether each client has a key of its own, with GET too.
    has_own_keys: bool,
}

impl std::fmt::Debug for Negotiator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the key.
        f.debug_struct("Negotiator").field("url", &self.url).field("joins", &self.joins).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct NegotiateAnswer {
    websocket_urls: BTreeMap<String, String>,
    // The vendor's client falls back to this when the key is missing.
    #[serde(default)]
    prefix: Option<String>,
}

#[derive(Serialize)]
struct NegotiateBody<'a> {
    groups: &'a [String],
}

/// What the vendor's client takes for the prefix when the answer has none.
const DEFAULT_PREFIX: &str = "red";

impl Negotiator {
    /// Negotiates with GET at `base` as clients of `profile` do: the old ones say `Basic`, the new ones
    /// `Bearer`.
    pub fn new(http: Http, base: &str, profile: Profile, key: &str) -> Self {
        let scheme = match profile {
            Profile::V1 => "Basic",
            Profile::V2 => "Bearer",
        };
        Self {
            http: http.with_authorization(format!("{scheme} {key}")),
            url: format!("{}{}", base.trim_end_matches('/'), profile.negotiate_path()),
            scheme,
            key: key.to_owned(),
            joins: None,
            has_own_keys: false,
        }
    }

    /// The same for clients that follow the clock of a session; the name is one that needs no encoding.
    #[must_use]
    pub fn on_session(mut self, session: Option<&str>) -> Self {
        if let Some(session) = session {
            self.url = format!("{}?session={session}", self.url);
        }
        self
    }

    /// The same with POST; its answer does not tell the prefix.
    #[must_use]
    pub fn joining(mut self, prefix: &str) -> Self {
        self.joins = Some(prefix.to_owned());
        self
    }

    /// Each client has a key of its own.
    #[must_use]
    pub fn with_own_keys(mut self) -> Self {
        self.has_own_keys = true;
        self
    }

    /// The prefix of group names, from an answer to GET.
    pub fn prefix(&self) -> Result<String, NegotiateError> {
        let answer: NegotiateAnswer = self.http.get_json(&self.url)?;
        Ok(answer.prefix.unwrap_or_else(|| DEFAULT_PREFIX.to_owned()))
    }

    fn http_of(&self, wish: &Wish) -> Http {
        self.http.clone().with_authorization(format!("{} {}", self.scheme, client_key(&self.key, wish.client)))
    }

    /// One negotiation.
    pub fn negotiate(&self, wish: &Wish) -> Result<Grant, NegotiateError> {
        let (answer, prefix): (NegotiateAnswer, _) = match &self.joins {
            Some(prefix) => {
                // With one key for all, each POST would end the sockets of the client before.
                (self.http_of(wish).post_json(&self.url, &NegotiateBody { groups: &wish.groups })?, prefix.as_str())
            }
            None if self.has_own_keys => (self.http_of(wish).get_json(&self.url)?, DEFAULT_PREFIX),
            None => (self.http.get_json(&self.url)?, DEFAULT_PREFIX),
        };
        let socket = |hub: &String| {
            let url = answer.websocket_urls.get(hub);
            SocketUrl::parse(url.ok_or_else(|| NegotiateError::NoHub(hub.clone()))?)
        };
        let sockets = wish.hubs.iter().map(socket).collect::<Result<_, _>>()?;
        Ok(Grant { sockets, prefix: answer.prefix.unwrap_or_else(|| prefix.to_owned()) })
    }
}

/// The key of one client, where each has its own.
pub fn client_key(key: &str, client: u32) -> String {
    format!("{key}-{client}")
}

/// The `client_id` of a client of `/ws`, where faults are ordered for clients by name.
pub fn stream_client_id(client: u32) -> String {
    format!("swarm-{client}")
}

/// Negotiates on request, for one worker.
#[derive(Debug)]
pub struct NegotiationPool {
    source: GrantSource,
    outstanding: usize,
}

/// A wish, and what became of it.
pub type Answer = (Wish, Result<Grant, NegotiateError>);

#[derive(Debug)]
enum GrantSource {
    /// The socket is known: every client uses the same URL.
    Fixed { grant: Grant, wishes: VecDeque<Wish> },
    Threads {
        requests: Sender<(u64, Wish)>,
        answers: Receiver<(u64, Answer)>,
        /// Answers that came before those of earlier wishes: clients start in the order of their numbers.
        early: BTreeMap<u64, Answer>,
        asked: u64,
        taken: u64,
    },
}

impl NegotiationPool {
    /// A pool that hands out one URL.
    pub fn fixed(grant: Grant) -> Self {
        Self { source: GrantSource::Fixed { grant, wishes: VecDeque::new() }, outstanding: 0 }
    }

    /// A pool with `threads` negotiating threads; they end when the pool is dropped.
    pub fn start(negotiator: &Negotiator, threads: usize) -> std::io::Result<Self> {
        let (requests, queue) = channel();
        let (results, answers) = sync_channel(POOL_DEPTH);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let (negotiator, queue, results) = (negotiator.clone(), Arc::clone(&queue), results.clone());
            thread::Builder::new()
                .name("negotiate".to_owned())
                .stack_size(256 * 1024)
                .spawn(move || serve(&negotiator, &queue, &results))?;
        }
        Ok(Self {
            source: GrantSource::Threads { requests, answers, early: BTreeMap::new(), asked: 0, taken: 0 },
            outstanding: 0,
        })
    }

    /// Asks for one more negotiation.
    pub fn request(&mut self, wish: Wish) {
        self.outstanding += wish.hubs.len();
        match &mut self.source {
            GrantSource::Fixed { wishes, .. } => wishes.push_back(wish),
            // Without a listening thread the request stays outstanding, and the ramp's deadline ends it.
            GrantSource::Threads { requests, asked, .. } => {
                drop(requests.send((*asked, wish)));
                *asked += 1;
            }
        }
    }

    /// Connections whose negotiation was asked for and has not been taken yet.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Takes an answer if one is there.
    pub fn take(&mut self) -> Option<Answer> {
        let answer = match &mut self.source {
            GrantSource::Fixed { grant, wishes } => (wishes.pop_front()?, Ok(grant.clone())),
            GrantSource::Threads { answers, early, taken, .. } => {
                early.extend(answers.try_iter());
                let answer = early.remove(taken)?;
                *taken += 1;
                answer
            }
        };
        self.outstanding -= answer.0.hubs.len();
        Some(answer)
    }
}

fn serve(negotiator: &Negotiator, queue: &Mutex<Receiver<(u64, Wish)>>, results: &SyncSender<(u64, Answer)>) {
    loop {
        // One thread waits in `recv` with the lock held, the others wait for the lock; which of them
        // gets a request does not matter. A poisoned lock guards nothing but the receiver.
        let wish = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, wish)) = wish else { return };
        let outcome = negotiator.negotiate(&wish);
        if results.send((number, (wish, outcome))).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_urls_keep_what_the_handshake_needs() {
        let url = SocketUrl::parse("ws://127.0.0.1:8080/client/hubs/orderflow?access_token=a.b").unwrap();
        assert_eq!(url.address.to_string(), "127.0.0.1:8080");
        assert_eq!(url.host, "127.0.0.1:8080");
        assert_eq!(url.path, "/client/hubs/orderflow?access_token=a.b");
        let url = SocketUrl::parse("wss://[::1]/x").unwrap();
        assert_eq!((url.address.to_string().as_str(), url.server_name.as_str()), ("[::1]:443", "::1"));
        assert!(url.is_tls);
    }

    #[test]
    fn urls_that_cannot_be_connected_to_are_refused() {
        for bad in ["127.0.0.1:1", "http://127.0.0.1:1/", "ws://", "ws://127.0.0.1:1/a b", "ws://127.0.0.1:1/a\r\nX: y"]
        {
            assert!(SocketUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_fixed_pool_gives_as_often_as_it_was_asked() {
        let sockets = vec![SocketUrl::parse("ws://127.0.0.1:1/").unwrap()];
        let grant = Grant { sockets, prefix: "blue".to_owned() };
        let mut negotiations = NegotiationPool::fixed(grant.clone());
        assert!(negotiations.take().is_none());
        let wish = Wish { first: 7, hubs: vec!["orderflow".to_owned()], ..Wish::default() };
        negotiations.request(wish.clone());
        assert_eq!(negotiations.outstanding(), 1);
        let (asked, granted) = negotiations.take().unwrap();
        assert_eq!((asked, granted.unwrap()), (wish, grant));
        assert!(negotiations.take().is_none());
        assert_eq!(negotiations.outstanding(), 0);
    }
}
