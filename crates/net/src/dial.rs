//! Connections that this process makes, as a client: over TCP, or in TLS.

use std::fmt;
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tls::{TlsError, certificates, private_key};

/// Bytes on their way through a tunnel, each way.
const TUNNEL: usize = 64 * 1024;

/// How a client speaks TLS. Files are in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DialTls {
    /// The authorities that a server's certificate may be of; none stands for those that the system trusts.
    pub authorities: Option<PathBuf>,
    /// The client's own certificate, where servers ask for one, and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Any certificate is taken: what is sent is hidden from a network that only listens, and not from one that answers in the server's place.
    pub insecure: bool,
}

/// Makes connections, all in the same way.
#[derive(Clone, Default)]
pub struct Dialer(Option<Arc<ClientConfig>>);

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("tls", &self.0.is_some()).finish()
    }
}

impl Dialer {
    /// One that speaks TLS. Blocking: it reads the files.
    ///
    /// # Errors
    /// A file cannot be read, or holds nothing of what it is for; the system has no authorities that it trusts.
    pub fn tls(options: &DialTls) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Unsupported { source })?;
        let trusted = if options.insecure { Trusted::All } else { options.trusted(provider.clone())? };
        let verifier = Arc::new(ServerCertificates { trusted, provider });
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let config = match &options.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let unfit =
                    |source| TlsError::Unfit { certificate: certificate.clone(), key: key.clone(), source };
                builder.with_client_auth_cert(certificates(certificate)?, private_key(key)?).map_err(unfit)?
            }
        };
        Ok(Self(Some(Arc::new(config))))
    }

    /// Whether its connections are in TLS.
    pub fn is_tls(&self) -> bool {
        self.0.is_some()
    }

    /// Connects to `host:port`. Within a runtime: a tunnel's bytes are moved by a task of its own.
    ///
    /// # Errors
    /// Nothing listens there; what does speaks no TLS, or shows a certificate that is not good for this host.
    pub async fn connect(&self, address: &str) -> io::Result<Socket> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let Some(config) = &self.0 else { return Ok(Socket::Tcp(tcp)) };
        let connector = TlsConnector::from(config.clone());
        let tls = connector.connect(server_name(address)?, tcp).await.map_err(explained)?;
        Tunnel::of(tls).map(Socket::Tunnel)
    }
}

impl DialTls {
    fn trusted(&self, provider: Arc<CryptoProvider>) -> Result<Trusted, TlsError> {
        let (roots, named) = self.roots()?;
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let path = self.authorities.clone().unwrap_or_default();
        Ok(Trusted::Authorities {
            chain: chain.map_err(|source| TlsError::Verifier { path, source })?,
            named,
        })
    }

    /// The authorities, and the certificates that were named.
    fn roots(&self) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), TlsError> {
        let mut roots = RootCertStore::empty();
        let Some(path) = &self.authorities else {
            let found = rustls_native_certs::load_native_certs();
            // A store may hold what this library does not take: what it takes is enough, as long as it is something.
            roots.add_parsable_certificates(found.certs);
            return if roots.is_empty() { Err(TlsError::NobodyTrusted) } else { Ok((roots, Vec::new())) };
        };
        let named = certificates(path)?;
        for certificate in &named {
            let added = roots.add(certificate.clone());
            added.map_err(|source| TlsError::Authority { path: path.clone(), source })?;
        }
        Ok((roots, named))
    }
}

/// The name that a certificate has to be for.
fn server_name(address: &str) -> io::Result<ServerName<'static>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let wrong = |_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{host:?} is no name that a certificate could be for"),
        )
    };
    ServerName::try_from(host.to_owned()).map_err(wrong)
}

/// What a handshake failed for, as a user of a client sees it.
fn explained(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let text = match inner {
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "it ended the connection at the TLS handshake: does it speak TLS there?".to_owned()
        }
        // Its alert may be lost with what was on its way when it closed.
        None if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            format!(
                "it broke the connection off, as one does that asks for a certificate and is shown none ({error})"
            )
        }
        None => return error,
        Some(rustls::Error::InvalidMessage(_)) => {
            format!("what came is no TLS: does it speak plain text there? ({error})")
        }
        Some(rustls::Error::AlertReceived(_)) => {
            format!("it refused the TLS handshake: does it ask for a certificate of ours? ({error})")
        }
        Some(rustls::Error::InvalidCertificate(_)) => format!("its certificate is not good here: {error}"),
        Some(_) => error.to_string(),
    };
    io::Error::new(error.kind(), text)
}

/// A connection that was made.
#[derive(Debug)]
pub enum Socket {
    /// Over TCP.
    Tcp(TcpStream),
    /// In TLS.
    Tunnel(Tunnel),
}

/// One end of a tunnel, whose other end is in TLS: a socket like any other to the client that uses it, from any thread.
#[derive(Debug)]
pub struct Tunnel {
    near: UnixStream,
    /// Why TLS ended, where it did not end by a farewell.
    failed: Arc<OnceLock<String>>,
}

impl Tunnel {
    fn of(mut tls: TlsStream<TcpStream>) -> io::Result<Self> {
        let (near, mut far) = UnixStream::pair()?;
        let failed = Arc::new(OnceLock::new());
        let told = failed.clone();
        tokio::spawn(async move {
            if let Err(error) = copy_bidirectional_with_sizes(&mut far, &mut tls, TUNNEL, TUNNEL).await {
                let _ = told.set(explained(error).to_string());
            }
        });
        Ok(Self { near, failed })
    }

    /// What came of reading or writing. The end, and what the near end says once the far one has gone, TLS may have had a reason for.
    fn explained(&self, moved: io::Result<usize>) -> io::Result<usize> {
        match (moved, self.failed.get()) {
            (Ok(0) | Err(_), Some(reason)) => Err(io::Error::other(reason.clone())),
            (moved, _) => moved,
        }
    }
}

impl Socket {
    /// Waits until something can be read.
    ///
    /// # Errors
    /// The socket failed.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.readable().await,
            Self::Tunnel(tunnel) => tunnel.near.readable().await,
        }
    }

    /// Waits until something can be written.
    ///
    /// # Errors
    /// The socket failed.
    pub async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.writable().await,
            Self::Tunnel(tunnel) => tunnel.near.writable().await,
        }
    }

    /// Reads what is there behind what the buffer holds; 0 is the end.
    ///
    /// # Errors
    /// Nothing is there yet (`WouldBlock`); the socket failed.
    pub fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_read_buf(buffer),
            Self::Tunnel(tunnel) => tunnel.explained(tunnel.near.try_read_buf(buffer)),
        }
    }

    /// Writes as much as fits.
    ///
    /// # Errors
    /// Nothing fits now (`WouldBlock`); the socket failed.
    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_write_vectored(slices),
            Self::Tunnel(tunnel) => tunnel.explained(tunnel.near.try_write_vectored(slices)),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tunnel(tunnel) => {
                let before = buf.filled().len();
                let read = ready!(Pin::new(&mut tunnel.near).poll_read(cx, buf));
                Poll::Ready(tunnel.explained(read.map(|()| buf.filled().len() - before)).map(drop))
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tunnel(tunnel) => {
                let written = ready!(Pin::new(&mut tunnel.near).poll_write(cx, buf));
                Poll::Ready(tunnel.explained(written))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tunnel(tunnel) => Pin::new(&mut tunnel.near).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tunnel(tunnel) => Pin::new(&mut tunnel.near).poll_shutdown(cx),
        }
    }
}

/// Looks at the certificate that a server shows. That the server has its key is looked at whatever is trusted.
#[derive(Debug)]
struct ServerCertificates {
    trusted: Trusted,
    provider: Arc<CryptoProvider>,
}

/// Whose certificates are taken.
#[derive(Debug)]
enum Trusted {
    /// Those that an authority vouches for, and a certificate that is named among the authorities itself: one that is its own authority, which
    /// the library takes from no server.
    Authorities { chain: Arc<WebPkiServerVerifier>, named: Vec<CertificateDer<'static>> },
    /// Any.
    All,
}

impl ServerCertVerifier for ServerCertificates {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Trusted::Authorities { chain, named } = &self.trusted else {
            return Ok(ServerCertVerified::assertion());
        };
        match chain.verify_server_cert(certificate, others, name, ocsp, now) {
            // That it is no authority is looked at behind its time, and before its name.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_)))
                if named.contains(certificate) =>
            {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
