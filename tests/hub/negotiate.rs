//! `GET /negotiate` and `GET /v2/negotiate`: `docs/protocols/gexbot.md`, "Negotiate".

use std::io::{Read, Write};

use crate::common::client::{Client, JSON_RELIABLE};
use crate::common::dataset::Dataset;
use crate::common::http::{self, Response};
use crate::common::server::Server;

/// The hub's URL in an answer, without scheme and host.
fn path(server: &Server, answer: &Response) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    let url = answer.json()["websocket_urls"]["orderflow"].as_str().unwrap().to_owned();
    url.strip_prefix(&format!("ws://{}", server.address)).unwrap_or_else(|| panic!("{url}")).to_owned()
}

#[test]
fn each_generation_is_sent_to_its_own_endpoint_with_key_and_a_fresh_uuid() {
    let server = Server::start(&Dataset::usual());
    for (negotiate, endpoint) in [("/negotiate", "/ws/orderflow"), ("/v2/negotiate", "/client/hubs/orderflow")] {
        let answer = server.get(&format!("{negotiate}?key=some-key"));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.json()["prefix"], "blue");
        let keys: Vec<_> = answer.json().as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["websocket_urls", "prefix"]);
        let first = path(&server, &answer);
        let uuid = first.strip_prefix(&format!("{endpoint}?access_token=some-key:")).expect(&first).to_owned();
        let groups: Vec<usize> = uuid.split('-').map(str::len).collect();
        assert_eq!(groups, [8, 4, 4, 4, 12], "{uuid}");
        assert_ne!(first, path(&server, &server.get(&format!("{negotiate}?key=some-key"))));
    }
}

#[test]
fn get_names_the_hubs_that_have_data() {
    let server = Server::start(&Dataset::usual());
    for negotiate in ["/negotiate", "/v2/negotiate"] {
        let answer = server.get(&format!("{negotiate}?key=some-key")).json();
        let hubs: Vec<_> = answer["websocket_urls"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(hubs, ["orderflow"], "no other hub has a file");
    }
}

#[test]
fn the_key_may_come_as_parameter_basic_bearer_or_bare() {
    let server = Server::start(&Dataset::usual());
    for negotiate in ["/negotiate", "/v2/negotiate"] {
        for header in ["Basic some-key", "Bearer some-key", "bearer some-key", "some-key"] {
            let answer = http::request(server.address, "GET", negotiate, &[("Authorization", header)]);
            assert!(path(&server, &answer).contains("access_token=some-key:"), "{header}");
        }
        let answer = server.get(&format!("{negotiate}?other=1&key=some-key"));
        assert!(path(&server, &answer).contains("access_token=some-key:"));
    }
}

#[test]
fn without_a_key_the_answer_is_400_for_the_old_generation_and_401_for_the_new() {
    let server = Server::start(&Dataset::usual());
    for (negotiate, status) in [("/negotiate", 400), ("/v2/negotiate", 401)] {
        for query in ["", "?key=", "?ke=x"] {
            let answer = server.get(&format!("{negotiate}{query}"));
            assert_eq!((answer.status, answer.error().as_str()), (status, "missing key parameter"), "{query}");
            assert_eq!(answer.header("content-type"), Some("application/json"));
        }
        for header in ["Basic", "Basic ", "Digest x", ""] {
            let answer = http::request(server.address, "GET", negotiate, &[("Authorization", header)]);
            assert_eq!((answer.status, answer.error().as_str()), (status, "missing key parameter"), "{header}");
        }
    }
}

#[test]
fn the_url_opens_a_connection_whose_user_is_the_key_whatever_characters_it_has() {
    let server = Server::start(&Dataset::usual());
    for (written, key) in
        [("some-key", "some-key"), ("a%20b%26c%3D%C3%BC%2F%3F%23%25", "a b&c=ü/?#%"), ("a%2Bb", "a+b")]
    {
        for negotiate in ["/negotiate", "/v2/negotiate"] {
            let path = path(&server, &server.get(&format!("{negotiate}?key={written}")));
            let client = Client::open_at(&server, &path, JSON_RELIABLE);
            assert_eq!(client.connected().user_id, key);
        }
    }
}

#[test]
fn the_host_follows_the_request() {
    let server = Server::start(&Dataset::usual());
    for host in ["feed.example", "feed.example:8443", "[::1]:8080"] {
        let answer = http::request(server.address, "GET", "/negotiate?key=k", &[("Host", host)]);
        let url = answer.json()["websocket_urls"]["orderflow"].as_str().unwrap().to_owned();
        assert!(url.starts_with(&format!("ws://{host}/ws/orderflow?access_token=k:")), "{url}");
    }
    let answer = http::request(server.address, "GET", "/negotiate?key=k", &[("Host", "evil\"/path")]);
    assert_eq!(answer.status, 400, "{answer:?}");
}

#[test]
fn a_request_names_one_host_and_an_absolute_target_overrides_the_header() {
    let server = Server::start(&Dataset::usual());
    let ask = |request: &str| {
        let mut stream = std::net::TcpStream::connect(server.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let close = "Connection: close\r\n\r\n";
    for hosts in ["", "Host: a.test\r\nHost: b.test\r\n"] {
        let answer = ask(&format!("GET /healthz HTTP/1.1\r\n{hosts}{close}"));
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("expected one Host header"), "{answer}");
    }
    let answer = ask(&format!("GET http://real.test/negotiate?key=k HTTP/1.1\r\nHost: other.test\r\n{close}"));
    assert!(answer.contains("ws://real.test/ws/orderflow"), "{answer}");
}

#[test]
fn what_a_proxy_says_is_believed_only_from_a_trusted_one() {
    let dataset = Dataset::usual();
    let forwarded = [("Host", "inner:1"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "feed.example")];
    let url = |server: &Server| {
        let answer = http::request(server.address, "GET", "/v2/negotiate?key=k", &forwarded);
        answer.json()["websocket_urls"]["orderflow"].as_str().unwrap().to_owned()
    };
    let stranger = url(&Server::start(&dataset));
    assert!(stranger.starts_with("ws://inner:1/client/hubs/orderflow?"), "{stranger}");
    let other = url(&Server::with(&dataset, &[("FLOWCAST_TRUSTED_PROXIES", "10.0.0.0/8")]));
    assert!(other.starts_with("ws://inner:1/"), "{other}");
    let trusted = url(&Server::with(&dataset, &[("FLOWCAST_TRUSTED_PROXIES", "10.0.0.0/8,127.0.0.0/8")]));
    assert!(trusted.starts_with("wss://feed.example/client/hubs/orderflow?"), "{trusted}");
}

#[test]
fn read_only_endpoints_are_open_to_every_origin() {
    let server = Server::start(&Dataset::usual());
    for path in
        ["/negotiate?key=k", "/v2/negotiate?key=k", "/negotiate", "/tickers", "/healthz", "/websocket/status", "/ticks"]
    {
        let answer = http::request(server.address, "GET", path, &[("Origin", "https://page.example")]);
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{path}");
    }
}

#[test]
fn a_browser_may_negotiate_with_every_method_and_its_key_in_the_authorization_header() {
    let server = Server::start(&Dataset::usual());
    for (path, method) in
        ["/negotiate", "/v2/negotiate"].into_iter().flat_map(|path| ["GET", "POST", "PATCH"].map(|it| (path, it)))
    {
        let preflight = [
            ("Origin", "https://page.example"),
            ("Access-Control-Request-Method", method),
            ("Access-Control-Request-Headers", "authorization, content-type"),
        ];
        let answer = http::request(server.address, "OPTIONS", path, &preflight);
        assert!((200..300).contains(&answer.status), "a preflight is answered: {answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        let allowed = |what: &str| {
            let header = answer.header(&format!("access-control-allow-{what}")).unwrap_or_default();
            header.to_ascii_lowercase().split(',').map(|word| word.trim().to_owned()).collect::<Vec<_>>()
        };
        // Fetch §4.9: the wildcard does not cover Authorization, which must be named.
        assert_eq!(allowed("headers"), ["authorization", "content-type"]);
        assert_eq!(allowed("methods"), ["get", "post", "patch", "options"]);
        let answer = http::request(server.address, method, path, &[("Origin", "https://page.example")]);
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "a refusal can be read too: {answer:?}");
    }
    let preflight = [("Origin", "https://page.example"), ("Access-Control-Request-Method", "GET")];
    let answer = http::request(server.address, "OPTIONS", "/ticks", &preflight);
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET"), "what is read only stays so");
}

#[test]
fn the_prefix_is_a_setting() {
    let server = Server::with(&Dataset::usual(), &[("WS_GROUP_PREFIX", "red")]);
    assert_eq!(server.get("/negotiate?key=k").json()["prefix"], "red");
    let mut client = Client::open(&server, JSON_RELIABLE);
    assert!(client.join("red_SPX_orderflow_orderflow").success);
    assert_eq!(client.data().group, "red_SPX_orderflow_orderflow");
    assert_eq!(client.join("blue_SPX_orderflow_orderflow").error_name(), "Forbidden");
}

#[test]
fn a_hub_that_is_switched_off_is_not_found() {
    let server = Server::with(&Dataset::usual(), &[("WS_ENABLED", "false")]);
    let paths = ["/negotiate?key=k", "/v2/negotiate?key=k", "/ws/orderflow?access_token=k:1"];
    for path in paths.into_iter().chain(["/client/hubs/orderflow?access_token=k:1", "/client?hub=orderflow"]) {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    assert_eq!(server.get("/websocket/status").status, 200);
}

#[test]
fn other_methods_and_paths_are_refused_in_json() {
    let server = Server::start(&Dataset::usual());
    let answer = http::request(server.address, "PUT", "/negotiate?key=k", &[("Content-Length", "0")]);
    assert_eq!((answer.status, answer.error().as_str()), (405, "expected GET, POST or PATCH"));
    let answer = http::request(server.address, "POST", "/ticks", &[("Content-Length", "0")]);
    assert_eq!((answer.status, answer.error().as_str()), (405, "expected GET"));
    let answer = server.get("/nothing");
    assert_eq!((answer.status, answer.error().as_str()), (404, "no such path"));
}
