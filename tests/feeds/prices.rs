//! From a broker's bytes to a client of `/ws`, through the whole server.

use std::fs;

use crate::brokers::kite::{Act, Kite};
use crate::brokers::{CredentialsFile, block, eventually};
use crate::common::dataset::Dataset;
use crate::common::server::{Server, serve};
use crate::common::streams::StreamClient;
use serde_json::json;
use tempfile::TempDir;

const INFY: u32 = 408_065;
const SBIN: u32 = 779_521;

/// A server whose prices come from the broker.
struct Fed {
    server: Server,
    kite: Kite,
    _files: (TempDir, CredentialsFile),
}

async fn fed(more: &[(&str, &str)]) -> Fed {
    let (kite, file) = (Kite::start().await, CredentialsFile::kite("hunter2"));
    kite.good_token("hunter2");
    let symbols = format!("ws_url = {:?}\nsymbols = {{ INFY = {INFY}, SBIN = {SBIN} }}", kite.url);
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("flowcast.toml");
    fs::write(&settings, block("kite", "zerodha", &file, &symbols)).unwrap();
    let dataset = Dataset::usual();
    let path = settings.to_str().unwrap().to_owned();
    let more: Vec<(String, String)> = more.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    let server = tokio::task::spawn_blocking(move || {
        let mut settings = vec![("FLOWCAST_CONFIG", path.as_str()), ("WEBSOCKET_PRICE_UPDATE_INTERVAL", "1")];
        settings.extend(more.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        Server::launch(&mut serve(&dataset, &settings)).serving()
    });
    Fed { server: server.await.unwrap(), kite, _files: (folder, file) }
}

/// What a blocking client does, beside the broker's tasks.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brokers_tick_reaches_the_clients_and_the_status_tells_of_the_feed() {
    let Fed { server, kite, _files } = fed(&[]).await;
    eventually("both are subscribed", || (kite.subscribed().len() == 2).then_some(())).await;
    kite.act(Act::Tick(INFY, 157_315));
    let (server, prices) = beside(move || {
        let mut client = StreamClient::open(&server);
        let prices = client.next("price_update");
        (server, prices)
    })
    .await;
    assert_eq!(prices["symbols"], json!({"INFY": {"price": 1573.15, "close": 1573.15}}), "and no price of the replay");
    let (server, health, metrics) = beside(move || {
        let health = server.get("/websocket/status").json()["stream_health"].clone();
        let metrics = server.get("/metrics").body;
        (server, health, metrics)
    })
    .await;
    let feed = &health["feed:kite"];
    for (key, value) in [
        ("is_healthy", json!(true)),
        ("state", json!("open")),
        ("reason", json!("")),
        ("connections", json!(1)),
        ("subscribed", json!(2)),
        ("records", json!(1)),
        ("reconnects", json!(0)),
        ("errors", json!(0)),
    ] {
        assert_eq!(feed[key], value, "{key} of {feed}");
    }
    assert!(feed["last_update"].is_string(), "{feed}");
    assert!(metrics.contains(r#"feed="kite""#), "{metrics}");
    assert!(!server.log().contains("hunter2"), "credentials are in no log");
    beside(move || drop(server)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_demand_the_first_client_of_a_symbol_subscribes_at_the_broker_and_the_last_one_ends_it() {
    let settings = [
        ("FLOWCAST_FEED_DEMAND", "clients"),
        ("FLOWCAST_FEED_UNSUBSCRIBE_GRACE", "100ms"),
        ("WEBSOCKET_AUTO_SUBSCRIBE", "false"),
    ];
    let Fed { server, kite, _files } = fed(&settings).await;
    eventually("the broker is connected", || (kite.connections() == 1).then_some(())).await;
    let (server, mut clients) = beside(move || {
        let clients = [(); 2].map(|()| StreamClient::open(&server));
        (server, clients)
    })
    .await;
    assert!(kite.subscribed().is_empty());
    let request = json!({"type": "subscribe", "channel": "price_updates", "symbols": ["SBIN", "NOT_OFFERED"]});
    let mut clients = beside(move || {
        let _ = clients.each_mut().map(|client| assert_eq!(client.ask(&request)["type"], "subscribed"));
        clients
    })
    .await;
    eventually("one symbol is subscribed", || kite.subscribed().keys().eq([&SBIN]).then_some(())).await;
    let last = clients.each_mut().len() - 1;
    let mut clients = beside(move || {
        clients[0].ask(&json!({"type": "unsubscribe", "channel": "price_updates"}));
        clients
    })
    .await;
    kite.act(Act::Tick(SBIN, 83_500));
    let clients = beside(move || {
        assert_eq!(clients[last].next("price_update")["symbols"]["SBIN"]["price"], 835.0, "another wants it still");
        clients
    })
    .await;
    drop(clients);
    eventually("nothing is subscribed", || kite.subscribed().is_empty().then_some(())).await;
    beside(move || drop(server)).await;
}
