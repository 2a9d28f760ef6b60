//! A WebSocket client that writes and reads RFC 6455's bytes itself.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::PATIENCE;
use super::http::{Response, head};

/// The key of RFC 6455 §1.3, whose accept value the RFC gives too.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What came from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
    /// The server's end, in order.
    End,
    /// The connection was reset.
    Reset,
}

#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    read: Vec<u8>,
    pub response: Response,
}

impl Socket {
    /// Upgrades; `Err` is the answer if it is no 101.
    pub fn open(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Self, Response> {
        Self::open_on(TcpStream::connect(address).unwrap(), path, headers, &[])
    }

    /// Upgrades over a socket whose kernel buffer is as small as it can be.
    pub fn open_small(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Self, Response> {
        Self::open_buffered(address, path, headers, 1)
    }

    /// Upgrades over a socket with a kernel buffer of about this size.
    pub fn open_buffered(
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
        bytes: usize,
    ) -> Result<Self, Response> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(bytes).unwrap();
        socket.connect(&address.into()).unwrap();
        Self::open_on(socket.into(), path, headers, &[])
    }

    /// `early` is sent in one piece with the request.
    pub fn open_on(
        mut stream: TcpStream,
        path: &str,
        headers: &[(&str, &str)],
        early: &[u8],
    ) -> Result<Self, Response> {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let upgrade = format!(
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
        );
        let address = stream.peer_addr().unwrap();
        let request = head(address, "GET", path, headers, &upgrade);
        stream.write_all(&[request.as_bytes(), early].concat()).unwrap();
        let mut read = Vec::new();
        let end = loop {
            if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            assert!(fill(&mut stream, &mut read).unwrap() > 0, "expected an answer, got {:?}", utf8(read));
        };
        let mut response = Response::from_head(&utf8(read[..end].to_vec()));
        read.drain(..end + 4);
        if response.status == 101 {
            return Ok(Self { stream, read, response });
        }
        let length: usize = response.header("content-length").map_or(0, |length| length.parse().unwrap());
        while read.len() < length {
            assert!(fill(&mut stream, &mut read).unwrap() > 0, "expected a body of {length} bytes");
        }
        response.body = utf8(read);
        Err(response)
    }

    /// Writes bytes as they are. A server that has hung up already is no error here.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Writes one masked frame; `first` is its first byte.
    pub fn send(&mut self, first: u8, payload: &[u8]) {
        self.send_raw(&masked(first, payload));
    }

    pub fn send_text(&mut self, text: &str) {
        self.send(0x81, text.as_bytes());
    }

    pub fn send_binary(&mut self, bytes: &[u8]) {
        self.send(0x82, bytes);
    }

    /// The next frame. Panics if none comes, or one that no server may send.
    pub fn frame(&mut self) -> Frame {
        let (opcode, payload) = match self.raw_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => return Frame::End,
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                return Frame::Reset;
            }
            Err(error) => panic!("expected a frame, got: {error}"),
        };
        match opcode {
            1 => Frame::Text(utf8(payload)),
            2 => Frame::Binary(payload),
            8 if payload.is_empty() => Frame::Close(None),
            8 => Frame::Close(Some((u16::from_be_bytes([payload[0], payload[1]]), utf8(payload[2..].to_vec())))),
            9 => Frame::Ping(payload),
            10 => Frame::Pong(payload),
            other => panic!("expected an opcode of RFC 6455, got {other}"),
        }
    }

    fn raw_frame(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        if !self.want(2)? {
            return Ok(None);
        }
        let (first, second) = (self.read[0], self.read[1]);
        assert_eq!(first & 0xf0, 0x80, "server frames are final and have no reserved bit: {first:#x}");
        assert_eq!(second & 0x80, 0, "server frames are not masked");
        let (header, length) = match second {
            126 => {
                self.needed(4)?;
                (4, usize::from(u16::from_be_bytes([self.read[2], self.read[3]])))
            }
            127 => {
                self.needed(10)?;
                (10, usize::try_from(u64::from_be_bytes(self.read[2..10].try_into().unwrap())).unwrap())
            }
            short => (2, usize::from(short)),
        };
        self.needed(header + length)?;
        let payload = self.read[header..header + length].to_vec();
        self.read.drain(..header + length);
        Ok(Some((first & 0x0f, payload)))
    }

    fn needed(&mut self, length: usize) -> io::Result<()> {
        let there = self.want(length)?;
        assert!(there, "the server's end came inside a frame: {:02x?}", self.read);
        Ok(())
    }

    /// Whether so many bytes came; false at an end between two frames.
    fn want(&mut self, length: usize) -> io::Result<bool> {
        while self.read.len() < length {
            if fill(&mut self.stream, &mut self.read)? == 0 {
                assert!(length > 2 || self.read.is_empty(), "the server's end came inside a header");
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What came of a frame that is not whole.
    pub fn unfinished(&self) -> &[u8] {
        &self.read
    }

    /// Vanishes without a word: the kernel sends a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    pub fn local_port(&self) -> u16 {
        self.stream.local_addr().unwrap().port()
    }
}

fn fill(stream: &mut TcpStream, into: &mut Vec<u8>) -> io::Result<usize> {
    let mut buffer = [0; 16 << 10];
    let length = stream.read(&mut buffer)?;
    into.extend_from_slice(&buffer[..length]);
    Ok(length)
}

fn utf8(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text is UTF-8")
}

/// A client's frame, as RFC 6455 §5.2 draws it.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0xfe);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0xff);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
