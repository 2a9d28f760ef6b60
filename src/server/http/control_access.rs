//! Who may steer the server: every request that changes something for others passes here first.
//!
//! With a token (`--control-token`) whoever shows it; without one only programs on this machine. No web page of
//! another origin may steer a server that its visitor can reach, neither with a plain request (`Content-Type`,
//! `Origin`) nor with a name that its owner has pointed at this address (`Host`). `docs/replay.md`, "Who may steer".

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, FORWARDED, HOST, ORIGIN, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Uri};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::auth::bearer;
use super::control_options::{Control, ControlOptions};
use crate::health::log_limit::LogLimiter;
use crate::health::status::Status;

/// A proxy says with it whom it forwards for, so the client may be anywhere.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Browsers say with it how the page that asks is related to this server.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What the requests that steer have in common.
pub struct ControlAccess {
    rate: u32,
    limiter: Mutex<LogLimiter>,
    allowed: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

/// Why a request may not steer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum ControlRefusal {
    /// `--control off`.
    #[error("this server takes no requests that steer it (--control off)")]
    Off,
    /// There is a token, and none was shown.
    #[error("missing token: expected Authorization: Bearer TOKEN with the server's FLOWCAST_CONTROL_TOKEN")]
    NoToken,
    /// Another token was shown.
    #[error("wrong token: expected Authorization: Bearer TOKEN with the server's FLOWCAST_CONTROL_TOKEN")]
    WrongToken,
    /// There is no token, and the client is elsewhere, or behind a proxy.
    #[error("without FLOWCAST_CONTROL_TOKEN on the server, only programs on its own machine may steer it")]
    NotLocal,
    /// The request was sent to a name that is not known to be ours.
    #[error("{host:?} is no name of this server: expected localhost, an address, or a name in --control-host")]
    ForeignHost { host: String },
    /// A web page of another origin.
    #[error("pages of {origin:?} may not steer this server: expected its own origin, or one in --control-origin")]
    ForeignOrigin { origin: String },
    /// What a form of any web page could send.
    #[error("expected Content-Type: application/json, got {got}")]
    NotJson { got: String },
    /// Too many.
    #[error("more than {limit} requests in this second steer the server (--control-rate); try again in a moment")]
    TooMany { limit: u32 },
}

impl ControlAccess {
    /// Nothing was asked yet.
    pub fn new(options: &ControlOptions, status: &Status) -> Self {
        Self {
            rate: options.control_rate,
            limiter: Mutex::new(LogLimiter::new(options.control_rate, 1000)),
            allowed: status.count("control_requests", "Requests that were allowed to steer the server", Vec::new()),
            refused: status.count(
                "control_refused",
                "Requests to steer the server that were refused: by the token, the host, the origin or the rate",
                Vec::new(),
            ),
        }
    }

    /// Whether the request of these parts, from this address, may steer. Counts it.
    pub fn admit(
        &self,
        options: &ControlOptions,
        peer: IpAddr,
        parts: &Parts,
        now_ms: u64,
    ) -> Result<(), ControlRefusal> {
        let admitted = check(options, peer, parts).and_then(|()| self.pass(now_ms));
        let counter = if admitted.is_ok() { &self.allowed } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        admitted
    }

    fn pass(&self, now_ms: u64) -> Result<(), ControlRefusal> {
        let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        limiter.pass(now_ms).map(drop).ok_or(ControlRefusal::TooMany { limit: self.rate })
    }
}

/// Whether a request would be allowed to steer. Nothing is counted: this is for reads that show more to those who may.
pub fn may_steer(options: &ControlOptions, peer: IpAddr, parts: &Parts) -> bool {
    check(options, peer, parts).is_ok()
}

/// Everything but the rate, which counts only requests that pass here.
fn check(options: &ControlOptions, peer: IpAddr, parts: &Parts) -> Result<(), ControlRefusal> {
    if options.control == Control::Off {
        return Err(ControlRefusal::Off);
    }
    match &options.control_token {
        Some(token) => check_token(token, bearer(&parts.headers))?,
        None => check_peer(peer, &parts.headers)?,
    }
    let host = check_host(options, &parts.headers, &parts.uri)?;
    check_origin(options, &parts.headers, host)?;
    check_type(&parts.method, &parts.headers)
}

/// Whether a page may read what is for operators: like a page that steers, it must be of this server, or of an origin in
/// `--control-origin`, and have come by one of the server's names. No token is needed, and no page a problem for
/// programs.
pub fn check_reader(options: &ControlOptions, headers: &HeaderMap, uri: &Uri) -> Result<(), ControlRefusal> {
    let host = check_host(options, headers, uri)?;
    // A page may ask for what it cannot read, such as a picture, without naming its origin: it would take a reader's place.
    let site = headers.get(SEC_FETCH_SITE).map(|site| String::from_utf8_lossy(site.as_bytes()));
    if let Some(site) = site.filter(|site| !headers.contains_key(ORIGIN) && !["same-origin", "none"].contains(&&**site))
    {
        return Err(ControlRefusal::ForeignOrigin { origin: shown(&site) });
    }
    check_origin(options, headers, host)
}

/// Whether a request without a token, from this address, may steer.
pub fn needs_token(options: &ControlOptions, peer: IpAddr, headers: &HeaderMap) -> bool {
    options.control_token.is_some() || check_peer(peer, headers).is_err()
}

/// In constant time for tokens of the right length.
fn check_token(expected: &SecretString, shown: Option<&str>) -> Result<(), ControlRefusal> {
    let shown = shown.ok_or(ControlRefusal::NoToken)?;
    let is_same = bool::from(shown.as_bytes().ct_eq(expected.expose_secret().as_bytes()));
    if is_same { Ok(()) } else { Err(ControlRefusal::WrongToken) }
}

fn check_peer(peer: IpAddr, headers: &HeaderMap) -> Result<(), ControlRefusal> {
    // A proxy on this machine stands for clients elsewhere.
    let is_forwarded = headers.contains_key(FORWARDED) || headers.contains_key(X_FORWARDED_FOR);
    if peer.to_canonical().is_loopback() && !is_forwarded { Ok(()) } else { Err(ControlRefusal::NotLocal) }
}

/// The host that the request was sent to, with its port.
fn check_host<'a>(options: &ControlOptions, headers: &'a HeaderMap, uri: &'a Uri) -> Result<&'a str, ControlRefusal> {
    let header = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = uri.authority().map(http::uri::Authority::as_str).or(header).unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).map_or(host, |(name, _)| name);
    // A page can point a name at this server, but no address.
    let is_address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    let is_listed = || options.control_host.iter().any(|known| known.eq_ignore_ascii_case(name));
    if is_address || name.eq_ignore_ascii_case("localhost") || is_listed() {
        return Ok(host);
    }
    Err(ControlRefusal::ForeignHost { host: shown(host) })
}

/// Browsers name the page's origin with every request that is not a read; programs do not.
fn check_origin(options: &ControlOptions, headers: &HeaderMap, host: &str) -> Result<(), ControlRefusal> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let origin = String::from_utf8_lossy(origin.as_bytes());
    let of_host =
        origin.split_once("://").filter(|(scheme, _)| ["http", "https"].contains(scheme)).map(|(_, host)| host);
    let is_own = of_host.is_some_and(|of_host| of_host.eq_ignore_ascii_case(host));
    if is_own || is_listed_origin(options, &origin) {
        return Ok(());
    }
    Err(ControlRefusal::ForeignOrigin { origin: shown(&origin) })
}

/// Whether `--control-origin` lists an origin.
pub fn is_listed_origin(options: &ControlOptions, origin: &str) -> bool {
    options.control_origin.iter().any(|known| known.eq_ignore_ascii_case(origin))
}

/// A page may send other types anywhere without asking first. A request without a body has none.
fn check_type(method: &Method, headers: &HeaderMap) -> Result<(), ControlRefusal> {
    let has_body = headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    if !has_body || method == Method::DELETE {
        return Ok(());
    }
    let got = headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let essence = got.as_deref().and_then(|got| got.split(';').next()).unwrap_or_default().trim();
    // A plan of faults may be TOML. No form of a web page can send either.
    if ["application/json", "application/toml"].iter().any(|known| essence.eq_ignore_ascii_case(known)) {
        return Ok(());
    }
    Err(ControlRefusal::NotJson { got: got.map_or("none".to_owned(), |got| format!("{:?}", shown(&got))) })
}

/// A client's text, short enough for an error.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use clap::Parser;
    use http::Request;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        control: ControlOptions,
    }

    const JSON: (&str, &str) = ("content-type", "application/json");

    fn asked(settings: &str, peer: &str, headers: &[(&str, &str)]) -> Result<(), ControlRefusal> {
        let options = Cli::parse_from(["test"].into_iter().chain(settings.split_whitespace())).control;
        let mut request = Request::patch("/replay").header("content-length", "2");
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "127.0.0.1:8080");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        check(&options, peer.parse::<SocketAddr>().unwrap().ip(), &parts)
    }

    const HERE: &str = "127.0.0.1:5";
    const ELSEWHERE: &str = "192.0.2.1:5";

    #[test]
    fn without_a_token_only_this_machine_may_steer() {
        for here in [HERE, "[::1]:5", "[::ffff:127.0.0.1]:5"] {
            assert_eq!(asked("", here, &[JSON]), Ok(()), "{here}");
        }
        assert_eq!(asked("", ELSEWHERE, &[JSON]), Err(ControlRefusal::NotLocal));
        for proxied in [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1")] {
            assert_eq!(asked("", HERE, &[JSON, proxied]), Err(ControlRefusal::NotLocal), "a proxy on this machine");
        }
        assert_eq!(asked("--control off", HERE, &[JSON]), Err(ControlRefusal::Off));
    }

    #[test]
    fn with_a_token_everybody_who_shows_it_may_steer() {
        let token = |value: &'static str| ("authorization", value);
        let settings = "--control-token s3cret";
        for peer in [HERE, ELSEWHERE] {
            assert_eq!(asked(settings, peer, &[JSON, token("Bearer s3cret")]), Ok(()));
            assert_eq!(asked(settings, peer, &[JSON]), Err(ControlRefusal::NoToken));
            for wrong in ["Bearer s3cre", "Bearer s3cret2", "Bearer S3cret"] {
                assert_eq!(asked(settings, peer, &[JSON, token(wrong)]), Err(ControlRefusal::WrongToken), "{wrong}");
            }
            for none in ["s3cret", "Basic s3cret", "Bearer "] {
                assert_eq!(asked(settings, peer, &[JSON, token(none)]), Err(ControlRefusal::NoToken), "{none}");
            }
        }
        let off = "--control off --control-token s3cret";
        assert_eq!(asked(off, HERE, &[JSON, token("Bearer s3cret")]), Err(ControlRefusal::Off));
    }

    #[test]
    fn a_name_that_a_page_could_point_here_is_refused() {
        for host in
            ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080", "[::1]", "192.0.2.7:80", "feed.example:80"]
        {
            assert_eq!(asked("--control-host feed.example", HERE, &[JSON, ("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            "[::1",
            "a:b:c",
        ] {
            let refused = asked("--control-host feed.example", HERE, &[JSON, ("host", host)]);
            assert!(matches!(refused, Err(ControlRefusal::ForeignHost { .. })), "{host}: {refused:?}");
        }
    }

    #[test]
    fn a_page_of_another_origin_is_refused_unless_it_is_listed() {
        let page =
            |origin: &'static str| asked("--control-origin https://lab.example", HERE, &[JSON, ("origin", origin)]);
        for own in ["http://127.0.0.1:8080", "https://127.0.0.1:8080", "https://lab.example", "https://LAB.example"] {
            assert_eq!(page(own), Ok(()), "{own}");
        }
        for foreign in
            ["null", "https://evil.example", "http://127.0.0.1:8081", "http://127.0.0.1", "http://lab.example", ""]
        {
            assert!(matches!(page(foreign), Err(ControlRefusal::ForeignOrigin { .. })), "{foreign}");
        }
    }

    #[test]
    fn a_body_is_json() {
        for json in ["application/json", "Application/JSON; charset=utf-8", "application/toml"] {
            assert_eq!(asked("", HERE, &[("content-type", json)]), Ok(()));
        }
        for other in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
            let refused = asked("", HERE, &[("content-type", other)]);
            assert!(matches!(refused, Err(ControlRefusal::NotJson { .. })), "{other}");
        }
        assert_eq!(asked("", HERE, &[]), Err(ControlRefusal::NotJson { got: "none".to_owned() }));
    }

    #[test]
    fn a_second_has_so_many_requests() {
        let options = Cli::parse_from(["test", "--control-rate", "2"]).control;
        let access = ControlAccess::new(&options, &Status::default());
        let passed: Vec<bool> = [0, 1, 2, 1000].map(|now_ms| access.pass(now_ms).is_ok()).into();
        assert_eq!(passed, [true, true, false, true]);
    }
}
