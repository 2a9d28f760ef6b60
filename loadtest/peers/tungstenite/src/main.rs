//! A broadcast server as one writes it with tokio-tungstenite: a task, a `WebSocketStream` and a
//! `broadcast::Receiver` per connection. See ../README.md for what it hears and says.

use std::time::SystemTime;

use anyhow::Result;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::{self, Receiver, Sender};
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// A client that is so many messages behind is dropped.
const BEHIND: usize = 256;

#[derive(Deserialize)]
struct Item<'a> {
    channel: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[tokio::main]
async fn main() -> Result<()> {
    let (messages, _) = broadcast::channel(BEHIND);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("tungstenite listening on http://{}", listener.local_addr()?);
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        tokio::spawn(serve(socket, messages.clone()));
    }
}

/// Serves a publisher, or a client.
async fn serve(socket: TcpStream, messages: Sender<Utf8Bytes>) -> Result<()> {
    let mut method = [0; 4];
    socket.peek(&mut method).await?;
    if &method != b"POST" {
        return listen(socket, messages.subscribe()).await;
    }
    let service = service_fn(|request| publish(request, messages.clone()));
    Ok(http1::Builder::new().serve_connection(TokioIo::new(socket), service).await?)
}

async fn publish(request: Request<Incoming>, messages: Sender<Utf8Bytes>) -> Result<Response<Full<Bytes>>> {
    let body = request.into_body().collect().await?.to_bytes();
    let Item { channel, data } = serde_json::from_slice(&body)?;
    let now = humantime::format_rfc3339_millis(SystemTime::now());
    let message = format!(r#"{{"type":"message","channel":"{channel}","payload":{data},"timestamp":"{now}"}}"#);
    // Without receivers nobody misses it.
    let _ = messages.send(message.into());
    Ok(Response::new(r#"{"accepted":1}"#.into()))
}

/// Serves one client until it leaves or falls too far behind.
async fn listen(socket: TcpStream, mut messages: Receiver<Utf8Bytes>) -> Result<()> {
    let mut client = accept_async(socket).await?;
    let mut is_subscribed = false;
    loop {
        tokio::select! {
            request = client.next() => match request.transpose()? {
                None => return Ok(()),
                Some(Message::Text(text)) => {
                    let request: Value = serde_json::from_str(&text)?;
                    if request["type"] == "subscribe" {
                        is_subscribed = true;
                        messages = messages.resubscribe();
                        let answer = json!({"type": "subscribed", "channels": request["channels"]});
                        client.send(Message::text(answer.to_string())).await?;
                    }
                }
                Some(_) => {}
            },
            message = messages.recv(), if is_subscribed => client.send(Message::Text(message?)).await?,
        }
    }
}
