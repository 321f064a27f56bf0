//! HTTPS: a certificate that may change while the server runs, and clients that show one of their own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// Files of HTTPS, in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate, and those that it is signed by.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who signs certificates of clients: without one of theirs nobody is answered.
    pub client_ca: Option<PathBuf>,
}

/// Why a server has no HTTPS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that can't be read, or holds nothing of the kind in PEM.
    #[error("{}: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A key that is not the certificate's, or no such cryptography.
    #[error("{0}")]
    Rustls(#[from] tokio_rustls::rustls::Error),
}

/// SHA-256 of the certificate that a client showed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerCertificate(pub [u8; 32]);

impl PeerCertificate {
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

/// When files were last written.
type Written = Vec<Option<SystemTime>>;

/// HTTPS, and its certificate as it is now.
pub(crate) struct Tls {
    pub acceptor: TlsAcceptor,
    files: TlsFiles,
    current: Arc<Current>,
    written: RwLock<Written>,
}

#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl Current {
    fn open(files: &TlsFiles) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self(RwLock::new(Arc::new(certified(files)?)))))
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |what: String| TlsError::File { path: path.to_owned(), what };
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(wrong("it holds no certificate in PEM".to_owned())),
        read => read.map_err(|error| wrong(format!("no certificates in PEM: {error}"))),
    }
}

fn certified(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(&files.certificate)?;
    // What is wrong with a key says nothing of it.
    let wrong = |_| TlsError::File { path: files.key.clone(), what: "it holds no private key in PEM".to_owned() };
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(wrong)?;
    Ok(CertifiedKey::from_der(chain, key, &ring::default_provider())?)
}

fn written(files: &TlsFiles) -> Written {
    [&files.certificate, &files.key].map(|path| std::fs::metadata(path).and_then(|there| there.modified()).ok()).to_vec()
}

/// TLS for what is no HTTP, with the certificate that the files have now.
///
/// # Errors
/// A file that can't be read, or a key that is not the certificate's.
pub fn tls_config(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    config(files, Current::open(files)?)
}

fn config(files: &TlsFiles, resolver: Arc<dyn ResolvesServerCert>) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate)?;
            }
            let wrong = |error: VerifierBuilderError| TlsError::File { path: path.clone(), what: error.to_string() };
            let verifier: Arc<dyn ClientCertVerifier> =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(wrong)?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    Ok(builder.with_cert_resolver(resolver))
}

impl Tls {
    /// - protocols: of HTTP, by their names in TLS
    pub(crate) fn open(files: &TlsFiles, protocols: &[&[u8]]) -> Result<Self, TlsError> {
        let written = RwLock::new(written(files));
        let current = Current::open(files)?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Current>::clone(&current);
        let mut config = config(files, resolver)?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), files: files.clone(), current, written })
    }

    /// Takes the certificate that the files have now; where they have none, the one before stays.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        *self.written.write().unwrap_or_else(PoisonError::into_inner) = written(&self.files);
        let new = Arc::new(certified(&self.files)?);
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// Whether the files were written since they were read.
    pub(crate) fn is_old(&self) -> bool {
        written(&self.files) != *self.written.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        Self::other(error)
    }
}
