//! HTTP, the upgrade, and what clients send after it.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tungstenite::handshake::derive_accept_key;

use super::bytes::{Request, ack, connected, request};
use super::{Form, Inner, Subscriber, TICKERS, now_ns, streams};

/// The hubs, by their names of the older generation.
const HUBS: [&str; 6] = ["classic", "orderflow", "state_gex", "state_greeks_zero", "state_greeks_one", "state_greeks"];

/// Serves requests until the client closes, or asks for a socket or for events.
pub fn serve(server: &Inner, socket: TcpStream) {
    socket.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(socket);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let path = lines[0].split(' ').nth(1).unwrap().to_owned();
        let header = |name: &str| {
            lines.iter().find_map(|line| {
                let (key, value) = line.split_once(": ")?;
                key.eq_ignore_ascii_case(name).then(|| value.to_owned())
            })
        };
        if path.starts_with("/client/hubs/") {
            return socket_of(server, reader, &path, header("sec-websocket-key"), header("sec-websocket-protocol"));
        }
        if path.starts_with("/ws") {
            return streams::socket_of(server, reader, &path, &header("sec-websocket-key").unwrap());
        }
        if path == "/api/publish" {
            let mut body = vec![0; header("content-length").unwrap().parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            let (status, body) = streams::publish(server, header("authorization").as_deref(), &body);
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                return;
            }
            continue;
        }
        if path == "/v2/negotiate" && lines[0].starts_with("POST") {
            let mut body = vec![0; header("content-length").unwrap().parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            let (status, body) = post(server, &header("authorization").unwrap(), &body);
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                return;
            }
            continue;
        }
        let wants_events = header("accept").is_some_and(|accept| accept.contains("event-stream"));
        if path.starts_with("/ticks") && wants_events && server.behaviour.has_ledger {
            return events(server, reader.into_inner(), &path);
        }
        if let Some(answer) = refusal(server, &path, header("authorization").as_deref()) {
            if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                return;
            }
            continue;
        }
        let body = answer(server, &path);
        let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
        let body = body.unwrap_or_default();
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// The answer to a negotiation that is refused for its key.
fn refusal(server: &Inner, path: &str, authorization: Option<&str>) -> Option<String> {
    let (key, times, is_ordered) = server.behaviour.refuse_key?;
    if !path.starts_with("/v2/negotiate") || authorization?.rsplit(' ').next() != Some(key) {
        return None;
    }
    let mut state = server.state.lock().unwrap();
    if state.refused >= times {
        return None;
    }
    state.refused += 1;
    if is_ordered {
        let user = xxhash_rust::xxh3::xxh3_64(key.as_bytes());
        let order = format!(
            r#"{{"plan":1,"fault":4,"do":"refuse-negotiate","tick":1,"fired":1,"hub":"orderflow","connection":null,"user":"{user:016x}","nth":0,"status":429}}"#
        );
        server.order(&mut state, &order);
    }
    Some("HTTP/1.1 429 Too Many Requests\r\ncontent-length: 4\r\n\r\nbusy".to_owned())
}

fn answer(server: &Inner, path: &str) -> Option<String> {
    match path.split('?').next()? {
        "/v2/negotiate" => {
            let query = path.split_once('?').map_or("", |(_, query)| query);
            server.state.lock().unwrap().queries.insert(query.to_owned());
            Some(format!(r#"{{"websocket_urls":{},"prefix":"blue"}}"#, urls(server, "", "t")))
        }
        "/tickers" => Some(format!(r#"{{"stocks":{TICKERS:?},"indexes":[],"futures":[]}}"#)),
        "/ticks" if server.behaviour.has_ledger => Some(now(server)),
        _ => None,
    }
}

/// Every hub's URL, as the value of `websocket_urls`.
fn urls(server: &Inner, generation: &str, token: &str) -> String {
    let public = server.behaviour.public.clone().unwrap_or_else(|| format!("ws://{}", server.address));
    let url =
        |hub: &&str| format!(r#""{generation}{hub}":"{public}/client/hubs/{generation}{hub}?access_token={token}""#);
    format!("{{{}}}", HUBS.iter().map(url).collect::<Vec<_>>().join(","))
}

/// The hub of an analytics group; none for spot.
fn hub_of(group: &str) -> Option<&'static str> {
    let (_, category) = group.rsplit_once("_state_").unwrap_or_default();
    HUBS.into_iter().find(|hub| match *hub {
        "classic" => group.contains("_classic_"),
        "orderflow" => group.contains("_orderflow_"),
        "state_gex" => category.starts_with("gex_"),
        "state_greeks_zero" => category.ends_with("_zero") && !category.starts_with("gex_"),
        "state_greeks_one" => category.ends_with("_one") && !category.starts_with("gex_"),
        _ => !category.is_empty(),
    })
}

/// POST: the groups are joined when the sockets of the token connect.
fn post(server: &Inner, authorization: &str, body: &[u8]) -> (&'static str, String) {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    let groups: Vec<&str> = body["groups"].as_array().unwrap().iter().map(|group| group.as_str().unwrap()).collect();
    let ticker = |group: &str| TICKERS.into_iter().find(|ticker| group.starts_with(&format!("{ticker}_"))).unwrap();
    let spots: Vec<&str> = groups.iter().filter_map(|group| group.strip_suffix("_spot")).collect();
    if let Some(bare) = groups.iter().find(|group| !spots.is_empty() && !spots.contains(&ticker(group))) {
        return ("400 Bad Request", format!(r#"{{"error":"expected {}_spot beside {bare}"}}"#, ticker(bare)));
    }
    let generation = if spots.is_empty() { "" } else { "v2_" };
    let key = authorization.rsplit(' ').next().unwrap().to_owned();
    let mut state = server.state.lock().unwrap();
    // The key's earlier session ends.
    state.memberships.retain(|(token, _), _| *token != key);
    for group in groups.iter().filter(|group| !group.ends_with("_spot")) {
        let hub = format!("{generation}{}", hub_of(group).unwrap());
        let joined = state.memberships.entry((key.clone(), hub)).or_default();
        joined.push(format!("blue_{group}"));
        let spot = format!("blue_{}_spot", ticker(group));
        if !spots.is_empty() && !joined.contains(&spot) {
            joined.push(spot);
        }
    }
    state.keys.push(key.clone());
    drop(state);
    ("200 OK", format!(r#"{{"websocket_urls":{}}}"#, urls(server, generation, &key)))
}

fn now(server: &Inner) -> String {
    let newest = server.state.lock().unwrap().ticks.last().map_or(0, |tick| seq(tick));
    let monotonic_ns = now_ns();
    format!(
        r#"{{"hub":"orderflow","now":{{"monotonic_ns":{monotonic_ns},"unix_ns":0}},"oldest":1,"newest":{newest},"ticks":[]}}"#
    )
}

fn seq(tick: &str) -> u64 {
    serde_json::from_str::<serde_json::Value>(tick).unwrap()["seq"].as_u64().unwrap()
}

fn events(server: &Inner, mut socket: TcpStream, path: &str) {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    let now = now(server);
    let after = path.split_once("after=").and_then(|(_, after)| after.parse().ok());
    let mut state = server.state.lock().unwrap();
    let mut next = after.map_or(state.ticks.len(), |after: u64| {
        state.ticks.iter().position(|tick| seq(tick) > after).unwrap_or(state.ticks.len())
    });
    let mut out = format!("{head}event: now\ndata: {now}\n\n");
    loop {
        while let Some(tick) = state.ticks.get(next) {
            write!(out, "event: tick\nid: {}\ndata: {tick}\n\n", seq(tick)).unwrap();
            next += 1;
        }
        drop(state);
        if socket.write_all(out.as_bytes()).is_err() || server.stop.load(Relaxed) {
            return;
        }
        out.clear();
        state = server.state.lock().unwrap();
        state = server.ticked.wait_timeout(state, Duration::from_millis(100)).unwrap().0;
    }
}

fn socket_of(
    server: &Inner,
    mut reader: BufReader<TcpStream>,
    path: &str,
    key: Option<String>,
    protocol: Option<String>,
) {
    if server.behaviour.is_mute {
        // Until the client gives up.
        let _ = reader.read(&mut [0]);
        return;
    }
    let number = {
        let mut state = server.state.lock().unwrap();
        state.upgrades += 1;
        state.upgrades - 1
    };
    let protocol = protocol.unwrap();
    let form = Form { is_protobuf: protocol.starts_with("protobuf"), is_reliable: protocol.contains("reliable") };
    let mut socket = reader.get_ref().try_clone().unwrap();
    if server.behaviour.refuse_every.is_some_and(|every| number % every == 0) {
        let _ = socket.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nfull");
        return;
    }
    let accept = derive_accept_key(key.unwrap().as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
    );
    let recovered = path.split_once("awps_connection_id=c").and_then(|(_, id)| id.split('&').next()?.parse().ok());
    if let Some(number) = recovered {
        return recover(server, reader, number, &head);
    }
    let (hub, token) = path.rsplit('/').next().unwrap().split_once("?access_token=").unwrap_or_default();
    let mut state = server.state.lock().unwrap();
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(&connected(form, number)).unwrap();
    let groups = state.memberships.get(&(token.to_owned(), hub.to_owned())).cloned().unwrap_or_default();
    let at_hub = state.at_hub.entry(hub.to_owned()).or_default();
    *at_hub += 1;
    let at_hub = *at_hub - 1;
    state.subscribers.push(Subscriber {
        number,
        hub: hub.to_owned(),
        at_hub,
        socket,
        form,
        groups,
        held: None,
        sent: [].into(),
        acked: 0,
        is_cut: false,
        pings: 0,
        pongs: 0,
    });
    drop(state);
    listen(server, reader, number, form);
}

/// Resends what was not acknowledged and goes on.
fn recover(server: &Inner, reader: BufReader<TcpStream>, number: usize, head: &str) {
    let form = {
        let mut state = server.state.lock().unwrap();
        let subscriber = state.subscribers.iter_mut().find(|one| one.number == number).unwrap();
        subscriber.socket = reader.get_ref().try_clone().unwrap();
        subscriber.is_cut = false;
        let mut out = head.as_bytes().to_vec();
        subscriber.sent.range(subscriber.acked + 1..).for_each(|(_, frame)| out.extend(frame));
        subscriber.socket.write_all(&out).unwrap();
        subscriber.form
    };
    listen(server, reader, number, form);
}

fn listen(server: &Inner, mut reader: BufReader<TcpStream>, number: usize, form: Form) {
    while let Some((opcode, payload)) = read_frame(&mut reader) {
        let mut state = server.state.lock().unwrap();
        let Some(subscriber) = state.subscribers.iter_mut().find(|one| one.number == number) else { return };
        if opcode == 0xa {
            subscriber.pongs += 1;
            continue;
        }
        if opcode == 0x8 {
            // A close of ours that is answered leaves the session.
            if !std::mem::replace(&mut subscriber.is_cut, true) {
                subscriber.groups.clear();
            }
            return;
        }
        match request(form, &payload) {
            Request::Join(group, ack_id) => {
                let is_here = hub_of(&group).is_none_or(|hub| subscriber.hub.trim_start_matches("v2_") == hub);
                let is_ok = is_here && server.behaviour.forbidden.is_none_or(|ticker| !group.contains(ticker));
                if is_ok {
                    subscriber.groups.push(group);
                }
                let _ = subscriber.socket.write_all(&ack(form, ack_id, is_ok));
            }
            Request::SequenceAck(sequence_id) => subscriber.acked = sequence_id,
            Request::Other => {}
        }
    }
}

/// One masked frame of a client.
pub fn read_frame(reader: &mut BufReader<TcpStream>) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    reader.read_exact(&mut head).ok()?;
    let len = match head[1] & 0x7f {
        126 => {
            let mut len = [0; 2];
            reader.read_exact(&mut len).ok()?;
            usize::from(u16::from_be_bytes(len))
        }
        len => usize::from(len),
    };
    let mut key = [0; 4];
    reader.read_exact(&mut key).ok()?;
    let mut payload = vec![0; len];
    reader.read_exact(&mut payload).ok()?;
    payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Some((head[0] & 0x0f, payload))
}
