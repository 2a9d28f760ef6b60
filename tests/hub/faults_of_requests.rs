//! Faults on demand about requests and acks (`docs/faults.md`): negotiates, upgrades, recoveries, joins.

use serde_json::{Value, json};

use crate::common::client::{Client, JSON, JSON_RELIABLE, Refused, Said, recover_as};
use crate::common::dataset::{Dataset, group};
use crate::common::eventually;
use crate::common::faults::{clear, entries, entries_until, keyed, order, standing, step, struck};
use crate::common::http::{self, Response};
use crate::common::server::Server;
use crate::common::socket::Socket;
use crate::common::streams::StreamClient;

fn plan(fault: &str) -> String {
    format!("[[fault]]\nat = 0\nwho = {{ key = \"bad\" }}\n{fault}\n")
}

fn negotiate(server: &Server, key: &str) -> Response {
    http::request(server.address, "GET", "/v2/negotiate", &[("Authorization", &format!("Bearer {key}"))])
}

fn upgrade(server: &Server, path: &str) -> Result<Socket, Response> {
    Socket::open(server.address, path, &[("Sec-WebSocket-Protocol", JSON)])
}

#[test]
fn a_negotiate_is_refused_as_often_as_the_plan_says() {
    let server = standing(&Dataset::usual(), &[]);
    order(&server, &plan("do = \"refuse-negotiate\"\ntimes = 2\nretry-after = \"1500ms\""));
    let refused = [(); 3].map(|()| negotiate(&server, "bad"));
    assert_eq!(refused.each_ref().map(|answer| answer.status), [429, 429, 200]);
    assert_eq!(refused.each_ref().map(|answer| answer.header("retry-after")), [Some("2"), Some("2"), None]);
    assert!(refused[0].error().contains("a plan of faults"), "{}", refused[0].body);
    assert_eq!(negotiate(&server, "good").status, 200);
    let entry = &entries_until(&server, 2)[0];
    assert_eq!((&entry["do"], &entry["hub"], &entry["nth"]), (&json!("refuse-negotiate"), &Value::Null, &json!(0)));
    assert_eq!((&entry["status"], &entry["retry_after_ms"]), (&json!(429), &json!(1500)));
    assert_eq!(struck(&server, "refuse-negotiate"), 2);
    order(&server, &plan("do = \"refuse-negotiate\"\ntimes = 1\nstatus = 503"));
    let patched = http::request_with(
        server.address,
        "PATCH",
        "/negotiate",
        &[("Authorization", "Bearer bad"), ("Content-Type", "application/json")],
        "{}",
    );
    assert_eq!((patched.status, patched.header("retry-after")), (503, None), "whatever the method");
}

#[test]
fn a_slow_negotiate_is_answered_all_the_same() {
    let server = standing(&Dataset::usual(), &[]);
    order(&server, &plan("do = \"refuse-negotiate\"\ntimes = 1\nslow = \"50ms\""));
    assert_eq!(negotiate(&server, "bad").status, 200);
    assert_eq!(entries_until(&server, 1)[0]["ms"], 50);
}

#[test]
fn an_upgrade_is_refused_on_the_hubs_and_on_ws() {
    let server = standing(&Dataset::usual(), &[]);
    order(&server, &plan("do = \"refuse-upgrade\"\ntimes = 1\nstatus = 500"));
    for path in ["/client/hubs/orderflow?access_token=bad:1", "/ws?client_id=bad"] {
        assert_eq!(upgrade(&server, path).expect_err(path).status, 500);
        assert!(upgrade(&server, path).is_ok(), "{path}: once");
    }
    keyed(&server, "good", JSON);
    StreamClient::at(&server, "/ws?client_id=good").unwrap();
    let hubs: Vec<Value> = entries_until(&server, 2).iter().map(|entry| entry["hub"].clone()).collect();
    assert_eq!(hubs, ["orderflow", "ws"]);
}

#[test]
fn an_expired_token_is_refused_once_on_the_hubs_and_closes_a_client_of_ws() {
    let server = standing(&Dataset::usual(), &[]);
    let mut of_ws = StreamClient::at(&server, "/ws?client_id=bad").unwrap();
    let mut good = StreamClient::at(&server, "/ws?client_id=good").unwrap();
    let mut of_hub = keyed(&server, "bad", JSON_RELIABLE);
    order(&server, "[[fault]]\nat = 1\nwho = { key = \"bad\" }\ndo = \"expire-token\"\n");
    let path = "/client/hubs/orderflow?access_token=bad:1";
    assert!(upgrade(&server, path).is_ok(), "not before its tick");
    step(&server, 1);
    let closed = of_ws.rest();
    assert!(format!("{closed:?}").contains("4401"), "{closed:?}");
    good.until_pong();
    assert_eq!(
        of_hub.data().index(),
        0,
        "an open connection to a hub stays: Azure looks at tokens when clients connect"
    );
    let session = of_hub.reset();
    assert!(session.recover().is_ok(), "a recovery needs no token");
    let refused = upgrade(&server, path).expect_err("expired");
    assert_eq!(refused.status, 401);
    assert!(upgrade(&server, path).is_ok(), "as if the client had a new one");
    let shown: Vec<(Value, Value)> =
        entries_until(&server, 2).iter().map(|entry| (entry["hub"].clone(), entry["status"].clone())).collect();
    assert_eq!(shown, [(json!("ws"), Value::Null), (json!("orderflow"), json!(401))]);
}

#[test]
fn a_recovery_is_refused_as_each_client_understands_it() {
    let server = standing(&Dataset::usual(), &[]);
    let sessions = ["bad", "bad", "good"].map(|key| keyed(&server, key, JSON_RELIABLE).reset());
    server.closed_until("gone", 3);
    order(&server, &plan("do = \"refuse-recovery\"\ntimes = 2"));
    let recovered = |session: &crate::common::client::Session, agent: &str| {
        let key = &session.connected.user_id;
        let url = format!("/client/hubs/orderflow?access_token={key}:1");
        let token = session.connected.token.as_deref().unwrap();
        recover_as(agent, &url, server.address, (JSON_RELIABLE, &session.connected.connection_id, token))
    };
    assert!(recovered(&sessions[0], "a test").expect_err("refused").is_final());
    let python = recovered(&sessions[1], "azsdk-python-webpubsub-client/1.1.0").expect_err("refused");
    assert!(matches!(python, Refused::Answer(404, _)), "{python:?}");
    assert!(recovered(&sessions[2], "a test").is_ok());
    assert!(recovered(&sessions[1], "a test").is_ok(), "its session was there all the time");
    let statuses: Vec<Value> = entries_until(&server, 2).iter().map(|entry| entry["status"].clone()).collect();
    assert_eq!(statuses, [101, 404]);
}

#[test]
fn an_ack_does_not_come_or_late_and_the_request_is_executed() {
    let server = standing(&Dataset::usual(), &[]);
    let open = |key: &str| Client::open_at(&server, &format!("/client/hubs/orderflow?access_token={key}:1"), JSON);
    let (mut bad, mut good) = (open("bad"), open("good"));
    order(&server, &plan("do = \"no-ack\"\ntimes = 1"));
    bad.send_join(&group("SPX"), Some(71));
    good = good.joined(&["SPX"]);
    eventually("the join is executed", || (server.metric("flowcast_subscribers") == 2).then_some(()));
    step(&server, 1);
    let Said::Data(data) = bad.said() else { panic!("expected data and no ack") };
    assert_eq!((data.index(), good.data().index()), (0, 0));
    assert!(bad.join(&group("ES_SPX")).success, "the second is answered");
    assert_eq!(entries_until(&server, 1)[0]["ack_id"], 71);
    order(&server, &plan("do = \"late-ack\"\ntimes = 1\nby = \"200ms\""));
    bad.send_leave(&group("SPX"), Some(72));
    assert_eq!(bad.ping(), [], "the pong overtakes the ack");
    assert!(bad.ack(72).success);
    let entry = &entries_until(&server, 2)[1];
    assert_eq!((&entry["ack_id"], &entry["ms"]), (&json!(72), &json!(200)));
    clear(&server);
    assert!(bad.leave(&group("ES_SPX")).success);
    assert_eq!(entries(&server).len(), 2);
}
