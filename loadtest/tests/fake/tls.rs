//! A proxy that takes TLS off, as one stands before a server in production.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, Stream};

/// A running proxy; its threads end with the test.
#[derive(Debug)]
pub struct TlsProxy {
    pub address: SocketAddr,
    listener: TcpListener,
    config: Arc<ServerConfig>,
}

impl TlsProxy {
    /// Listens; writes the certificate that clients must trust to `certificate`.
    pub fn bind(certificate: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(certificate, made.cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { address: listener.local_addr().unwrap(), listener, config: Arc::new(config) }
    }

    /// Forwards every connection to `target`.
    pub fn forward_to(self, target: SocketAddr) {
        thread::spawn(move || {
            for client in self.listener.incoming().map_while(Result::ok) {
                let config = Arc::clone(&self.config);
                thread::spawn(move || pipe(client, &TcpStream::connect(target).unwrap(), config));
            }
        });
    }
}

/// Copies both ways until either side ends.
fn pipe(mut client: TcpStream, mut server: &TcpStream, config: Arc<ServerConfig>) {
    let mut session = ServerConnection::new(config).unwrap();
    client.set_nonblocking(true).unwrap();
    server.set_nonblocking(true).unwrap();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let up = copy(&mut Stream::new(&mut session, &mut client), &mut server, &mut buffer);
        let down = copy(&mut server, &mut Stream::new(&mut session, &mut client), &mut buffer);
        match (up, down) {
            (Some(0), Some(0)) => thread::sleep(Duration::from_micros(200)),
            (Some(_), Some(_)) => {}
            _ => return,
        }
    }
}

/// Copies what is there; `None` when a side has ended.
fn copy(from: &mut impl Read, to: &mut impl Write, buffer: &mut [u8]) -> Option<usize> {
    let read = match from.read(buffer) {
        Ok(0) => return None,
        Ok(read) => read,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(_) => return None,
    };
    let mut written = 0;
    while written < read {
        match to.write(&buffer[written..read]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_micros(200)),
            Err(_) => return None,
        }
    }
    match to.flush() {
        Err(error) if error.kind() != ErrorKind::WouldBlock => None,
        _ => Some(read),
    }
}
