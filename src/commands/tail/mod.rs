//! `flowcast tail`: a small subscriber that shows data in one command.
//!
//! It negotiates like GexBot's client, joins, decodes, and prints one JSON line per record, with flowcast or
//! the real service at the other end. It recovers no session: when the connection ends, the command ends.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use http::Method;
use prost::Message as _;
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::source::broker::net::http_client::{Call, HttpClient};
use crate::source::broker::net::tls::client_config;
use crate::wire::gexbot::orderflow_group;
use crate::wire::payload::orderflow::{self, Orderflow};
use crate::wire::payload::{Profile, decompress};
use crate::wire::proto::webpubsub::{UpstreamMessage, upstream_message};
use crate::wire::webpubsub::received::{ServiceMessage, receive};
use crate::wire::webpubsub::{SUBPROTOCOLS, Syntax};

/// What to subscribe to, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct TailOptions {
    /// Server to subscribe to: an http(s):// URL, where tail negotiates, or a hub's ws(s):// URL with its
    /// access_token [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Groups to join, or tickers such as SPX for their orderflow groups; all tickers by default. The URL
    /// may also stand before them, without --url
    #[arg(value_name = "[URL] GROUP")]
    pub words: Vec<String>,
    /// API key
    #[arg(long, env = "GEXBOT_API_KEY", default_value = "flowcast-tail", hide_env_values = true)]
    pub key: String,
    /// Generation of the API: 2025-11 negotiates at /negotiate, 2026-04 at /v2/negotiate
    #[arg(long, value_enum, default_value_t = Profile::V2026_04)]
    pub profile: Profile,
    /// Subprotocol to ask for
    #[arg(long, default_value = "protobuf.webpubsub.azure.v1", value_parser = subprotocols())]
    pub subprotocol: String,
    /// Stop after this many records
    #[arg(long, value_name = "RECORDS")]
    pub count: Option<u64>,
    /// Store every message of the service unchanged, one JSON line each
    #[arg(long, value_name = "FILE")]
    pub capture: Option<PathBuf>,
}

impl TailOptions {
    /// The URL and the groups that were typed. A first word with a `:` or `/` is a URL: no group has one.
    fn place(&self) -> anyhow::Result<(&str, &[String])> {
        const USUAL: &str = "http://127.0.0.1:8080";
        match (&self.url, self.words.split_first()) {
            (None, Some((first, groups))) if first.contains([':', '/']) => Ok((first, groups)),
            (Some(_), Some((first, _))) if first.contains("://") => {
                bail!("expected the URL once, got --url and {first}")
            }
            (url, _) => Ok((url.as_deref().unwrap_or(USUAL), &self.words)),
        }
    }
}

fn subprotocols() -> clap::builder::PossibleValuesParser {
    SUBPROTOCOLS.map(|(name, ..)| name).into()
}

/// Subscribes and prints until the connection ends, or enough records came.
pub fn tail(options: TailOptions) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(options))
}

async fn run(options: TailOptions) -> anyhow::Result<()> {
    let HubAddress { url, groups } = find(&options).await?;
    let mut connection = HubConnection::connect(&url, groups, &options).await?;
    let mut printed = 0;
    while options.count.is_none_or(|count| printed < count) {
        let message = connection.next().await?;
        let Some(line) = connection.heard(&message).await? else { continue };
        let mut out = io::stdout().lock();
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            // `tail | head` ends quietly.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("cannot print")?,
        }
        printed += 1;
    }
    connection.close().await;
    Ok(())
}

/// A connection that has asked to join its groups.
struct HubConnection {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    groups: Vec<String>,
    subprotocol: String,
    syntax: Syntax,
    reliable: bool,
    profile: Profile,
    capture: Option<BufWriter<File>>,
}

impl HubConnection {
    async fn connect(url: &str, groups: Vec<String>, options: &TailOptions) -> anyhow::Result<Self> {
        let (_, syntax, reliable) = SUBPROTOCOLS
            .into_iter()
            .find(|(name, ..)| *name == options.subprotocol)
            .context("checked when it was parsed")?;
        let capture = options.capture.as_ref().map(File::create).transpose().context("cannot create the capture")?;
        let mut request = url.into_client_request().context("expected a ws:// or wss:// URL")?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", options.subprotocol.parse()?);
        let (mut socket, _) = tokio_tungstenite::connect_async(request).await.context("cannot connect to the hub")?;
        for (at, group) in groups.iter().enumerate() {
            socket.send(join(syntax, group, at as u64 + 1)).await.context("cannot join")?;
        }
        let (subprotocol, profile) = (options.subprotocol.clone(), options.profile);
        Ok(Self { socket, groups, subprotocol, syntax, reliable, profile, capture: capture.map(BufWriter::new) })
    }

    /// The next message. The end of the connection is an error.
    async fn next(&mut self) -> anyhow::Result<Message> {
        match self.socket.next().await {
            Some(Ok(Message::Close(Some(close)))) => {
                bail!("the service closed the connection: {} {}", close.code, close.reason)
            }
            None | Some(Ok(Message::Close(None))) => bail!("the service closed the connection"),
            Some(message) => message.context("the connection broke"),
        }
    }

    /// Captures and understands a message; returns the line to print, if it is a record.
    async fn heard(&mut self, message: &Message) -> anyhow::Result<Option<Value>> {
        let bytes = match message {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
            _ => return Ok(None),
        };
        if let Some(capture) = &mut self.capture {
            writeln!(capture, "{}", captured(&self.subprotocol, message)).context("cannot write the capture")?;
            capture.flush().context("cannot write the capture")?;
        }
        match receive(self.syntax, bytes)? {
            ServiceMessage::Data { group, sequence_id, payload, .. } => {
                if let (true, Some(id)) = (self.reliable, sequence_id) {
                    self.socket.send(sequence_ack(self.syntax, id)).await.context("the connection broke")?;
                }
                return record_line(&group, sequence_id, &payload, self.profile).map(Some);
            }
            ServiceMessage::Ack { ack_id, success: false, error } => {
                let group = self.groups.get(ack_id.saturating_sub(1) as usize).map_or("?", String::as_str);
                let (name, reason) = error.unwrap_or_default();
                bail!("cannot join {group}: {name}: {reason}");
            }
            ServiceMessage::Disconnected { reason } => eprintln!("the service disconnects: {reason}"),
            ServiceMessage::Connected { .. } | ServiceMessage::Ack { .. } | ServiceMessage::Other => {}
        }
        Ok(None)
    }

    /// Code 1000 ends a reliable session at once. If the service is gone, so is the session.
    async fn close(&mut self) {
        let _ = self.socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).await;
    }
}

/// A hub's URL and the groups to join there.
struct HubAddress {
    url: String,
    groups: Vec<String>,
}

/// Negotiates, unless the hub's URL is given.
async fn find(options: &TailOptions) -> anyhow::Result<HubAddress> {
    let (url, asked) = options.place()?;
    let base = url.trim_end_matches('/');
    if !base.starts_with("http") {
        let groups = named(asked, "blue");
        anyhow::ensure!(!groups.is_empty(), "expected groups to join: a ws:// URL does not tell which there are");
        return Ok(HubAddress { url: base.to_owned(), groups });
    }
    let path = match options.profile {
        Profile::V2025_11 => "/negotiate",
        Profile::V2026_04 => "/v2/negotiate",
    };
    let authorization = SecretString::from(format!("Bearer {}", options.key));
    let answer: Value = get(&format!("{base}{path}"), &authorization).await.context("cannot negotiate")?;
    let url = answer["websocket_urls"]["orderflow"].as_str().context("negotiate names no orderflow hub")?.to_owned();
    let prefix = answer["prefix"].as_str().unwrap_or("red");
    let mut groups = named(asked, prefix);
    if groups.is_empty() {
        let tickers: Value =
            get(&format!("{base}/tickers"), &authorization).await.context("cannot list the tickers")?;
        let tickers =
            ["stocks", "indexes", "futures"].into_iter().filter_map(|kind| tickers[kind].as_array()).flatten();
        groups = tickers.filter_map(Value::as_str).map(|ticker| orderflow_group(prefix, ticker)).collect();
    }
    Ok(HubAddress { url, groups })
}

fn named(groups: &[String], prefix: &str) -> Vec<String> {
    let full =
        |group: &String| if group.contains("_orderflow_") { group.clone() } else { orderflow_group(prefix, group) };
    groups.iter().map(full).collect()
}

async fn get(url: &str, authorization: &SecretString) -> anyhow::Result<Value> {
    const LIMIT: usize = 10 << 20;
    let http = HttpClient { tls: client_config(None)?, timeout: Duration::from_secs(30), max_answer_bytes: LIMIT };
    let call = Call { method: Method::GET, url, token: Some(authorization), body: Vec::new() };
    let answer = http.call(call).await?;
    anyhow::ensure!(answer.status == 200, "expected HTTP 200, got {}", answer.status);
    Ok(serde_json::from_slice(&answer.body)?)
}

fn join(syntax: Syntax, group: &str, ack_id: u64) -> Message {
    match syntax {
        Syntax::Json => Message::text(json!({ "type": "joinGroup", "group": group, "ackId": ack_id }).to_string()),
        Syntax::Protobuf => {
            let join = upstream_message::JoinGroup { group: group.to_owned(), ack_id: Some(ack_id) };
            upstream(upstream_message::Message::JoinGroup(join))
        }
    }
}

fn sequence_ack(syntax: Syntax, sequence_id: u64) -> Message {
    match syntax {
        Syntax::Json => Message::text(json!({ "type": "sequenceAck", "sequenceId": sequence_id }).to_string()),
        Syntax::Protobuf => {
            upstream(upstream_message::Message::SequenceAck(upstream_message::SequenceAck { sequence_id }))
        }
    }
}

fn upstream(message: upstream_message::Message) -> Message {
    Message::binary(UpstreamMessage { message: Some(message) }.encode_to_vec())
}

/// One captured message: `{"subprotocol":…,"text":…}` or `{"subprotocol":…,"binary":base64}`.
fn captured(subprotocol: &str, message: &Message) -> Value {
    match message {
        Message::Text(text) => json!({ "subprotocol": subprotocol, "text": text.as_str() }),
        _ => json!({ "subprotocol": subprotocol, "binary": STANDARD.encode(message.clone().into_data()) }),
    }
}

/// A record as it stands in a JSONL file: the same keys, and numbers at the scale of the source.
fn record_line(group: &str, sequence_id: Option<u64>, payload: &[u8], profile: Profile) -> anyhow::Result<Value> {
    const LIMIT: usize = 16 << 20;
    let message = decompress(payload, LIMIT).context("expected a payload compressed with zstd")?;
    let record = Orderflow::decode(message.as_slice()).context("expected an orderflow payload")?;
    let mut line = Map::new();
    line.insert("group".to_owned(), group.into());
    if let Some(id) = sequence_id {
        line.insert("sequence_id".to_owned(), id.into());
    }
    line.insert("timestamp".to_owned(), record.timestamp.into());
    line.insert("ticker".to_owned(), record.ticker.as_str().into());
    for (key, value, factor) in orderflow::values(&record, profile) {
        line.insert(key.to_owned(), (value as f64 / f64::from(factor)).into());
    }
    Ok(line.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: TailOptions,
    }

    #[test]
    fn the_url_may_be_a_flag_the_first_word_or_left_out() {
        let place = |line: &str| {
            let options = Cli::parse_from(["tail"].into_iter().chain(line.split_whitespace())).options;
            options.place().map(|(url, groups)| format!("{url} {}", groups.join("+"))).ok()
        };
        for (line, expected) in [
            ("", "http://127.0.0.1:8080 "),
            ("SPX NDX", "http://127.0.0.1:8080 SPX+NDX"),
            ("http://a SPX", "http://a SPX"),
            ("--url http://a", "http://a "),
            ("SPX --url ws://a NDX", "ws://a SPX+NDX"),
            ("localhost:1 SPX", "localhost:1 SPX"),
        ] {
            assert_eq!(place(line).as_deref(), Some(expected), "{line}");
        }
        assert_eq!(place("http://a --url http://b"), None, "not two");
    }
}
