//! A broadcast server as one writes it with tokio-tungstenite: a task, a `WebSocketStream` and a
//! `broadcast::Receiver` per connection.
//!
//! `tungstenite-peer MESSAGES MILLISECONDS` sends the lines of a file in rotation. Greets the swarm on
//! `json.webpubsub.azure.v1`; clients hear everything once they have joined a group.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::{self, Receiver};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

const PROTOCOL: &str = "Sec-WebSocket-Protocol";

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().context("expected a file of messages")?;
    let milliseconds: f64 = arguments.next().context("expected milliseconds between two ticks")?.parse()?;
    let messages: Vec<Utf8Bytes> = std::fs::read_to_string(file)?.lines().map(Utf8Bytes::from).collect();
    let (sender, _) = broadcast::channel(256);

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("tungstenite listening on http://{}", listener.local_addr()?);
    let ticks = sender.clone();
    tokio::spawn(async move {
        let mut clock = tokio::time::interval(Duration::from_secs_f64(milliseconds / 1000.0));
        for message in messages.iter().cycle() {
            clock.tick().await;
            // Without receivers nobody misses it.
            let _ = ticks.send(message.clone());
        }
    });
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        tokio::spawn(serve(socket, sender.subscribe()));
    }
}

/// Serves one client until it leaves or falls too far behind.
async fn serve(socket: TcpStream, mut ticks: Receiver<Utf8Bytes>) -> Result<()> {
    let mut client = accept_hdr_async(socket, echo_protocol).await?;
    let connected = json!({"type": "system", "event": "connected", "userId": "swarm", "connectionId": "t"});
    client.send(Message::text(connected.to_string())).await?;
    let mut joined = false;
    loop {
        tokio::select! {
            message = client.next() => match message.transpose()? {
                None => return Ok(()),
                Some(Message::Text(text)) => {
                    let message: Value = serde_json::from_str(&text)?;
                    if message["type"] == "joinGroup" {
                        joined = true;
                        ticks = ticks.resubscribe();
                        let ack = json!({"type": "ack", "ackId": message["ackId"], "success": true});
                        client.send(Message::text(ack.to_string())).await?;
                    }
                }
                Some(_) => {}
            },
            tick = ticks.recv(), if joined => client.send(Message::Text(tick?)).await?,
        }
    }
}

#[expect(clippy::result_large_err, reason = "tungstenite's signature")]
fn echo_protocol(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    if let Some(asked) = request.headers().get(PROTOCOL) {
        response.headers_mut().insert(PROTOCOL, asked.clone());
    }
    Ok(response)
}
