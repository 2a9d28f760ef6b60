//! One socket: plain TCP, or TLS over it. Neither ever blocks.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::{Domain, Protocol, Socket, Type};

use crate::http::Trust;
use crate::negotiate::SocketUrl;

/// Receive buffer of clients that read slowly or not at all: a small window makes them a burden on
/// the server soon, instead of after megabytes in our own kernel.
const RELUCTANT_BUFFER_BYTES: usize = 32 * 1024;

/// A connected or connecting socket.
#[derive(Debug)]
pub enum Transport {
    /// `ws://`
    Plain(TcpStream),
    /// `wss://`
    Tls(Box<Tls>),
}

/// TLS over a socket.
#[derive(Debug)]
pub struct Tls {
    socket: TcpStream,
    session: ClientConnection,
}

/// How sockets are made.
#[derive(Clone, Debug)]
pub struct Connector {
    tls: Arc<ClientConfig>,
}

impl Connector {
    /// A connector that trusts `trust`.
    pub fn new(trust: &Trust) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        match trust.certificates() {
            [] => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            some => {
                for certificate in some {
                    roots.add(certificate.clone())?;
                }
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: Arc::new(tls) })
    }

    /// Begins to connect; the socket is writable when that is done.
    pub fn connect(&self, url: &SocketUrl, source: Option<IpAddr>, is_reluctant: bool) -> io::Result<Transport> {
        let socket = Socket::new(Domain::for_address(url.address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if is_reluctant {
            socket.set_recv_buffer_size(RELUCTANT_BUFFER_BYTES)?;
        }
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&url.address.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                return Err(error);
            }
            _ => {}
        }
        let socket = TcpStream::from(socket);
        if !url.is_tls {
            return Ok(Transport::Plain(socket));
        }
        let name = ServerName::try_from(url.server_name.clone()).map_err(io::Error::other)?;
        let session = ClientConnection::new(Arc::clone(&self.tls), name).map_err(io::Error::other)?;
        Ok(Transport::Tls(Box::new(Tls { socket, session })))
    }
}

impl Transport {
    /// Reads what is there; `Ok(0)` is the end of the stream.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(tls) => rustls::Stream::new(&mut tls.session, &mut tls.socket).read(buffer),
        }
    }

    /// Writes what fits.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(tls) => {
                let mut stream = rustls::Stream::new(&mut tls.session, &mut tls.socket);
                let written = stream.write(bytes)?;
                match stream.flush() {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
                    _ => Ok(written),
                }
            }
        }
    }

    /// Whether TLS has bytes of its own to send.
    pub fn wants_write(&self) -> bool {
        matches!(self, Self::Tls(tls) if tls.session.wants_write())
    }

    /// Whether bytes may be waiting above the socket, where readiness does not show them.
    pub fn has_layers(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// What became of connecting.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket().take_error()
    }

    /// Whether TCP has connected.
    pub fn is_connected(&self) -> bool {
        self.socket().peer_addr().is_ok()
    }

    /// Makes closing abrupt: the peer gets a reset.
    pub fn reset_on_close(&self) {
        // The worst case is a close that is not abrupt.
        let _ = socket2::SockRef::from(self.socket()).set_linger(Some(Duration::ZERO));
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.socket,
        }
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}
