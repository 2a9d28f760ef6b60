//! Negotiation: a client asks where its socket is and what the group prefix is.
//!
//! Every client negotiates for itself, as real ones do. Negotiating is blocking HTTP, so a few
//! threads beside each worker do it on request ([`NegotiationPool`]); each keeps one connection alive.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde::Deserialize;
use std::collections::BTreeMap;

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
    /// Where to connect.
    pub socket: SocketUrl,
    /// The prefix of group names.
    pub prefix: String,
}

/// Why a client has no socket URL.
#[derive(Debug, thiserror::Error)]
pub enum NegotiateError {
    /// The request failed.
    #[error("negotiate: {0}")]
    Http(#[from] HttpError),
    /// The answer lacks the hub.
    #[error("negotiate: the answer has no socket for hub {0:?}")]
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

/// What to ask for, and whom.
#[derive(Clone, Debug)]
pub struct Negotiator {
    http: Http,
    url: String,
    hub: String,
}

#[derive(Deserialize)]
struct NegotiateAnswer {
    websocket_urls: BTreeMap<String, String>,
    // The vendor's client falls back to this when the key is missing.
    #[serde(default = "default_prefix")]
    prefix: String,
}

fn default_prefix() -> String {
    "red".to_owned()
}

impl Negotiator {
    /// Negotiates at `base` as clients of `profile` do: the old ones say `Basic`, the new ones `Bearer`.
    pub fn new(http: Http, base: &str, profile: Profile, key: &str, hub: &str) -> Self {
        let scheme = match profile {
            Profile::V1 => "Basic",
            Profile::V2 => "Bearer",
        };
        Self {
            http: http.with_authorization(format!("{scheme} {key}")),
            url: format!("{}{}", base.trim_end_matches('/'), profile.negotiate_path()),
            hub: hub.to_owned(),
        }
    }

    /// One negotiation.
    pub fn negotiate(&self) -> Result<Grant, NegotiateError> {
        let mut answer: NegotiateAnswer = self.http.get_json(&self.url)?;
        let url = answer.websocket_urls.remove(&self.hub).ok_or_else(|| NegotiateError::NoHub(self.hub.clone()))?;
        Ok(Grant { socket: SocketUrl::parse(&url)?, prefix: answer.prefix })
    }
}

/// Negotiates on request, for one worker.
#[derive(Debug)]
pub struct NegotiationPool {
    source: GrantSource,
    outstanding: usize,
}

#[derive(Debug)]
enum GrantSource {
    /// The socket is known: every client uses the same URL.
    Fixed {
        grant: Grant,
        ready: usize,
    },
    Threads {
        requests: Sender<()>,
        answers: Receiver<Result<Grant, NegotiateError>>,
    },
}

impl NegotiationPool {
    /// A negotiations that hands out one URL.
    pub fn fixed(grant: Grant) -> Self {
        Self { source: GrantSource::Fixed { grant, ready: 0 }, outstanding: 0 }
    }

    /// A negotiations with `threads` negotiating threads; they end when the negotiations is dropped.
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
        Ok(Self { source: GrantSource::Threads { requests, answers }, outstanding: 0 })
    }

    /// Asks for one more negotiation.
    pub fn request(&mut self) {
        self.outstanding += 1;
        match &mut self.source {
            GrantSource::Fixed { ready, .. } => *ready += 1,
            // Without a listening thread the request stays outstanding, and the ramp's deadline ends it.
            GrantSource::Threads { requests, .. } => drop(requests.send(())),
        }
    }

    /// Negotiations asked for and not yet taken.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Takes an answer if one is there.
    pub fn take(&mut self) -> Option<Result<Grant, NegotiateError>> {
        let answer = match &mut self.source {
            GrantSource::Fixed { ready: 0, .. } => return None,
            GrantSource::Fixed { grant, ready } => {
                *ready -= 1;
                Ok(grant.clone())
            }
            GrantSource::Threads { answers, .. } => answers.try_recv().ok()?,
        };
        self.outstanding -= 1;
        Some(answer)
    }
}

fn serve(negotiator: &Negotiator, queue: &Mutex<Receiver<()>>, results: &SyncSender<Result<Grant, NegotiateError>>) {
    loop {
        // One thread waits in `recv` with the lock held, the others wait for the lock; which of them
        // gets a request does not matter. A poisoned lock guards nothing but the receiver.
        let request = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        if request.is_err() || results.send(negotiator.negotiate()).is_err() {
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
        let grant = Grant { socket: SocketUrl::parse("ws://127.0.0.1:1/").unwrap(), prefix: "blue".to_owned() };
        let mut negotiations = NegotiationPool::fixed(grant.clone());
        assert!(negotiations.take().is_none());
        negotiations.request();
        assert_eq!(negotiations.take().unwrap().unwrap(), grant);
        assert!(negotiations.take().is_none());
        assert_eq!(negotiations.outstanding(), 0);
    }
}
