//! Records the JSON streams of a `/ws`: each channel into its file of the folder `streams/`.

use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use http::HeaderValue;
use http::header::AUTHORIZATION;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::heard::{Heard, Keeper, ToFiles, stream_file};
use super::stream_lines;
use crate::source::broker::net::socket::{self, Socket, SocketTarget};
use crate::source::broker::net::tls::client_config;

/// How long name, TCP, TLS and upgrade may take together.
const CONNECTING: Duration = Duration::from_secs(30);

/// How long the server may take to answer a request to subscribe.
const ANSWERING: Duration = Duration::from_secs(30);

/// The largest message.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// Which streams, and where.
#[derive(Debug, Clone)]
pub struct RecordedChannels {
    /// The URL of a `/ws`. May hold a token.
    pub url: String,
    pub channels: Vec<String>,
    pub token: Option<SecretString>,
    /// A connection on which nothing arrives for this long counts as lost.
    pub silence: Duration,
}

/// Subscribes and records until the receiver of `files` is gone. An error only if that fails at the start.
pub async fn record(request: RecordedChannels, files: ToFiles) -> anyhow::Result<()> {
    let mut keeper = Keeper::new("the connection", files.clone());
    let mut next = match subscribe(&request, &files, &mut keeper).await {
        Err(_) if files.is_closed() => return Ok(()),
        first => Some(first?),
    };
    eprintln!("recording {}", request.channels.join(", "));
    loop {
        let connected = match next.take() {
            Some(socket) => Ok(socket),
            None => subscribe(&request, &files, &mut keeper).await,
        };
        let ended = match connected {
            Ok(socket) => {
                keeper.back().await;
                forward(socket, &request, &files).await
            }
            Err(error) => error,
        };
        if files.is_closed() || !keeper.lost(&ended).await {
            return Ok(());
        }
    }
}

/// Connects, subscribes, and waits for the answer: without one, it may be that nothing ever comes.
async fn subscribe(request: &RecordedChannels, files: &ToFiles, keeper: &mut Keeper) -> anyhow::Result<Socket> {
    let mut socket = connect(request).await?;
    let ask = json!({ "type": "subscribe", "channels": request.channels }).to_string();
    socket.send(Message::text(ask)).await.context("cannot subscribe")?;
    tokio::select! {
        answered = tokio::time::timeout(ANSWERING, wait_for_answer(&mut socket, request, files, keeper)) => {
            let late = || format!("cannot subscribe: the server did not answer within {} s", ANSWERING.as_secs());
            answered.with_context(late)??;
        }
        () = files.closed() => bail!("the recording has ended"),
    }
    Ok(socket)
}

/// Waits for the answer to `subscribe`. What comes before it is recorded: a server may send some channels without being
/// asked, and does not send that again.
async fn wait_for_answer(
    socket: &mut Socket,
    request: &RecordedChannels,
    files: &ToFiles,
    keeper: &mut Keeper,
) -> anyhow::Result<()> {
    loop {
        let message = match socket.next().await {
            Some(Ok(message)) => message,
            Some(Err(error)) => bail!("{}", socket::broken(&error)),
            None => bail!("the server closed the connection"),
        };
        match message.to_text().ok().filter(|_| message.is_text()).and_then(stream_lines::answer) {
            Some(Ok(())) => return Ok(()),
            Some(Err(reason)) => bail!("cannot subscribe to {}: {reason}", request.channels.join(", ")),
            None => {
                if message.is_text() {
                    keeper.back().await;
                }
                pass_on(&message, request, files).await?;
            }
        }
    }
}

async fn connect(request: &RecordedChannels) -> anyhow::Result<Socket> {
    let mut headers = Vec::new();
    if let Some(token) = &request.token {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
            .context("expected a token without line breaks")?;
        value.set_sensitive(true);
        headers.push((AUTHORIZATION, value));
    }
    let target = SocketTarget {
        url: request.url.clone(),
        headers,
        tls: client_config(None)?,
        timeout: CONNECTING,
        max_message_bytes: MAX_MESSAGE_BYTES,
    };
    socket::connect(&target).await.context("cannot connect to the streams")
}

/// Passes on records until the connection ends; returns why.
async fn forward(mut socket: Socket, request: &RecordedChannels, files: &ToFiles) -> anyhow::Error {
    loop {
        // Both are cancel-safe: a message that was read completely is returned.
        let message = tokio::select! {
            message = tokio::time::timeout(request.silence, socket.next()) => message,
            () = files.closed() => {
                let _ = socket.close(None).await;
                return anyhow::anyhow!("the recording has ended");
            }
        };
        let passed_on = match message {
            Err(_) => return anyhow::anyhow!("nothing arrived for {:?}", request.silence),
            Ok(Some(Ok(message))) => pass_on(&message, request, files).await,
            Ok(Some(Err(error))) => return anyhow::anyhow!("{}", socket::broken(&error)),
            Ok(None) => return anyhow::anyhow!("the server closed the connection"),
        };
        if let Err(ended) = passed_on {
            return ended;
        }
    }
}

async fn pass_on(message: &Message, request: &RecordedChannels, files: &ToFiles) -> anyhow::Result<()> {
    let text = match message {
        Message::Text(text) => text.as_str(),
        Message::Close(Some(close)) => bail!("the server closed the connection: {} {}", close.code, close.reason),
        // tungstenite answers pings.
        _ => return Ok(()),
    };
    let heard = stream_lines::heard(text).unwrap_or_else(|reason| vec![Heard::LeftOut(reason)]);
    for one in heard {
        // A server sends what it likes; only what was asked for may name a file.
        let is_asked = match &one {
            Heard::Record(record) => request.channels.iter().any(|channel| record.series == stream_file(channel)),
            Heard::Skipped { channel, .. } => request.channels.contains(channel),
            _ => true,
        };
        if is_asked {
            files.send(one).await.context("the recording has ended")?;
        }
    }
    Ok(())
}
