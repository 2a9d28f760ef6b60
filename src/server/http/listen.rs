//! Listening sockets, and the limit of open files.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::TcpListener;

/// Where to listen, and what the kernel does for each connection.
#[derive(Debug, Clone, clap::Args)]
pub struct ListenOptions {
    /// Port to listen on, on the loopback addresses 127.0.0.1 and ::1; 0 takes a free one
    #[arg(long, env = "PORT", default_value_t = 8080)]
    pub port: u16,
    /// Address to listen on in place of --port: host:port, or :port for all interfaces
    #[arg(long = "bind", env = "WS_BIND_ADDRESS", value_name = "ADDRESS", value_parser = bind_address)]
    pub bind: Option<String>,
    /// Size of a connection's send buffer in the kernel, in bytes: the smaller it is, the sooner a stalled
    /// client is noticed; the larger, the longer a burst it takes
    #[arg(long, env = "FLOWCAST_SEND_BUFFER_BYTES", default_value_t = 128 << 10, value_name = "BYTES")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(4096..=64 << 20))]
    pub send_buffer_bytes: usize,
    /// Largest number of connections that the kernel queues until they are accepted
    #[arg(long, env = "FLOWCAST_BACKLOG", default_value_t = 4096, value_name = "CONNECTIONS")]
    #[arg(value_parser = clap::value_parser!(i32).range(1..=65_535))]
    pub backlog: i32,
    /// Seconds after which an HTTP client that reads nothing of its answer is dropped
    #[arg(long, env = "FLOWCAST_ANSWER_TIMEOUT_SECONDS", default_value_t = 30, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub answer_timeout_seconds: u64,
}

impl ListenOptions {
    fn answer_timeout(&self) -> Duration {
        Duration::from_secs(self.answer_timeout_seconds)
    }
}

fn bind_address(text: &str) -> Result<String, String> {
    let valid = text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if valid { Ok(text.to_owned()) } else { Err("expected host:port or :port, such as 0.0.0.0:8080".to_owned()) }
}

/// Why there is no listener. The operator must fix it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum ListenError {
    /// The host has no address.
    #[error("{address}: expected a host that has an address (WS_BIND_ADDRESS): {source}")]
    Unresolved { address: String, source: io::Error },
    /// Another program has the port.
    #[error("expected port {} to be free, but another program listens on {address}; choose another with --port or WS_BIND_ADDRESS", address.port())]
    InUse { address: SocketAddr },
    /// Ports below 1024 are for privileged programs.
    #[error(
        "expected a port this user may listen on, but {address} needs privileges; choose one above 1023 with --port or WS_BIND_ADDRESS"
    )]
    Privileged { address: SocketAddr },
    /// Any other error of the system.
    #[error("cannot listen on {address}: {source}")]
    Other { address: SocketAddr, source: io::Error },
}

/// Binds every address. Runs inside the runtime that will accept.
pub fn listen(options: &ListenOptions) -> Result<Vec<TcpListener>, ListenError> {
    let Some(bind) = &options.bind else {
        let first = listener(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), options.port), options)?;
        let port = first.local_addr().map_or(options.port, |address| address.port());
        // A machine may have no IPv6; a port in use there is an error all the same.
        return match listener(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port), options) {
            Ok(second) => Ok(vec![first, second]),
            // Port 0: the free port was free on the first address only.
            Err(error @ ListenError::InUse { .. }) if options.port != 0 => Err(error),
            Err(error) => {
                tracing::debug!(%error, "not listening on ::1");
                Ok(vec![first])
            }
        };
    };
    if let Some(port) = bind.strip_prefix(':').and_then(|port| port.parse().ok()) {
        let all = |address: IpAddr| listener(SocketAddr::new(address, port), options);
        // One dual-stack socket where there is IPv6.
        return match all(Ipv6Addr::UNSPECIFIED.into()) {
            Err(ListenError::Other { .. }) => Ok(vec![all(Ipv4Addr::UNSPECIFIED.into())?]),
            dual => Ok(vec![dual?]),
        };
    }
    let unresolved = |source| ListenError::Unresolved { address: bind.clone(), source };
    let addresses: Vec<_> = bind.to_socket_addrs().map_err(unresolved)?.collect();
    addresses.into_iter().map(|address| listener(address, options)).collect()
}

fn listener(address: SocketAddr, options: &ListenOptions) -> Result<TcpListener, ListenError> {
    bound(address, options).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { address },
        io::ErrorKind::PermissionDenied => ListenError::Privileged { address },
        _ => ListenError::Other { address, source },
    })
}

fn bound(address: SocketAddr, options: &ListenOptions) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(address.ip() != IpAddr::from(Ipv6Addr::UNSPECIFIED))?;
    }
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit these. With the kernel's autotuned send buffer a stalled client stays
    // invisible for minutes.
    socket.set_send_buffer_size(options.send_buffer_bytes)?;
    socket.set_tcp_nodelay(true)?;
    // This one too: a client that takes no byte of an answer for so long is gone.
    socket.set_tcp_user_timeout(Some(options.answer_timeout()))?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(options.backlog)?;
    TcpListener::from_std(socket.into())
}

/// Raises the soft limit of open files to the hard one; returns what then holds. `None`: unlimited.
pub fn raise_file_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, soft = current, hard = maximum, "cannot raise the soft limit of open files");
        return current;
    }
    maximum
}
