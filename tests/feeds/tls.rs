//! Broker feeds over TLS: a certificate that is trusted, and one that is not.

use std::fs;
use std::sync::Arc;

use crate::brokers::kite::Kite;
use crate::brokers::xts::Xts;
use crate::brokers::{CredentialsFile, block, event, parse, start};
use flowcast::source::broker::feed_events::FeedEventKind;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

/// Terminates TLS in front of a plain server, as a proxy does. Gives its port.
async fn proxy(certificate: &CertifiedKey<rcgen::KeyPair>, to: String) -> u16 {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key)
        .unwrap();
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, to) = (acceptor.clone(), to.clone());
            tokio::spawn(async move {
                let Ok(mut secure) = acceptor.accept(stream).await else { return };
                let mut plain = TcpStream::connect(to).await.unwrap();
                let _ = copy_bidirectional(&mut secure, &mut plain).await;
            });
        }
    });
    port
}

fn host(url: &str) -> String {
    url.split("://").nth(1).unwrap().split('/').next().unwrap().to_owned()
}

#[tokio::test]
async fn sockets_and_calls_go_over_tls_and_unknown_certificates_are_refused() {
    let (kite, xts) = (Kite::start().await, Xts::start().await);
    let certificate = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let trusted = folder.path().join("ca.pem");
    fs::write(&trusted, certificate.cert.pem()).unwrap();
    let kite_port = proxy(&certificate, host(&kite.url)).await;
    let rest_port = proxy(&certificate, host(&xts.base_url)).await;
    let socket_port = proxy(&certificate, host(&xts.ws_url)).await;
    let (kite_file, xts_file) = (CredentialsFile::kite("token"), CredentialsFile::xts("good"));
    let trust = format!("ca_file = '{}'\n", trusted.display());
    let one = format!("ws_url = \"wss://localhost:{kite_port}\"\n");
    let other = format!(
        "base_url = \"https://localhost:{rest_port}/apimarketdata\"\n\
         ws_url = \"wss://localhost:{socket_port}/apimarketdata/socket.io\"\n"
    );
    for (broker, urls, file) in [("zerodha", one, kite_file), ("xts_pro", other, xts_file)] {
        let (feeds, mut events) = start(vec![parse(&block("feed", broker, &file, &format!("{trust}{urls}")))]);
        event(&mut events, |what| *what == FeedEventKind::Connected).await;
        feeds.stop().await;
        let (feeds, mut events) = start(vec![parse(&block("feed", broker, &file, &urls))]);
        let refused = event(&mut events, |_| true).await;
        assert_eq!(refused.kind, FeedEventKind::Error);
        assert!(refused.reason.contains("certificate"), "{refused}");
        feeds.stop().await;
    }
}

#[test]
fn a_file_without_certificates_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    for (content, words) in [(None, "expected certificates in PEM"), (Some(""), "there is none")] {
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let said = flowcast::source::broker::net::tls::client_config(Some(&path)).unwrap_err().to_string();
        assert!(said.contains(words) && said.contains("ca.pem"), "{said}");
    }
}
