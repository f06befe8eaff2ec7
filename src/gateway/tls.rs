//! TLS, where the Secret `modelwright-gateway-tls` has a certificate.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::listen::Secure;

/// The certificate of new connections: those that stand keep theirs.
pub struct Certificate {
    key: ArcSwapOption<CertifiedKey>,
    provider: Arc<CryptoProvider>,
    came: Notify,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate")
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.key.load_full()
    }
}

impl Certificate {
    pub fn new() -> Arc<Self> {
        let provider = Arc::new(default_provider());
        Arc::new(Self { key: ArcSwapOption::empty(), provider, came: Notify::new() })
    }

    /// Of a mounted Secret. Where it has none, or a broken one, the last stays.
    pub fn read(&self, folder: &Path) {
        let file = folder.join("tls.crt");
        if !file.exists() {
            if self.key.load().is_some() {
                tracing::warn!(
                    "the Secret modelwright-gateway-tls is gone: its last certificate stays in use"
                );
            }
            return;
        }
        match self.load(&file, &folder.join("tls.key")) {
            Ok(key) => {
                tracing::info!("the certificate was read");
                self.key.store(Some(Arc::new(key)));
                self.came.notify_one();
            }
            Err(error) => tracing::error!(
                %error,
                "the Secret modelwright-gateway-tls has no certificate (tls.crt, tls.key) that can be used; the last one, \
                 if any, stays in use"
            ),
        }
    }

    fn load(&self, certificate: &Path, key: &Path) -> Result<CertifiedKey, Box<dyn std::error::Error>> {
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| format!("tls.crt: {error}"))?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|error| format!("tls.key: {error}"))?;
        Ok(CertifiedKey::from_der(chain, key, &self.provider)?)
    }

    /// Returns when there is one.
    pub async fn came(&self) {
        while self.key.load().is_none() {
            self.came.notified().await;
        }
    }

    /// # Errors
    /// None that is known: the provider has both versions of TLS.
    pub fn acceptor(self: &Arc<Self>) -> Result<Tls, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(self.provider.clone());
        let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
        let mut config = builder.with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Tls(Arc::new(config).into()))
    }
}

#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl Secure for Tls {
    type Stream = TlsStream<TcpStream>;

    async fn secure(&self, stream: TcpStream) -> io::Result<Self::Stream> {
        self.0.accept(stream).await
    }
}
