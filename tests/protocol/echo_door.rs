//! A WebSocket server that sends every message back, on the framing of `src/wire/websocket/` and nothing else of
//! ours: what a shard does with a client's bytes, without hubs and groups.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use flowcast::wire::websocket::inbound::Inbound;
use flowcast::wire::websocket::{self, ClientMessage, Opcode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The largest message of Autobahn's cases has 16 MiB.
const MAX_MESSAGE: usize = 32 << 20;

/// As much as a shard reads at once.
const READ: usize = 16 << 10;

/// How long a client may take to close its side after the close frame.
const LINGER: Duration = Duration::from_secs(1);

/// Opens the door on a free port; it is open until the process ends.
pub fn open() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // The end of a connection is the client's business: the suite judges it.
            thread::spawn(move || drop(serve(client)));
        }
    });
    address
}

fn serve(client: TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(READ, client.try_clone()?);
    let mut client = client;
    client.write_all(handshake(&mut reader)?.as_bytes())?;
    let (mut inbound, mut buffer, mut answer) = (Inbound::default(), vec![0; READ], Vec::new());
    loop {
        let length = reader.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        let mut is_closing = false;
        let read = inbound.read(&mut buffer[..length], MAX_MESSAGE, |message| {
            is_closing = !echo(&message, &mut answer);
            !is_closing
        });
        if let Err(violation) = read {
            websocket::append_close(violation.code(), &violation.to_string(), &mut answer);
            is_closing = true;
        }
        client.write_all(&answer)?;
        answer.clear();
        if is_closing {
            return linger(&client, &mut reader);
        }
    }
}

/// Appends the answer; `false` if it is the last one.
fn echo(message: &ClientMessage<'_>, answer: &mut Vec<u8>) -> bool {
    match message {
        ClientMessage::Text(text) => websocket::append(Opcode::Text, text.as_bytes(), answer),
        ClientMessage::Binary(bytes) => websocket::append(Opcode::Binary, bytes, answer),
        ClientMessage::Ping(payload) => websocket::append(Opcode::Pong, payload, answer),
        ClientMessage::Pong => {}
        ClientMessage::Close(Some(code)) => websocket::append_close(*code, "", answer),
        ClientMessage::Close(None) => websocket::append(Opcode::Close, &[], answer),
    }
    !matches!(message, ClientMessage::Close(_))
}

/// Ends our side, and reads what the client still sends, so that the kernel does not reset the connection.
fn linger(client: &TcpStream, reader: &mut impl Read) -> io::Result<()> {
    client.shutdown(std::net::Shutdown::Write)?;
    client.set_read_timeout(Some(LINGER))?;
    io::copy(reader, &mut io::sink()).map(drop)
}

/// Reads the request, and returns the answer that accepts it.
fn handshake(reader: &mut impl BufRead) -> io::Result<String> {
    let mut key = None;
    for line in reader.lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("sec-websocket-key")
        {
            key = Some(value.trim().to_owned());
        }
    }
    let key = key.ok_or_else(|| io::Error::other("expected Sec-WebSocket-Key"))?;
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    ))
}
