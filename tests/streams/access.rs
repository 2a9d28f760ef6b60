//! Who may use the JSON streams, and publish to them (`docs/streams.md`).

use crate::common;
use crate::common::dataset::Dataset;
use crate::common::server::{Server, refusal, serve};
use crate::common::socket::Socket;
use crate::common::streams::{Heard, SECRET, StreamClient, now, post, publish, publisher, signed, signed_with, token};
use serde_json::{Value, json};

fn server(more: &[(&str, &str)]) -> Server {
    Server::with(&Dataset::usual(), &[&[("WS_AUTH_SECRET", SECRET)], more].concat())
}

fn refused(server: &Server, claims: &Value) -> (u16, String) {
    let token = signed(claims, "HS256", SECRET);
    let response = StreamClient::at(server, &format!("/ws?token={token}")).err().expect("a refusal");
    (response.status, response.error())
}

#[test]
fn without_a_secret_anybody_is_let_in_and_nobody_may_publish() {
    let server = Server::start(&Dataset::usual());
    let mut client = StreamClient::at(&server, "/ws?token=whatever&client_id=me").unwrap();
    client.until_pong();
    let answer = publish(&server, &publisher(), r#"{"channel":"lines","data":1}"#);
    assert_eq!((answer.status, answer.error()), (403, "publishing needs WS_AUTH_SECRET on the server".to_owned()));
}

#[test]
fn a_token_is_taken_from_the_query_or_the_header() {
    let server = server(&[]);
    let token = token(&[]);
    assert!(StreamClient::at(&server, &format!("/ws?token={token}")).is_ok());
    let bearer = format!("Bearer {token}");
    assert!(Socket::open(server.address, "/ws", &[("Authorization", &bearer)]).is_ok());
    let basic = format!("Basic {token}");
    assert_eq!(Socket::open(server.address, "/ws", &[("Authorization", &basic)]).unwrap_err().status, 401);
}

#[test]
fn a_bad_token_is_refused_with_401_before_the_upgrade() {
    let server = server(&[]);
    let without = StreamClient::at(&server, "/ws").err().unwrap();
    assert_eq!((without.status, without.error().starts_with("missing token")), (401, true));
    for bad in [
        signed(&json!({"sub": "me"}), "HS256", "another secret"),
        signed(&json!({"sub": "me"}), "none", SECRET),
        "nonsense".to_owned(),
        "a.b.c".to_owned(),
    ] {
        let response = StreamClient::at(&server, &format!("/ws?token={bad}")).err().unwrap();
        assert_eq!((response.status, response.error().starts_with("invalid token")), (401, true), "{bad}");
    }
    assert_eq!(refused(&server, &json!({})).0, 401, "sub is required");
    assert_eq!(refused(&server, &json!({"sub": "me", "exp": now() - 100})), (401, "the token has expired".to_owned()));
    assert_eq!(refused(&server, &json!({"sub": "me", "nbf": now() + 100})).1, "the token is not valid yet");
    assert_eq!(refused(&server, &json!({"sub": "me", "iat": now() + 100})).1, "the token is not valid yet");
    assert!(!server.log().contains(SECRET), "the secret is in no log");
}

#[test]
fn critical_header_parameters_are_understood_by_nobody_and_refused() {
    let server = server(&[]);
    let claims = json!({"sub": "me", "role": "publisher"});
    for header in [
        json!({"alg": "HS256", "crit": ["x-policy"], "x-policy": 1}),
        json!({"alg": "HS256", "crit": []}),
        json!({"alg": "HS256", "crit": ["b64"], "b64": false}),
        json!({"alg": "HS256", "crit": "exp"}),
        json!({"alg": "HS256", "crit": null}),
    ] {
        let token = signed_with(&header, &claims, SECRET);
        let refused = StreamClient::at(&server, &format!("/ws?token={token}")).err().expect("a refusal");
        let published = publish(&server, &token, r#"{"channel":"lines","data":1}"#);
        for answer in [refused, published] {
            assert_eq!((answer.status, answer.error().contains("crit")), (401, true), "{header}: {answer:?}");
        }
    }
}

#[test]
fn a_claim_of_the_wrong_type_is_named_and_the_secret_is_not_blamed() {
    let server = server(&[]);
    for claims in [
        json!({"sub": "me", "exp": "soon"}),
        json!({"sub": "me", "exp": -1}),
        json!({"sub": "me", "nbf": "now"}),
        json!({"sub": "me", "iat": true}),
        json!({"sub": "me", "channels": "all"}),
        json!({"sub": 7}),
        json!([1]),
    ] {
        let (status, reason) = refused(&server, &claims);
        assert_eq!((status, reason.starts_with("invalid claims: expected")), (401, true), "{claims}: {reason}");
    }
}

#[test]
fn an_audience_counts_once_it_is_configured() {
    let server = server(&[("FLOWCAST_AUTH_AUDIENCE", "feed")]);
    assert_eq!(refused(&server, &json!({"sub": "me", "aud": "other"})).1, "the token is for another audience");
    assert!(StreamClient::at(&server, &format!("/ws?token={}", token(&["--audience", "feed"]))).is_ok());
}

#[test]
fn a_connection_ends_with_its_token() {
    let server = server(&[]);
    // Accepted within the leeway of a minute, and over when that is.
    let token = signed(&json!({"sub": "me", "exp": now() - 58}), "HS256", SECRET);
    let mut client = StreamClient::at(&server, &format!("/ws?token={token}")).unwrap();
    let rest = client.rest();
    assert!(rest.contains(&Heard::Closed(Some((4401, "token expired".to_owned())))), "{rest:?}");
    drop(client);
    server.closed_until("token_expired", 1);
}

#[test]
fn a_tokens_channels_limit_what_may_be_subscribed() {
    let server = server(&[]);
    let token = token(&["--channels", "lines,signals"]);
    let mut client = StreamClient::at(&server, &format!("/ws?token={token}")).unwrap();
    let answer = client.ask(&json!({"type": "subscribe", "channels": ["lines", "trades"]}));
    assert_eq!(answer["code"], "forbidden_channel");
    let answer = client.ask(&json!({"type": "unsubscribe", "channels": ["lines"]}));
    assert_eq!(answer["channels"], json!(["signals"]), "auto-subscription gives only what is allowed");
}

#[test]
fn a_browsers_origin_must_be_on_the_list_if_there_is_one() {
    let with = |server: &Server, origin: &str| {
        Socket::open(server.address, "/ws", &[("Origin", origin)]).map(drop).map_err(|response| response.status)
    };
    let listed = Server::with(&Dataset::usual(), &[("WS_ALLOWED_ORIGINS", "https://a.example,https://b.example:8443")]);
    assert_eq!(with(&listed, "https://a.example"), Ok(()));
    assert_eq!(with(&listed, "https://b.example:8443"), Ok(()));
    assert_eq!(with(&listed, "https://b.example"), Err(403));
    assert!(StreamClient::at(&listed, "/ws").is_ok(), "a client without an origin is no browser");
    let all = Server::with(&Dataset::usual(), &[("WS_ALLOWED_ORIGINS", "*")]);
    assert_eq!(with(&all, "https://c.example"), Ok(()));
    let written_otherwise = [("WS_ALLOWED_ORIGINS", "HTTPS://A.example:443/, http://b.example:80")];
    let same = Server::with(&Dataset::usual(), &written_otherwise);
    assert_eq!(with(&same, "https://a.example"), Ok(()));
    assert_eq!(with(&same, "http://b.example"), Ok(()));
}

#[test]
fn connections_of_the_streams_have_a_limit_of_their_own() {
    let server = Server::with(&Dataset::usual(), &[("WEBSOCKET_MAX_CONNECTIONS", "2")]);
    // Each is heard before the next: one under way counts twice for a moment.
    let opened = || {
        let mut client = StreamClient::open(&server);
        client.until_pong();
        client
    };
    let clients = [opened(), opened()];
    assert_eq!(StreamClient::at(&server, "/ws").err().unwrap().status, 503);
    drop(common::client::Client::open(&server, common::client::JSON));
    drop(clients);
    server.metric_until("flowcast_stream_connections", |connections| connections == 0);
    assert!(StreamClient::at(&server, "/ws").is_ok());
}

#[test]
fn two_connections_with_one_client_id_both_live() {
    let server = Server::start(&Dataset::usual());
    let mut clients = [(); 2].map(|()| StreamClient::at(&server, "/ws?client_id=same").unwrap());
    let _ = clients.each_mut().map(StreamClient::until_pong);
    let long = format!("/ws?client_id={}", "x".repeat(129));
    assert_eq!(StreamClient::at(&server, &long).err().unwrap().status, 400);
}

#[test]
fn what_is_no_upgrade_is_told_so() {
    let server = Server::start(&Dataset::usual());
    assert_eq!(server.get("/ws").status, 426);
}

#[test]
fn publishing_needs_the_role() {
    let server = server(&[]);
    let body = r#"{"channel":"lines","data":1}"#;
    assert_eq!(post(&server, "/api/publish", &[], body).status, 401);
    assert_eq!(publish(&server, &token(&[]), body).status, 403);
    assert_eq!(publish(&server, &token(&["--role", "reader"]), body).status, 403);
    assert_eq!(publish(&server, &publisher(), body).status, 200);
    let narrow = token(&["--role", "publisher", "--channels", "trades"]);
    assert_eq!(publish(&server, &narrow, body).status, 403);
    assert_eq!(server.get("/api/publish").status, 405);
}

#[test]
fn each_message_of_a_body_is_judged_alone() {
    let server = server(&[]);
    let mut client =
        StreamClient::at(&server, &format!("/ws?token={}", token(&[]))).unwrap().subscribed(&["lines", "trades"]);
    let body = json!([
        {"channel": "lines", "data": "first"},
        {"channel": "nope", "data": 1},
        {"channel": "trades", "data": {"symbol": "A", "side": "HOLD", "quantity": 1, "price": 1}},
        {"channel": "lines"},
        {"channel": "lines", "data": "last"},
    ]);
    let answer = publish(&server, &publisher(), &body.to_string());
    let told = answer.json();
    assert_eq!((answer.status, &told["accepted"], &told["refused"]), (422, &json!(2), &json!(3)));
    let refusals = told["refusals"].as_array().unwrap();
    let indexes: Vec<u64> = refusals.iter().map(|refusal| refusal["index"].as_u64().unwrap()).collect();
    assert_eq!(indexes, [1, 2, 3]);
    assert_eq!(refusals[1]["error"], "side: expected BUY or SELL");
    assert_eq!(
        [client.message()["payload"].clone(), client.message()["payload"].clone()],
        [json!("first"), json!("last")]
    );
    assert_eq!(publish(&server, &publisher(), "").status, 422);
    assert_eq!(publish(&server, &publisher(), "{").status, 422);
}

#[test]
fn a_body_or_message_over_the_limit_is_refused_with_413() {
    let server = server(&[("FLOWCAST_MAX_BODY_BYTES", "4000"), ("FLOWCAST_MAX_PUBLISH_BYTES", "1000")]);
    let of = |length: usize| json!({"channel": "lines", "data": "x".repeat(length)}).to_string();
    let answer = publish(&server, &publisher(), &of(1000));
    assert_eq!((answer.status, answer.error()), (413, "expected at most 1000 bytes, got 1002".to_owned()));
    let answer = publish(&server, &publisher(), &of(4000));
    assert_eq!((answer.status, answer.error()), (413, "expected a body of at most 4000 bytes".to_owned()));
    assert_eq!(publish(&server, &publisher(), &of(900)).status, 200);
}

#[test]
fn a_short_secret_is_warned_of_and_an_empty_one_refused() {
    let server = Server::with(&Dataset::usual(), &[("WS_AUTH_SECRET", "short")]);
    assert!(server.logged("WS_AUTH_SECRET is short").contains("bytes=5"));
    let said = refusal(serve(&Dataset::usual(), &[]).args(["serve", "--auth-secret", ""]));
    assert!(said.contains("expected a secret that is not empty"), "{said}");
}

#[test]
fn kafka_without_a_secret_refuses_to_start_unless_that_is_meant() {
    let dataset = Dataset::usual();
    let said = refusal(&mut serve(&dataset, &[("WS_KAFKA_BROKERS", "127.0.0.1:1")]));
    assert!(said.contains("--allow-anonymous"), "{said}");
}

#[test]
fn a_secret_is_replaced_while_the_server_runs_and_old_tokens_hold_as_long_as_it_says() {
    let dataset = Dataset::usual();
    let file = dataset.path().join("secrets");
    std::fs::write(&file, "the old secret of the tests, of 32 bytes\n").unwrap();
    let server = Server::with(&dataset, &[("WS_AUTH_SECRET_FILE", file.to_str().unwrap())]);
    let (old, new) = ("the old secret of the tests, of 32 bytes", "the new secret of the tests, of 32 bytes");
    let is_let_in = |secret: &str| {
        let token = signed(&json!({"sub": "test"}), "HS256", secret);
        StreamClient::at(&server, &format!("/ws?token={token}")).is_ok()
    };
    assert_eq!([old, new].map(is_let_in), [true, false]);
    std::fs::write(&file, format!("{new}\n{old}\n")).unwrap();
    server.signal(rustix::process::Signal::HUP);
    common::eventually("the new secret is accepted", || is_let_in(new).then_some(()));
    assert!(is_let_in(old));
    std::fs::write(&file, "").unwrap();
    server.signal(rustix::process::Signal::HUP);
    server.logged("the keys of tokens stay as they were");
    assert_eq!([old, new].map(is_let_in), [true, true]);
    std::fs::write(&file, new).unwrap();
    common::eventually("the old secret is refused, unasked", || (!is_let_in(old)).then_some(()));
    assert!(is_let_in(new) && !server.log().contains(new));
}

/// A file of `tests/fixtures/jwks`, which OpenSSL made.
fn fixture(name: &str) -> String {
    let path = format!("{}/tests/fixtures/jwks/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn tokens_of_an_identity_provider_are_verified_with_its_public_keys_and_each_only_as_it_is_meant() {
    let dataset = Dataset::usual();
    let file = dataset.path().join("keys.json");
    std::fs::write(&file, fixture("keys.json")).unwrap();
    let keys = file.to_str().unwrap().to_owned();
    let server = Server::with(&dataset, &[("WS_AUTH_JWKS_FILE", &*keys), ("WS_AUTH_SECRET", SECRET)]);
    let tokens: Value = serde_json::from_str(&fixture("tokens.json")).unwrap();
    let try_token = |token: &str| StreamClient::at(&server, &format!("/ws?token={token}"));
    let is_let_in = |name: &str| try_token(tokens[name].as_str().unwrap()).is_ok();
    for good in ["rs256", "rs256_without_kid", "es256"] {
        assert!(is_let_in(good), "{good}");
    }
    for bad in ["wrong_kid", "for_encryption", "other_key", "short_key", "expired"] {
        assert!(!is_let_in(bad), "{bad}");
    }
    let claims = json!({ "sub": "test" });
    assert!(try_token(&signed(&claims, "HS256", SECRET)).is_ok(), "the secret is accepted beside them");
    // The best known attack: the public key as the secret of an HMAC.
    let set: Value = serde_json::from_str(&fixture("keys.json")).unwrap();
    for public in [set["keys"][0]["n"].as_str().unwrap(), &fixture("keys.json")] {
        assert!(try_token(&signed(&claims, "HS256", public)).is_err());
    }
    let mut client = try_token(tokens["es256"].as_str().unwrap()).unwrap();
    let answer = client.ask(&json!({ "type": "subscribe", "channels": ["signals"] }));
    assert_eq!(answer["type"], "error", "its claims hold: {answer}");

    std::fs::write(&file, fixture("other.json")).unwrap();
    common::eventually("the new keys are read, unasked", || (!is_let_in("rs256")).then_some(()));
    for bad in [&fixture("short.json"), "{}", "{\"keys\":[]}", "not JSON"] {
        std::fs::write(&file, bad).unwrap();
        server.signal(rustix::process::Signal::HUP);
        server.logged("the keys of tokens stay as they were");
    }
}

#[test]
fn a_set_of_keys_that_verifies_nothing_is_refused_at_the_start() {
    let dataset = Dataset::usual();
    let file = dataset.path().join("keys.json");
    for (set, words) in [
        (fixture("short.json"), "key short: expected n and e in base64url, with 2048 to 8192 bits"),
        ("{}".to_owned(), "expected a JSON Web Key Set"),
        (r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#.to_owned(), "found none"),
        (r#"{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}"#.to_owned(), "key number 1: expected x and y"),
    ] {
        std::fs::write(&file, set).unwrap();
        let said = refusal(&mut serve(&dataset, &[("WS_AUTH_JWKS_FILE", file.to_str().unwrap())]));
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn two_places_for_one_secret_and_a_policy_for_no_channel_are_refused_at_the_start() {
    let dataset = Dataset::usual();
    for (settings, words) in [
        (&[("WS_AUTH_SECRET", SECRET), ("WS_AUTH_SECRET_FILE", "/nowhere")][..], "expected one of them"),
        (&[("WS_AUTH_SECRET_PREVIOUS", SECRET)], "expected WS_AUTH_SECRET with it"),
        (&[("WS_AUTH_SECRET_FILE", "/nowhere")], "cannot read the keys in /nowhere"),
        (&[("FLOWCAST_CHANNEL_POLICY", "linse=skip")], "unknown channel \"linse\""),
        (&[("FLOWCAST_CHANNEL_POLICY", "lines=lossy")], "expected the policy drop, skip or latest"),
    ] {
        let said = refusal(&mut serve(&dataset, settings));
        assert!(said.contains(words), "{said}");
    }
}
