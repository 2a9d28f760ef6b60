//! The socket of an HTTP connection. It keeps a `101` back, for the shard to send together with what it says first: one
//! system call, one packet and one wake-up of the client less for each upgrade.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::server::shard::mailbox::UpgradedSocket;

/// How an answer begins after which the connection is no longer HTTP.
const SWITCHING_PROTOCOLS: &[u8] = b"HTTP/1.1 101 ";

/// A socket that writes everything but a `101`.
pub struct HttpSocket {
    socket: TcpStream,
    /// The `101`; nothing is written after it.
    held: Vec<u8>,
}

impl HttpSocket {
    /// A socket that was accepted.
    pub fn new(socket: TcpStream) -> Self {
        Self { socket, held: Vec::new() }
    }

    /// The socket, out of tokio's reactor and still non-blocking, with the answer that the client still has to get.
    pub fn into_upgraded(self) -> io::Result<UpgradedSocket> {
        Ok(UpgradedSocket { socket: self.socket.into_std()?, answer: self.held })
    }
}

impl AsyncRead for HttpSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for HttpSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.as_mut().poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    /// An answer begins with a write of its own, unless the client has left one unread. Then the `101` goes out behind
    /// the rest of that.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !slices.first().is_some_and(|first| first.starts_with(SWITCHING_PROTOCOLS)) {
            return Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        }
        let before = self.held.len();
        for slice in slices {
            self.held.extend_from_slice(slice);
        }
        Poll::Ready(Ok(self.held.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn everything_is_written_but_a_101_which_the_shard_gets() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut client, _) = listener.accept().unwrap();
        let mut socket = HttpSocket::new(socket);
        socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        socket.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").await.unwrap();
        socket.flush().await.unwrap();
        let UpgradedSocket { socket, answer } = socket.into_upgraded().unwrap();
        assert_eq!(answer, b"HTTP/1.1 101 Switching Protocols\r\n\r\n");
        drop(socket);
        let mut read = Vec::new();
        client.read_to_end(&mut read).unwrap();
        assert_eq!(read, b"HTTP/1.1 200 OK\r\n\r\n");
    }
}
