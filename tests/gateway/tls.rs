//! The port over TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use modelwright::gateway::{Certificate, Proxy};
use modelwright::listen::{Patience, Phase, serve_over};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::*;

pub struct Pair {
    certificate: String,
    key: String,
    der: CertificateDer<'static>,
}

impl Pair {
    pub fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["fraud".to_string()]).unwrap();
        Self {
            certificate: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
            der: made.cert.der().clone(),
        }
    }

    pub fn put(&self, secret: &Mounted) {
        secret.exchange(&[("tls.crt", &self.certificate), ("tls.key", &self.key)]);
    }

    /// A connection that trusts this certificate alone.
    pub async fn connect(&self, address: SocketAddr, alpn: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("fraud").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

struct Secured {
    gateway: Gateway,
    address: SocketAddr,
    certificate: Arc<Certificate>,
    secret: Mounted,
    phase: watch::Sender<Phase>,
    serving: JoinHandle<()>,
}

/// A gateway with a pod of `fraud`, and TLS with the certificate of `pair`.
async fn secured(pair: &Pair) -> Secured {
    let gateway = gateway().await;
    gateway.table.set_route(route("fraud", 1, &[(1, 100)]));
    gateway.table.set_pod(Pod::start("fraud", 1).await.view);
    let secret = Mounted::empty();
    pair.put(&secret);
    let certificate = Certificate::new();
    let tls = certificate.acceptor().unwrap();
    certificate.read(secret.folder.path());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (phase, phases) = watch::channel(Phase::Serving);
    let proxy = Proxy(gateway.table.clone());
    let serving = tokio::spawn(serve_over(listener, tls, proxy, phases, Patience::default()));
    Secured { gateway, address, certificate, secret, phase, serving }
}

impl Secured {
    fn read(&self, entries: &[(&str, &str)]) {
        self.secret.exchange(entries);
        self.certificate.read(self.secret.folder.path());
    }
}

const PATH: &str = "/v2/models/fraud/infer";

#[tokio::test]
async fn rest_and_grpc_share_the_tls_port() {
    let pair = Pair::new();
    let at = secured(&pair).await;
    let stream = within("http/1.1", pair.connect(at.address, "http/1.1")).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let got = Rest::over(stream).await.post("fraud", PATH, b"{}").await.unwrap();
    assert_eq!((got.status, got.text().as_str()), (200, "r1"));
    let stream = within("h2", pair.connect(at.address, "h2")).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let got = Grpc::over(stream).await.call("fraud", INFER, &infer("fraud", "")).await;
    assert_eq!((got.grpc_status().as_str(), got.body), ("0", framed(b"r1")));
    assert_eq!(rest(at.gateway.address, "fraud", PATH, b"{}").await.status, 200, "as before");
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections_and_a_broken_one_for_none() {
    let (old, new) = (Pair::new(), Pair::new());
    let at = secured(&old).await;
    let mut kept = Rest::over(within("old", old.connect(at.address, "http/1.1")).await.unwrap()).await;
    at.read(&[("tls.crt", &new.certificate), ("tls.key", &new.key)]);
    within("new", new.connect(at.address, "http/1.1")).await.unwrap();
    assert!(within("old", old.connect(at.address, "http/1.1")).await.is_err());
    assert_eq!(kept.post("fraud", PATH, b"{}").await.unwrap().status, 200, "it goes on as it began");
    for broken in [
        &[("tls.crt", old.certificate.as_str()), ("tls.key", &new.key)][..],
        &[("tls.crt", "no certificate"), ("tls.key", &new.key)],
        &[("tls.crt", &old.certificate), ("tls.key", "")],
        &[("other", "")],
    ] {
        at.read(broken);
        within("new", new.connect(at.address, "http/1.1")).await.unwrap();
    }
}

#[tokio::test]
async fn a_handshake_that_does_not_end_holds_up_nobody_and_no_exit() {
    let pair = Pair::new();
    let at = secured(&pair).await;
    let silent = TcpStream::connect(at.address).await.unwrap();
    let mut plain = Rest::connect(at.address).await;
    assert!(within("plain HTTP", plain.post("fraud", PATH, b"{}")).await.is_err());
    let stream = within("a client", pair.connect(at.address, "http/1.1")).await.unwrap();
    let got = Rest::over(stream).await.post("fraud", PATH, b"{}").await.unwrap();
    assert_eq!(got.status, 200);
    at.phase.send_replace(Phase::Closing);
    within("it ends", at.serving).await.unwrap();
    drop(silent);
}
