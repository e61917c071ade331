//! TLS on accepted connections: the certificate that is shown, whose certificates are asked for, and other files without a restart.

use std::fmt;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::stream::Stream;

/// Whether clients have to show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked for one.
    None,
    /// They are asked; one that is shown must be good.
    Wanted,
    /// Without a good one they are refused.
    Required,
}

/// The files that TLS is served with, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    /// The certificate, and behind it those between it and the authority's.
    pub certificate: PathBuf,
    /// Its private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
    /// The authorities whose certificates clients may show.
    pub client_ca: Option<PathBuf>,
    /// Whether they have to.
    pub client_auth: ClientAuth,
}

/// Why TLS cannot be served with such files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of them cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// One is no PEM, or holds nothing of what it is for.
    #[error("{}: it holds no {what}{}", path.display(), because(.source.as_ref()))]
    Empty {
        /// Which.
        path: PathBuf,
        /// What it is for.
        what: &'static str,
        /// Where it is no PEM: why.
        source: Option<pem::Error>,
    },
    /// The certificate and the key are not of a pair, or of a kind that is not served.
    #[error("{} and {}: {source}", certificate.display(), key.display())]
    Unfit {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// An authority's certificate is none.
    #[error("{}: {source}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// Clients' certificates cannot be checked against the authorities.
    #[error("{}: {source}", path.display())]
    Verifier {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: VerifierBuilderError,
    },
    /// The library speaks no version of TLS.
    #[error("{source}")]
    Unsupported {
        /// What it says.
        source: rustls::Error,
    },
    /// No authority is named, and the system names none.
    #[error("this machine has no list of trusted authorities; name a file of them")]
    NobodyTrusted,
    /// Clients are asked for certificates, and no authority is named.
    #[error("clients are asked for certificates, and no file names the authorities that they may be of")]
    NoAuthority,
}

fn because(source: Option<&pem::Error>) -> String {
    source.map_or_else(String::new, |source| format!(" ({source})"))
}

/// What tells one version of a file from another.
type FileState = (u64, u64, i64, i64);

/// TLS as it is served now. Connections that are there keep what they began with.
pub struct Tls {
    options: TlsOptions,
    config: ArcSwap<ServerConfig>,
    /// The files when they were read last, whether they could be used or not; none where one was not there.
    seen: Mutex<Vec<Option<FileState>>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files. Blocking.
    ///
    /// # Errors
    /// They cannot be served with.
    pub fn load(options: TlsOptions) -> Result<Self, TlsError> {
        let seen = Mutex::new(options.state());
        let config = ArcSwap::from_pointee(options.read()?);
        Ok(Self { options, config, seen })
    }

    /// The files.
    pub fn options(&self) -> &TlsOptions {
        &self.options
    }

    /// Whether every client has shown a certificate that one of the authorities vouches for.
    pub fn knows_clients(&self) -> bool {
        self.options.client_auth == ClientAuth::Required
    }

    /// Reads the files again if they are others than before, and says whether they were. What is wrong with them is said once; what was
    /// served is served on then. Blocking.
    ///
    /// # Errors
    /// They are others, and cannot be served with.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let mut seen = self.seen.lock();
        let now = self.options.state();
        if *seen == now {
            return Ok(false);
        }
        *seen = now;
        self.config.store(Arc::new(self.options.read()?));
        Ok(true)
    }
}

impl TlsOptions {
    fn files(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
    }

    fn state(&self) -> Vec<Option<FileState>> {
        let of = |meta: Metadata| (meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec());
        self.files().map(|path| std::fs::metadata(path).ok().map(of)).collect()
    }

    fn read(&self) -> Result<ServerConfig, TlsError> {
        let chain = certificates(&self.certificate)?;
        let key = private_key(&self.key)?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| self.unfit(source))?;
        let builder = match self.verifier()? {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|source| self.unfit(source))?;
        // Its keys end with this configuration: a client that was let in by other authorities is asked again.
        config.ticketer = ring::Ticketer::new().map_err(|source| self.unfit(source))?;
        Ok(config)
    }

    fn verifier(&self) -> Result<Option<Arc<dyn rustls::server::danger::ClientCertVerifier>>, TlsError> {
        if self.client_auth == ClientAuth::None {
            return Ok(None);
        }
        let path = self.client_ca.as_ref().ok_or(TlsError::NoAuthority)?;
        let mut authorities = RootCertStore::empty();
        for certificate in certificates(path)? {
            authorities
                .add(certificate)
                .map_err(|source| TlsError::Authority { path: path.clone(), source })?;
        }
        let provider = Arc::new(ring::default_provider());
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider);
        let builder = match self.client_auth {
            ClientAuth::Wanted => builder.allow_unauthenticated(),
            _ => builder,
        };
        builder.build().map(Some).map_err(|source| TlsError::Verifier { path: path.clone(), source })
    }

    fn unfit(&self, source: rustls::Error) -> TlsError {
        TlsError::Unfit { certificate: self.certificate.clone(), key: self.key.clone(), source }
    }
}

/// Why there is no TLS with a client that has connected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// What the client sent or did not show.
    #[error("{}", advice(.0))]
    Refused(rustls::Error),
    /// It went, or its socket failed.
    #[error("the client went")]
    Gone,
    /// It took too long.
    #[error("the handshake was not over in time (net.handshake_timeout)")]
    Late,
    /// The node drains.
    #[error("the node stops")]
    Drained,
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        inner.map_or(Self::Gone, |error| Self::Refused(error.clone()))
    }
}

/// What an operator makes of it.
fn advice(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidMessage(_) => {
            format!("what came is no TLS: does the client speak plain text? ({error})")
        }
        rustls::Error::NoCertificatesPresented => "the client showed no certificate (client_auth)".to_owned(),
        rustls::Error::AlertReceived(_) => {
            format!("the client refused: does it know the certificate's authority? ({error})")
        }
        _ => error.to_string(),
    }
}

/// Has the handshake with a client that has connected.
///
/// # Errors
/// It fails, is not over `by` then, or the node drains.
pub(crate) async fn accept(
    tls: &Tls,
    stream: TcpStream,
    by: Instant,
    closing: &CancellationToken,
) -> Result<Stream, HandshakeError> {
    let handshake = TlsAcceptor::from(tls.config.load_full()).accept(stream);
    tokio::select! {
        done = handshake => Ok(Stream::Tls(Box::new(done?))),
        () = closing.cancelled() => Err(HandshakeError::Drained),
        () = tokio::time::sleep_until(by) => Err(HandshakeError::Late),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
}

pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let empty = |source| TlsError::Empty { path: path.to_owned(), what: "certificate", source };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    let found = found.map_err(|source| empty(Some(source)))?;
    if found.is_empty() { Err(empty(None)) } else { Ok(found) }
}

pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|source| {
        let source = Some(source).filter(|source| !matches!(source, pem::Error::NoItemsFound));
        TlsError::Empty { path: path.to_owned(), what: "private key", source }
    })
}
